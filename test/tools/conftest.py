"""Small bags, and a ROS domain for each test."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from rosbags.interfaces import Nodetype
from rosbags.rosbag2 import StoragePlugin, Writer
from rosbags.typesys.store import Typestore

from superpoint_ros.tools.bags import COMPRESSED_IMAGE, IMAGE
from superpoint_ros.tools.definitions import typestore

SECOND = 1_000_000_000


def image_bytes(stamp: int, picture: np.ndarray, compressed: bool = False) -> bytes:
    """CDR of an Image (mono8) or CompressedImage (png) with a stamp in nanoseconds."""
    store = typestore()
    time = store.types["builtin_interfaces/msg/Time"](*divmod(stamp, SECOND))
    header = store.types["std_msgs/msg/Header"](time, "camera")
    if compressed:
        data = cv2.imencode(".png", picture)[1].reshape(-1)
        message = store.types[COMPRESSED_IMAGE](header, "png", data)
        return bytes(store.serialize_cdr(message, COMPRESSED_IMAGE))
    height, width = picture.shape
    message = store.types[IMAGE](header, height, width, "mono8", 0, width, picture.reshape(-1))
    return bytes(store.serialize_cdr(message, IMAGE))


def message_bytes(kind: str, stamp: int, **fields: object) -> bytes:
    """CDR of a message with a header: these fields, zero and empty ones for the others."""
    store = typestore()
    message = _zero(store, kind)
    message.header.stamp.sec, message.header.stamp.nanosec = divmod(stamp, SECOND)
    for name, value in fields.items():
        assert hasattr(message, name)
        setattr(message, name, value)
    return bytes(store.serialize_cdr(message, kind))


def time_of(stamp: int) -> object:
    """A builtin_interfaces/Time of nanoseconds."""
    return typestore().types["builtin_interfaces/msg/Time"](*divmod(stamp, SECOND))


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


@pytest.fixture
def ros_domain(monkeypatch: pytest.MonkeyPatch) -> int:
    """A ROS_DOMAIN_ID that nobody on this machine uses, with DDS kept on the machine."""
    pytest.importorskip("rclpy", reason="needs ROS 2 (rclpy)")
    pytest.importorskip("superpoint_ros.msg", reason="needs the built messages of superpoint_ros")
    from superpoint_ros.tools.session import private_domain

    monkeypatch.setenv("ROS_AUTOMATIC_DISCOVERY_RANGE", "LOCALHOST")
    return private_domain()
