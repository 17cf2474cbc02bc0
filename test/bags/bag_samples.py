"""Small bags, for the tests of several folders."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path
from types import MappingProxyType
from typing import Any

import cv2
import lz4.frame
import numpy as np
import pytest
from rosbags.interfaces import Nodetype
from rosbags.rosbag2 import StoragePlugin, Writer
from rosbags.typesys.store import Typestore

from superpoint_ros.bags.compression import zstd
from superpoint_ros.bags.content import COMPRESSED_IMAGE, IMAGE
from superpoint_ros.bags.definitions import typestore

SECOND = 1_000_000_000


def image_bytes(stamp: int, picture: np.ndarray, compressed: bool = False) -> bytes:
    """CDR of an Image (mono8, or mono16) or CompressedImage (png) with a stamp in nanoseconds."""
    store = _store()
    time = store.types["builtin_interfaces/msg/Time"](*divmod(stamp, SECOND))
    header = store.types["std_msgs/msg/Header"](time, "camera")
    if compressed:
        data = cv2.imencode(".png", picture)[1].reshape(-1)
        message = store.types[COMPRESSED_IMAGE](header, "png", data)
        return bytes(store.serialize_cdr(message, COMPRESSED_IMAGE))
    height, width = picture.shape
    row, data = picture.itemsize * width, np.ascontiguousarray(picture).reshape(-1).view(np.uint8)
    message = store.types[IMAGE](header, height, width, f"mono{8 * picture.itemsize}", 0, row, data)
    return bytes(store.serialize_cdr(message, IMAGE))


def message_bytes(kind: str, stamp: int, **fields: object) -> bytes:
    """CDR of a message with a header: these fields, zero and empty ones for the others."""
    store = _store()
    message = _zero(store, kind)
    message.header.stamp.sec, message.header.stamp.nanosec = divmod(stamp, SECOND)
    for name, value in fields.items():
        assert hasattr(message, name)
        setattr(message, name, value)
    return bytes(store.serialize_cdr(message, kind))


def time_of(stamp: int) -> object:
    """A builtin_interfaces/Time of nanoseconds."""
    return _store().types["builtin_interfaces/msg/Time"](*divmod(stamp, SECOND))


@cache
def _store() -> Typestore:
    return typestore()


def _zero(store: Typestore, kind: str) -> Any:
    values = []
    for _, (node, detail) in store.fielddefs[kind][1]:
        if node == Nodetype.NAME:
            values.append(_zero(store, detail))
        elif node == Nodetype.BASE:
            values.append("" if detail[0] == "string" else 0)
        else:
            (element, inner), length = detail
            count = length if node == Nodetype.ARRAY else 0
            values.append([] if element == Nodetype.NAME else np.zeros(count, inner[0]))
    return store.types[kind](*values)


@pytest.fixture
def make_bag(tmp_path: Path) -> Callable[..., Path]:
    """make_bag(name, {topic: type}, [(topic, time, bytes)], plugin): a bag written by rosbags."""

    def make(
        name: str,
        topics: dict[str, str],
        messages: list[tuple[str, int, bytes]],
        plugin: StoragePlugin = StoragePlugin.MCAP,
    ) -> Path:
        store = typestore()
        with Writer(tmp_path / name, version=9, storage_plugin=plugin) as writer:
            connections = {topic: writer.add_connection(topic, kind, typestore=store) for topic, kind in topics.items()}
            for topic, time, data in messages:
                writer.write(connections[topic], time, data)
        return tmp_path / name

    return make


@pytest.fixture
def make_images(make_bag: Callable[..., Path]) -> Callable[..., Path]:
    """make_images(name, topic, count, compressed, plugin): noise, 48×64, ten images a second."""

    def make(
        name: str = "images",
        topic: str = "/camera/image_raw",
        count: int = 3,
        compressed: bool = False,
        plugin: StoragePlugin = StoragePlugin.MCAP,
    ) -> Path:
        random = np.random.default_rng(0)
        pictures = random.integers(0, 256, (count, 48, 64), dtype=np.uint8)
        stamps = [SECOND + number * SECOND // 10 for number in range(count)]
        messages = [
            (topic, stamp, image_bytes(stamp, picture, compressed))
            for stamp, picture in zip(stamps, pictures, strict=True)
        ]
        return make_bag(name, {topic: COMPRESSED_IMAGE if compressed else IMAGE}, messages, plugin)

    return make


def write_mcap(
    path: Path,
    messages: list[tuple[str, int, bytes]],
    kind: str = IMAGE,
    compression: str = "",
    per_chunk: int = 4,
    checksum: bool = True,
    index: bool = True,
    schema: str = "",
    encodings: Mapping[str, str] = MappingProxyType({}),
) -> dict[int, int]:
    """An mcap file as recorders write it, and as rosbags' writer cannot.

    messages   (topic, time, data), all of one type
    per_chunk  0: no chunks
    encodings  of the messages of a topic; cdr where it names none

    Returns where each message's record ends in the file, by time; of its chunk, if that is compressed.
    """
    topics = sorted({topic for topic, _, _ in messages})
    text = _store().generate_msgdef(kind, ros_version=2)[0]
    names = _record(3, struct.pack("<H", 1) + _text(schema or kind) + _text("ros2msg") + _text(text))
    for number, topic in enumerate(topics):
        names += _record(
            4, struct.pack("<HH", number, 1) + _text(topic) + _text(encodings.get(topic, "cdr")) + struct.pack("<I", 0)
        )
    content = b"\x89MCAP0\r\n" + _record(1, _text("ros2") + _text("test"))
    content += b"" if per_chunk else names
    ends = {}
    for begin in range(0, len(messages), per_chunk or len(messages)):
        part = messages[begin : begin + (per_chunk or len(messages))]
        inside, lengths = names if per_chunk else b"", []
        for topic, time, data in part:
            inside += _record(5, struct.pack("<HIQQ", topics.index(topic), 0, time, time) + data)
            lengths.append(len(inside))
        times = [time for _, time, _ in part]
        if not per_chunk:
            ends.update({time: len(content) + length for time, length in zip(times, lengths, strict=True)})
            content += inside
            continue
        packed = {"": bytes, "zstd": zstd.compress, "lz4": lz4.frame.compress}[compression](inside)
        head = struct.pack("<QQQI", min(times), max(times), len(inside), zlib.crc32(inside) if checksum else 0)
        head += _text(compression) + struct.pack("<Q", len(packed))
        start = len(content) + 9 + len(head)
        content += _record(6, head + packed)
        ends.update(
            {time: len(content) if compression else start + length for time, length in zip(times, lengths, strict=True)}
        )
    content += _record(15, bytes(4))
    summary = len(content) if index else 0
    if index:
        counts = [sum(topic == each for each, _, _ in messages) for topic in topics]
        statistics = struct.pack("<QHIIIIQQ", len(messages), 1, len(topics), 0, 0, 0, 0, 0)
        statistics += struct.pack("<I", 10 * len(counts))
        content += names + _record(11, statistics + b"".join(struct.pack("<HQ", *each) for each in enumerate(counts)))
    content += _record(2, struct.pack("<QQI", summary, 0, 0)) + b"\x89MCAP0\r\n"
    path.write_bytes(content)
    return ends


def _record(opcode: int, content: bytes) -> bytes:
    return struct.pack("<BQ", opcode, len(content)) + content


def _text(text: str) -> bytes:
    return struct.pack("<I", len(text.encode())) + text.encode()
