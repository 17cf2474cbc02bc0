"""Lucas-Kanade of many patches at once, against gain, offset and blur.

Inverse compositional (Baker and Matthews, "Lucas-Kanade 20 Years On", IJCV 2004): the patch of the first picture
is differentiated once, and what the second shows is compared with it round by round.
"""

from __future__ import annotations

from collections.abc import Callable

import cv2
import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from superpoint_ros.features.levels import RADIUS, Levels
from superpoint_ros.features.neighbours import inverses

Floats = NDArray[np.float32]

ROUNDS = 4
"""Of Lucas-Kanade at most; what moves by less than SETTLED is done earlier."""
SETTLED = 0.03
TOGETHER = 250
"""Patches at a time: their arrays stay in the processor's cache, a third less time than 500 at once."""
MAXIMUM_SHIFT = 2.0
"""Pixels (of the level) from the keypoint: further away it would be another corner."""
FARTHEST = MAXIMUM_SHIFT + 0.5
"""Pixels that a match may wander on the way."""
REACH = RADIUS + 2 + FARTHEST
"""Pixels around a place that are looked at."""
MAXIMUM_RETURN = 0.25
"""Pixels: a match that aligned backwards ends further from where it began is not the same thing seen twice."""
MINIMUM_CORRELATION = 0.75
"""Between the patches when aligned."""
MAXIMUM_DEVIATION = 0.25
"""Pixels: expected of the position, from the patch's gradients and what is left between the patches."""
GAIN = (0.2, 5.0)
"""By which one patch may be brighter than the other."""


SIDE = 2 * RADIUS + 1
_ALONG = np.arange(-RADIUS, RADIUS + 1, dtype=np.float32)
_GRID = np.stack(np.meshgrid(*[np.arange(-RADIUS - 1, RADIUS + 2, dtype=np.float32)] * 2)).reshape(2, -1)
_WEIGHTS = np.exp(-np.add.outer(_ALONG**2, _ALONG**2).reshape(-1) / (2 * (0.6 * RADIUS) ** 2))
_WEIGHTS = (_WEIGHTS / _WEIGHTS.sum()).astype(np.float32)
"""Of a patch's pixels: the middle counts most, so that a wrong warp or a strange border matters less."""
_STABLE = np.eye(4, dtype=np.float32) * 1e-3


def find(
    patches: Callable[[slice], Floats], levels: Levels, level: NDArray[np.intp], places: Floats
) -> tuple[Floats, Floats]:
    """Where patches are in a picture.

    patches  of a slice of the M: (m, SIDE + 2, SIDE + 2) float32, with a margin of one pixel
    level    (M,), the level of each in the picture
    places   (M, 2) float32, about where its middle is there, in pixels of the level, REACH from the edges

    Returns the places, (M, 2) float32, and their expected deviations along x and y together, (M,) float32, in
    pixels of the level; infinite for what was not found.
    """
    corners = levels.corners[level - levels.finest]
    found, deviations = np.empty((len(places), 2), np.float32), np.empty(len(places), np.float32)
    windows = sliding_window_view(levels.pixels, (SIDE + 3, SIDE + 3))
    for begin in range(0, len(places), TOGETHER):
        some = slice(begin, begin + TOGETHER)
        found[some], deviations[some] = _align(patches(some), windows, (places + corners)[some])
    found -= corners
    deviations[np.abs(found - places).max(axis=1) > MAXIMUM_SHIFT] = np.inf
    return found, deviations


def warped(source: Floats, places: Floats, inverse: Floats) -> Floats:
    """Patches (M, SIDE + 2, SIDE + 2) of a picture about `places`, (M, 2), each seen through an affinity.

    inverse  (M, 2, 2), from pixels of the patch to those of the picture
    """
    maps = inverse @ _GRID + places[:, :, None]
    x, y = maps.transpose(1, 0, 2).reshape(2, -1, SIDE + 2)
    return np.asarray(cv2.remap(source, x, y, cv2.INTER_LINEAR), np.float32).reshape(-1, SIDE + 2, SIDE + 2)


def _align(patches: Floats, windows: NDArray[np.uint8], places: Floats) -> tuple[Floats, Floats]:
    """Places and expected deviations of (M, SIDE + 2, SIDE + 2) patches, from `places` on.

    windows  of SIDE + 3 pixels, all that the second picture has, by their first pixel
    """
    count = len(patches)
    template = patches[:, 1:-1, 1:-1].reshape(count, -1)
    basis = np.empty((count, 4, SIDE * SIDE), np.float32)
    basis[:, :2] = _gradient(patches)
    basis[:, 2] = template
    basis[:, 3] = _laplacian(patches)
    basis -= (basis @ _WEIGHTS)[:, :, None]  # and an offset changes nothing
    weighted = basis * _WEIGHTS
    gram = weighted @ basis.transpose(0, 2, 1)
    inverse = np.linalg.inv(gram + _STABLE)
    solver = inverse @ weighted
    small = windows[:, :, :-2, :-2]
    lowest, highest = places - FARTHEST, places + FARTHEST
    places, going = places.copy(), np.arange(count)
    for _ in range(ROUNDS):
        here = places[going]
        apart = _interpolated(small, here - RADIUS, SIDE) - template[going]
        fit = np.einsum("mkp,mp->mk", solver[going], apart)
        step = fit[:, :2] / np.clip(1 + fit[:, 2:3], *GAIN)
        places[going] = np.minimum(np.maximum(here - step, lowest[going]), highest[going])
        going = going[np.abs(step).max(axis=1) > SETTLED]
        if len(going) == 0:
            break
    around = _interpolated(windows, places - RADIUS - 1, SIDE + 2).reshape(count, SIDE + 2, SIDE + 2)
    seen = around[:, 1:-1, 1:-1].reshape(count, -1)
    seen = seen - (seen @ _WEIGHTS)[:, None]
    apart = seen - basis[:, 2]
    fit = np.einsum("mkp,mp->mk", solver, apart)
    apart -= np.einsum("mk,mkp->mp", fit, basis)
    gain = np.clip(1 + fit[:, 2], *GAIN)
    left = np.square(apart) @ _WEIGHTS
    # neighbouring pixels of a smoothed picture share their noise: a patch has a quarter as many of its own
    noise = (left + 0.5) * np.square(_WEIGHTS).sum() * 4
    expected = np.sqrt(noise * (inverse[:, 0, 0] + inverse[:, 1, 1])) / gain
    correlation = 1 - left / np.maximum(np.square(seen) @ _WEIGHTS, 1e-6)
    good = (expected <= MAXIMUM_DEVIATION) & (correlation >= MINIMUM_CORRELATION**2)
    good &= (gain > GAIN[0]) & (gain < GAIN[1]) & (_returned(around, apart) <= MAXIMUM_RETURN)
    return places, np.where(good, expected, np.inf).astype(np.float32)


def _returned(around: Floats, apart: Floats) -> Floats:
    """How far, in pixels, a step backwards goes: by the gradients of the second picture, not of the first."""
    gradient = _gradient(around)
    weighted = gradient * _WEIGHTS
    squares = weighted @ gradient.transpose(0, 2, 1) + _STABLE[:2, :2]
    slope = np.einsum("mkp,mp->mk", weighted, apart)
    return np.asarray(np.abs(np.einsum("mkl,ml->mk", inverses(squares), slope)).max(axis=1))


def _interpolated(windows: NDArray[np.uint8], corners: Floats, side: int) -> Floats:
    """Patches (M, side²) whose first pixel is at `corners`, bilinear; exact, where cv2.remap knows 1/32 px."""
    whole = np.floor(corners)
    x, y = (corners - whole).astype(np.float32).T[:, :, None, None]
    column, row = whole.astype(np.intp).T
    window = windows[row, column].astype(np.float32)
    along = window[:, :, :-1] + x * (window[:, :, 1:] - window[:, :, :-1])
    return np.asarray(along[:, :-1] + y * (along[:, 1:] - along[:, :-1])).reshape(-1, side * side)


def _gradient(patches: Floats) -> Floats:
    """Along x and y, (M, 2, side²), of patches with a margin of one pixel."""
    gradient = np.empty((len(patches), 2, SIDE, SIDE), np.float32)
    np.subtract(patches[:, 1:-1, 2:], patches[:, 1:-1, :-2], out=gradient[:, 0])
    np.subtract(patches[:, 2:, 1:-1], patches[:, :-2, 1:-1], out=gradient[:, 1])
    gradient *= np.float32(0.5)
    return gradient.reshape(len(patches), 2, -1)


def _laplacian(patches: Floats) -> Floats:
    """How a patch changes with blur, (M, side²)."""
    across = patches[:, 1:-1, 2:] + patches[:, 1:-1, :-2] + patches[:, 2:, 1:-1] + patches[:, :-2, 1:-1]
    return np.asarray(across - 4 * patches[:, 1:-1, 1:-1]).reshape(len(patches), -1)
