"""What `superpoint extract` is to do, an image on its way, and what became of it all."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from superpoint_ros.features.extractor import Features
from superpoint_ros.frontend.parameters import Parameters
from superpoint_ros.tools.extract.input import Camera, Picture
from superpoint_ros.tools.extract.resume import Done
from superpoint_ros.tools.extract.summary import Summary


@dataclass(frozen=True)
class Task:
    """A bag to extract.

    topics   TOPIC or NAME=TOPIC, see `choose_cameras`
    batch    images in a forward pass; 0: GPU_BATCH on CUDA, 1 on the CPU
    storage  "mcap" or "sqlite3"
    """

    bag: Path
    output: Path
    topics: tuple[str, ...]
    values: Parameters
    batch: int = 0
    storage: str = "mcap"
    resume: bool = False


@dataclass
class Report:
    """What became of a bag.

    frames       images with features in the output, those of an earlier run included
    resumed      of an earlier run
    problems     why it is not whole, a sentence each
    notes        what else is worth saying
    seconds      from the first image read to the last message written
    extracting   seconds of these in the Extractor
    broken       it ended before the bag did, as by a full disk
    summaries    topic -> what this run found in its images
    """

    task: Task
    frames: int = 0
    resumed: int = 0
    problems: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    seconds: float = 0.0
    extracting: float = 0.0
    interrupted: bool = False
    broken: bool = False
    summaries: dict[str, Summary] = field(default_factory=dict)


@dataclass(frozen=True)
class Frame:
    """An image on its way.

    picture  None if there is nothing to extract
    seen     what matches are refined by: the picture, also of what an earlier run has extracted
    done     what an earlier run wrote for it
    stamp    nanoseconds, of its header; None unless it goes through the tracker
    """

    camera: Camera
    time: int
    picture: Picture | None = None
    found: Features | None = None
    stamp: int | None = None
    done: Done | None = None
    seen: Picture | None = None
