"""Write the camera sequence as a bag, with the truth beside it."""

from __future__ import annotations

import json
import time
from collections.abc import Iterable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from superpoint_ros.bags.content import IMAGE, BagError
from superpoint_ros.bags.writer import BagWriter, offered_qos
from superpoint_ros.tools.demo.sequence import photograph, view

TOPIC = "/camera/image_raw"
FRAME_ID = "camera"
CAMERA_RATE = 10.0
"""Frames a second."""

SIZE = (240, 320)
"""Height and width in pixels."""


def write_sequence(bag: Path, truth: Path, frames: Iterable[int], size: tuple[int, int] = SIZE) -> None:
    """Photograph the frames of these indices, as bgr8 messages with stamps at camera rate that
    begin now.

    truth  a JSON file: the size, and for each stamp the matrix from the wall to the frame

    Raises BagError if the bag exists, and what `sequence.wall` raises.
    """
    begin = time.time_ns()
    views: dict[int, NDArray[np.float64]] = {}
    with BagWriter(bag) as writer:
        writer.add_topic(TOPIC, IMAGE, offered_qos(reliable=False, depth=5))
        for number, index in enumerate(frames):
            stamp = begin + round(number * 1e9 / CAMERA_RATE)
            picture = photograph(index, size)
            views[stamp] = view(index, size)
            data = writer.encode(
                IMAGE,
                header=make_header(writer, stamp),
                height=size[0],
                width=size[1],
                encoding="bgr8",
                is_bigendian=0,
                step=size[1] * 3,
                data=picture.reshape(-1),
            )
            writer.write(TOPIC, stamp, data)
    write_truth(truth, views, size)


def make_header(writer: BagWriter, stamp: int, frame_id: str = FRAME_ID) -> object:
    """A std_msgs/Header with a stamp in nanoseconds."""
    seconds, nanoseconds = divmod(stamp, 1_000_000_000)
    moment = writer.make("builtin_interfaces/msg/Time", sec=seconds, nanosec=nanoseconds)
    return writer.make("std_msgs/msg/Header", stamp=moment, frame_id=frame_id)


def write_truth(path: Path, views: dict[int, NDArray[np.float64]], size: tuple[int, int]) -> None:
    """The file that `read_truth` reads."""
    frames = [{"stamp": stamp, "wall_to_image": matrix.tolist()} for stamp, matrix in views.items()]
    content = {"height": size[0], "width": size[1], "frames": frames}
    path.write_text(json.dumps(content) + "\n", encoding="utf-8")


def read_truth(path: Path) -> dict[int, NDArray[np.float64]]:
    """Stamp in nanoseconds -> (3, 3) float64, wall to frame; BagError for another file."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        return {each["stamp"]: np.array(each["wall_to_image"], np.float64) for each in content["frames"]}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise BagError(f"{path}: not a file of true motion ({type(error).__name__}: {error})") from None
