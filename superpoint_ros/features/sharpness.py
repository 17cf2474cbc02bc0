"""A picture made as soft as the patches that are looked for in it, which were blurred or seen from further away.

Lucas-Kanade models what blur adds to a patch (`lucas_kanade`), but cannot sharpen one.
"""

from __future__ import annotations

from dataclasses import replace

import cv2
import numpy as np
from numpy.typing import NDArray

from superpoint_ros.features.levels import Levels

Floats = NDArray[np.float32]

BLURS = (0.7, 1.0, 1.4, 2.0, 2.8)
"""Standard deviations tried, pixels of the level."""
SHARPER = 1.2
"""Times: a picture that is less sharper than the patches, by the median, stays as it is."""
LOOKED_AT = 24
"""Patches to compare: more tell no more."""
AROUND = 8
"""Pixels beyond a patch, so that blur has something to take in."""


def softened(picture: Levels, patches: Floats, middles: NDArray[np.intp]) -> Levels:
    """The picture, blurred until it is as soft as some patches that it should show, or as it was if it is so already.

    patches  (M, n, n) float32, n odd
    middles  (M, 2), x and y of about the same places in `picture.pixels`
    """
    side = patches.shape[1] + 2 * AROUND
    begins = middles - side // 2
    height, width = picture.pixels.shape
    rows = np.flatnonzero(((begins >= 0) & (begins <= (width - side, height - side))).all(axis=1))
    if len(rows) == 0:
        return picture
    wanted = np.maximum(_sharpness(patches[rows]), 1e-6)
    column = np.concatenate([picture.pixels[y : y + side, x : x + side] for x, y in begins[rows]])
    least, chosen = _apart(column, side, wanted), 0.0
    if least < np.log(SHARPER):
        return picture
    for blur in BLURS:
        apart = abs(_apart(_blurred(column, blur), side, wanted))
        if apart >= least:
            break
        least, chosen = apart, blur
    return replace(picture, pixels=_blurred(picture.pixels, chosen)) if chosen else picture


def _apart(column: NDArray[np.uint8], side: int, wanted: Floats) -> float:
    """By how much, as a logarithm, the windows one below the other are sharper than `wanted`, in the median."""
    windows = column.reshape(-1, side, side)[:, AROUND:-AROUND, AROUND:-AROUND].astype(np.float32)
    return float(np.median(np.log(np.maximum(_sharpness(windows), 1e-6) / wanted)))


def _sharpness(patches: Floats) -> Floats:
    """The squares of the gradients over that of the contrast, (M,): falls with blur, stays with gain and offset."""
    along, across = patches[:, 1:-1, 2:] - patches[:, 1:-1, :-2], patches[:, 2:, 1:-1] - patches[:, :-2, 1:-1]
    squares = np.square(along).mean(axis=(1, 2)) + np.square(across).mean(axis=(1, 2))
    return np.asarray(squares / np.maximum(patches.var(axis=(1, 2)), 1.0), np.float32)


def _blurred(pixels: NDArray[np.uint8], deviation: float) -> NDArray[np.uint8]:
    return np.asarray(cv2.GaussianBlur(pixels, (0, 0), deviation), np.uint8)
