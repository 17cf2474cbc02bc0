"""Small pictures with corners to find, and bags of them, for the tests of the training tools."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray
from rosbags.rosbag2 import StoragePlugin, Writer
from rosbags.typesys import Stores, get_typestore

Image = NDArray[np.uint8]


def scene(seed: int, size: tuple[int, int] = (96, 128), darkest: int = 0) -> Image:
    """Random rectangles, a little blurred."""
    rng = np.random.default_rng(seed)
    image = np.full(size, 110, np.uint8)
    for _ in range(12):
        x, y = int(rng.integers(0, size[1])), int(rng.integers(0, size[0]))
        w, h = rng.integers(8, 40, 2).tolist()
        cv2.rectangle(image, (x, y), (x + w, y + h), int(rng.integers(darkest, 255)), -1)
    return cv2.GaussianBlur(image, (0, 0), 0.7)


def write_scenes(folder: Path, count: int, darkest: int = 0) -> list[Path]:
    """PNG files of scenes."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / f"{number:03d}.png" for number in range(count)]
    for number, path in enumerate(paths):
        cv2.imwrite(str(path), scene(number, darkest=darkest))
    return paths


def write_bag(
    path: Path,
    storage: StoragePlugin,
    raw: Sequence[Image] = (),
    compressed: Sequence[Image | bytes] = (),
    encoding: str = "mono8",
    padding: int = 0,
    times: Sequence[int] = (),
) -> Path:
    """A bag with /camera/image (raw, rows padded) and /camera/image/compressed (PNG, or the bytes
    given), a frame each tenth of a second or at `times`, nanoseconds.
    """
    store = get_typestore(Stores.ROS2_HUMBLE)
    header = store.types["std_msgs/msg/Header"]
    time = store.types["builtin_interfaces/msg/Time"]
    kinds = {"/camera/image": "sensor_msgs/msg/Image", "/camera/image/compressed": "sensor_msgs/msg/CompressedImage"}
    with Writer(path, version=9, storage_plugin=storage) as writer:
        for (topic, kind), frames in zip(kinds.items(), (raw, compressed), strict=True):
            if not len(frames):
                continue
            connection = writer.add_connection(topic, kind, typestore=store)
            for number, frame in enumerate(frames):
                stamp = times[number] if times else number * 100_000_000
                head = header(time(0, stamp), "camera")
                if topic == "/camera/image":
                    rows = np.ascontiguousarray(frame).reshape(frame.shape[0], -1).view(np.uint8)
                    rows = np.pad(rows, ((0, 0), (0, padding)), constant_values=255)
                    message = store.types[kind](
                        head, frame.shape[0], frame.shape[1], encoding, 0, rows.shape[1], rows.ravel()
                    )
                else:
                    data = (
                        np.frombuffer(frame, np.uint8)
                        if isinstance(frame, bytes)
                        else cv2.imencode(".png", frame)[1].ravel()
                    )
                    message = store.types[kind](head, "png", data)
                writer.write(connection, stamp, store.serialize_cdr(message, kind))
    return path
