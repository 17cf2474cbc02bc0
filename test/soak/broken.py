"""Images that cannot be used, one of every kind: what drivers, bridges and cables have been seen to send."""

from __future__ import annotations

import struct
import zlib
from array import array
from collections.abc import Callable
from typing import Any

import numpy as np
from sensor_msgs.msg import CompressedImage

from robot import image_message, photograph
from soak.pictures import picture_file


def _changed(**fields: Any) -> Callable[[], Any]:
    def make() -> Any:
        message = image_message(photograph())
        for name, value in fields.items():
            setattr(message, name, value)
        return message

    return make


def _shortened(by: int) -> Callable[[], Any]:
    def make() -> Any:
        message = image_message(photograph())
        message.data = array("B", bytes(message.data)[:-by])
        return message

    return make


def _stamped(sec: int) -> Callable[[], Any]:
    def make() -> Any:
        return image_message(photograph(), stamp=sec)

    return make


def _file(name: str, data: bytes | array, stamp: int = 1) -> Any:
    """sensor_msgs/CompressedImage of that format."""
    message = CompressedImage(format=name, data=array("B", bytes(data)))
    message.header.stamp.sec = stamp
    return message


def _photograph_file(codec: str, size: tuple[int, int] = (240, 320)) -> bytes:
    return bytes(picture_file(photograph(size), codec))


def _part(codec: str, part: float) -> Callable[[], Any]:
    """The beginning of a picture."""

    def make() -> Any:
        data = _photograph_file(codec)
        return _file(codec, data[: int(part * len(data))])

    return make


def _png_of_size(width: int, height: int) -> bytes:
    """The file of a small picture, with a header that claims another size, and its checksum."""
    data = _photograph_file("png", (16, 16))
    head = b"IHDR" + struct.pack(">II", width, height) + data[24:29]
    return data[:12] + head + struct.pack(">I", zlib.crc32(head)) + data[33:]


def _tiff_with_two_sizes() -> bytes:
    """32×32 grey pixels, of which the width and height are given a second time: 60000."""
    sizes = [(tag, 4, 1, value) for value in (32, 60000) for tag in (256, 257)]
    others = [(258, 3, 1, 8), (259, 3, 1, 1), (262, 3, 1, 1), (273, 4, 1, 8), (277, 3, 1, 1), (278, 4, 1, 32)]
    entries = sorted([*sizes, *others, (279, 4, 1, 1024)], key=lambda entry: entry[0])
    directory = struct.pack("<H", len(entries)) + b"".join(struct.pack("<HHII", *entry) for entry in entries)
    return struct.pack("<2sHI", b"II", 42, 8 + 1024) + bytes(range(256)) * 4 + directory + bytes(4)


_GARBAGE = np.random.default_rng(0).bytes(5000)

BROKEN: dict[str, Callable[[], Any]] = {
    "unknown encoding": _changed(encoding="bgr9"),
    "no encoding": _changed(encoding=""),
    "encoding of terminal escapes": _changed(encoding="\x1b[31mmono8"),
    "very long encoding": _changed(encoding="mono8" * 1000),
    "encoding wider than the data": _changed(encoding="rgba8"),
    "data short by a byte": _shortened(1),
    "data short by half": _shortened(240 * 160),
    "no data": _changed(data=array("B")),
    "step below a row": _changed(step=319),
    "step of zero": _changed(step=0),
    "step beyond the data": _changed(step=2**31),
    "no pixels": _changed(height=0, width=0),
    "size beyond the data": _changed(height=2**16, width=2**16),
    "size beyond any memory": _changed(height=2**32 - 1, width=2**32 - 1, step=2**32 - 1),
    "too small": lambda: image_message(photograph((8, 8))),
    "one row": lambda: image_message(photograph((16, 320))[:1]),
    "stamp before the epoch": _stamped(-3),
    "16 bits with an odd number of bytes": _changed(encoding="mono16", step=319, width=159),
}
"""name -> a new message."""

BROKEN_COMPRESSED: dict[str, Callable[[], Any]] = {
    "no data": lambda: _file("jpeg", b""),
    "not a picture": lambda: _file("png", b"<html>404 Not Found</html>"),
    "unknown format": lambda: _file("h264", _GARBAGE),
    "no format": lambda: _file("", _GARBAGE),
    "format of terminal escapes": lambda: _file("\x1b[31mjpeg", _GARBAGE),
    "very long format": lambda: _file("jpeg" * 1000, _GARBAGE),
    "depth image": lambda: _file("16UC1; compressedDepth png", _photograph_file("png")),
    "PNG cut off": _part("png", 0.5),
    "PNG cut off within its header": lambda: _file("png", _photograph_file("png")[:20]),
    "PNG with a size beyond any memory": lambda: _file("png", _png_of_size(60000, 60000)),
    "PNG with more rows than it has": lambda: _file("png", _png_of_size(16, 240)),
    "PNG of no pixels": lambda: _file("png", _png_of_size(0, 0)),
    "JPEG cut off by half": _part("jpeg", 0.5),
    "JPEG cut off within its header": lambda: _file("jpeg", _photograph_file("jpeg")[:100]),
    "JPEG without a picture": lambda: _file("jpeg", b"\xff\xd8\xff\xd9"),
    "TIFF with two sizes": lambda: _file("tiff", _tiff_with_two_sizes()),
    "too small": lambda: _file("png", _photograph_file("png", (8, 8))),
    "stamp before the epoch": lambda: _file("png", _photograph_file("png"), stamp=-3),
}
"""The same of sensor_msgs/CompressedImage."""

EMPTY: dict[str, Callable[[], Any]] = {
    "black": lambda: image_message(np.zeros((240, 320), np.uint8)),
    "white": lambda: image_message(np.full((240, 320), 255, np.uint8)),
}
"""Good images without a keypoint."""
