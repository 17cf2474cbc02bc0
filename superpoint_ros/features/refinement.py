"""Matches refined by the pictures: to less than a tenth of a pixel, where the heatmap ends at half of one.

The patch about a keypoint of the first picture, warped as the matches around it say, is aligned with the
second by Lucas-Kanade in its inverse compositional form (Baker and Matthews, "Lucas-Kanade 20 Years On",
IJCV 2004), gain, offset and blur free. What does not come back when aligned the other way is left alone.
"""

from __future__ import annotations

import cv2
import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from superpoint_ros.features.extractor import Features
from superpoint_ros.features.levels import RADIUS, Levels, levels_for
from superpoint_ros.features.neighbours import determinants, inverses, local_motion, sane

Floats = NDArray[np.float32]

ROUNDS = 5
"""Of Lucas-Kanade at most; what moves by less than SETTLED is done earlier."""
SETTLED = 0.02
TOGETHER = 170
"""Patches at a time: their arrays stay in the processor's cache, a third less time than 500 at once."""
MAXIMUM_SHIFT = 2.0
"""Pixels (of the level) from the keypoint: further away it would be another corner."""
FARTHEST = MAXIMUM_SHIFT + 0.5
"""Pixels that a match may wander on the way."""
MAXIMUM_RETURN = 0.25
"""Pixels: a match that aligned backwards ends further from where it began is not the same thing seen twice."""
MINIMUM_CORRELATION = 0.75
"""Between the patches when aligned."""
MAXIMUM_DEVIATION = 0.25
"""Pixels: expected of the position, from the patch's gradients and what is left between the patches."""
GAIN = (0.2, 5.0)
"""By which one patch may be brighter than the other."""


Pictures = tuple[NDArray[np.uint8] | Levels, NDArray[np.uint8] | Levels]
"""Two images, as `Extractor` takes them, or their `levels_of`."""


def levels_of_both(images: Pictures, features: tuple[Features, Features]) -> tuple[Levels, Levels]:
    """The levels of both images; ValueError if one has not the size of its features."""
    a, b = (
        image if isinstance(image, Levels) else levels_for(found, image)
        for image, found in zip(images, features, strict=True)
    )
    for levels, found in zip((a, b), features, strict=True):
        if levels.size != found.size:
            raise ValueError(f"the picture's size is {levels.size}, that of its features {found.size}")
    return a, b


def refine_matches(
    f0: Features,
    f1: Features,
    matches: NDArray[np.int32],
    images: Pictures,
    limit: int | None = None,
) -> tuple[Floats, NDArray[np.bool_]]:
    """Where the points of `f0` are in the second picture, more exactly than the keypoints of `f1` tell.

    matches  (M, 2) integers, rows of `f0` and `f1`
    images   those that the features are from, as `Extractor` takes them, or their `levels_of`
    limit    refine at most so many, evenly picked

    Returns (M, 2) float32, pixels of the second image, and (M,) bool, which were refined; the others
    keep their keypoint's position. A match is left alone if its patch reaches beyond a picture, has too
    little texture, differs too much, or ends more than 2 px (of the scale where it was found) away.
    Raises ValueError if a picture has not the size of its features.
    """
    a, b = levels_of_both(images, (f0, f1))
    positions = f1.xy[matches[:, 1]].astype(np.float32)
    refined = np.zeros(len(matches), bool)
    if len(matches) < 3:
        return positions, refined
    points0 = f0.xy[matches[:, 0]].astype(np.float32)
    step = 1 if limit is None else max(1, -(-len(matches) // limit))
    some = slice(None, None, step)
    affinities = local_motion(points0, positions).affinities[some]
    scales = f1.scales[matches[some, 1]]
    moved, deviation = align(a, b, points0[some], positions[some], affinities, scales)
    refined[some] = np.isfinite(deviation)
    positions[some] = moved
    return positions, refined


def align(
    a: Levels, b: Levels, points0: Floats, points1: Floats, affinities: Floats, scales: Floats
) -> tuple[Floats, Floats]:
    """Find the surroundings of points of the first picture in the second.

    points0, points1  (M, 2) float32, where they are in the first, and about where in the second
    affinities        (M, 2, 2) float32, how their surroundings are warped
    scales            (M,) source pixels of the second picture to a pixel in which to compare

    Returns the positions in the second, (M, 2) float32, and their expected deviations along x and y
    together, (M,) float32, source pixels; infinite where a point was left where it was.
    """
    level1 = b.level(scales)
    zoom = np.sqrt(np.maximum(np.abs(determinants(affinities)), 1e-6))
    level0 = a.level(2.0**level1 / zoom)
    unit0, unit1 = (np.exp2(level).astype(np.float32)[:, None] for level in (level0, level1))
    inverse = inverses(affinities) * (unit1 / unit0)[:, :, None]
    place0 = (points0 + 0.5) / unit0 - 0.5
    place1 = (points1 + 0.5) / unit1 - 0.5
    # the patch and a margin: of one for the gradient, in the second also for the way there
    fits = a.fits(level0, place0, np.abs(inverse).sum(axis=2) * (RADIUS + 1))
    fits &= b.fits(level1, place1, np.float32(RADIUS + 2 + FARTHEST)) & sane(affinities)
    chosen = np.flatnonzero(fits)
    moved = np.array(points1, np.float32)
    deviation = np.full(len(points1), np.inf, np.float32)
    if len(chosen) == 0:
        return moved, deviation
    corner0, corner1 = a.corners[level0[chosen] - a.finest], b.corners[level1[chosen] - b.finest]
    places, expected, good = np.empty((len(chosen), 2), np.float32), np.empty(len(chosen), np.float32), fits[chosen]
    source, windows = a.pixels.astype(np.float32), sliding_window_view(b.pixels, (_SIDE + 3, _SIDE + 3))
    begins, ends = place0[chosen] + corner0, place1[chosen] + corner1
    for begin in range(0, len(chosen), TOGETHER):
        some = slice(begin, begin + TOGETHER)
        patches = _warped(source, begins[some], inverse[chosen[some]])
        places[some], expected[some], good[some] = _align(patches, windows, ends[some])
    good &= np.abs(places - corner1 - place1[chosen]).max(axis=1) <= MAXIMUM_SHIFT
    chosen, places, corner1, expected = chosen[good], places[good], corner1[good], expected[good]
    moved[chosen] = (places - corner1 + 0.5) * unit1[chosen] - 0.5
    deviation[chosen] = expected * unit1[chosen, 0]
    return moved, deviation


_SIDE = 2 * RADIUS + 1
_ALONG = np.arange(-RADIUS, RADIUS + 1, dtype=np.float32)
_GRID = np.stack(np.meshgrid(*[np.arange(-RADIUS - 1, RADIUS + 2, dtype=np.float32)] * 2)).reshape(2, -1)
_WEIGHTS = np.exp(-np.add.outer(_ALONG**2, _ALONG**2).reshape(-1) / (2 * (0.6 * RADIUS) ** 2))
_WEIGHTS = (_WEIGHTS / _WEIGHTS.sum()).astype(np.float32)
"""Of a patch's pixels: the middle counts most, so that a wrong warp or a strange border matters less."""
_STABLE = np.eye(4, dtype=np.float32) * 1e-3


def _align(patches: Floats, windows: NDArray[np.uint8], places: Floats) -> tuple[Floats, Floats, NDArray[np.bool_]]:
    """Lucas-Kanade of (M, side + 2, side + 2) patches, from `places` on.

    windows  of side + 3 pixels, all that the second picture has, by their first pixel

    Returns places, expected deviations in pixels, and which are good.
    """
    count = len(patches)
    template = patches[:, 1:-1, 1:-1].reshape(count, -1)
    basis = np.empty((count, 4, _SIDE * _SIDE), np.float32)
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
        apart = _interpolated(small, here - RADIUS, _SIDE) - template[going]
        fit = np.einsum("mkp,mp->mk", solver[going], apart)
        step = fit[:, :2] / np.clip(1 + fit[:, 2:3], *GAIN)
        places[going] = np.minimum(np.maximum(here - step, lowest[going]), highest[going])
        going = going[np.abs(step).max(axis=1) > SETTLED]
        if len(going) == 0:
            break
    around = _interpolated(windows, places - RADIUS - 1, _SIDE + 2).reshape(count, _SIDE + 2, _SIDE + 2)
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
    return places, expected.astype(np.float32), good


def _returned(around: Floats, apart: Floats) -> Floats:
    """How far, in pixels, a step backwards goes: by the gradients of the second picture, not of the first."""
    gradient = _gradient(around)
    gradient -= (gradient @ _WEIGHTS)[:, :, None]
    weighted = gradient * _WEIGHTS
    squares = weighted @ gradient.transpose(0, 2, 1) + _STABLE[:2, :2]
    slope = np.einsum("mkp,mp->mk", weighted, apart)
    return np.asarray(np.abs(np.einsum("mkl,ml->mk", inverses(squares), slope)).max(axis=1))


def _warped(source: Floats, places: Floats, inverse: Floats) -> Floats:
    """Patches (M, side + 2, side + 2) about `places`, each seen through its affinity."""
    maps = inverse @ _GRID + places[:, :, None]
    x, y = maps.transpose(1, 0, 2).reshape(2, -1, _SIDE + 2)
    return np.asarray(cv2.remap(source, x, y, cv2.INTER_LINEAR), np.float32).reshape(-1, _SIDE + 2, _SIDE + 2)


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
    gradient = np.empty((len(patches), 2, _SIDE, _SIDE), np.float32)
    np.subtract(patches[:, 1:-1, 2:], patches[:, 1:-1, :-2], out=gradient[:, 0])
    np.subtract(patches[:, 2:, 1:-1], patches[:, :-2, 1:-1], out=gradient[:, 1])
    gradient *= np.float32(0.5)
    return gradient.reshape(len(patches), 2, -1)


def _laplacian(patches: Floats) -> Floats:
    """How a patch changes with blur, (M, side²)."""
    across = patches[:, 1:-1, 2:] + patches[:, 1:-1, :-2] + patches[:, 2:, 1:-1] + patches[:, :-2, 1:-1]
    return np.asarray(across - 4 * patches[:, 1:-1, 1:-1]).reshape(len(patches), -1)
