"""What lies in a bag: topics, and messages as the bytes they are on the wire (CDR)."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Any

from rosbags.interfaces import Qos

from superpoint_ros.printable import printable

IMAGE = "sensor_msgs/msg/Image"
COMPRESSED_IMAGE = "sensor_msgs/msg/CompressedImage"

TIMES = range(1 << 63)
"""Nanoseconds that a message of a new bag can be recorded at: from the epoch on, in int64."""

NEVER_STARTED = (1 << 63) - 1
"""Nanoseconds: stands for the time of the first message where there is none."""

STAMPED = 12
"""Bytes of a message up to the end of its header's stamp."""


class BagError(ValueError):
    """A bag that cannot be read or written; the text names the file and what was found.

    It may quote the bag: nothing of it reaches a terminal as an escape sequence.
    """

    def __init__(self, text: str) -> None:
        super().__init__(printable(text))


@dataclass(frozen=True)
class Topic:
    """A topic of a bag: type as in `sensor_msgs/msg/Image`, number of messages, offered QoS."""

    name: str
    type: str
    count: int
    qos: Qos | None = None


@dataclass(frozen=True)
class Message:
    """A message as it lies in a bag.

    time  nanoseconds, when it was recorded
    data  CDR, with its encapsulation header
    """

    topic: Topic
    time: int
    data: bytes


def header_stamp(data: bytes) -> int:
    """Nanoseconds: the stamp of a message that begins with a std_msgs/Header, read from its bytes.

    CDR: four bytes of encapsulation, whose second says the byte order, then int32 seconds, uint32
    nanoseconds. Raises BagError for fewer bytes than that.
    """
    if len(data) < STAMPED:
        raise BagError(f"a message of {len(data)} bytes is too short for a header")
    seconds, nanoseconds = struct.unpack_from("<iI" if data[1] & 1 else ">iI", data, 4)
    return int(seconds) * 1_000_000_000 + int(nanoseconds)


def stamp_nanoseconds(stamp: Any) -> int:
    """Nanoseconds of a builtin_interfaces/Time."""
    return int(stamp.sec) * 1_000_000_000 + int(stamp.nanosec)


def stamp_fields(nanoseconds: int) -> tuple[int, int]:
    """Seconds and nanoseconds of a builtin_interfaces/Time, int32 and uint32.

    A driver may have sent more than 1e9 nanoseconds with the last second that int32 holds: then they stay so many.
    """
    seconds = min(nanoseconds // 1_000_000_000, (1 << 31) - 1)
    return seconds, nanoseconds - seconds * 1_000_000_000


def full_type(name: str) -> str:
    """`sensor_msgs/Image`, as older tools write it, is `sensor_msgs/msg/Image`."""
    package, _, rest = name.partition("/")
    return f"{package}/msg/{rest}" if rest and "/" not in rest else name


def sentence(error: Exception) -> str:
    """An exception's first line without its full stop, or its name."""
    text = str(error).strip().splitlines()[0].rstrip(".") if str(error).strip() else ""
    return text or type(error).__name__
