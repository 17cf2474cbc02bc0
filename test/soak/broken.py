"""Images that cannot be used, one of every kind: what drivers, bridges and cables have been seen to send."""

from __future__ import annotations

from array import array
from collections.abc import Callable
from typing import Any

import numpy as np

from robot import image_message, photograph


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

EMPTY: dict[str, Callable[[], Any]] = {
    "black": lambda: image_message(np.zeros((240, 320), np.uint8)),
    "white": lambda: image_message(np.full((240, 320), 255, np.uint8)),
}
"""Good images without a keypoint."""
