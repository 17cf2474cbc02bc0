"""Matches to the homography between two images, and whether it can be trusted.

Estimation is OpenCV's USAC with MAGSAC++ (Barath et al., "MAGSAC++, a fast, reliable and accurate
robust estimator", CVPR 2020), then least squares over all inliers.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from superpoint_ros.features.extractor import Features

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
INLIERS_PER_DOUBT = 20
"""One inlier in so many may be there by chance: what only the most influential ones determine is
not known. Without this, 10 of 360 sets (100 matches in a line, a corner or a patch and up to as
many wrong ones) passed for homographies; with it none, and 502 instead of 503 of 560 true ones."""
KEYPOINT_DEVIATION = 0.5
"""Pixels of the network: the least assumed error of a match; a perfect fit of a few points proves nothing."""


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
             unless OK
    status   OK, TOO_FEW_MATCHES or DEGENERATE
    """

    matrix: NDArray[np.float64]
    inliers: NDArray[np.bool_]
    rmse: float
    status: HomographyStatus


def estimate_homography(f0: Features, f1: Features, matches: NDArray[np.int32], threshold: float = 3.0) -> Homography:
    """Estimate the homography from `f0` to `f1`, robustly and deterministically.

    matches    (M, 2) integers, rows of `f0` and `f1`
    threshold  pixels, reprojection error up to which a match is an inlier where keypoints are as exact
               as a pixel; it grows with the match's scale, see `match_scales`

    TOO_FEW_MATCHES: fewer than MINIMUM_MATCHES. DEGENERATE: the inliers do not determine a homography
    that a camera could have seen: too few of them, on a line, in one corner (so that the mapped
    image corners are mere extrapolation), the result mirrors or folds the image, or nearly as many
    of the other matches agree about another one, as with a pattern that repeats. Raises ValueError for
    indices out of range or a bad threshold.
    """
    matches = np.asarray(matches)
    _check_arguments(f0, f1, matches, threshold)
    if len(matches) < MINIMUM_MATCHES:
        return unknown_homography(HomographyStatus.TOO_FEW_MATCHES, len(matches))
    pairs = _Pairs(
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
    if (
        inliers.sum() < max(min(MINIMUM_INLIERS, len(matches)), MINIMUM_SHARE * len(matches))
        or not _keeps_orientation_at(matrix, pairs.points0[inliers])
        or _corner_deviation(matrix, pairs.points0[inliers], errors[inliers], scales[inliers], f0.size)
        > MAXIMUM_CORNER_DEVIATION * float(np.hypot(*f1.size))
        or _ambiguous(pairs, errors > APART * threshold * scales, int(inliers.sum()), threshold)
    ):
        return unknown_homography(HomographyStatus.DEGENERATE, len(matches))
    return Homography(matrix, inliers, _root_mean_square(errors[inliers]), HomographyStatus.OK)


def unknown_homography(status: HomographyStatus, matches: int) -> Homography:
    """What is reported when there is no homography: a NaN matrix and no inliers."""
    return Homography(np.full((3, 3), np.nan), np.zeros(matches, bool), np.nan, status)


def project(matrix: NDArray[np.float64], points: NDArray[np.floating]) -> NDArray[np.float64]:
    """Map (N, 2) points by a (3, 3) homography.

    Returns (N, 2) float64, infinite where a point goes to infinity.
    """
    mapped = points @ matrix[:, :2].T + matrix[:, 2]
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.asarray(mapped[:, :2] / mapped[:, 2:])


def image_corners(size: tuple[int, int]) -> NDArray[np.float64]:
    """The centres of an image's corner pixels, (4, 2) float64, clockwise from the top left."""
    height, width = size
    return np.array([[0, 0], [width - 1, 0], [width - 1, height - 1], [0, height - 1]], np.float64)


def corner_error(estimate: NDArray[np.float64], truth: NDArray[np.float64], size: tuple[int, int]) -> float:
    """Mean distance in pixels of the four image corners under two homographies.

    DeTone et al. 2018, section 7.3.
    """
    corners = image_corners(size)
    return float(np.linalg.norm(project(estimate, corners) - project(truth, corners), axis=1).mean())


@dataclass(frozen=True)
class _Pairs:
    """Matches as points, (M, 2) float64, and the scales at which they were found, (M,) float64.

    size  (height, width) of the first image
    """

    points0: NDArray[np.float64]
    points1: NDArray[np.float64]
    scales0: NDArray[np.float64]
    scales1: NDArray[np.float64]
    size: tuple[int, int]

    def some(self, chosen: Any) -> _Pairs:
        """Those of an index."""
        parts = self.points0[chosen], self.points1[chosen], self.scales0[chosen], self.scales1[chosen]
        return _Pairs(*parts, self.size)

    def errors(self, matrix: NDArray[np.float64]) -> NDArray[np.float64]:
        """Reprojection error of each match in the second image, pixels."""
        apart = project(matrix, self.points0) - self.points1
        return np.asarray(np.hypot(apart[:, 0], apart[:, 1]))

    def match_scales(self, matrix: NDArray[np.float64]) -> NDArray[np.float64]:
        """How many times as inexact each match is as one of keypoints of scale 1, (M,), at least 1.

        Both keypoints are as exact as a pixel of the network where they were found; the first one's
        error is magnified with the image, its square by the Jacobian's determinant, det(H)/w³.
        """
        depth = self.points0 @ matrix[2, :2] + matrix[2, 2]
        area = np.abs(np.linalg.det(matrix)) / np.maximum(np.abs(depth), 1e-6) ** 3
        squares = (self.scales1**2 + area * self.scales0**2) / (1 + area)
        return np.asarray(np.sqrt(np.maximum(squares, 1)))


def _check_arguments(f0: Features, f1: Features, matches: NDArray[np.int32], threshold: float) -> None:
    if matches.ndim != 2 or matches.shape[1] != 2 or not np.issubdtype(matches.dtype, np.integer):
        raise ValueError(f"matches must be (M, 2) integers, got shape {matches.shape} of {matches.dtype}")
    if len(matches) and (matches.min() < 0 or (matches.max(axis=0) >= (len(f0), len(f1))).any()):
        raise ValueError(f"matches point outside the {len(f0)} and {len(f1)} features")
    number = isinstance(threshold, (int, float, np.number)) and not isinstance(threshold, bool)
    if not (number and np.isfinite(threshold) and threshold > 0):
        raise ValueError(f"threshold must be a positive number of pixels, got {threshold!r}")


def _robust_fit(pairs: _Pairs, threshold: float, iterations: int = 5000) -> NDArray[np.float64] | None:
    some = pairs.some(slice(None, None, -(-len(pairs.points0) // CONSENSUS)))
    typical = threshold * float(np.median(np.maximum(some.scales1, 1)))
    found, _ = cv2.findHomography(
        some.points0, some.points1, cv2.USAC_MAGSAC, typical, maxIters=iterations, confidence=0.9999
    )
    matrix = _normalised(found)
    settled = np.zeros(len(pairs.points0), bool)
    for _ in range(REFITS):
        if matrix is None:
            return None
        scales = pairs.match_scales(matrix)
        inliers = pairs.errors(matrix) <= threshold * scales
        if 2 * inliers.sum() < DEGREES or (inliers == settled).all():
            return matrix
        settled = inliers
        chosen = pairs.some(inliers)
        matrix = _towards_least_squares(matrix, chosen.points0, chosen.points1, 1 / scales[inliers], pairs.size)
    return matrix


def _ambiguous(pairs: _Pairs, others: NDArray[np.bool_], inliers: int, threshold: float) -> bool:
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


def _leads(first: int, second: int) -> bool:
    return second < MAXIMUM_SECOND * first and first - second > LEAD * np.sqrt(first + second)


def _towards_least_squares(
    matrix: NDArray[np.float64],
    points0: NDArray[np.float64],
    points1: NDArray[np.float64],
    weights: NDArray[np.float64],
    size: tuple[int, int],
) -> NDArray[np.float64] | None:
    """One step of Gauss-Newton to the least weighted reprojection error; None where the points leave it open.

    MAGSAC++ is within a pixel of its end, where a step leaves less than a hundredth of one.
    """
    normalise = _normalisation(size)
    scaled = _normalised(matrix @ np.linalg.inv(normalise))
    if scaled is None:
        return None
    mapped, terms = _derivative(scaled, project(normalise, points0))
    terms *= weights
    products = terms @ ((points1 - mapped) * weights[:, None])
    slope = np.concatenate([products[:3, 0], products[:3, 1], products[3:5, 0] + products[5:, 1]])
    try:
        step = np.linalg.solve(_gram(terms), slope)
    except np.linalg.LinAlgError:
        return None
    return _normalised((scaled + np.append(step, 0).reshape(3, 3)) @ normalise)


def _normalised(found: Any) -> NDArray[np.float64] | None:
    """What OpenCV found, None or a matrix, with a last entry of 1; None where that cannot be."""
    if found is None or not np.isfinite(found).all() or abs(found[2, 2]) < 1e-9:
        return None
    return np.asarray(found / found[2, 2], np.float64)


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
    x, y = project(matrix, points).T
    xx, xy = (matrix[0, 0] - x * matrix[2, 0]) / depth, (matrix[0, 1] - x * matrix[2, 1]) / depth
    yx, yy = (matrix[1, 0] - y * matrix[2, 0]) / depth, (matrix[1, 1] - y * matrix[2, 1]) / depth
    # the singular values of a 2×2 matrix: their squares' sum is the entries', their product the determinant
    squares = xx * xx + xy * xy + yx * yx + yy * yy
    area = np.abs(xx * yy - xy * yx)
    largest = np.sqrt((squares + np.sqrt(np.maximum(squares**2 - 4 * area**2, 0))) / 2)
    return bool((largest < MAXIMUM_STRETCH).all() and (area > largest / MAXIMUM_STRETCH).all())


def _corner_deviation(
    matrix: NDArray[np.float64],
    points: NDArray[np.float64],
    errors: NDArray[np.float64],
    scales: NDArray[np.float64],
    size: tuple[int, int],
) -> float:
    """The largest standard deviation of a mapped image corner, in pixels, from match errors.

    With A the derivative of the mapped inliers by the eight parameters, the covariance of the
    parameters is σ² (AᵀA)⁻¹ (Hartley and Zisserman, "Multiple View Geometry", section 5.2), and a
    corner's follows with its own derivative; each match counts by its scale. Points on a line or in a
    small region leave directions undetermined: infinite or huge. A match's influence is its part of
    the trace of A (AᵀA)⁻¹ Aᵀ.
    """
    normalise = _normalisation(size)
    scaled = matrix @ np.linalg.inv(normalise)
    _, terms = _derivative(scaled, project(normalise, points))
    terms /= scales
    gram = _gram(terms)
    basis = _inverse_root(gram)
    if basis is None:
        return np.inf
    doubted = _influence(terms, basis).argsort(kind="stable")[len(points) - len(points) // INLIERS_PER_DOUBT :]
    basis = _inverse_root(gram - _gram(terms[:, doubted]))
    if basis is None:
        return np.inf
    _, corners = _derivative(scaled, project(normalise, image_corners(size)))
    deviation = max(_root_mean_square(errors / scales), KEYPOINT_DEVIATION)
    return deviation * float(np.sqrt(_influence(corners, basis).max()))


def _root_mean_square(errors: NDArray[np.float64]) -> float:
    return float(np.sqrt(np.mean(errors**2))) if len(errors) else np.nan


def _inverse_root(gram: NDArray[np.float64]) -> NDArray[np.float64] | None:
    """B with B Bᵀ = G⁻¹; None where G is singular."""
    values, vectors = np.linalg.eigh(gram)
    return None if values[0] <= values[-1] * 1e-12 else np.asarray(vectors / np.sqrt(values))


def _normalisation(size: tuple[int, int]) -> NDArray[np.float64]:
    """Maps an image of `size` to -1 … 1, where equations are well conditioned."""
    return np.array([[2 / size[1], 0, -1], [0, 2 / size[0], -1], [0, 0, 1]])


def _derivative(
    matrix: NDArray[np.float64], points: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """The mapped points (N, 2), and the terms (7, N) of their derivatives by the matrix's first eight entries.

    With terms (a, b, c) of heights 3, 2, 2 the derivative of x is (a, 0, b) and that of y is (0, a, c).
    """
    mapped = matrix[:, :2] @ points.T + matrix[:, 2:]
    terms = np.empty((7, len(points)))
    np.divide(1.0, mapped[2], out=terms[2])
    np.multiply(points.T, terms[2], out=terms[:2])
    places = mapped[:2] * terms[2]
    np.multiply(terms[:2], -places[0], out=terms[3:5])
    np.multiply(terms[:2], -places[1], out=terms[5:])
    return places.T, terms


def _gram(terms: NDArray[np.float64]) -> NDArray[np.float64]:
    """AᵀA, (8, 8), of a derivative in `terms`."""
    products = terms @ terms.T
    gram = np.zeros((8, 8))
    gram[:3, :3] = gram[3:6, 3:6] = products[:3, :3]
    gram[:3, 6:], gram[3:6, 6:] = products[:3, 3:5], products[:3, 5:]
    gram[6:, :6] = gram[:6, 6:].T
    gram[6:, 6:] = products[3:5, 3:5] + products[5:, 5:]
    return gram


def _influence(terms: NDArray[np.float64], basis: NDArray[np.float64]) -> NDArray[np.float64]:
    """Squared length (N,) of each point's derivatives, x and y together, in a basis (8, 8) of the parameters."""
    x = basis[:3].T @ terms[:3] + basis[6:].T @ terms[3:5]
    y = basis[3:6].T @ terms[:3] + basis[6:].T @ terms[5:]
    return np.asarray((x * x + y * y).sum(axis=0))
