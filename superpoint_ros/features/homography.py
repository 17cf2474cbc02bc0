"""Matches to the homography between two images, and whether it can be trusted.

Estimation is OpenCV's USAC with MAGSAC++ (Barath et al., "MAGSAC++, a fast, reliable and accurate robust
estimator", CVPR 2020), then least squares over all inliers.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum

import cv2
import numpy as np
from numpy.typing import NDArray

from superpoint_ros.features.extractor import Features

MINIMUM_MATCHES = 4
"""A homography has 8 degrees of freedom, a match gives two equations."""
REFITS = 3
"""MAGSAC++ ends with a model from few matches; fitting all inliers more than halves the error (0.86 to 0.34 px in
the median over 54 warps of nine photographs), and three rounds let the set of inliers settle."""
MINIMUM_INLIERS = 8
"""Of many matches four always agree and a few more agree by chance; fewer inliers than this prove nothing."""
MAXIMUM_CORNER_DEVIATION = 0.02
"""Of the image diagonal: the largest standard deviation of a mapped image corner that is still a measurement."""
KEYPOINT_DEVIATION = 0.5
"""Pixels: the least assumed error of a match, so that a perfect fit of a few points proves nothing either."""


class HomographyStatus(IntEnum):
    """As in HomographyStamped.msg."""

    OK = 0
    NO_REFERENCE = 1
    TOO_FEW_MATCHES = 2
    DEGENERATE = 3


@dataclass(frozen=True)
class Homography:
    """A homography and how well it is supported.

    matrix   (3, 3) float64, maps pixels of the first image to pixels of the second, matrix[2, 2] = 1;
             NaN unless `status` is OK
    inliers  (M,) bool, which matches agree with it; all False unless OK
    rmse     pixels, root mean square of the inliers' reprojection error in the second image; NaN unless OK
    status   OK, TOO_FEW_MATCHES or DEGENERATE
    """

    matrix: NDArray[np.float64]
    inliers: NDArray[np.bool_]
    rmse: float
    status: HomographyStatus


def estimate_homography(
    f0: Features, f1: Features, matches: NDArray[np.int32], threshold: float = 3.0
) -> Homography:
    """Estimate the homography from `f0` to `f1`, robustly and deterministically.

    matches    (M, 2) integers, rows of `f0` and `f1`
    threshold  pixels, reprojection error up to which a match is an inlier

    TOO_FEW_MATCHES: fewer than 4 matches. DEGENERATE: the inliers do not determine a homography that a camera could
    have seen: too few of them, on a line, in one corner (so that the mapped image corners are mere extrapolation),
    or the result mirrors or folds the image. Raises ValueError for indices out of range or a bad threshold.
    """
    matches = np.asarray(matches)
    _check_arguments(f0, f1, matches, threshold)
    if len(matches) < MINIMUM_MATCHES:
        return unknown_homography(HomographyStatus.TOO_FEW_MATCHES, len(matches))
    points0 = f0.xy[matches[:, 0]].astype(np.float64)
    points1 = f1.xy[matches[:, 1]].astype(np.float64)
    matrix = _robust_fit(points0, points1, threshold)
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
    """Map (N, 2) points by a (3, 3) homography; returns (N, 2) float64, infinite where a point goes to infinity."""
    mapped = np.column_stack([points, np.ones(len(points))]) @ matrix.T
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.asarray(mapped[:, :2] / mapped[:, 2:])


def image_corners(size: tuple[int, int]) -> NDArray[np.float64]:
    """The centres of the four corner pixels of an image of (height, width), clockwise from the top left: (4, 2)."""
    height, width = size
    return np.array([[0, 0], [width - 1, 0], [width - 1, height - 1], [0, height - 1]], np.float64)


def corner_error(
    estimate: NDArray[np.float64], truth: NDArray[np.float64], size: tuple[int, int]
) -> float:
    """Mean distance in pixels of the four image corners under two homographies (DeTone et al. 2018, section 7.3)."""
    corners = image_corners(size)
    return float(np.linalg.norm(project(estimate, corners) - project(truth, corners), axis=1).mean())


def _check_arguments(f0: Features, f1: Features, matches: NDArray[np.int32], threshold: float) -> None:
    if matches.ndim != 2 or matches.shape[1] != 2 or not np.issubdtype(matches.dtype, np.integer):
        raise ValueError(f"matches must be (M, 2) integers, got shape {matches.shape} of {matches.dtype}")
    if len(matches) and (matches.min() < 0 or (matches.max(axis=0) >= (len(f0), len(f1))).any()):
        raise ValueError(f"matches point outside the {len(f0)} and {len(f1)} features")
    if not (np.isfinite(threshold) and threshold > 0):
        raise ValueError(f"threshold must be a positive number of pixels, got {threshold!r}")


def _robust_fit(
    points0: NDArray[np.float64], points1: NDArray[np.float64], threshold: float
) -> NDArray[np.float64] | None:
    matrix, _ = cv2.findHomography(
        points0, points1, cv2.USAC_MAGSAC, threshold, maxIters=5000, confidence=0.9999
    )
    matrix = _normalised(matrix)
    settled = np.zeros(len(points0), bool)
    for _ in range(REFITS):
        if matrix is None:
            return None
        inliers = _errors(matrix, points0, points1) <= threshold
        if inliers.sum() < MINIMUM_MATCHES or (inliers == settled).all():
            return matrix
        settled = inliers
        matrix = _normalised(cv2.findHomography(points0[inliers], points1[inliers], 0)[0])
    return matrix


def _normalised(matrix: NDArray[np.float64] | None) -> NDArray[np.float64] | None:
    if matrix is None or not np.isfinite(matrix).all() or abs(matrix[2, 2]) < 1e-9:
        return None
    return np.asarray(matrix / matrix[2, 2], np.float64)


def _errors(
    matrix: NDArray[np.float64], points0: NDArray[np.float64], points1: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Reprojection error of each match in the second image, pixels."""
    return np.asarray(np.linalg.norm(project(matrix, points0) - points1, axis=1))


def _keeps_orientation(matrix: NDArray[np.float64], size: tuple[int, int]) -> bool:
    """Neither mirrored nor folded nor flattened anywhere between the image's corners.

    The Jacobian of x ↦ Hx/w has determinant det(H)/w³: a plane seen from one side has det(H) > 0 and w > 0.
    """
    return _keeps_orientation_at(matrix, image_corners(size))


def _keeps_orientation_at(matrix: NDArray[np.float64], points: NDArray[np.float64]) -> bool:
    depth = points @ matrix[2, :2] + matrix[2, 2]
    if (depth <= 1e-6).any():
        return False
    areas = np.linalg.det(matrix) / depth**3
    return bool((areas > 1e-3).all() and (areas < 1e3).all())


def _corner_deviation(
    matrix: NDArray[np.float64], points: NDArray[np.float64], size: tuple[int, int], rmse: float
) -> float:
    """The largest standard deviation, in pixels, of a mapped image corner, by linear propagation of match errors.

    With A the derivative of the mapped inliers by the eight parameters, the covariance of the parameters is
    σ² (AᵀA)⁻¹ (Hartley and Zisserman, "Multiple View Geometry", section 5.2), and a corner's follows with its own
    derivative. Points on a line or in a small region leave directions undetermined: infinite or huge.
    """
    normalise = np.diag([2 / size[1], 2 / size[0], 1.0])
    normalise[:2, 2] = -1
    scaled = matrix @ np.linalg.inv(normalise)
    jacobian = _derivative(scaled, project(normalise, points))
    values, vectors = np.linalg.eigh(jacobian.T @ jacobian)
    if values[0] <= values[-1] * 1e-12:
        return np.inf
    corners = _derivative(scaled, project(normalise, image_corners(size))) @ vectors
    variance = (corners**2 / values).sum(axis=1).reshape(4, 2).sum(axis=1)
    return max(rmse, KEYPOINT_DEVIATION) * float(np.sqrt(variance.max()))


def _derivative(matrix: NDArray[np.float64], points: NDArray[np.float64]) -> NDArray[np.float64]:
    """(2N, 8): the derivative of x and y of the mapped points by the first eight entries of the matrix."""
    homogeneous = np.column_stack([points, np.ones(len(points))])
    mapped = homogeneous @ matrix.T
    rows = homogeneous / mapped[:, 2:]
    zero = np.zeros_like(rows)
    x, y = (mapped[:, :2] / mapped[:, 2:]).T
    dx = np.concatenate([rows, zero, -x[:, None] * rows[:, :2]], axis=1)
    dy = np.concatenate([zero, rows, -y[:, None] * rows[:, :2]], axis=1)
    return np.stack([dx, dy], axis=1).reshape(-1, 8)
