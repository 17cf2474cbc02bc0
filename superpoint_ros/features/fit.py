"""The homography with the least error over given matches, and what those matches leave open of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

INLIERS_PER_DOUBT = 20
"""One inlier in so many may be there by chance: what only the most influential ones determine is
not known. Without this, 10 of 360 sets (100 matches in a line, a corner or a patch and up to as
many wrong ones) passed for homographies; with it none, and 502 instead of 503 of 560 true ones."""
KEYPOINT_DEVIATION = 0.5
"""Pixels of the network: the least assumed error of a match; a perfect fit of a few points proves nothing."""


@dataclass(frozen=True)
class Pairs:
    """Matches as points, (M, 2) float64, and the scales at which they were found, (M,) float64.

    size  (height, width) of the first image
    """

    points0: NDArray[np.float64]
    points1: NDArray[np.float64]
    scales0: NDArray[np.float64]
    scales1: NDArray[np.float64]
    size: tuple[int, int]

    def some(self, chosen: Any) -> Pairs:
        """Those of an index."""
        parts = self.points0[chosen], self.points1[chosen], self.scales0[chosen], self.scales1[chosen]
        return Pairs(*parts, self.size)

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


def towards_least_squares(
    matrix: NDArray[np.float64], pairs: Pairs, deviations: NDArray[np.float64]
) -> NDArray[np.float64] | None:
    """One step of Gauss-Newton to the least reprojection error; None where the points leave it open.

    deviations  (M,), of each match; it weighs by their inverse squares

    MAGSAC++ is within a pixel of its end, where a step leaves less than a hundredth of one.
    """
    normalise = _normalisation(pairs.size)
    scaled = normalised(matrix @ np.linalg.inv(normalise))
    if scaled is None:
        return None
    mapped, terms = _derivative(scaled, project(normalise, pairs.points0))
    terms /= deviations
    products = terms @ ((pairs.points1 - mapped) / deviations[:, None])
    slope = np.concatenate([products[:3, 0], products[:3, 1], products[3:5, 0] + products[5:, 1]])
    try:
        step = np.linalg.solve(_gram(terms), slope)
    except np.linalg.LinAlgError:
        return None
    return normalised((scaled + np.append(step, 0).reshape(3, 3)) @ normalise)


def normalised(found: Any) -> NDArray[np.float64] | None:
    """What OpenCV found, None or a matrix, with a last entry of 1; None where that cannot be."""
    if found is None or not np.isfinite(found).all() or abs(found[2, 2]) < 1e-9:
        return None
    return np.asarray(found / found[2, 2], np.float64)


def corner_deviation(matrix: NDArray[np.float64], pairs: Pairs, deviations: NDArray[np.float64]) -> float:
    """The largest standard deviation of a mapped image corner, in pixels, from match errors.

    deviations  (M,), of the matches relative to each other: their errors say how large they are, but
                not below KEYPOINT_DEVIATION of these

    With A the derivative of the mapped inliers by the eight parameters, the covariance of the
    parameters is σ² (AᵀA)⁻¹ (Hartley and Zisserman, "Multiple View Geometry", section 5.2), and a
    corner's follows with its own derivative; each match counts by its scale. Points on a line or in a
    small region leave directions undetermined: infinite or huge. A match's influence is its part of
    the trace of A (AᵀA)⁻¹ Aᵀ.
    """
    normalise = _normalisation(pairs.size)
    scaled = matrix @ np.linalg.inv(normalise)
    _, terms = _derivative(scaled, project(normalise, pairs.points0))
    terms /= deviations
    gram = _gram(terms)
    basis = _inverse_root(gram)
    if basis is None:
        return np.inf
    doubted = _influence(terms, basis).argsort(kind="stable")
    doubted = doubted[len(doubted) - len(doubted) // INLIERS_PER_DOUBT :]
    basis = _inverse_root(gram - _gram(terms[:, doubted]))
    if basis is None:
        return np.inf
    _, corners = _derivative(scaled, project(normalise, image_corners(pairs.size)))
    deviation = max(root_mean_square(pairs.errors(matrix) / deviations), KEYPOINT_DEVIATION)
    return deviation * float(np.sqrt(_influence(corners, basis).max()))


def jacobians(matrix: NDArray[np.float64], points: NDArray[np.float64]) -> NDArray[np.float64]:
    """How a homography warps the surroundings of (N, 2) points: (N, 2, 2)."""
    depth = points @ matrix[2, :2] + matrix[2, 2]
    mapped = project(matrix, points)
    return np.asarray((matrix[:2, :2] - mapped[:, :, None] * matrix[2, :2]) / depth[:, None, None])


def root_mean_square(errors: NDArray[np.float64]) -> float:
    """NaN of none."""
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
