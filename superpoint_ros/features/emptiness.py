"""Why a picture has no keypoints, as far as its pixels tell."""

from __future__ import annotations

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
    if mask is not None and not mask.any():
        return "the mask allows them nowhere"
    low, median, high = (int(each) for each in np.percentile(picture[::2, ::2], [1, 50, 99]))
    if high <= DARK:
        return "the image is black"
    if low >= BRIGHT:
        return "the image is white"
    if picture.min() == picture.max():
        return f"all pixels have one value, {median} of 255"
    if high - low < FLAT:
        return f"the image is flat, its grey levels lie within {low} to {high} of 255 (is intensity_range right?)"
    return "nothing in the image scores above detection_threshold"
