"""Which files make up a bag: metadata.yaml as far as it can be believed, else what is there."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml
from rosbags.interfaces import Qos
from rosbags.rosbag2.metadata import parse_qos

from superpoint_ros.bags.content import BagError, sentence

FILE_NAME = "metadata.yaml"
SUFFIXES = (".mcap", ".db3")
COMPRESSED_SUFFIXES = (".zstd", ".lz4", ".zst")
ROS1_MAGIC = b"#ROSBAG V"
ROS1_CONVERTER = "`rosbags-convert --src OLD.bag --dst NEW` (pip install rosbags)"
NEWEST_VERSION = 9
"""Version 1 to 3 have the bag's folder in the file names, 1 to 8 have QoS as a string."""


@dataclass(frozen=True)
class Parts:
    """A bag's files in order, and what metadata.yaml claims of it.

    missing  names of files that are not there
    counts   topic -> messages; empty without metadata
    qos      topic -> offered QoS, for storages that do not hold it themselves
    notes    sentences about what does not fit, without loss
    """

    files: tuple[Path, ...]
    missing: tuple[str, ...] = ()
    counts: Mapping[str, int] = field(default_factory=dict)
    qos: Mapping[str, Qos] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


def find_parts(path: Path) -> Parts:
    """The files of a bag: a folder, or a single file. Raises BagError if there are none."""
    if not path.exists():
        raise BagError(f"{path}: no such bag")
    if path.is_file():
        if _is_ros1(path):
            raise BagError(f"{path}: a bag of ROS 1; {ROS1_CONVERTER} makes one of ROS 2 of it")
        if not is_storage(path):
            raise BagError(f"{path}: not a readable bag; expected a rosbag2 folder, or an .mcap or .db3 file")
        return Parts((path,))
    there = _once(sorted(filter(is_storage, path.iterdir()), key=_natural))
    file = path / FILE_NAME
    if not file.is_file():
        ros1 = [each.name for each in sorted(path.iterdir()) if each.is_file() and _is_ros1(each)]
        if not there and ros1:
            raise BagError(
                f"{path}: a folder with bags of ROS 1 ({', '.join(ros1[:3])}); "
                f"{ROS1_CONVERTER} makes one of ROS 2 of each"
            )
        if not there:
            raise BagError(
                f"{path}: not a readable bag; expected a folder with metadata.yaml, .mcap or .db3 files, "
                "and it has none of them"
            )
        return Parts(tuple(there), notes=("it has no metadata.yaml and is read without",))
    try:
        return _listed(path, there, yaml.safe_load(file.read_text(encoding="utf-8"))["rosbag2_bagfile_information"])
    except BagError:
        raise
    except Exception as error:
        # UnicodeDecodeError, YAMLError, KeyError, TypeError …
        if not there:
            raise BagError(f"{path}: not a readable bag; metadata.yaml is unreadable ({sentence(error)})") from None
        return Parts(tuple(there), notes=(f"its metadata.yaml is unreadable ({sentence(error)}) and left aside",))


def _is_ros1(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(len(ROS1_MAGIC)) == ROS1_MAGIC


def is_storage(path: Path) -> bool:
    """Whether it is named like a file of a bag, perhaps compressed as a whole."""
    return Path(_plain(path)).suffix in SUFFIXES and path.is_file()


def _listed(folder: Path, there: list[Path], told: Any) -> Parts:
    notes = []
    if int(told["version"]) > NEWEST_VERSION:
        notes.append(f"its metadata.yaml has version {told['version']}, newer than {NEWEST_VERSION}")
    listed = [folder / Path(name).name for name in told["relative_file_paths"]]
    files = [file for file in listed if file.is_file()]
    series = {_series(file) for file in files}
    unlisted = [file for file in there if _plain(file) not in map(_plain, files)]
    more = [file for file in unlisted if not files or _series(file) in series]
    if more:
        notes.append(f"its metadata.yaml does not name {_names(more)}, which is read all the same")
        files = sorted([*files, *more], key=_natural)
    others = [file for file in unlisted if file not in more]
    if others:
        notes.append(f"{_names(others)} beside it is not in its metadata.yaml and left aside")
    missing = tuple(file.name for file in listed if not file.is_file())
    if not files:
        raise BagError(
            f"{folder}: not a readable bag; metadata.yaml names {', '.join(missing) or 'no file'}, not there"
        )
    topics = told.get("topics_with_message_count") or []
    counts = {each["topic_metadata"]["name"]: int(each["message_count"]) for each in topics}
    qos = {}
    for each in topics:
        profiles = parse_qos(each["topic_metadata"].get("offered_qos_profiles", []))
        if profiles:
            qos[each["topic_metadata"]["name"]] = profiles[0]
    return Parts(tuple(files), missing, counts, qos, tuple(notes))


def _plain(path: Path) -> str:
    """Its name without the suffix of a file that is compressed as a whole."""
    return path.stem if path.suffix in COMPRESSED_SUFFIXES else path.name


def _series(path: Path) -> str:
    """drive of drive_3.mcap: a recorder numbers the parts of a bag."""
    return re.sub(r"_\d+$", "", Path(_plain(path)).stem)


def _once(files: list[Path]) -> list[Path]:
    """Without compressed files that lie there decompressed, too, as `ros2 bag play` leaves them."""
    names = {file.name for file in files}
    return [file for file in files if _plain(file) == file.name or _plain(file) not in names]


def _names(files: list[Path]) -> str:
    return ", ".join(file.name for file in files)


def _natural(path: Path) -> list[Any]:
    """bag_9 before bag_10."""
    return [int(part) if part.isdigit() else part for part in re.split(r"(\d+)", path.name)]
