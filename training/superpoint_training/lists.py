"""Which pictures are trained on and which are held out: how they are divided, and the lists that say so.

A list names what lies in its own folder (the frames of bags) from there, so that the folder can move to another
machine.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import takewhile
from pathlib import Path

import numpy as np

from superpoint_training.bags import frames_folder, moment
from superpoint_training.config import InputConfig
from superpoint_training.pictures import find_pictures, listed_names
from superpoint_training.whole_files import read_text, write_text

PICTURES, HELD_OUT = "pictures.txt", "held_out.txt"

DATA = ("pictures", "held_out", "labels")
"""What a run notes of its data besides its recipe: those of `facts`, and how pictures were labelled."""


@dataclass(frozen=True)
class Lists:
    """Pictures to train on, and those held out."""

    training: list[Path]
    held_out: list[Path]

    def write(self, folder: Path) -> None:
        """To pictures.txt and held_out.txt in `folder`."""
        root = folder.resolve()
        for name, paths in ((PICTURES, self.training), (HELD_OUT, self.held_out)):
            named = (path.relative_to(root) if path.is_relative_to(root) else path for path in paths)
            write_text(folder / name, "".join(f"{path}\n" for path in named))


def divide(sources: Sequence[Path], folder: Path, settings: InputConfig, seed: int, held_out: Path | None) -> Lists:
    """Find the pictures of all sources and divide them.

    folder    frames of bags go to its `frames`
    held_out  pictures that are left for evaluation: a folder or bag, or a .txt list of paths or of their ends (file
              names will do); None takes a share of all (inputs.held_out)

    Raises ValueError, naming it, for a listed picture that is none of the sources', or more than one.
    """
    pictures = [path.resolve() for path in find_pictures(sources, folder / "frames", settings)]
    if held_out is None:
        lists = Lists(*split(pictures, settings.held_out, seed))
    else:
        if held_out.suffix == ".txt":
            kept = set(listed(held_out, pictures))
        else:
            kept = {path.resolve() for path in find_pictures([held_out], folder / "frames", settings)}
        lists = Lists([path for path in pictures if path not in kept], sorted(kept))
    if not lists.training:
        raise ValueError(f"{', '.join(map(str, sources))}: all {len(pictures)} pictures are held out")
    return lists


def split(paths: Sequence[Path], held_out: float, seed: int) -> tuple[list[Path], list[Path]]:
    """Pictures to train with, and a share kept for validation (at least one if there are more than one).

    Single pictures are drawn at random. Of a bag a stretch of time is kept, of all topics alike, as the frames around
    one look like it; those next to the stretch, of each topic on either side, are in neither list, as long as others
    are left to train with.
    """
    groups: dict[Path | None, list[int]] = {}
    for number, path in enumerate(paths):
        groups.setdefault(frames_folder(path), []).append(number)
    wanted = {group: min(round(held_out * len(numbers)), len(numbers) - 1) for group, numbers in groups.items()}
    if held_out and len(paths) > 1 and not any(wanted.values()):
        wanted[max(groups, key=lambda group: len(groups[group]))] = 1
    kept, left_out = set[int](), set[int]()
    for group, numbers in groups.items():
        count, rng = wanted[group], np.random.default_rng(seed)
        if not count:
            continue
        if group is None:
            kept |= {numbers[i] for i in rng.permutation(len(numbers))[:count].tolist()}
            continue
        in_time = sorted(numbers, key=lambda number: (paths[number].name, number))
        first = int(rng.integers(len(numbers) - count + 1))
        kept |= set(in_time[first : first + count])
        near = {in_time[place] for place in _next_to([paths[number] for number in in_time], first, first + count)}
        if len(near) + count < len(numbers):
            left_out |= near
    training = [path for i, path in enumerate(paths) if i not in kept | left_out]
    return training, [path for i, path in enumerate(paths) if i in kept]


def listed(names: Path, pictures: Sequence[Path]) -> list[Path]:
    """Those of the pictures whose path ends with a line of the file `names`; ValueError unless each line means one."""
    wanted = [Path(name).resolve() if Path(name).is_absolute() else Path(name) for name in listed_names(names)]
    by_end: dict[tuple[str, ...], list[Path]] = {}
    for length in {len(name.parts) for name in wanted}:
        for path in pictures:
            by_end.setdefault(path.parts[-length:], []).append(path)
    if missing := [name for name in wanted if name.parts not in by_end]:
        raise ValueError(f"{names}: {len(missing)} of {len(wanted)} listed pictures are not there: {missing[0]} …")
    for name in wanted:
        if len(meant := by_end[name.parts]) > 1:
            raise ValueError(f"{names}: {name} may be {meant[0]} or {meant[1]}; write more of its path")
    return [by_end[name.parts][0] for name in wanted]


def read_list(path: Path) -> list[Path]:
    """The paths in a list file, one a line, from its folder; [] if there is no such file.

    Raises ValueError, naming the file, where it is no text.
    """
    return [path.parent / line for line in read_text(path).splitlines()] if path.is_file() else []


def relocated(paths: Iterable[Path], pictures: Sequence[Path]) -> list[Path]:
    """Paths, those that are not there replaced by the picture that has most of their end, where one has.

    Raises ValueError where two pictures have as much of it.
    """
    by_name: dict[str, list[Path]] = {}
    for picture in pictures:
        by_name.setdefault(picture.name, []).append(picture)
    found = []
    for path in paths:
        candidates = by_name.get(path.name, [])
        if path.is_file() or not candidates:
            found.append(path)
        else:
            ends = [_common_end(path, candidate) for candidate in candidates]
            if ends.count(max(ends)) > 1:
                raise ValueError(f"{path}: may be {candidates[0]} or {candidates[1]} now; name the folder above either")
            found.append(candidates[ends.index(max(ends))])
    return found


def facts(training: Sequence[Path], held_out: Sequence[Path], best: str) -> dict[str, object]:
    """What a run must find the same when it is resumed: its pictures, and where `best` weights are chosen those that
    they are chosen by.
    """
    judges = {"held_out": names_digest(held_out)} if best else {}
    return {"pictures": names_digest(training), **judges}


def names_digest(paths: Sequence[Path]) -> str:
    """How many, and a digest of their names in order."""
    digest = hashlib.sha256("\n".join(path.name for path in paths).encode()).hexdigest()[:12]
    return f"{len(paths)} pictures, {digest}"


def _next_to(frames: Sequence[Path], begin: int, end: int) -> set[int]:
    """Which of a bag's frames, in order of time, are next to those from `begin` to before `end`: all of the same
    moment, and of each topic, as they may differ in rate, the one before and the one after.
    """
    moments = {moment(frames[begin]), moment(frames[end - 1])}
    found = {place for place, frame in enumerate(frames) if moment(frame) in moments} - {*range(begin, end)}
    for side in (range(begin - 1, -1, -1), range(end, len(frames))):
        nearest: dict[Path, int] = {}
        for place in side:
            if place not in found:
                nearest.setdefault(frames[place].parent, place)
        found |= set(nearest.values())
    return found


def _common_end(one: Path, other: Path) -> int:
    pairs = zip(reversed(one.parts), reversed(other.parts), strict=False)
    return len(list(takewhile(lambda pair: pair[0] == pair[1], pairs)))
