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

MINIMUM_MATCHES = 4
"""A homography has 8 degrees of freedom, a match gives two equations."""
CONSENSUS = 256
"""MAGSAC++ looks at no more matches, evenly picked; its time grows with them. The refits take all."""
REFITS = 3
"""MAGSAC++ ends with a model from few matches; fitting all inliers more than halves the error (0.86
to 0.34 px in the median over 54 warps of nine photographs), and three rounds let the set of inliers
settle."""
MINIMUM_INLIERS = 8
"""Of many matches four always agree and a few more do by chance; fewer inliers prove nothing."""
MAXIMUM_CORNER_DEVIATION = 0.02
"""Of the image diagonal: above this standard deviation a mapped image corner is a guess."""
MAXIMUM_STRETCH = 32
"""Of any direction at any place, and of its inverse: beyond it an image is flattened, not seen."""
INLIERS_PER_DOUBT = 20
"""One inlier in so many may be there by chance: what only the most influential ones determine is
not known. Without this, 10 of 360 sets (100 matches in a line, a corner or a patch and up to as
many wrong ones) passed for homographies; with it none, and 502 instead of 503 of 560 true ones."""
KEYPOINT_DEVIATION = 0.5
"""Pixels: the least assumed error of a match; a perfect fit of a few points proves nothing."""


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
    threshold  pixels, reprojection error up to which a match is an inlier

    TOO_FEW_MATCHES: fewer than 4 matches. DEGENERATE: the inliers do not determine a homography
    that a camera could have seen: too few of them, on a line, in one corner (so that the mapped
    image corners are mere extrapolation), or the result mirrors or folds the image. Raises
    ValueError for indices out of range or a bad threshold.
    """
    matches = np.asarray(matches)
    _check_arguments(f0, f1, matches, threshold)
    if len(matches) < MINIMUM_MATCHES:
        return unknown_homography(HomographyStatus.TOO_FEW_MATCHES, len(matches))
    points0 = f0.xy[matches[:, 0]].astype(np.float64)
    points1 = f1.xy[matches[:, 1]].astype(np.float64)
    matrix = _robust_fit(points0, points1, f0.size, threshold)
    if matrix is None or not _keeps_orientation(matrix, f0.size):
        return unknown_homography(HomographyStatus.DEGENERATE, len(matches))
    errors = _errors(matrix, points0, points1)
    inliers = errors <= threshold
    rmse = float(np.sqrt(np.mean(errors[inliers] ** 2))) if inliers.any() else np.nan
    if (
        inliers.sum() < min(MINIMUM_INLIERS, len(matches))
        or not _keeps_orientation_at(matrix, points0[inliers])
        or _corner_deviation(matrix, points0[inliers], f0.size, rmse)
        > MAXIMUM_CORNER_DEVIATION * float(np.hypot(*f1.size))
    ):
        return unknown_homography(HomographyStatus.DEGENERATE, len(matches))
    return Homography(matrix, inliers, rmse, HomographyStatus.OK)


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


def _check_arguments(f0: Features, f1: Features, matches: NDArray[np.int32], threshold: float) -> None:
    if matches.ndim != 2 or matches.shape[1] != 2 or not np.issubdtype(matches.dtype, np.integer):
        raise ValueError(f"matches must be (M, 2) integers, got shape {matches.shape} of {matches.dtype}")
    if len(matches) and (matches.min() < 0 or (matches.max(axis=0) >= (len(f0), len(f1))).any()):
        raise ValueError(f"matches point outside the {len(f0)} and {len(f1)} features")
    number = isinstance(threshold, (int, float, np.number)) and not isinstance(threshold, bool)
    if not (number and np.isfinite(threshold) and threshold > 0):
        raise ValueError(f"threshold must be a positive number of pixels, got {threshold!r}")


def _robust_fit(
    points0: NDArray[np.float64], points1: NDArray[np.float64], size: tuple[int, int], threshold: float
) -> NDArray[np.float64] | None:
    some = slice(None, None, -(-len(points0) // CONSENSUS))
    found, _ = cv2.findHomography(
        points0[some], points1[some], cv2.USAC_MAGSAC, threshold, maxIters=5000, confidence=0.9999
    )
    matrix = _normalised(found)
    settled = np.zeros(len(points0), bool)
    for _ in range(REFITS):
        if matrix is None:
            return None
        inliers = _errors(matrix, points0, points1) <= threshold
        if inliers.sum() < MINIMUM_MATCHES or (inliers == settled).all():
            return matrix
        settled = inliers
        matrix = _towards_least_squares(matrix, points0[inliers], points1[inliers], size)
    return matrix


def _towards_least_squares(
    matrix: NDArray[np.float64], points0: NDArray[np.float64], points1: NDArray[np.float64], size: tuple[int, int]
) -> NDArray[np.float64] | None:
    """One step of Gauss-Newton to the least reprojection error; None where the points leave it open.

    MAGSAC++ is within a pixel of its end, where a step leaves less than a hundredth of one.
    """
    normalise = _normalisation(size)
    scaled = _normalised(matrix @ np.linalg.inv(normalise))
    if scaled is None:
        return None
    mapped, terms = _derivative(scaled, project(normalise, points0))
    products = terms @ (points1 - mapped)
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


def _errors(
    matrix: NDArray[np.float64], points0: NDArray[np.float64], points1: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Reprojection error of each match in the second image, pixels."""
    apart = project(matrix, points0) - points1
    return np.asarray(np.hypot(apart[:, 0], apart[:, 1]))


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
    matrix: NDArray[np.float64], points: NDArray[np.float64], size: tuple[int, int], rmse: float
) -> float:
    """The largest standard deviation of a mapped image corner, in pixels, from match errors.

    With A the derivative of the mapped inliers by the eight parameters, the covariance of the
    parameters is σ² (AᵀA)⁻¹ (Hartley and Zisserman, "Multiple View Geometry", section 5.2), and a
    corner's follows with its own derivative. Points on a line or in a small region leave directions
    undetermined: infinite or huge. A match's influence is its part of the trace of A (AᵀA)⁻¹ Aᵀ.
    """
    normalise = _normalisation(size)
    scaled = matrix @ np.linalg.inv(normalise)
    _, terms = _derivative(scaled, project(normalise, points))
    gram = _gram(terms)
    basis = _inverse_root(gram)
    if basis is None:
        return np.inf
    doubted = _influence(terms, basis).argsort(kind="stable")[len(points) - len(points) // INLIERS_PER_DOUBT :]
    basis = _inverse_root(gram - _gram(terms[:, doubted]))
    if basis is None:
        return np.inf
    _, corners = _derivative(scaled, project(normalise, image_corners(size)))
    return max(rmse, KEYPOINT_DEVIATION) * float(np.sqrt(_influence(corners, basis).max()))


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
