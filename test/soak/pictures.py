"""Good images as cameras and image_transport send them, and masks of which the black part is known."""

from __future__ import annotations

from array import array
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from sensor_msgs.msg import CompressedImage

from robot import image_message, photograph, shifted

CAMERAS = ("left", "right")
SIZES = ((240, 320), (200, 264), (120, 160), (241, 319), (480, 640))
ENCODINGS = ("mono8", "8UC1", "bgr8", "rgb8", "bgra8", "8UC3", "mono16", "16UC1", "32FC1", "bayer_rggb8", "yuv422_yuy2")
CODECS = ("jpeg", "png")
MASK_SIZE = (300, 398)
"""Of the shape of all SIZES, within the 1 % that a mask may differ by."""
MASK_ENCODINGS = ("mono8", "bgr8", "mono16")
MARGIN = 8
"""Pixels by which a keypoint may lie within the black part: one of the network's, at most 640/120, and rounding."""


def encoded(picture: np.ndarray, encoding: str) -> Any:
    """sensor_msgs/Image of a grey picture in one of ENCODINGS."""
    channels = {"bgr8": 3, "rgb8": 3, "8UC3": 3, "bgra8": 4}.get(encoding, 1)
    pixels = np.repeat(picture[..., None], channels, axis=2) if channels > 1 else picture
    if encoding in ("mono16", "16UC1"):
        pixels = picture.astype(np.uint16) * 257
    elif encoding == "32FC1":
        pixels = picture.astype(np.float32) / 255
    elif encoding == "yuv422_yuy2":
        width = picture.shape[1] // 2 * 2
        pixels = np.stack([picture[:, :width], np.full_like(picture[:, :width], 128)], axis=2)
    message = image_message(picture, encoding=encoding)
    message.width = pixels.shape[1]
    message.step = pixels.strides[0] if pixels.flags.c_contiguous else pixels[0].nbytes
    message.data = array("B", np.ascontiguousarray(pixels).tobytes())
    return message


def compressed(message: Any, codec: str) -> Any:
    """sensor_msgs/CompressedImage of an `encoded` image, with its header; 16 bits are PNG with any of CODECS."""
    encoding, data = message.encoding, np.frombuffer(message.data, np.uint8)
    rows = data.reshape(message.height, message.step)
    target = {"bgr8": "bgr8", "rgb8": "bgr8", "8UC3": "bgr8", "bgra8": "bgr8"}.get(encoding, "")
    pixels = rows
    if encoding in ("mono16", "16UC1"):
        pixels, codec = rows.view(np.uint16), "png"
    elif encoding == "32FC1":
        pixels, target = np.rint(rows.view(np.float32) * 255).astype(np.uint8), "mono8"
    elif encoding == "yuv422_yuy2":
        pixels, target = rows[:, ::2], "mono8"
    elif target:
        pixels = rows.reshape(message.height, message.width, -1)[..., :3]
    name = f"{encoding}; {codec} compressed {target}"
    return CompressedImage(header=message.header, format=name, data=picture_file(pixels, codec))


def picture_file(pixels: np.ndarray, codec: str) -> array:
    """What a file of that picture would hold."""
    done, data = cv2.imencode({"jpeg": ".jpg"}.get(codec, f".{codec}"), np.ascontiguousarray(pixels))
    assert done
    return array("B", data.tobytes())


@dataclass(frozen=True)
class Mask:
    """One that is black in a band from top to bottom, which begins and ends at these parts of the width."""

    begin: float
    end: float

    def message(self, encoding: str = "mono8") -> Any:
        """sensor_msgs/Image, in one of MASK_ENCODINGS."""
        picture = np.full(MASK_SIZE, 255, np.uint8)
        picture[:, round(self.begin * MASK_SIZE[1]) : round(self.end * MASK_SIZE[1])] = 0
        return encoded(picture, encoding)

    def broken_by(self, x: np.ndarray, width: int) -> bool:
        """Whether any of the keypoints of an image of that width lies well within the black part."""
        begin = self.begin * width + MARGIN if self.begin > 0 else -np.inf
        end = self.end * width - MARGIN if self.end < 1 else np.inf
        return bool(((x > begin) & (x < end)).any())


MASKS = (Mask(0, 1 / 3), Mask(1 / 3, 2 / 3), Mask(2 / 3, 1))


class World:
    """What the cameras look at now: the size and encoding of each changes, and the scene moves."""

    def __init__(self, random: np.random.Generator) -> None:
        self._random = random
        self._pictures = {size: photograph(size) for size in SIZES}
        self.size = dict.fromkeys(CAMERAS, SIZES[0])
        self.encoding = dict.fromkeys(CAMERAS, "mono8")

    def image(self, camera: str) -> Any:
        """A good image of that camera, of a scene that has moved a little."""
        x, y = self._random.integers(-6, 7, 2)
        picture = shifted(self._pictures[self.size[camera]], int(x), int(y))
        return encoded(picture, self.encoding[camera])
