"""The bag that `superpoint extract` writes: the node's topics."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
import yaml

from superpoint_ros.bags.content import Message, stamp_fields
from superpoint_ros.bags.writer import BagWriter, offered_qos
from superpoint_ros.features.extractor import Features
from superpoint_ros.frontend.messages import features_fields, homography_fields, matches_fields
from superpoint_ros.frontend.parameters import Parameters
from superpoint_ros.frontend.tracker import Motion
from superpoint_ros.tools.extract.input import Camera

TYPES = {
    "features": "superpoint_ros/msg/Features",
    "matches": "superpoint_ros/msg/FeatureMatches",
    "homography": "superpoint_ros/msg/HomographyStamped",
}
DEPTH = 10
"""Of the node's publishers."""
RECORD = "superpoint_extract.yaml"
"""In the folder of the bag: how it was made, and whether it is complete."""
FLUSH = 1.0
"""Seconds of work that a killed run may lose."""


def output_topic(camera: Camera, name: str) -> str:
    """The node's name for it."""
    return f"/superpoint/{camera.name}/{name}" if camera.name else f"/superpoint/{name}"


class Output:
    """A new bag with the node's topics for these cameras, within a `with` block; all of it in one thread.

    record  how it is made: plain values, kept beside the bag
    """

    def __init__(
        self, path: Path, storage: str, cameras: Sequence[Camera], values: Parameters, record: Mapping[str, Any]
    ) -> None:
        self._path = path
        self._writer = BagWriter(path, storage)
        self._cameras = cameras
        self._values = values
        self._record = record
        self._flushed = time.monotonic()

    def __enter__(self) -> Output:
        self._writer.__enter__()
        write_record(self._path, {**self._record, "complete": False})
        published = {name for name in TYPES if getattr(self._values, f"publish_{name}")}
        for camera in self._cameras:
            for name in TYPES:
                if name in published:
                    self._writer.add_topic(output_topic(camera, name), TYPES[name], offered_qos(True, DEPTH))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._writer.__exit__(kind, error, trace)

    def add(
        self,
        camera: Camera,
        at: int,
        header: Any,
        found: Features,
        motion: Motion | None,
        rectified: np.ndarray | None,
        weights_id: str,
    ) -> None:
        """What the node publishes for an image, recorded at the time of the image.

        motion  None if neither matches nor homographies nor tracks are asked for
        """
        values = self._values
        index = list(self._cameras).index(camera)
        frame_ids = values.per_camera("frame_ids")
        if any(frame_ids) and frame_ids[index]:
            header = self._writer.make("std_msgs/msg/Header", stamp=header.stamp, frame_id=frame_ids[index])
        if values.publish_features:
            track_ids = None if motion is None else motion.track_ids
            fields = features_fields(found, header, weights_id, values.descriptor_type, track_ids, rectified)
            self._write(camera, "features", at, fields)
        if motion is not None:
            self._add_motion(camera, at, header, motion)
        self.flush(FLUSH)

    def _add_motion(self, camera: Camera, at: int, header: Any, motion: Motion) -> None:
        values, reference = self._values, stamp_fields(motion.reference_stamp or 0)
        stamp = self._writer.make("builtin_interfaces/msg/Time", sec=reference[0], nanosec=reference[1])
        if values.publish_matches and motion.reference_stamp is not None:
            self._write(camera, "matches", at, matches_fields(motion, header, stamp))
        if values.publish_homography:
            self._write(camera, "homography", at, homography_fields(motion, header, stamp))

    def copy(self, messages: Sequence[Message]) -> None:
        """Messages of an earlier run."""
        for message in messages:
            self._writer.write(message.topic.name, message.time, message.data)
        self.flush(FLUSH)

    def flush(self, every: float = 0.0) -> None:
        """Make what was written outlive this process, if that was not done so many seconds ago."""
        if time.monotonic() - self._flushed >= every:
            self._writer.flush()
            self._flushed = time.monotonic()

    def _write(self, camera: Camera, name: str, at: int, fields: dict[str, Any]) -> None:
        plain = {
            key: np.ascontiguousarray(value) if isinstance(value, np.ndarray) else value
            for key, value in fields.items()
        }
        self._writer.write(output_topic(camera, name), at, self._writer.encode(TYPES[name], **plain))


def write_record(path: Path, record: Mapping[str, Any]) -> None:
    """Replace the record of a bag at once."""
    temporary = path / f"{RECORD}.new"
    temporary.write_text(yaml.safe_dump(dict(record), sort_keys=False), encoding="utf-8")
    os.replace(temporary, path / RECORD)
