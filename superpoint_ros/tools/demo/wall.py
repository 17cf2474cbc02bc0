"""What the demo's camera looks at: a brick wall of photographs, those in scikit-image's wheel."""

from __future__ import annotations

import importlib.util
from functools import cache
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

PICTURES = (
    ("coffee.png", "camera.png", "motorcycle_left.png", "chelsea.png"),
    ("gravel.png", "astronaut.png", "grass.png", "hubble_deep_field.jpg"),
)
"""What hangs on the wall, row by row; licences are in the docstrings of `skimage.data`."""

BACKGROUND = "brick.png"
PICTURE_HEIGHT = 340
GAP = 16
"""Pixels of the wall: between pictures, and around them all."""

Picture = NDArray[np.uint8]


@cache
def wall() -> Picture:
    """The wall: (H, W, 3) uint8 BGR.

    Raises ModuleNotFoundError without scikit-image, FileNotFoundError if its wheel lacks a picture.
    """
    rows = [[_to_height(_photograph(name)) for name in names] for names in PICTURES]
    height = GAP + sum(row[0].shape[0] + GAP for row in rows)
    width = GAP + max(sum(picture.shape[1] + GAP for picture in row) for row in rows)
    plane = _bricks(height, width)
    y = GAP
    for row in rows:
        space = (width - sum(picture.shape[1] for picture in row)) // (len(row) + 1)
        x = space
        for picture in row:
            plane[y : y + picture.shape[0], x : x + picture.shape[1]] = picture
            x += picture.shape[1] + space
        y += row[0].shape[0] + GAP
    return plane


def _bricks(height: int, width: int) -> Picture:
    """The background, mirrored as often as it takes."""
    brick = _photograph(BACKGROUND)
    bottom, right = max(0, height - brick.shape[0]), max(0, width - brick.shape[1])
    plane = cv2.copyMakeBorder(brick, 0, bottom, 0, right, cv2.BORDER_REFLECT)
    return np.asarray(plane[:height, :width], np.uint8)


def _to_height(picture: Picture) -> Picture:
    width = round(picture.shape[1] * PICTURE_HEIGHT / picture.shape[0])
    scaled = cv2.resize(picture, (width, PICTURE_HEIGHT), interpolation=cv2.INTER_AREA)
    return np.asarray(scaled, np.uint8)


def _photograph(name: str) -> Picture:
    # found without importing scikit-image, which takes seconds and may want to download
    package = importlib.util.find_spec("skimage")
    if package is None or package.origin is None:
        raise ModuleNotFoundError("the demo's photographs are scikit-image's: pip install scikit-image")
    path = Path(package.origin).parent / "data" / name
    picture = cv2.imread(str(path), cv2.IMREAD_COLOR) if path.is_file() else None
    if picture is None:
        raise FileNotFoundError(f"{path}: expected a photograph of scikit-image's wheel")
    return np.asarray(picture, np.uint8)
