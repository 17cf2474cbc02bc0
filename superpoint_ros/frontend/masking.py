"""Masks that keep keypoints off the own vehicle or burnt-in text: a file, a topic, or both."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from superpoint_ros.features.decode import BadImage, decode_image

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


def _fitted(mask: NDArray[np.bool_], size: tuple[int, int]) -> NDArray[np.bool_]:
    (height, width), (rows, columns) = size, mask.shape
    if (height, width) == (rows, columns):
        return mask
    if abs(rows * width / (height * columns) - 1) > ASPECT:
        raise BadImage(f"mask of {columns}×{rows} does not fit an image of {width}×{height}")
    scaled = cv2.resize(mask.astype(np.uint8), (width, height), interpolation=cv2.INTER_NEAREST)
    return np.asarray(scaled > 0)
