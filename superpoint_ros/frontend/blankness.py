"""Why a picture has no keypoints: most often it shows nothing."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

FEW = 8
"""Levels of 255 in which a picture with anything to see does not fit."""


def likely_reason(picture: NDArray[np.uint8], mask: NDArray[np.bool_] | None, threshold: float) -> str:
    """A clause, as in "the image is black".

    picture    (H, W), as it went to the network
    mask       (H, W), where keypoints are allowed, or None
    threshold  the parameter `detection_threshold`
    """
    if mask is not None:
        if not mask.any():
            return "the mask allows none anywhere"
        picture = picture[mask]
    least, most = int(picture.min()), int(picture.max())
    where = "the image is" if mask is None else "where the mask allows them the image is"
    hint = "of 16-bit and float images see intensity_range"
    if most == 0:
        return f"{where} black: no light, a lens cap, or {hint}"
    if least == 255:
        return f"{where} white: overexposed, or {hint}"
    if least == most:
        return f"{where} {least} everywhere"
    low, high = np.percentile(picture, [1, 99])
    if high - low < FEW:
        return f"{where} nearly uniform, {low:.0f} to {high:.0f} of 255: no light, nothing in view, or {hint}"
    return f"nothing in it scores above detection_threshold, {threshold:g}"
