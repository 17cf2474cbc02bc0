"""Why a picture has no keypoints, as far as its pixels tell."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

DARK, BRIGHT = 8, 247
"""Grey levels up to which a picture is black, and from which it is white."""
FLAT = 12
"""Grey levels between the 1st and the 99th percentile below which a picture shows next to nothing."""


def likely_reason(picture: NDArray[np.uint8], mask: NDArray[np.bool_] | None = None) -> str:
    """A few words that go with "there are no keypoints: …".

    picture  (H, W) uint8, as it went to the network
    mask     (H, W) bool, where keypoints were allowed
    """
    where = "the image is"
    if mask is not None and not mask.all():
        if not mask.any():
            return "the mask allows them nowhere"
        where = "where the mask allows them the image is"
    allowed = None if mask is None else mask.astype(np.uint8)
    # of the histogram: a sort of all pixels of a large image would hold up the frames that follow
    counts = cv2.calcHist([picture], [0], allowed, [256], [0, 256])[:, 0].astype(np.int64)
    low, median, high = np.searchsorted(counts.cumsum(), np.array([0.01, 0.5, 0.99]) * counts.sum()).tolist()
    hint = "of 16-bit and float images see intensity_range"
    if high <= DARK:
        return f"{where} black: no light, a lens cap, or {hint}"
    if low >= BRIGHT:
        return f"{where} white: overexposed, or {hint}"
    if np.count_nonzero(counts) == 1:
        return f"{where} of one value, {median} of 255"
    if high - low < FLAT:
        return f"{where} flat, {low} to {high} of 255: nothing in view, or {hint}"
    return "nothing in the image scores above detection_threshold"
