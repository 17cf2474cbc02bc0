"""Which calibration of a bag belongs to an image, by the node's rule, with a bag's advantage: it can be read ahead."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from superpoint_ros.bags.content import Message, sentence
from superpoint_ros.bags.reader import BagReader
from superpoint_ros.features.rectification import Calibration
from superpoint_ros.frontend.calibrations import Calibrations

CAMERA_INFO = "sensor_msgs/msg/CameraInfo"
AHEAD = 500_000_000
"""Nanoseconds after an image within which its CameraInfo is looked for."""


class CameraInfos:
    """The CameraInfos of a bag's image topics, read beside the images as far as they need.

    say  called with a sentence for a topic that is not there or a message that cannot be read
    """

    def __init__(self, bag: BagReader, topics: Sequence[str], say: Callable[[str], None]) -> None:
        self._bag = bag
        self._say = say
        self._of: dict[str, tuple[str, Calibrations]] = {}
        self._found: dict[str, Calibrations] = {}
        for topic in topics:
            info = topic.removesuffix("/compressed").rpartition("/")[0] + "/camera_info"
            is_there = info in bag.topics and bag.topics[info].type == CAMERA_INFO
            first = next(bag.readable([info]), None) if is_there else None
            if first is None:
                say(f"there is no CameraInfo on {info}; keypoints of {topic} are not rectified")
                continue
            self._of[topic] = info, self._found.setdefault(info, Calibrations())
            self._take(first)  # counts from the beginning
        self._messages = bag.readable(list(self._found)) if self._found else iter(())
        self._next = next(self._messages, None)

    def of(self, image: Message, stamp: int) -> Calibration | None:
        """That of an image message with this stamp, nanoseconds; None if there is none.

        Raises Uncalibrated, with a sentence that names the topic, for one that cannot be used.
        """
        if image.topic.name not in self._of:
            return None
        info, calibrations = self._of[image.topic.name]
        while self._next is not None and (
            self._next.time <= image.time or (calibrations.newest < stamp and self._next.time <= image.time + AHEAD)
        ):
            self._take(self._next)
            self._next = next(self._messages, None)
        return calibrations.of(stamp)

    def topic(self, image: Message) -> str:
        """The CameraInfo topic that belongs to an image's."""
        return self._of[image.topic.name][0]

    def _take(self, message: Message) -> None:
        try:
            self._found[message.topic.name].add(self._bag.decode(message))
        except Exception as error:  # one CameraInfo must not cost an image, whatever is wrong with it
            self._say(f"{message.topic.name}: {sentence(error)}; the calibration stays as it was")
