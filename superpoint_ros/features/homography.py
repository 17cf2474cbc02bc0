"""Matches to the homography between two images, and whether it can be trusted.

Estimation is OpenCV's USAC with MAGSAC++ (Barath et al., "MAGSAC++, a fast, reliable and accurate
robust estimator", CVPR 2020), then least squares over all inliers.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import IntEnum

import cv2
import numpy as np
from numpy.typing import NDArray

from superpoint_ros.features.extractor import Features
from superpoint_ros.features.fit import (
    Pairs,
    corner_deviation,
    image_corners,
    jacobians,
    normalised,
    project,
    root_mean_square,
    towards_least_squares,
)
from superpoint_ros.features.levels import Levels
from superpoint_ros.features.neighbours import sane
from superpoint_ros.features.refinement import Pictures, align, levels_of_both

__all__ = [
    "Homography",
    "HomographyStatus",
    "corner_error",
    "estimate_homography",
    "image_corners",
    "project",
    "unknown_homography",
]

DEGREES = 8
"""Of freedom of a homography; a match gives two equations, so that four determine one."""
MINIMUM_MATCHES = 6
"""Two more than determine it: of 400 sets of four true matches with 40 px of noise 57 passed for a
homography, and none of six."""
CONSENSUS = 256
"""MAGSAC++ looks at no more matches, evenly picked; its time grows with them. The refits take all."""
REFITS = 3
"""MAGSAC++ ends with a model from few matches; fitting all inliers more than halves the error (0.86
to 0.34 px in the median over 54 warps of nine photographs), and three rounds let the set of inliers
settle."""
MINIMUM_INLIERS = 8
"""Of many matches four always agree and a few more do by chance; fewer inliers prove nothing."""
MINIMUM_SHARE = 0.04
"""Of the matches; where the right homography was found in real pairs, at least twice as many agree."""
LEAD = 2.75
"""Standard deviations by which the inliers outnumber those of the best homography of the rest, both taken
for counts: n₀ − n₁ over √(n₀ + n₁). Where a pattern repeats, homographies a period apart share the matches
among them. All 32 wrong ones of 240 pairs of bricks, tiles, dots and checkers stayed below, with up to 144
inliers; of the right ones of real pairs none, though in some scenes of depth the second has half as many
as the first."""
MAXIMUM_SECOND = 0.65
"""Of the first's inliers: however many there are, a second homography with as large a part is no chance
(one of the wrong ones had 104 beside 144; in 32 scenes of depth it was 0.55 at most)."""
REFLECTIONS = 1
"""Homographies that mirror are passed over, as water and shiny floors hold many matches of them."""
APART = 3
"""Thresholds from the homography: a match that is closer is not counted for another one."""
MAXIMUM_CORNER_DEVIATION = 0.02
"""Of the image diagonal: above this standard deviation a mapped image corner is a guess."""
MAXIMUM_STRETCH = 32
"""Of any direction at any place, and of its inverse: beyond it an image is flattened, not seen."""

ALIGNED = 150
"""Inliers about which pictures are aligned at most, evenly picked; the time grows with them."""
MINIMUM_ALIGNED = 0.4
"""Part of them that must agree about the refined homography, or it stays what it was."""
ALIGNED_DEVIATION = 0.03
"""Pixels: no patch is trusted more than this."""
ALIGNED_REFITS = 2
OUTLYING = 3.0
"""Times the median error beyond which an aligned match is left out."""


class HomographyStatus(IntEnum):
    """As in HomographyStamped.msg."""

    OK = 0
    NO_REFERENCE = 1
    TOO_FEW_MATCHES = 2
    DEGENERATE = 3


@dataclass(frozen=True)
class Homography:
    """A homography and how well it is supported.

    matrix   (3, 3) float64, maps pixels of the first image to pixels of the second, its last
             entry 1; NaN unless `status` is OK
    inliers  (M,) bool, which matches agree with it; all False unless OK
    rmse     pixels, root mean square of the inliers' reprojection error in the second image; NaN
             unless OK; if `refined`, of those inliers that were, at their refined positions
    status   OK, TOO_FEW_MATCHES or DEGENERATE
    refined  whether the pictures themselves were aligned
    """

    matrix: NDArray[np.float64]
    inliers: NDArray[np.bool_]
    rmse: float
    status: HomographyStatus
    refined: bool = False


def estimate_homography(
    f0: Features,
    f1: Features,
    matches: NDArray[np.int32],
    threshold: float = 3.0,
    images: Pictures | None = None,
) -> Homography:
    """Estimate the homography from `f0` to `f1`, robustly and deterministically.

    matches    (M, 2) integers, rows of `f0` and `f1`
    threshold  pixels, reprojection error up to which a match is an inlier where keypoints are as exact
               as a pixel; it grows with the match's scale, see `match_scales`
    images     those that the features are from, as `Extractor` takes them, or their `levels_of`: the
               pictures are aligned about some of the inliers, where the homography says, and it is
               fitted to what comes out, if that is more exact; None: it is not

    TOO_FEW_MATCHES: fewer than MINIMUM_MATCHES. DEGENERATE: the inliers do not determine a homography
    that a camera could have seen: too few of them, on a line, in one corner (so that the mapped
    image corners are mere extrapolation), the result mirrors or folds the image, or nearly as many
    of the other matches agree about another one, as with a pattern that repeats. Raises ValueError for
    indices out of range, a bad threshold, or pictures of another size than their features.
    """
    matches = np.asarray(matches)
    _check_arguments(f0, f1, matches, threshold)
    if len(matches) < MINIMUM_MATCHES:
        return unknown_homography(HomographyStatus.TOO_FEW_MATCHES, len(matches))
    pairs = Pairs(
        f0.xy[matches[:, 0]].astype(np.float64),
        f1.xy[matches[:, 1]].astype(np.float64),
        f0.scales[matches[:, 0]].astype(np.float64),
        f1.scales[matches[:, 1]].astype(np.float64),
        f0.size,
    )
    matrix = _robust_fit(pairs, threshold)
    if matrix is None or not _keeps_orientation(matrix, f0.size):
        return unknown_homography(HomographyStatus.DEGENERATE, len(matches))
    errors, scales = pairs.errors(matrix), pairs.match_scales(matrix)
    inliers = errors <= threshold * scales
    if inliers.sum() < max(
        min(MINIMUM_INLIERS, len(matches)), MINIMUM_SHARE * len(matches)
    ) or not _keeps_orientation_at(matrix, pairs.points0[inliers]):
        return unknown_homography(HomographyStatus.DEGENERATE, len(matches))
    deviation = corner_deviation(matrix, pairs.some(inliers), scales[inliers])
    if deviation > MAXIMUM_CORNER_DEVIATION * float(np.hypot(*f1.size)) or _ambiguous(
        pairs, errors > APART * threshold * scales, int(inliers.sum()), threshold
    ):
        return unknown_homography(HomographyStatus.DEGENERATE, len(matches))
    found = Homography(matrix, inliers, root_mean_square(errors[inliers]), HomographyStatus.OK)
    if images is None:
        return found
    return _refined(found, deviation, pairs, threshold, *levels_of_both(images, (f0, f1)))


def unknown_homography(status: HomographyStatus, matches: int) -> Homography:
    """What is reported when there is no homography: a NaN matrix and no inliers."""
    return Homography(np.full((3, 3), np.nan), np.zeros(matches, bool), np.nan, status)


def corner_error(estimate: NDArray[np.float64], truth: NDArray[np.float64], size: tuple[int, int]) -> float:
    """Mean distance in pixels of the four image corners under two homographies.

    DeTone et al. 2018, section 7.3.
    """
    corners = image_corners(size)
    return float(np.linalg.norm(project(estimate, corners) - project(truth, corners), axis=1).mean())


def _check_arguments(f0: Features, f1: Features, matches: NDArray[np.int32], threshold: float) -> None:
    if matches.ndim != 2 or matches.shape[1] != 2 or not np.issubdtype(matches.dtype, np.integer):
        raise ValueError(f"matches must be (M, 2) integers, got shape {matches.shape} of {matches.dtype}")
    if len(matches) and (matches.min() < 0 or (matches.max(axis=0) >= (len(f0), len(f1))).any()):
        raise ValueError(f"matches point outside the {len(f0)} and {len(f1)} features")
    number = isinstance(threshold, (int, float, np.number)) and not isinstance(threshold, bool)
    if not (number and np.isfinite(threshold) and threshold > 0):
        raise ValueError(f"threshold must be a positive number of pixels, got {threshold!r}")


def _robust_fit(pairs: Pairs, threshold: float, iterations: int = 5000) -> NDArray[np.float64] | None:
    some = pairs.some(slice(None, None, -(-len(pairs.points0) // CONSENSUS)))
    typical = threshold * float(np.median(np.maximum(some.scales1, 1)))
    found, _ = cv2.findHomography(
        some.points0, some.points1, cv2.USAC_MAGSAC, typical, maxIters=iterations, confidence=0.9999
    )
    matrix = normalised(found)
    settled = np.zeros(len(pairs.points0), bool)
    for _ in range(REFITS):
        if matrix is None:
            return None
        scales = pairs.match_scales(matrix)
        inliers = pairs.errors(matrix) <= threshold * scales
        if 2 * inliers.sum() < DEGREES or (inliers == settled).all():
            return matrix
        settled = inliers
        matrix = towards_least_squares(matrix, pairs.some(inliers), scales[inliers])
    return matrix


def _ambiguous(pairs: Pairs, others: NDArray[np.bool_], inliers: int, threshold: float) -> bool:
    """Whether nearly as many of the `others`, (M,) bool, agree about another homography.

    They are not looked at where all of them would be too few: nearly always from frame to frame.
    """
    rest = pairs.some(others)
    for _ in range(REFLECTIONS + 1):
        if 2 * len(rest.points0) < DEGREES or _leads(inliers, len(rest.points0)):
            return False
        second = _robust_fit(rest, threshold, iterations=1000)
        if second is None:
            return False
        agree = rest.errors(second) <= threshold * rest.match_scales(second)
        if np.linalg.det(second) > 0:
            break
        rest = rest.some(~agree)
    return not _leads(inliers, int(agree.sum()))


def _refined(found: Homography, deviation: float, pairs: Pairs, threshold: float, a: Levels, b: Levels) -> Homography:
    """The homography fitted to where patches about some inliers really are; as it was if that is no better.

    deviation  that of a corner as it was, pixels
    """
    rows = np.flatnonzero(found.inliers)
    rows = rows[:: -(-len(rows) // ALIGNED)]
    needed = max(MINIMUM_INLIERS, MINIMUM_ALIGNED * len(rows))
    rows, aligned, deviations = _aligned(found.matrix, pairs, rows, a, b)
    matrix, agree = found.matrix, np.ones(len(rows), bool)
    for _ in range(ALIGNED_REFITS):
        if agree.sum() < needed:
            return found
        refit = towards_least_squares(matrix, aligned.some(agree), deviations[agree])
        if refit is None:
            return found
        matrix, errors = refit, aligned.errors(refit) / deviations
        agree = errors <= OUTLYING * max(float(np.median(errors)), 1.0)
    rows, aligned, deviations = rows[agree], aligned.some(agree), deviations[agree]
    rmse = root_mean_square(aligned.errors(matrix))
    if (
        len(rows) < needed
        or rmse >= root_mean_square(pairs.some(rows).errors(found.matrix))
        or corner_deviation(matrix, aligned, deviations) >= deviation
        or not _keeps_orientation(matrix, pairs.size)
    ):
        return found
    points1 = pairs.points1.copy()
    points1[rows] = aligned.points1
    inliers = replace(pairs, points1=points1).errors(matrix) <= threshold * pairs.match_scales(matrix)
    return Homography(matrix, inliers, rmse, found.status, refined=True)


def _aligned(
    matrix: NDArray[np.float64], pairs: Pairs, rows: NDArray[np.intp], a: Levels, b: Levels
) -> tuple[NDArray[np.intp], Pairs, NDArray[np.float64]]:
    """Those of `rows` whose patches could be aligned, as they are then, with their deviations in pixels."""
    chosen = pairs.some(rows)
    moved, deviations = align(
        a,
        b,
        chosen.points0.astype(np.float32),
        project(matrix, chosen.points0).astype(np.float32),
        jacobians(matrix, chosen.points0).astype(np.float32),
        chosen.scales1.astype(np.float32),
    )
    good = np.isfinite(deviations)
    aligned = replace(chosen.some(good), points1=moved[good].astype(np.float64))
    return rows[good], aligned, np.maximum(deviations[good].astype(np.float64), ALIGNED_DEVIATION)


def _leads(first: int, second: int) -> bool:
    return second < MAXIMUM_SECOND * first and first - second > LEAD * np.sqrt(first + second)


def _keeps_orientation(matrix: NDArray[np.float64], size: tuple[int, int]) -> bool:
    """Neither mirrored nor folded nor flattened anywhere between the image's corners.

    The Jacobian of x ↦ Hx/w has determinant det(H)/w³: a plane seen from one side has det(H) > 0
    and w > 0. Its singular values are the largest and the smallest stretch.
    """
    return _keeps_orientation_at(matrix, image_corners(size))


def _keeps_orientation_at(matrix: NDArray[np.float64], points: NDArray[np.float64]) -> bool:
    depth = points @ matrix[2, :2] + matrix[2, 2]
    if (depth <= 1e-6).any() or np.linalg.det(matrix) <= 0:
        return False
    return bool(sane(jacobians(matrix, points), MAXIMUM_STRETCH).all())
