"""Frames of rosbags (sqlite3 and mcap) as pictures, without ROS.

Topics of `sensor_msgs/Image` and `CompressedImage` are taken, every k-th frame, and those left out
that hardly differ from the one before: a robot that stands still would otherwise fill the training
set.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from superpoint_ros.bags.content import COMPRESSED_IMAGE, BagError, sentence
from superpoint_ros.bags.reader import BagReader
from superpoint_ros.features.decode import decode_compressed, decode_image
from superpoint_ros.features.intensity import scale_of
from superpoint_training.config import InputConfig

SUMMARY = "frames.json"


def is_bag(path: Path) -> bool:
    """A folder with metadata.yaml, or a single .mcap or .db3 file, or one of ROS 1, which is refused with advice."""
    return (path / "metadata.yaml").is_file() or (path.suffix in (".mcap", ".db3", ".bag") and path.is_file())


def extract_frames(bag: Path, frames: Path, settings: InputConfig) -> list[Path]:
    """Write a bag's frames to PNG files under `frames`, once, and return them in order of topic and
    time.

    Frames that cannot be decoded are skipped and counted. Raises ValueError, naming the bag, if it
    cannot be read, has no such topics, or is damaged and nothing of it is left.
    """
    decisive = ("longer_side", "every", "min_change", "intensity_range")
    told = {"bag": str(bag.resolve()), **{name: getattr(settings, name) for name in decisive}}
    told["topics"] = list(settings.topics)
    digest = hashlib.sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()[:8]
    folder = frames / f"{bag.stem}-{digest}"
    if (folder / SUMMARY).is_file():
        return sorted(folder.rglob("*.png"))
    skipped: dict[str, int] = {}
    written = 0
    damage: list[BagError] = []
    with BagReader(bag) as reader:
        topics = [reader.image_topic(name).name for name in settings.topics]
        topics = topics or [topic.name for topic in reader.image_topics()]
        if not topics:
            reader.image_topic(None)  # says which topics there are
        for topic in topics:
            target = folder / topic.strip("/").replace("/", "-")
            target.mkdir(parents=True, exist_ok=True)
            for time, frame in changing(_frames(reader, topic, settings, skipped, damage), settings.min_change):
                path = target / f"{time:020d}.png"
                if not cv2.imwrite(str(path), _shrunk(frame, settings.longer_side)):
                    raise OSError(f"{path}: could not be written")
                written += 1
    if damage and not written:
        raise damage[0]
    for reason, count in skipped.items():
        tqdm.write(f"{bag}: {count} frames skipped: {reason}")
    tqdm.write(f"{bag}: {written} frames of {', '.join(topics)} written to {folder}")
    (folder / SUMMARY).write_text(json.dumps({**told, "written": written, "skipped": skipped}, indent=1))
    return sorted(folder.rglob("*.png"))


def frames_folder(frame: Path) -> Path | None:
    """The folder with all frames of the bag that a picture was extracted from; None if it comes from no bag."""
    folder = frame.parent.parent
    return folder if (folder / SUMMARY).is_file() else None


def changing(
    frames: Iterator[tuple[int, NDArray[np.uint8]]], min_change: float
) -> Iterator[tuple[int, NDArray[np.uint8]]]:
    """Leave out frames that differ from the last one kept by less than `min_change` grey levels on
    average, at 32×32.
    """
    last: NDArray[np.float32] | None = None
    for time, frame in frames:
        thumbnail = cv2.resize(frame, (32, 32), interpolation=cv2.INTER_AREA).astype(np.float32)
        if last is None or float(np.abs(thumbnail - last).mean()) >= min_change:
            last = thumbnail
            yield time, frame


def _frames(
    reader: BagReader, topic: str, settings: InputConfig, skipped: dict[str, int], damage: list[BagError]
) -> Iterator[tuple[int, NDArray[np.uint8]]]:
    number, scale = -1, scale_of(settings.intensity_range)
    try:
        for number, message in enumerate(reader.messages([topic])):
            if number % settings.every:
                continue
            try:
                content = reader.decode(message)
                compressed = message.topic.type == COMPRESSED_IMAGE
                yield message.time, (decode_compressed if compressed else decode_image)(content, scale)
            except Exception as error:  # one frame must not cost the rest, whatever is wrong with it
                reason = sentence(error)
                skipped[reason] = skipped.get(reason, 0) + 1
    except BagError as error:
        # A recording that was cut off is readable up to there.
        damage.append(error)
        tqdm.write(f"{error}; its first {number + 1} messages on {topic} are used")


def _shrunk(frame: NDArray[np.uint8], longer_side: int) -> NDArray[np.uint8]:
    scale = longer_side / max(frame.shape)
    if not longer_side or scale >= 1:
        return frame
    size = (round(frame.shape[1] * scale), round(frame.shape[0] * scale))
    return np.asarray(cv2.resize(frame, size, interpolation=cv2.INTER_AREA), np.uint8)
