"""Play messages over DDS as they were recorded: the same bytes, the same intervals."""

from __future__ import annotations

import importlib
import time
from collections.abc import Callable, Collection, Iterable, Mapping
from typing import Any

from rclpy.duration import Duration
from rclpy.node import Node
from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy
from rosbags.interfaces import Qos, QosDurability, QosReliability

from superpoint_ros.bags.content import BagError, Message, Topic
from superpoint_ros.tools.session import POLL

DEPTH = 10
"""Messages a publisher keeps, unless the bag says otherwise."""

SETTLING = 0.3
"""Seconds: a subscription that our publisher knows may take as long to know it, too."""

LAST_WORDS = 0.5
"""Seconds: what was published last must have left this process, acknowledged or not."""


class Player:
    """Publishers for topics of a bag, under their recorded types and QoS.

    names  recorded name -> name to publish under, for those that change

    Raises BagError for a type whose messages are not installed, or a name that is none.
    """

    def __init__(self, node: Node, topics: Collection[Topic], names: Mapping[str, str] | None = None) -> None:
        self._node = node
        self._publishers = {}
        for topic in topics:
            name = (names or {}).get(topic.name, topic.name)
            try:
                publisher = node.create_publisher(message_class(topic.type), name, _profile(topic.qos))
            except ValueError as error:  # BagError is one
                raise BagError(f"{topic.name}: {str(error).splitlines()[0]}") from None
            self._publishers[topic.name] = publisher

    def subscribers(self, topic: str) -> int:
        """How many subscriptions are matched with this topic's publisher."""
        return int(self._publishers[topic].get_subscription_count())

    def heard(self) -> bool:
        """Whether somebody listens, and everybody who is known to listen is matched with us."""
        known = {name: self._node.count_subscribers(each.topic_name) for name, each in self._publishers.items()}
        return any(known.values()) and all(self.subscribers(name) >= count for name, count in known.items())

    def settle(self, seconds: float) -> bool:
        """Wait until `heard`, at most so many seconds; whether it came to that."""
        deadline = time.monotonic() + seconds
        while not self.heard():
            if time.monotonic() > deadline:
                return False
            time.sleep(POLL)
        time.sleep(SETTLING)
        return True

    def finish(self, seconds: float = 5.0) -> bool:
        """Wait until reliable subscribers have everything, at most so many seconds; whether they have."""
        deadline = time.monotonic() + seconds
        acknowledged = True
        for publisher in self._publishers.values():
            left = Duration(seconds=max(deadline - time.monotonic(), 0.0))
            acknowledged &= bool(publisher.wait_for_all_acked(left))
        time.sleep(LAST_WORDS)
        return acknowledged

    def publish(self, message: Message) -> None:
        """Publish one message now."""
        self._publishers[message.topic.name].publish(message.data)

    def play(
        self,
        messages: Iterable[Message],
        rate: float = 1.0,
        before: Callable[[Message], None] = lambda message: None,
        check: Callable[[], None] = lambda: None,
        on_time: Callable[[int], None] = lambda nanoseconds: None,
        tick: float = POLL,
        longest_gap: float = 3600.0,
        on_gap: Callable[[float], None] = lambda seconds: None,
    ) -> int:
        """Publish messages at their recorded intervals divided by `rate`; returns how many.

        before   called with each message just before it is published
        check    called while waiting; what it raises ends the playing
        on_time  called with the bag's time before each message, and every `tick` seconds in between
        longest_gap
                 recorded seconds without a message above which nothing is waited for; on_gap is told them

        A message that is late goes out at once, and those after it keep their own times.
        """
        begin, first, last, count = time.monotonic(), None, 0, 0
        for message in messages:
            if first is None:
                begin, first, last = time.monotonic(), message.time, message.time
            if message.time - last > longest_gap * 1e9:  # a clock that was set while recording, often by years
                on_gap((message.time - last) / 1e9)
                begin, first = time.monotonic(), message.time
            last = message.time
            due = begin + (message.time - first) / 1e9 / rate
            while (wait := due - time.monotonic()) > 0:
                check()
                on_time(message.time - round(wait * rate * 1e9))
                time.sleep(max(min(wait, tick), 0.0))
            on_time(message.time)
            before(message)
            self.publish(message)
            count += 1
        return count


def message_class(kind: str) -> Any:
    """The rclpy class of a type as in `sensor_msgs/msg/Image`; BagError if it is not installed."""
    package, _, name = kind.partition("/msg/")
    try:
        return getattr(importlib.import_module(f"{package}.msg"), name)
    except (ImportError, AttributeError):
        raise BagError(f"messages of type {kind} cannot be published: {package} is not installed or lacks it") from None


def _profile(qos: Qos | None) -> QoSProfile:
    if qos is None:
        return QoSProfile(depth=DEPTH)
    best_effort = qos.reliability == QosReliability.BEST_EFFORT
    latched = qos.durability == QosDurability.TRANSIENT_LOCAL
    return QoSProfile(
        depth=qos.depth or DEPTH,
        reliability=ReliabilityPolicy.BEST_EFFORT if best_effort else ReliabilityPolicy.RELIABLE,
        durability=DurabilityPolicy.TRANSIENT_LOCAL if latched else DurabilityPolicy.VOLATILE,
    )
