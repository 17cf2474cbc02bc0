"""Matches refined by the pictures: to less than a tenth of a pixel, where the heatmap ends at half of one.

The patch about a keypoint of the first picture, warped as the matches around it say, is looked for in the
second (`lucas_kanade`). What does not come back when aligned the other way is left alone.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from superpoint_ros.features.extractor import Features
from superpoint_ros.features.levels import RADIUS, Levels, levels_for
from superpoint_ros.features.lucas_kanade import REACH, find, warped
from superpoint_ros.features.neighbours import determinants, inverses, local_motion, sane
from superpoint_ros.features.sharpness import LOOKED_AT, softened

Floats = NDArray[np.float32]

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
    unit0, unit1 = units(level0), units(level1)
    inverse = inverses(affinities) * (unit1 / unit0)[:, :, None]
    place0 = (points0 + 0.5) / unit0 - 0.5
    fits = a.fits(level0, place0, np.abs(inverse).sum(axis=2) * (RADIUS + 1)) & sane(affinities)
    source, begins = a.pixels.astype(np.float32), place0 + a.corners[level0 - a.finest]

    def patches(rows: NDArray[np.intp]) -> Floats:
        return warped(source, begins[rows], inverse[rows])

    return look(patches, fits, b, level1, points1)


def look(
    patches: Callable[[NDArray[np.intp]], Floats],
    fits: NDArray[np.bool_],
    picture: Levels,
    level: NDArray[np.intp],
    points: Floats,
) -> tuple[Floats, Floats]:
    """Positions and deviations as `align` returns them, of patches that are looked for about `points`, (M, 2).

    patches  of some rows, as `lucas_kanade.find` takes them
    fits     (M,) bool, which there are
    """
    unit = units(level)
    places = (points + 0.5) / unit - 0.5
    chosen = np.flatnonzero(fits & picture.fits(level, places, np.float32(REACH)))
    if len(chosen):
        some = chosen[:: -(-len(chosen) // LOOKED_AT)]
        middles = np.rint(places[some] + picture.corners[level[some] - picture.finest]).astype(np.intp)
        picture = softened(picture, patches(some), middles)
    found, expected = find(lambda some: patches(chosen[some]), picture, level[chosen], places[chosen])
    good = np.isfinite(expected)
    chosen = chosen[good]
    moved, deviation = np.array(points, np.float32), np.full(len(points), np.inf, np.float32)
    moved[chosen] = (found[good] + 0.5) * unit[chosen] - 0.5
    deviation[chosen] = expected[good] * unit[chosen, 0]
    return moved, deviation


def units(level: NDArray[np.intp]) -> Floats:
    """Source pixels to a pixel of each level, (M, 1)."""
    return np.asarray(np.exp2(level), np.float32)[:, None]
