"""Image messages to grey pictures.

Works on anything with the fields of `sensor_msgs/Image` and `CompressedImage`: messages of rclpy
and those that `rosbags` reads from a file. cv_bridge, where it is installed, is asked for encodings
that are not decoded here.
"""

from __future__ import annotations

import re
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from superpoint_ros.features.encoded import decode_encoded
from superpoint_ros.features.image import MAX_PIXELS, BadImage, check_pixels
from superpoint_ros.features.intensity import FoundRange, Scale
from superpoint_ros.features.picture_header import read_header

# OpenCV names a Bayer pattern after its second row, ROS after its first
BAYER = {
    "bayer_rggb": cv2.COLOR_BayerBG2GRAY,
    "bayer_bggr": cv2.COLOR_BayerRG2GRAY,
    "bayer_gbrg": cv2.COLOR_BayerGR2GRAY,
    "bayer_grbg": cv2.COLOR_BayerGB2GRAY,
}
# encoding: (channels, conversion to grey)
EIGHT_BIT = {
    "mono8": (1, None),
    "8UC1": (1, None),
    "bgr8": (3, cv2.COLOR_BGR2GRAY),
    "8UC3": (3, cv2.COLOR_BGR2GRAY),
    "rgb8": (3, cv2.COLOR_RGB2GRAY),
    "bgra8": (4, cv2.COLOR_BGRA2GRAY),
    "8UC4": (4, cv2.COLOR_BGRA2GRAY),
    "rgba8": (4, cv2.COLOR_RGBA2GRAY),
    "yuv422": (2, cv2.COLOR_YUV2GRAY_UYVY),
    "uyvy": (2, cv2.COLOR_YUV2GRAY_UYVY),
    "yuv422_yuy2": (2, cv2.COLOR_YUV2GRAY_YUY2),
    "yuyv": (2, cv2.COLOR_YUV2GRAY_YUY2),
    **{f"{pattern}8": (1, code) for pattern, code in BAYER.items()},
}
# encoding: (type of a sample, channels, conversion to grey)
DEEP = {
    "mono16": (np.uint16, 1, None),
    "16UC1": (np.uint16, 1, None),
    "16SC1": (np.int16, 1, None),
    "32SC1": (np.int32, 1, None),
    "32FC1": (np.float32, 1, None),
    "64FC1": (np.float64, 1, None),
    "bgr16": (np.uint16, 3, cv2.COLOR_BGR2GRAY),
    "16UC3": (np.uint16, 3, cv2.COLOR_BGR2GRAY),
    "32FC3": (np.float32, 3, cv2.COLOR_BGR2GRAY),
    "rgb16": (np.uint16, 3, cv2.COLOR_RGB2GRAY),
    "bgra16": (np.uint16, 4, cv2.COLOR_BGRA2GRAY),
    "16UC4": (np.uint16, 4, cv2.COLOR_BGRA2GRAY),
    "rgba16": (np.uint16, 4, cv2.COLOR_RGBA2GRAY),
    **{f"{pattern}16": (np.uint16, 1, code) for pattern, code in BAYER.items()},
}
PLANAR = {"nv12": 2, "nv21": 2, "yuv420": 2, "i420": 2, "nv24": 1}
"""encoding: pixels to a sample of chroma, along rows and columns; luma comes first, and is all that is needed."""
COMPRESSED = ("jpeg", "jpg", "png", "webp", "bmp", "tiff")


def decode_image(message: Any, scale: Scale | None = None, max_pixels: int = MAX_PIXELS) -> NDArray[np.uint8]:
    """Grey picture (H, W) uint8 of a `sensor_msgs/Image`; a view of its data if that is grey.

    scale  of samples with more than eight bits, see `intensity`; None: the range of this picture

    Raises BadImage for an unknown encoding, a zero size, more than `max_pixels`, a `step` below the width of a row,
    or data of another length than step · height.
    """
    height, width, step, encoding = message.height, message.width, message.step, message.encoding
    if height == 0 or width == 0:
        raise BadImage(f"image has no pixels (width {width}, height {height}, {len(message.data)} bytes of data)")
    check_pixels(height, width, max_pixels)
    if encoding in EIGHT_BIT:
        channels, to_grey = EIGHT_BIT[encoding]
        return np.asarray(_grey(message, _rows(message, channels), channels, to_grey), np.uint8)
    if encoding in DEEP:
        kind, channels, to_grey = DEEP[encoding]
        sample = np.dtype(kind).newbyteorder(">" if message.is_bigendian else "<")
        rows = np.ascontiguousarray(_rows(message, sample.itemsize * channels)).view(sample).astype(kind, copy=False)
        return (scale or FoundRange())(_grey(message, rows, channels, to_grey))
    if encoding in PLANAR:
        return _luma(message)
    if not encoding:
        raise BadImage(f"image has no encoding ({width}×{height}, step {step}, {len(message.data)} bytes of data)")
    return _by_cv_bridge(message)


def decode_compressed(message: Any, scale: Scale | None = None, max_pixels: int = MAX_PIXELS) -> NDArray[np.uint8]:
    """Grey picture (H, W) uint8 of a `sensor_msgs/CompressedImage` in a format of COMPRESSED.

    A Bayer mosaic that was compressed as it came from the sensor, which `format` tells ("bayer_rggb8; png compressed"),
    becomes a picture. Arguments as above. Raises BadImage for empty, corrupt or depth-encoded data.
    """
    described = message.format
    if "compressedDepth" in described:
        raise BadImage(f"format '{described}' is a depth image; expected one of {', '.join(COMPRESSED)}")
    # "ENCODING; CODEC compressed TARGET": what the publisher had, and what it gave to the codec if that differs
    source, _, target = described.partition("compressed")
    name = re.search(r"bayer_[rgb]{4}", target if target.strip() else source)
    try:
        mosaic = BAYER.get(name[0]) if name else None
        return decode_encoded(_bytes(message.data), scale, max_pixels, mosaic=mosaic)
    except BadImage as error:
        raise BadImage(f"format '{described}': {error}") from None


def is_deep(message: Any, compressed: bool) -> bool:
    """Whether a message's samples have more than eight bits, so that a range decides how they look."""
    if not compressed:
        return message.encoding in DEEP
    header = read_header(memoryview(_bytes(message.data).data))
    return header is not None and header.bits > 8


def _grey(message: Any, rows: NDArray[Any], channels: int, to_grey: int | None) -> NDArray[Any]:
    """Rows of samples as a grey picture."""
    if to_grey is None:
        return rows
    pixels = rows if channels == 1 else rows.reshape(message.height, message.width, channels)
    try:
        return np.asarray(cv2.cvtColor(pixels, to_grey))
    except cv2.error as error:
        raise BadImage(
            f"{message.width}×{message.height} {message.encoding} pixels cannot be converted to grey ({error.err})"
        ) from None


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


def _luma(message: Any) -> NDArray[np.uint8]:
    """The first plane of a planar picture: some drivers count a row of all planes as `step`, others of the first."""
    height, width, data = message.height, message.width, _bytes(message.data)
    factor = PLANAR[message.encoding]
    rows, columns = -(-height // factor), -(-width // factor)
    for step in (message.step, width):
        if step >= width and len(data) in (
            step * height + 2 * step * rows // factor,
            step * height + 2 * columns * rows,
        ):
            return data[: step * height].reshape(height, step)[:, :width]
    raise BadImage(
        f"data has {len(data)} bytes, expected {width * height + 2 * columns * rows} "
        f"({width}×{height} {message.encoding}, luma and chroma; step {message.step})"
    )


def _bytes(data: Any) -> NDArray[np.uint8]:
    # rclpy gives array.array, rosbags numpy; a list comes from hand-made messages
    return np.asarray(data, np.uint8) if isinstance(data, list) else np.frombuffer(data, np.uint8)


def _by_cv_bridge(message: Any) -> NDArray[np.uint8]:
    known = ", ".join([*EIGHT_BIT, *DEEP, *PLANAR])
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
