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
    where = "the image is"
    if mask is not None and not mask.all():
        if not mask.any():
            return "the mask allows them nowhere"
        where, picture = "where the mask allows them the image is", picture[mask]
    low, median, high = (int(each) for each in np.percentile(picture, [1, 50, 99]))
    hint = "of 16-bit and float images see intensity_range"
    if high <= DARK:
        return f"{where} black: no light, a lens cap, or {hint}"
    if low >= BRIGHT:
        return f"{where} white: overexposed, or {hint}"
    if picture.min() == picture.max():
        return f"{where} of one value, {median} of 255"
    if high - low < FLAT:
        return f"{where} flat, {low} to {high} of 255: nothing in view, or {hint}"
    return "nothing in the image scores above detection_threshold"
