"""Masks that keep keypoints off the own vehicle or burnt-in text: a file, a topic, or both."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from superpoint_ros.features.decode import BadImage, decode_image
from superpoint_ros.features.extractor import Extractor, Features

SPARE = 4
"""Keypoints are asked for this many times over, since those outside the mask go."""
ASPECT = 0.01
"""Part by which the shape of a mask may differ from that of the image that it is scaled to."""


class Mask:
    """Where keypoints are allowed in the images of one camera.

    path  a picture file, or empty. Raises ValueError with a sentence if it is not a usable mask
    """

    def __init__(self, path: str = "") -> None:
        self._fixed = read_mask(path) if path else None
        self._latest: NDArray[np.bool_] | None = None

    def update(self, message: Any) -> None:
        """A mask from the topic (sensor_msgs/Image); raises BadImage."""
        self._latest = decode_image(message, intensity_range=(0.0, 1.0)) > 0

    def allowed(self, size: tuple[int, int]) -> NDArray[np.bool_] | None:
        """(height, width) bool for images of that size, None if everywhere.

        Raises BadImage for a mask of another shape.
        """
        masks = [_fitted(mask, size) for mask in (self._fixed, self._latest) if mask is not None]
        return np.logical_and.reduce(masks) if masks else None


def read_mask(path: str) -> NDArray[np.bool_]:
    """A picture file as a mask: True where it is not black. Raises ValueError with a sentence."""
    picture = cv2.imread(path, cv2.IMREAD_GRAYSCALE | cv2.IMREAD_ANYDEPTH)
    if picture is None:
        raise ValueError(f"mask {path} is not a readable picture")
    if not picture.any():
        raise ValueError(f"mask {path} is all black; keypoints are allowed where it is not")
    return np.asarray(picture > 0)


def extract(
    extractor: Extractor, pictures: Sequence[NDArray[np.uint8]], masks: Sequence[NDArray[np.bool_] | None]
) -> list[Features]:
    """Features of several pictures in one batch, each only where its mask allows."""
    if all(mask is None for mask in masks):
        return extractor.batch(pictures)
    wanted = extractor.settings
    extractor.settings = replace(wanted, max_keypoints=wanted.max_keypoints * SPARE)
    try:
        found = extractor.batch(pictures)
    finally:
        extractor.settings = wanted
    return [_kept(one, mask, wanted.max_keypoints) for one, mask in zip(found, masks, strict=True)]


def _kept(found: Features, mask: NDArray[np.bool_] | None, count: int) -> Features:
    if mask is None:
        rows = np.arange(len(found))
    else:
        column, row = np.rint(found.xy).astype(int).clip(0, np.array(found.size[::-1]) - 1).T
        rows = np.flatnonzero(mask[row, column])
    rows = rows[:count]
    return replace(found, xy=found.xy[rows], scores=found.scores[rows], descriptors=found.descriptors[rows])


def _fitted(mask: NDArray[np.bool_], size: tuple[int, int]) -> NDArray[np.bool_]:
    (height, width), (rows, columns) = size, mask.shape
    if (height, width) == (rows, columns):
        return mask
    if abs(rows * width / (height * columns) - 1) > ASPECT:
        raise BadImage(f"mask of {columns}×{rows} does not fit an image of {width}×{height}")
    scaled = cv2.resize(mask.astype(np.uint8), (width, height), interpolation=cv2.INTER_NEAREST)
    return np.asarray(scaled > 0)
