"""Record topics into a bag: the bytes as they come off DDS."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

from rclpy.node import Node
from rclpy.qos import QoSProfile, ReliabilityPolicy

from superpoint_ros.bags.content import TIMES, header_stamp
from superpoint_ros.bags.writer import BagWriter, offered_qos
from superpoint_ros.tools.playback.player import message_class

DEPTH = 100
"""Messages that may wait for the recorder."""


def now(data: bytes) -> int:
    """Nanoseconds of the wall clock, as a message arrives."""
    return time.time_ns()


def header_time(data: bytes) -> int:
    """The stamp, nanoseconds, of a message that begins with a std_msgs/Header; `now` for one that no bag can hold."""
    stamp = header_stamp(data)
    return stamp if stamp in TIMES else now(data)


class Recorder:
    """Subscriptions whose messages go into a new bag.

    topics      name -> type; to be published already, since our reliability follows the publishers'
    time_of     nanoseconds at which a message is logged, of its bytes; by default when it arrives
    wanted      asked with topic and bytes whether a message is recorded at all
    on_message  called with topic, steady nanoseconds of arrival and the bytes, in the executor's
                thread

    Records within a `with` block. Raises BagError if the bag exists or a type is not installed.
    """

    def __init__(
        self,
        node: Node,
        path: Path,
        topics: Mapping[str, str],
        on_message: Callable[[str, int, bytes], None] = lambda topic, arrival, data: None,
        time_of: Callable[[bytes], int] = now,
        wanted: Callable[[str, bytes], bool] = lambda topic, data: True,
    ) -> None:
        self._wanted = wanted
        self._time_of = time_of
        self._node = node
        self._topics = topics
        self._on_message = on_message
        self._writer: BagWriter | None = BagWriter(path)
        self._lock = threading.Lock()
        self._error: Exception | None = None

    def __enter__(self) -> Recorder:
        assert self._writer is not None
        self._writer.__enter__()
        self._subscriptions = [self._subscribe(name, kind) for name, kind in self._topics.items()]
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for subscription in self._subscriptions:
            self._node.destroy_subscription(subscription)
        with self._lock:
            writer, self._writer = self._writer, None
        assert writer is not None
        writer.__exit__(kind, error, trace)

    def connected(self) -> bool:
        """Whether every topic has a publisher that our subscription is matched with."""
        return all(_publishers(self._node, each) > 0 for each in self._subscriptions)

    def check(self) -> None:
        """Raise what went wrong while recording (the disk is full), if anything did."""
        if self._error is not None:
            raise self._error

    def _subscribe(self, topic: str, kind: str) -> Any:
        publishers = self._node.get_publishers_info_by_topic(topic)
        reliable = all(each.qos_profile.reliability != ReliabilityPolicy.BEST_EFFORT for each in publishers)
        assert self._writer is not None
        self._writer.add_topic(topic, kind, offered_qos(reliable, DEPTH))
        reliability = ReliabilityPolicy.RELIABLE if reliable else ReliabilityPolicy.BEST_EFFORT
        return self._node.create_subscription(
            message_class(kind),
            topic,
            lambda data: self._record(topic, data),
            QoSProfile(depth=DEPTH, reliability=reliability),
            raw=True,
        )

    def _record(self, topic: str, data: bytes) -> None:
        arrival = time.monotonic_ns()
        with self._lock:
            if self._writer is None or self._error is not None:
                return
            try:
                if self._wanted(topic, data):
                    self._writer.write(topic, self._time_of(data), data)
                    self._on_message(topic, arrival, data)
            except Exception as error:
                # the executor's thread has nobody to tell; `check` does
                self._error = error


def _publishers(node: Node, subscription: Any) -> int:
    # Subscription.get_publisher_count is newer than ROS 2 Humble
    if hasattr(subscription, "get_publisher_count"):
        return int(subscription.get_publisher_count())
    return int(node.count_publishers(subscription.topic_name))
