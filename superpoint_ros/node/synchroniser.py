"""Frames of a rig that were taken at the same time, found by ROS 2's message_filters."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Sequence
from typing import Any

from superpoint_ros.frontend.stamps import jumped_back, nanoseconds
from superpoint_ros.node.mailbox import Frame
from superpoint_ros.node.partners import Partners


def message_filters() -> Any:
    """The package, which has no wheel. Raises RuntimeError with a sentence if it is absent."""
    try:
        return importlib.import_module("message_filters")
    except ImportError:
        raise RuntimeError(
            "Parameter synchronise is not 'none', but ROS 2's message_filters is not installed "
            "(ros-$ROS_DISTRO-message-filters; it has no wheel)."
        ) from None


class Synchroniser:
    """Collects frames until it has one of each camera with the same, or nearly the same, stamp.

    cameras       their names
    slop          seconds that the stamps of a set may differ; 0: none
    queue         frames of each camera that wait for their partners
    patience      seconds without a set after which `trouble` says why
    on_unmatched  called with each frame's camera once it is certain to have no partners: a later
                  frame found some, or the queue is full, or the stamps jumped back
    """

    def __init__(
        self,
        cameras: Sequence[str],
        slop: float,
        queue: int,
        on_unmatched: Callable[[str], None],
        patience: float = 5.0,
    ) -> None:
        self._cameras = tuple(cameras)
        self._slop = slop
        self._queue = queue
        self._on_unmatched = on_unmatched
        self._pending: dict[str, set[int]] = {name: set() for name in self._cameras}
        self._matched: list[tuple[Frame, ...]] = []
        self._partners = Partners(cameras, slop, patience)
        self._restart()

    def add(self, frame: Frame) -> list[tuple[Frame, ...]]:
        """Take a frame; returns the sets that it completes, one frame of each camera in order.

        Raises ValueError for a stamp before the epoch.
        """
        stamp = nanoseconds(frame.header.stamp)
        if jumped_back(self._last[frame.camera], stamp):
            # the queues keep the largest stamps: nothing of the new loop would ever match
            self._restart()
        self._last[frame.camera] = stamp
        self._partners.came(frame.camera, stamp)
        pending = self._pending[frame.camera]
        if stamp in pending:
            self._on_unmatched(frame.camera)  # its place is taken
        pending.add(stamp)
        self._matched.clear()
        self._inputs[frame.camera].signalMessage(frame)
        complete = [frames for frames in self._matched if self._settle(frames)]
        if complete:
            self._partners.matched()
        while len(pending) > self._queue:
            self._write_off(frame.camera, {min(pending)})
        return complete

    def end(self) -> None:
        """Write off what still waits for partners."""
        for camera in self._cameras:
            self._write_off(camera, set(self._pending[camera]))

    def trouble(self) -> str:
        """Why there was no set for a while, as in `Partners.trouble`; empty while there are some."""
        return self._partners.trouble()

    def _settle(self, frames: tuple[Frame, ...]) -> bool:
        """Write off all that is older; False for a set that itself has older frames than the last.

        With a slop of half a frame period or more, message_filters may go back to a leftover.
        """
        stamps = {frame.camera: nanoseconds(frame.header.stamp) for frame in frames}
        newer = all(stamp in self._pending[camera] for camera, stamp in stamps.items())
        for camera, stamp in stamps.items():
            if newer:
                self._pending[camera].discard(stamp)
            older = {other for other in self._pending[camera] if other <= stamp}
            self._write_off(camera, older)
        return newer

    def _write_off(self, camera: str, stamps: set[int]) -> None:
        self._pending[camera] -= stamps
        for _ in stamps:
            self._on_unmatched(camera)

    def _restart(self) -> None:
        filters = message_filters()
        self.end()
        self._last = dict.fromkeys(self._cameras, 0)
        self._inputs = {camera: filters.SimpleFilter() for camera in self._cameras}
        inputs = list(self._inputs.values())
        if self._slop > 0:
            synchroniser = filters.ApproximateTimeSynchronizer(inputs, self._queue, self._slop)
        else:
            synchroniser = filters.TimeSynchronizer(inputs, self._queue)
        # It holds its lock during the callback, for ever if that raises: nothing happens in it.
        synchroniser.registerCallback(lambda *frames: self._matched.append(frames))
