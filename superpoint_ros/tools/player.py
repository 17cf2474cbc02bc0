"""Play messages over DDS as they were recorded: the same bytes, the same intervals."""

from __future__ import annotations

import importlib
import time
from collections.abc import Callable, Collection, Iterable
from typing import Any

from rclpy.node import Node
from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy
from rosbags.interfaces import Qos, QosDurability, QosReliability

from superpoint_ros.tools.bags import BagError, Message, Topic
from superpoint_ros.tools.session import POLL

DEPTH = 10
"""Messages a publisher keeps, unless the bag says otherwise."""


class Player:
    """Publishers for topics of a bag, under their recorded names, types and QoS.

    Raises BagError for a type whose messages are not installed.
    """

    def __init__(self, node: Node, topics: Collection[Topic]) -> None:
        self._publishers = {
            topic.name: node.create_publisher(message_class(topic.type), topic.name, _profile(topic.qos))
            for topic in topics
        }

    def subscribers(self, topic: str) -> int:
        """How many subscriptions are matched with this topic's publisher."""
        return int(self._publishers[topic].get_subscription_count())

    def publish(self, message: Message) -> None:
        """Publish one message now."""
        self._publishers[message.topic.name].publish(message.data)

    def play(
        self,
        messages: Iterable[Message],
        rate: float = 1.0,
        before: Callable[[Message], None] = lambda message: None,
        check: Callable[[], None] = lambda: None,
    ) -> int:
        """Publish messages at their recorded intervals divided by `rate`; returns how many.

        before  called with each message just before it is published
        check   called while waiting; what it raises ends the playing

        A message that is late goes out at once, and those after it keep their own times.
        """
        begin, first, count = time.monotonic(), None, 0
        for message in messages:
            first = message.time if first is None else first
            due = begin + (message.time - first) / 1e9 / rate
            while (wait := due - time.monotonic()) > 0:
                check()
                time.sleep(min(wait, POLL))
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
