"""What an interrupted run has left, and how the next one goes on from there with the same result."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from superpoint_ros.bags.content import BagError, Message
from superpoint_ros.bags.metadata import is_storage
from superpoint_ros.bags.reader import BagReader
from superpoint_ros.features.extractor import Extractor, Features
from superpoint_ros.frontend.parameters import TABLE, Parameters
from superpoint_ros.tools.extract.input import Camera
from superpoint_ros.tools.extract.output import RECORD, TYPES, output_topic


@dataclass(frozen=True)
class Done:
    """What an earlier run wrote for an image."""

    camera: Camera
    time: int
    messages: tuple[Message, ...]


class Past:
    """The bag of an interrupted run, within a `with` block.

    cameras  as they are in this run
    """

    def __init__(self, path: Path, cameras: Sequence[Camera]) -> None:
        self._path = path
        self._bag: BagReader | None = None
        self._topics = {output_topic(camera, name): camera for camera in cameras for name in TYPES}

    def __enter__(self) -> Past:
        self._stack = ExitStack()
        try:
            self._bag = self._stack.enter_context(BagReader(self._path))
        except BagError:
            pass  # it was ended before it had written anything
        return self

    def __exit__(self, *error: object) -> None:
        self._stack.close()

    def done(self) -> Iterator[Done]:
        """Image by image, in order; what is lost of the last ones is left out."""
        messages: list[Message] = []
        if self._bag is None:
            return
        try:
            for message in self._bag.messages(self._topics):
                if messages and (
                    message.time != messages[0].time
                    or self._camera(message) != self._camera(messages[0])
                    or message.topic in [each.topic for each in messages]
                ):
                    yield self._of(messages)
                    messages = []
                messages.append(message)
        except BagError:
            pass  # it was interrupted
        if messages:
            yield self._of(messages)

    def features(self, done: Done) -> tuple[int, Features]:
        """Stamp and features of an image whose descriptors were written as float32."""
        assert self._bag is not None
        message = self._bag.decode(done.messages[0])
        stamp = message.header.stamp.sec * 1_000_000_000 + message.header.stamp.nanosec
        descriptors = np.frombuffer(message.descriptors, "<f4").reshape(-1, message.descriptor_dim)
        xy = np.column_stack([message.x, message.y]).astype(np.float32).reshape(-1, 2)
        scores = np.asarray(message.scores, np.float32)
        scales, size = np.asarray(message.scale, np.float32), (int(message.height), int(message.width))
        return stamp, Features(xy, scores, descriptors.astype(np.float32), size, scales=scales)

    def _of(self, messages: list[Message]) -> Done:
        return Done(self._camera(messages[0]), messages[0].time, tuple(messages))

    def _camera(self, message: Message) -> Camera:
        return self._topics[message.topic.name]


def read_record(path: Path) -> dict[str, Any]:
    """How a bag of ours was made. Raises BagError for one that is not."""
    try:
        record = yaml.safe_load((path / RECORD).read_text(encoding="utf-8"))
        return dict(record)
    except (OSError, UnicodeDecodeError, yaml.YAMLError, TypeError, ValueError):
        raise BagError(f"{path}: exists already, and has no {RECORD} of a run that could be resumed") from None


def remove_output(path: Path) -> None:
    """Delete a bag of ours; OSError if its folder holds anything else."""
    for file in path.iterdir():
        if _is_ours(file):
            file.unlink()
    path.rmdir()


def _is_ours(file: Path) -> bool:
    known = file.name in ("metadata.yaml", "metadata.yaml.tmp", RECORD, f"{RECORD}.new")
    return known or is_storage(file) or file.name.endswith(("-journal", "-wal", "-shm"))


class Plan:
    """Which images an earlier run has done, and which of these are needed again for what comes after them.

    count     images that are done, whole batches only
    stored    indices of those whose features are read back for the tracker
    repeated  batches that are extracted again, since their features were not written in full, or are matched on a GPU,
              which rounds in another way than a CPU
    """

    def __init__(self, past: Past | None, batch: int, values: Parameters, on_cpu: bool) -> None:
        self._past = past
        cameras = [done.camera for done in past.done()][:-1] if past is not None else []  # the last may be cut off
        self.count = len(cameras) - len(cameras) % batch
        needed = set({camera: index for index, camera in enumerate(cameras[: self.count])}.values())
        if values.tracks or values.reference != "previous":
            needed = set(range(self.count))
        whole = on_cpu and values.publish_features and values.descriptor_type == "float32"
        self.stored = needed if whole else set()
        self.repeated = set() if whole else {index // batch for index in needed}

    def done(self) -> Iterator[Done]:
        """In order."""
        if self._past is not None:
            yield from (done for _, done in zip(range(self.count), self._past.done(), strict=False))


def record_of(
    values: Parameters, bag: Path, storage: str, cameras: Sequence[Camera], extractor: Extractor, batch: int
) -> dict[str, Any]:
    """How the output is made."""
    parameters = {**{name: getattr(values, name) for name in TABLE}, **values.by_camera}
    plain = {name: list(value) if isinstance(value, tuple) else value for name, value in parameters.items()}
    return {
        "bag": str(bag),
        "cameras": {camera.topic: camera.name for camera in cameras},
        "weights_id": extractor.weights_id,
        "device": extractor.device.partition(":")[0],
        "engine": extractor.engine,
        "batch": batch,
        "storage": storage,
        "parameters": plain,
    }


def set_aside(output: Path, left: Path, record: dict[str, Any]) -> dict[str, Any] | None:
    """Make room for the output; what an interrupted run has left of it is in `left` then.

    Returns the record of a run that is complete. Raises BagError if it was made in another way.
    """
    aside = left if left.exists() else output
    past = read_record(aside)
    others = [file.name for file in aside.iterdir() if not _is_ours(file)]
    if others:
        raise BagError(f"{aside}: cannot be resumed, it also holds {', '.join(others)}; move that away")
    for key, value in record.items():
        if key != "bag" and past.get(key) != value:
            wanted, found = value, past.get(key)
            if isinstance(value, dict) and isinstance(found, dict):
                key, wanted, found = next(
                    (k, value.get(k), found.get(k)) for k in {**value, **found} if value.get(k) != found.get(k)
                )
            raise BagError(f"{output}: cannot be resumed, it was begun with {key} {found!r}, now it is {wanted!r}")
    if not left.exists():
        if past.get("complete"):
            return past
        output.rename(left)
    elif output.exists():
        remove_output(output)  # a run that was killed while it copied
    return None
