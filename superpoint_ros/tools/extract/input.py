"""The images of a bag, as the node would see them: pictures with header, mask and calibration."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from superpoint_ros.bags.content import COMPRESSED_IMAGE, IMAGE, BagError, Message, sentence, stamp_nanoseconds
from superpoint_ros.bags.reader import BagReader
from superpoint_ros.features.decode import is_deep
from superpoint_ros.features.intensity import AUTOMATIC, FoundRange
from superpoint_ros.features.rectification import Calibration, Uncalibrated, of_rectified
from superpoint_ros.frontend.masking import Mask
from superpoint_ros.frontend.parameter_rules import CAMERA_NAME
from superpoint_ros.frontend.parameters import Parameters
from superpoint_ros.frontend.pictures import grey_picture
from superpoint_ros.frontend.rate import RateLimit
from superpoint_ros.tools.extract.camera_infos import CameraInfos


@dataclass(frozen=True)
class Camera:
    """An image topic and the name of its camera, which is part of the output's topics; empty for the only one."""

    name: str
    topic: str


@dataclass(frozen=True)
class Picture:
    """An image of the bag, decoded.

    pixels       (H, W) uint8
    mask         (H, W) bool, or None if keypoints may be anywhere
    calibration  of its camera, or None if it is not to be rectified
    """

    header: Any
    pixels: NDArray[np.uint8]
    mask: NDArray[np.bool_] | None
    calibration: Calibration | None


def choose_cameras(bag: BagReader, topics: Sequence[str], values: Parameters) -> list[Camera]:
    """The cameras of a bag. Raises BagError, naming the image topics there are, for one that is not there.

    topics  TOPIC or NAME=TOPIC; if there are none, the parameters `cameras` and `image_topics`, or the only image topic

    A camera without a name is called as in `cameras` if there are as many; the only one has an empty name, others are
    called after their topics: "left" for /left/image_raw.
    """
    given = list(topics)
    if not given and any(values.per_camera("image_topics")):
        given = list(values.per_camera("image_topics"))
        if values.image_transport == "compressed":
            given = [f"{topic}/compressed" for topic in given]
    pairs = [each.split("=", 1) if "=" in each else ["", each] for each in given] or [["", ""]]
    found = [bag.image_topic(topic or None).name for _, topic in pairs]
    names = [name for name, _ in pairs]
    if not any(names):
        names = list(values.cameras) if len(values.cameras) == len(found) else _names_of(found)
    wrong = [name for name in names if name and not CAMERA_NAME.fullmatch(name)]
    if wrong or len(set(names)) < len(names) or (len(names) > 1 and "" in names):
        raise BagError(
            f"{bag.path}: cameras need different names of letters, digits and _, got "
            f"{', '.join(repr(name) for name in names)}; give --topic NAME=TOPIC"
        )
    for parameter in ("frame_ids", "mask_files"):
        if any(values.per_camera(parameter)) and len(values.cameras) != len(found):
            known = len(values.cameras)
            raise BagError(
                f"{bag.path}: parameter '{parameter}' is for {known} cameras, but {len(found)} are extracted"
            )
    return [Camera(name, topic) for name, topic in zip(names, found, strict=True)]


class Images:
    """The images of a bag's cameras in order of time, with what belongs to them.

    problems  sentences about what was asked for and cannot be done, without loss of a frame

    The first mask of a topic and the first CameraInfo count from the beginning: the node waits for the mask.

    Raises ValueError with a sentence for a mask file that is none, BagError for a bag without a mask that is wanted.
    """

    def __init__(self, bag: BagReader, cameras: Sequence[Camera], values: Parameters) -> None:
        self._bag = bag
        self._values = values
        self.problems: list[str] = []
        self.cameras = {camera.topic: camera for camera in cameras}
        files = values.per_camera("mask_files") if any(values.per_camera("mask_files")) else ("",) * len(cameras)
        self._masks = {
            camera.topic: Mask(file, values.max_image_pixels) for camera, file in zip(cameras, files, strict=True)
        }
        self._own = {camera.topic: values.of(camera.name) for camera in cameras}
        self._ranges = {camera.topic: FoundRange() for camera in cameras}
        self._limits = {camera.topic: RateLimit() for camera in cameras}
        self._mask_topics = {_mask_topic(camera): camera.topic for camera in cameras if values.use_mask_topic}
        self._infos = CameraInfos(bag, list(self.cameras) if values.rectify else [], self._say)
        for topic in self._mask_topics:
            is_there = topic in bag.topics and bag.topics[topic].type == IMAGE
            if not (is_there and any(self._take_mask(message) for message in bag.readable([topic]))):
                what = "readable mask" if is_there else "mask"
                raise BagError(
                    f"{bag.path}: there is no {what} on {topic}, and nothing is extracted without (use_mask_topic)"
                )

    def messages(self) -> Iterator[Message]:
        """The image messages; masks take effect as they come by."""
        for message in self._bag.messages([*self.cameras, *self._mask_topics]):
            if message.topic.name in self.cameras:
                yield message
            else:
                self._take_mask(message)

    def is_due(self, message: Message) -> bool:
        """Whether an image is among those that `rate` allows; to be asked of each, in order."""
        topic = message.topic.name
        return self._limits[topic].allows(message.time / 1e9, self._own[topic].rate)

    def decode(self, message: Message) -> Picture:
        """Raises ValueError with a sentence for an image that cannot be used."""
        image, topic = self._bag.decode(message), message.topic.name
        pixels = grey_picture(image, message.topic.type == COMPRESSED_IMAGE, self._own[topic], self._ranges[topic])
        camera = self._calibration(message, image)
        if camera is not None and camera.size != pixels.shape:
            self._say(f"CameraInfo of {topic} is for images of another size; keypoints are not rectified")
            camera = None
        return Picture(image.header, pixels, self._masks[topic].allowed(pixels.shape), camera)

    def follow(self, message: Message) -> None:
        """Let what depends on earlier images see one whose features are there already, as if it were decoded."""
        own = self._own[message.topic.name]
        automatic = tuple(own.intensity_range) == AUTOMATIC
        if not (automatic or own.rectify):
            return
        image, compressed = self._bag.decode(message), message.topic.type == COMPRESSED_IMAGE
        self._calibration(message, image)
        if automatic and is_deep(image, compressed):
            grey_picture(image, compressed, own, self._ranges[message.topic.name])

    def _calibration(self, message: Message, image: Any) -> Calibration | None:
        try:
            found = self._infos.of(message, stamp_nanoseconds(image.header.stamp))
        except Uncalibrated as error:
            self._say(f"{self._infos.topic(message)}: {error}; keypoints are not rectified")
            return None
        return of_rectified(found) if found is not None and self._values.images_rectified else found

    def _take_mask(self, message: Message) -> bool:
        """Whether it is one."""
        try:
            self._masks[self._mask_topics[message.topic.name]].update(self._bag.decode(message))
        except Exception as error:
            self._say(f"{message.topic.name}: {sentence(error)}; the mask stays as it was")
            return False
        return True

    def _say(self, text: str) -> None:
        if text not in self.problems:
            self.problems.append(text)


def _mask_topic(camera: Camera) -> str:
    return f"/{camera.name}/mask" if camera.name else "/mask"


def _names_of(topics: list[str]) -> list[str]:
    """From /left/image_raw and /right/image_raw left and right; empty for a single topic."""
    if len(topics) == 1:
        return [""]
    plain = [topic.removesuffix("/compressed").strip("/") for topic in topics]
    folders = [topic.rpartition("/")[0] for topic in plain]
    return folders if all(folders) and len(set(folders)) == len(folders) else plain
