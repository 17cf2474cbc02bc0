"""What the ROS clock is doing: with use_sim_time it may be absent, stand still, or jump back."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from rclpy.clock import JumpThreshold
from rclpy.duration import Duration

MISSING = "use_sim_time is true, but nothing is published on /clock"
PAUSED = "paused"


class ClockWatch:
    """Looks at a node's clock once a second.

    on_jump_back  called when the time jumps back, as when a bag loops; from any thread
    """

    def __init__(self, node: Any, on_jump_back: Callable[[], None]) -> None:
        self._clock = node.get_clock()
        self._last = -1
        threshold = JumpThreshold(min_forward=None, min_backward=Duration(nanoseconds=-1), on_clock_change=False)
        self._handle = self._clock.create_jump_callback(threshold, post_callback=lambda jump: on_jump_back())

    def look(self) -> str:
        """ "" if time passes, PAUSED if it stands still, MISSING if it never began."""
        now = self._clock.now().nanoseconds
        last, self._last = self._last, now
        if not self._clock.ros_time_is_active:
            return ""
        if now == 0:
            return MISSING
        return PAUSED if now == last else ""
