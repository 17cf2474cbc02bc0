"""Image messages to grey pictures.

Works on anything with the fields of `sensor_msgs/Image` and `CompressedImage`: messages of rclpy
and those that `rosbags` reads from a file. cv_bridge, where it is installed, is asked for encodings
that are not decoded here.
"""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

WHOLE_RANGE = (0.0, 0.0)
"""`intensity_range` that stands for the whole range: 0 to 65535 for 16 bits, 0 to 1 for float."""

# encoding: (bytes a pixel, conversion to grey)
EIGHT_BIT = {
    "mono8": (1, None),
    "8UC1": (1, None),
    "bgr8": (3, cv2.COLOR_BGR2GRAY),
    "8UC3": (3, cv2.COLOR_BGR2GRAY),
    "rgb8": (3, cv2.COLOR_RGB2GRAY),
    "bgra8": (4, cv2.COLOR_BGRA2GRAY),
    "rgba8": (4, cv2.COLOR_RGBA2GRAY),
    "yuv422": (2, cv2.COLOR_YUV2GRAY_UYVY),
    "uyvy": (2, cv2.COLOR_YUV2GRAY_UYVY),
    "yuv422_yuy2": (2, cv2.COLOR_YUV2GRAY_YUY2),
    "yuyv": (2, cv2.COLOR_YUV2GRAY_YUY2),
    # OpenCV names a Bayer pattern after its second row, ROS after its first
    "bayer_rggb8": (1, cv2.COLOR_BayerBG2GRAY),
    "bayer_bggr8": (1, cv2.COLOR_BayerRG2GRAY),
    "bayer_gbrg8": (1, cv2.COLOR_BayerGR2GRAY),
    "bayer_grbg8": (1, cv2.COLOR_BayerGB2GRAY),
}
DEEP = {"mono16": np.uint16, "16UC1": np.uint16, "32FC1": np.float32}
COMPRESSED = ("jpeg", "jpg", "png", "webp", "bmp", "tiff")


class BadImage(ValueError):
    """An image message that cannot be decoded; says what was found and what was expected."""


def decode_image(message: Any, intensity_range: tuple[float, float] = WHOLE_RANGE) -> NDArray[np.uint8]:
    """Grey picture (H, W) uint8 of a `sensor_msgs/Image`; a view of its data if that is grey.

    intensity_range  of mono16, 16UC1 and 32FC1: these values become 0 and 255, those outside are
                     clipped, NaN becomes 0

    Raises BadImage for an unknown encoding, a zero size, a `step` below the width of a row, or data
    of another length than step · height.
    """
    height, width, step, encoding = message.height, message.width, message.step, message.encoding
    if height == 0 or width == 0:
        raise BadImage(f"image has no pixels (width {width}, height {height}, {len(message.data)} bytes of data)")
    if encoding in EIGHT_BIT:
        pixel_bytes, to_grey = EIGHT_BIT[encoding]
        rows = _rows(message, pixel_bytes)
        if to_grey is None:
            return rows
        pixels = rows if pixel_bytes == 1 else rows.reshape(height, width, pixel_bytes)
        try:
            return np.asarray(cv2.cvtColor(pixels, to_grey), np.uint8)
        except cv2.error as error:
            raise BadImage(f"{width}×{height} {encoding} pixels cannot be converted to grey ({error.err})") from None
    if encoding in DEEP:
        sample = np.dtype(DEEP[encoding]).newbyteorder(">" if message.is_bigendian else "<")
        samples = np.ascontiguousarray(_rows(message, sample.itemsize)).view(sample)
        return _to_eight_bits(samples, intensity_range)
    if not encoding:
        raise BadImage(f"image has no encoding ({width}×{height}, step {step}, {len(message.data)} bytes of data)")
    return _by_cv_bridge(message)


def decode_compressed(message: Any) -> NDArray[np.uint8]:
    """Grey picture (H, W) uint8 of a `sensor_msgs/CompressedImage` of a format OpenCV reads.

    Sixteen-bit pictures are scaled to eight. Raises BadImage for empty, corrupt or depth-encoded
    data.
    """
    if "compressedDepth" in message.format:
        raise BadImage(f"format '{message.format}' is a depth image; expected one of {', '.join(COMPRESSED)}")
    data = _bytes(message.data)
    # IMREAD_IGNORE_ORIENTATION: pixels as the sensor delivered them, whatever EXIF says
    flags = cv2.IMREAD_GRAYSCALE | cv2.IMREAD_IGNORE_ORIENTATION
    try:
        picture = cv2.imdecode(data, flags) if len(data) else None
    except cv2.error:
        picture = None
    if picture is None:
        raise BadImage(
            f"{len(data)} bytes with format '{message.format}' are not a readable picture; "
            f"expected one of {', '.join(COMPRESSED)}"
        )
    return np.asarray(picture, np.uint8)


def _rows(message: Any, pixel_bytes: int) -> NDArray[np.uint8]:
    """The message's data as (height, width · pixel_bytes) uint8, without the rows' padding."""
    row_bytes = message.width * pixel_bytes
    if message.step < row_bytes:
        raise BadImage(
            f"step is {message.step} bytes, but a row of {message.width} {message.encoding} pixels has {row_bytes}"
        )
    data = _bytes(message.data)
    expected = message.step * message.height
    if len(data) != expected:
        raise BadImage(
            f"data has {len(data)} bytes, expected {expected} "
            f"(step {message.step} × height {message.height}, {message.encoding})"
        )
    return data.reshape(message.height, message.step)[:, :row_bytes]


def _bytes(data: Any) -> NDArray[np.uint8]:
    # rclpy gives array.array, rosbags numpy; a list comes from hand-made messages
    return np.asarray(data, np.uint8) if isinstance(data, list) else np.frombuffer(data, np.uint8)


def _to_eight_bits(samples: NDArray[Any], intensity_range: tuple[float, float]) -> NDArray[np.uint8]:
    low, high = intensity_range
    if (low, high) == WHOLE_RANGE:
        low, high = (0.0, 65535.0) if samples.dtype.kind == "u" else (0.0, 1.0)
    with np.errstate(over="ignore", invalid="ignore"):  # a float image may hold anything
        scaled = (samples.astype(np.float32) - np.float32(low)) * np.float32(255 / (high - low))
    return np.rint(np.nan_to_num(scaled, nan=0.0).clip(0, 255)).astype(np.uint8)


def _by_cv_bridge(message: Any) -> NDArray[np.uint8]:
    known = ", ".join([*EIGHT_BIT, *DEEP])
    try:
        from cv_bridge import CvBridge
    except ImportError:
        raise BadImage(
            f"encoding '{message.encoding}' is unknown or needs cv_bridge, which is not installed; "
            f"expected one of {known}"
        ) from None
    try:
        grey = CvBridge().imgmsg_to_cv2(message, desired_encoding="mono8")
    except Exception as error:
        # its own error, KeyError, TypeError, ImportError or cv2.error, depending on what is wrong
        raise BadImage(
            f"encoding '{message.encoding}' is not decoded by cv_bridge ({error}); expected one of {known}"
        ) from None
    return np.asarray(grey, np.uint8).reshape(message.height, message.width)
