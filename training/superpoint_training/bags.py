"""Frames of rosbags (sqlite3 and mcap) as pictures, without ROS.

Topics of `sensor_msgs/Image` and `CompressedImage` are taken, every k-th frame, and those left out
that hardly differ from the one before: a robot that stands still would otherwise fill the training
set.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from superpoint_ros.bags.content import COMPRESSED_IMAGE, BagError, sentence
from superpoint_ros.bags.reader import BagReader
from superpoint_ros.features.decode import decode_compressed, decode_image
from superpoint_ros.features.intensity import scale_of
from superpoint_training.config import InputConfig
from superpoint_training.whole_files import can_be_listed, write_text

SUMMARY = "frames.json"


def is_bag(path: Path) -> bool:
    """A folder with metadata.yaml, or a single .mcap or .db3 file, or one of ROS 1, which is refused with advice."""
    return (path / "metadata.yaml").is_file() or (path.suffix in (".mcap", ".db3", ".bag") and path.is_file())


def extract_frames(bag: Path, frames: Path, settings: InputConfig) -> list[Path]:
    """Write a bag's frames to PNG files under `frames`, and return them in order of topic and time. That is done once,
    and again when the bag's files have changed.

    Frames that cannot be decoded are skipped and counted, whenever they are missed. Raises BagError, naming the bag, if
    it cannot be read, has no such topics, or is damaged and nothing of it is left.
    """
    source = bag.resolve()
    decisive = ("longer_side", "every", "min_change", "intensity_range")
    told = {"bag": str(source), **{name: getattr(settings, name) for name in decisive}}
    told["topics"] = list(settings.topics)
    digest = hashlib.sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()[:8]
    folder = frames / f"{source.stem}-{digest}"
    if not can_be_listed(folder.resolve()):
        raise BagError(f"{folder}: frames cannot go there, as lists cannot hold its path; another name would do")
    files = _files(source)
    done = _summary(folder)
    if done.get("files") == files:
        for line in done.get("damage", []):
            tqdm.write(line)
        _tell_skipped(bag, done.get("skipped", {}))
    else:
        partial = folder.with_name(f".{folder.name}.partial")  # so that one that fails leaves what was there
        shutil.rmtree(partial, ignore_errors=True)
        try:
            found = _extract(bag, partial, settings)
            topics = ", ".join(found.pop("read"))
            write_text(partial / SUMMARY, json.dumps({**told, **found, "files": files}, indent=1))
            if folder.exists():
                shutil.rmtree(folder)
            partial.rename(folder)
        finally:
            shutil.rmtree(partial, ignore_errors=True)
        _tell_skipped(bag, found["skipped"])
        tqdm.write(f"{bag}: {found['written']} frames of {topics} written to {folder}")
    return sorted(folder.rglob("*.png"))


def frames_folder(frame: Path) -> Path | None:
    """The folder with all frames of the bag that a picture was extracted from; None if it comes from no bag."""
    folder = frame.parent.parent
    return folder if (folder / SUMMARY).is_file() else None


def moment(frame: Path) -> str:
    """When a frame was recorded, by its name; two frames of a topic may be of one moment."""
    return frame.stem.partition("_")[0]


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


def _extract(bag: Path, folder: Path, settings: InputConfig) -> dict[str, Any]:
    """Write a bag's frames to `folder`/TOPIC/TIME.png; a second frame of the same time has a number after it.

    Returns how many were written, reasons why others were not with their counts, damage in sentences, and topics read.
    """
    skipped: dict[str, int] = {}
    written = 0
    damage: list[str] = []
    with BagReader(bag) as reader:
        chosen = [reader.image_topic(name).name for name in settings.topics]
        topics = list(dict.fromkeys(chosen)) or [topic.name for topic in reader.image_topics()]
        if not topics:
            reader.image_topic(None)  # says which topics there are
        for topic in topics:
            target = folder / topic.strip("/").replace("/", "-")
            target.mkdir(parents=True, exist_ok=True)
            taken = Counter[int]()
            for time, frame in changing(_frames(reader, topic, settings, skipped, damage), settings.min_change):
                path = target / (f"{time:020d}_{taken[time]:06d}.png" if taken[time] else f"{time:020d}.png")
                taken[time] += 1
                if not cv2.imwrite(str(path), _shrunk(frame, settings.longer_side)):
                    raise OSError(f"{path}: could not be written")
                written += 1
    if damage and not written:
        raise BagError(damage[0])
    return {"written": written, "skipped": skipped, "damage": damage, "read": topics}


def _frames(
    reader: BagReader, topic: str, settings: InputConfig, skipped: dict[str, int], damage: list[str]
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
        damage.append(f"{error}; its first {number + 1} messages on {topic} are used")
        tqdm.write(damage[-1])


def _shrunk(frame: NDArray[np.uint8], longer_side: int) -> NDArray[np.uint8]:
    scale = longer_side / max(frame.shape)
    if not longer_side or scale >= 1:
        return frame
    size = (round(frame.shape[1] * scale), round(frame.shape[0] * scale))
    return np.asarray(cv2.resize(frame, size, interpolation=cv2.INTER_AREA), np.uint8)


def _files(bag: Path) -> dict[str, list[int]]:
    """Size and time of change (nanoseconds) of a bag's files, by name: where they are the same, so is the bag."""
    try:
        files = [path for path in sorted(bag.iterdir()) if path.is_file()] if bag.is_dir() else [bag]
        found = {path.name: path.stat() for path in files if not path.name.startswith(".") or path == bag}
    except OSError as error:
        raise BagError(f"{bag}: not a readable bag ({sentence(error)})") from None
    return {name: [about.st_size, about.st_mtime_ns] for name, about in found.items()}


def _summary(folder: Path) -> dict[str, Any]:
    """What SUMMARY says of frames that were extracted; {} where there is none that can be read."""
    try:
        told = json.loads((folder / SUMMARY).read_text())
    except (OSError, ValueError):
        return {}
    return told if isinstance(told, dict) else {}


def _tell_skipped(bag: Path, skipped: Mapping[str, int]) -> None:
    for reason, count in skipped.items():
        tqdm.write(f"{bag}: {count} frames skipped: {reason}")
