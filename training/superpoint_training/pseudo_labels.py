"""Pseudo-labels on disk: one small file a picture, and a note of whose labels they are."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from superpoint_training.recipe import flat
from superpoint_training.whole_files import read_json, read_text, whole_file, write_text

NOTE = "labels.json"


@dataclass(frozen=True)
class Labels:
    """Keypoints of a picture. xy (N, 2) float32, its pixels; scores (N,) float32 descending; size
    (height, width).
    """

    xy: NDArray[np.float32]
    scores: NDArray[np.float32]
    size: tuple[int, int]


class LabelFolder:
    """The labels of many pictures, each in a file named after the picture's content: wherever the picture lies, on
    this machine or another, they are its labels, and another picture has none of them.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def open(self, made_by: Mapping[str, Any]) -> None:
        """Start the folder, or check that it was started by the same network and settings;
        ValueError otherwise.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        note = self.folder / NOTE
        text = json.dumps(made_by, indent=1, sort_keys=True)
        remedy = "choose another folder, or delete it if the labels beside it are of this network and these settings"
        if not note.exists():
            write_text(note, text)
        elif difference := _difference(flat(read_json(note, remedy)), flat(json.loads(text))):
            raise ValueError(f"{note}: these labels were made otherwise, {difference}; choose another folder")

    def note(self) -> str:
        """Who made the labels and how, as JSON; "" where nothing says so."""
        note = self.folder / NOTE
        return read_text(note) if note.is_file() else ""

    def has(self, picture: Path) -> bool:
        """Whether there is a file of labels, which may be damaged, of a picture, which may be gone."""
        try:
            return picture.is_file() and self._file(picture).is_file()
        except OSError:
            return False

    def has_readable(self, picture: Path) -> bool:
        """Whether a picture was labelled, and its labels can be read."""
        return self.has(picture) and _load(self._file(picture)) is not None

    def write(self, picture: Path, labels: Labels) -> None:
        """Store a picture's labels, whole or not at all."""
        with whole_file(self._file(picture), shared=True) as file:  # of two pictures that are the same
            np.savez(file, xy=labels.xy, scores=labels.scores, size=np.array(labels.size))

    def read(self, picture: Path, size: tuple[int, ...]) -> Labels:
        """The labels of a picture that is read as (height, width) pixels. Raises ValueError, naming the file, if they
        are absent or damaged, or of another size.
        """
        path = self._file(picture)
        labels = _load(path)
        if labels is None:
            found = "it is damaged" if path.is_file() else "there is no such file"
            remedy = "`superpoint-train adapt` into its folder makes them anew"
            raise ValueError(f"{path}: no readable labels of {picture}, as {found}; {remedy}")
        if labels.size != size:
            height, width = labels.size
            raise ValueError(f"{path}: labels on {width}×{height} pixels; {picture} has {size[1]}×{size[0]}")
        return labels

    def _file(self, picture: Path) -> Path:
        return self.folder / f"{hashlib.sha256(picture.read_bytes()).hexdigest()[:16]}.npz"


def labelled_pictures(pictures: Sequence[Path], labels: Path) -> list[Path]:
    """Those of the pictures that have labels in a folder. Raises ValueError if none has."""
    folder = LabelFolder(labels)
    found = [picture for picture in pictures if folder.has(picture)]
    if not found:
        there = sum(picture.is_file() for picture in pictures)
        files = len(list(labels.glob("*.npz")))
        raise ValueError(
            f"{labels}: no labelled pictures; expected what `superpoint-train adapt` wrote, found {files} files of "
            f"labels, and {there} of {len(pictures)} pictures where they were (--images says where they are now)"
        )
    return found


def _load(path: Path) -> Labels | None:
    """What a file of labels holds; None where it cannot be read."""
    try:
        with np.load(path, allow_pickle=False) as content:
            height, width = content["size"].tolist()
            labels = Labels(content["xy"], content["scores"], (height, width))
    except Exception:  # damaged files fail in many ways
        return None
    return labels if labels.xy.shape == (*labels.scores.shape, 2) else None


def _difference(before: Mapping[str, Any], now: Mapping[str, Any]) -> str:
    """The first setting that differs, in words; "" if none does. One that either does not know is named."""
    for key in sorted({*before, *now}):
        was, wanted = (json.dumps(each[key]) if key in each else "nothing" for each in (before, now))
        if was != wanted:
            return f"{key} was {was}, not {wanted}"
    return ""
