"""Masks that keep keypoints off the own vehicle or burnt-in text: a file, a topic, or both."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from superpoint_ros.features.decode import decode_image
from superpoint_ros.features.encoded import read_picture_file
from superpoint_ros.features.image import MAX_PIXELS, BadImage

ASPECT = 0.01
"""Part by which the shape of a mask may differ from that of the image that it is scaled to."""


class Mask:
    """Where keypoints are allowed in the images of one camera.

    path        a picture file, or empty. Raises ValueError with a sentence if it is not a usable mask
    max_pixels  of it, and of those from the topic
    """

    def __init__(self, path: str = "", max_pixels: int = MAX_PIXELS) -> None:
        self._max_pixels = max_pixels
        self._fixed = read_mask(path, max_pixels) if path else None
        self._latest: NDArray[np.bool_] | None = None

    def update(self, message: Any) -> None:
        """A mask from the topic (sensor_msgs/Image); raises BadImage."""
        self._latest = decode_image(message, not_black, self._max_pixels) > 0

    def allowed(self, size: tuple[int, int]) -> NDArray[np.bool_] | None:
        """(height, width) bool for images of that size, None if everywhere.

        Raises BadImage for a mask of another shape.
        """
        masks = [_fitted(mask, size) for mask in (self._fixed, self._latest) if mask is not None]
        return np.logical_and.reduce(masks) if masks else None


def not_black(samples: NDArray[Any]) -> NDArray[np.uint8]:
    """A Scale for masks with 16 bits or more: any value is allowed but zero, and what is no number."""
    return np.asarray(255 * (np.nan_to_num(samples, nan=0.0) != 0), np.uint8)


def read_mask(path: str, max_pixels: int = MAX_PIXELS) -> NDArray[np.bool_]:
    """A picture file as a mask: True where it is not black. Raises ValueError with a sentence."""
    try:
        picture = read_picture_file(Path(path), not_black, max_pixels)
    except OSError as error:
        raise ValueError(f"mask {path} is not a readable picture ({error.strerror})") from None
    except BadImage as error:
        raise ValueError(f"mask {error}") from None
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
