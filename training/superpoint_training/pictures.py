"""Where training pictures come from: folders, lists, single files and bags.

Whatever the source, a picture is a file that is read when it is needed; frames of bags are written
out once. One that cannot be read is counted, named, and replaced by the next, as training must not
end over it.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from superpoint_ros.bags.content import BagError
from superpoint_ros.features.encoded import read_picture_file
from superpoint_ros.features.image import BadImage
from superpoint_ros.features.intensity import AUTOMATIC, scale_of
from superpoint_ros.features.picture_header import read_header
from superpoint_ros.printable import printable
from superpoint_training.bags import extract_frames, is_bag
from superpoint_training.config import InputConfig
from superpoint_training.whole_files import can_be_listed, whole_file

EXTENSIONS = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff", ".pgm", ".ppm")
DEEP = (".png", ".tif", ".tiff", ".pgm", ".ppm")
"""Formats that may have more than eight bits a sample."""
SMALLEST_SIDE = 32  # pixels


COARSE = (1, 100, 10**7, 10**9, 2 * 10**9)
"""Nanoseconds whose multiples file systems round the time of a change down to."""


class BadPicture(ValueError):
    """A file that is no picture, or too small a one; the text names it."""


def find_pictures(sources: Sequence[Path], frames: Path, settings: InputConfig) -> list[Path]:
    """All pictures of folders (searched through, sorted), .txt lists (one path a line), files and
    bags, each once, by whichever way it is reached.

    frames  folder that frames of bags are written to; a bag that was extracted before is not read
            again

    Bags in folders that cannot be used, and pictures whose names no list can hold, are left out and named. Raises
    ValueError, naming the source, where there is none, it is such a bag itself, or it has no pictures.
    """
    found: dict[Path, Path] = {}
    for source in sources:
        pictures = [(path.resolve(), path) for path in _pictures_of(source, frames, settings)]
        named = [(whole, path) for whole, path in pictures if can_be_listed(whole)]
        if len(named) < len(pictures):
            _tell_unlisted(source, [whole for whole, _ in pictures if not can_be_listed(whole)])
        if not named:
            raise ValueError(f"{source}: no pictures found; expected {', '.join(EXTENSIONS)} files")
        for whole, path in named:
            found.setdefault(whole, path)
    if settings.intensity_range == AUTOMATIC:
        return list(found.values())
    return [_by_range(path, frames, settings.intensity_range) for path in found.values()]


def read_picture(path: Path) -> NDArray[np.uint8]:
    """A picture as grey (H, W) uint8, of more than eight bits by its own range. Raises BadPicture."""
    try:
        image = read_picture_file(path)
    except OSError as error:
        raise BadPicture(f"{path}: cannot be read ({error})") from None
    except BadImage as error:
        raise BadPicture(str(error)) from None
    if min(image.shape[:2]) < SMALLEST_SIDE:
        height, width = image.shape[:2]
        raise BadPicture(f"{path}: {width}×{height} pixels; expected at least {SMALLEST_SIDE} on each side")
    return image


class PictureFolder:
    """Pictures by number, the unreadable ones skipped, counted and named once.

    memory  megabytes of read pictures that are kept for the next time

    Raises ValueError on reading when ten in a row are bad, as that is no accident.
    """

    def __init__(self, paths: Sequence[Path], memory: int = 0) -> None:
        self.paths = list(paths)
        self.bad: dict[Path, str] = {}
        self._kept: dict[int, NDArray[np.uint8]] = {}
        self._room = memory * 1_000_000

    def __len__(self) -> int:
        return len(self.paths)

    def read(self, number: int) -> tuple[int, NDArray[np.uint8]]:
        """The number and picture of `number`, or of the next one that can be read."""
        for step in range(min(10, len(self.paths))):
            candidate = (number + step) % len(self.paths)
            if candidate in self._kept:
                return candidate, self._kept[candidate]
            path = self.paths[candidate]
            if path in self.bad:
                continue
            try:
                picture = read_picture(path)
            except BadPicture as error:
                self.leave_out(candidate, str(error))
            else:
                if picture.nbytes <= self._room:
                    self._room -= picture.nbytes
                    self._kept[candidate] = picture
                return candidate, picture
        path = self.paths[number]
        raise ValueError(f"{path}: this picture and the nine after it cannot be read or used ({self.bad[path]})")

    def leave_out(self, number: int, reason: str) -> None:
        """Skip a picture from now on; the reason, which names it, is told."""
        self.bad[self.paths[number]] = reason
        if (kept := self._kept.pop(number, None)) is not None:
            self._room += kept.nbytes
        tqdm.write(f"{printable(reason)}; skipped, {len(self.bad)} so far")


def shrink_to_cover(image: NDArray[np.uint8], size: tuple[int, int]) -> NDArray[np.uint8]:
    """Shrink so that the picture just covers `size` (height, width); a smaller one is left, (0, 0)
    leaves all.
    """
    height, width = image.shape
    scale = max(size[0] / height, size[1] / width)
    if scale <= 0 or scale >= 1:
        return image
    target = (max(size[1], round(width * scale)), max(size[0], round(height * scale)))
    return np.asarray(cv2.resize(image, target, interpolation=cv2.INTER_AREA), np.uint8)


def listed_names(path: Path) -> list[str]:
    """The lines of a list of pictures; empty ones and those that start with # do not count.

    Raises ValueError for a file that is no text.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except UnicodeDecodeError:
        raise ValueError(f"{path}: not a text file; expected a picture's name a line") from None
    stripped = [line.strip() for line in lines]
    return [line for line in stripped if line and not line.startswith("#")]


def _tell_unlisted(source: Path, skipped: Sequence[Path]) -> None:
    names = ", ".join(printable(path.name) for path in skipped[:10]) + (" …" if len(skipped) > 10 else "")
    reason = "lists cannot hold their paths (not UTF-8, or of several lines); with other names they can"
    tqdm.write(f"{printable(str(source))}: {len(skipped)} pictures skipped, as {reason}: {names}")


def _by_range(path: Path, frames: Path, intensity_range: tuple[float, float]) -> Path:
    """A picture of eight bits itself; one of more bits written to `frames` by that range, once, and again when the
    picture has changed.
    """
    if path.suffix.lower() not in DEEP:
        return path
    try:
        header = read_header(path.read_bytes())
        if header is None or header.bits <= 8:
            return path
        digest = hashlib.sha256(f"{path.resolve()} {intensity_range}".encode()).hexdigest()[:8]
        target = frames / "deep" / f"{path.resolve().stem}-{digest}.png"
        changed = path.stat().st_mtime_ns
        if not target.is_file() or not _is_of(target, changed):
            target.parent.mkdir(parents=True, exist_ok=True)
            data = cv2.imencode(".png", read_picture_file(path, scale_of(intensity_range)))[1]
            with whole_file(target) as file:
                file.write(data.tobytes())
            os.utime(target, ns=(changed, changed))  # a picture that was replaced is known by it
        return target
    except (OSError, BadImage):
        return path  # which is skipped and named when it is read


def _pictures_of(source: Path, frames: Path, settings: InputConfig) -> list[Path]:
    if is_bag(source):
        return extract_frames(source, frames, settings)
    if source.is_dir():
        # Hidden files are none, whatever their names end in, such as ._1.jpg beside 1.jpg from macOS.
        inside = [path for path in sorted(source.rglob("*")) if not _is_hidden(path.relative_to(source))]
        bags = [path for path in inside if is_bag(path) and not is_bag(path.parent)]
        pictures = [path for path in inside if path.suffix.lower() in EXTENSIONS and path.is_file()]
        return pictures + _frames_of(source, bags, frames, settings, needed=not pictures)
    if source.suffix == ".txt" and source.is_file():
        # Relative paths are meant from where the list lies.
        return [source.parent / name for name in listed_names(source)]
    if source.is_file():
        return [source]
    raise ValueError(f"{source}: no such folder, list, picture or bag")


def _is_of(target: Path, changed: int) -> bool:
    """Whether a file was made from what changed at a time, nanoseconds, which it bears as far as its disk can tell."""
    found = target.stat().st_mtime_ns
    return any(found == changed - changed % step for step in COARSE)


def _is_hidden(path: Path) -> bool:
    return any(part.startswith(".") for part in path.parts)


def _frames_of(source: Path, bags: Sequence[Path], frames: Path, settings: InputConfig, needed: bool) -> list[Path]:
    """Frames of the bags found in a folder; those that cannot be used are skipped, counted and named.

    needed  raise ValueError if that leaves none
    """
    found: list[Path] = []
    bad: list[str] = []
    for bag in bags:
        try:
            found += extract_frames(bag, frames, settings)
        except BagError as error:
            bad.append(str(error))
            tqdm.write(f"{error}; skipped, {len(bad)} bags so far")
    if bad and needed and not found:
        raise ValueError(f"{source}: no pictures found, and none of its {len(bags)} bags can be used ({bad[0]})")
    return found
