"""How the matches around each match move: what a match should do, and how its surroundings are warped."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]

NEIGHBOURS = 12
TRUST = (16.0, 8.0, 4.0)
"""Pixels: what a neighbour may be off before it counts half, round by round."""
TOGETHER = 0.04
"""As if so large a part of the neighbours more did what all matches do, for where the others lie in a row."""
MAXIMUM_STRETCH = 5.0
"""Of anything, in any direction: beyond it nothing is compared."""


@dataclass(frozen=True)
class LocalMotion:
    """What the nearest matches of each match say of it, without the match itself.

    affinities  (M, 2, 2) float32, how the surroundings are warped
    predicted   (M, 2) float32, where the match should be in the second picture
    spread      (M,) float32, pixels by which its neighbours are off such predictions
    """

    affinities: Floats
    predicted: Floats
    spread: Floats


def local_motion(points0: Floats, points1: Floats) -> LocalMotion:
    """The motion of the NEIGHBOURS nearest matches of each, an affinity.

    points0, points1  (M, 2) float32, M at least 3

    Robust: the neighbours are weighted by how well they fit, first with all matches, then among
    themselves.
    """
    points0, points1 = (np.ascontiguousarray(points, np.float32) for points in (points0, points1))
    overall = _overall(points0, points1)
    # Rows of (k, M) arrays, neighbour by neighbour: numpy is slow along short axes.
    near = _nearest(points0, min(NEIGHBOURS + 1, len(points0)))
    (there_x, there_y), (here_x, here_y) = points0.T[:, near], points1.T[:, near]
    (a, b), (c, d) = overall[:, :2]
    left_x = here_x - a * there_x - b * there_y - overall[0, 2]
    left_y = here_y - c * there_x - d * there_y - overall[1, 2]
    others = (near != np.arange(len(points0))).astype(np.float32)
    spread_x, spread_y = (part - part.mean(axis=0) for part in (there_x, there_y))
    prior = TOGETHER * (spread_x**2 + spread_y**2).mean(axis=0) + np.float32(1e-3)
    for trust in TRUST:
        left = left_x**2 + left_y**2
        weights = others / (1 + left / np.float32(trust**2))
        weights /= weights.sum(axis=0)
        middle = [(weights * part).sum(axis=0) for part in (there_x, there_y, here_x, here_y)]
        from_x, from_y, to_x, to_y = (
            part - mean for part, mean in zip((there_x, there_y, here_x, here_y), middle, strict=True)
        )
        weighted_x, weighted_y = weights * from_x, weights * from_y
        xx, yy = (weighted_x * from_x).sum(axis=0) + prior, (weighted_y * from_y).sum(axis=0) + prior
        xy = (weighted_x * from_y).sum(axis=0)
        rows = []
        for to, along, across in ((to_x, a, b), (to_y, c, d)):
            x = (weighted_x * to).sum(axis=0) + prior * along
            y = (weighted_y * to).sum(axis=0) + prior * across
            rows.append(((x * yy - y * xy) / (xx * yy - xy * xy), (y * xx - x * xy) / (xx * yy - xy * xy)))
        (ax, bx), (cx, dx) = rows
        left_x = to_x - ax * from_x - bx * from_y
        left_y = to_y - cx * from_x - dx * from_y
    from_middle = points0 - np.stack(middle[:2], axis=1)
    affinities = np.stack([ax, bx, cx, dx], axis=1).reshape(-1, 2, 2)
    predicted = np.einsum("mij,mj->mi", affinities, from_middle) + np.stack(middle[2:], axis=1)
    spread = np.sqrt((weights * (left_x**2 + left_y**2)).sum(axis=0))
    affinities = np.where(sane(affinities)[:, None, None], affinities, overall[:, :2])
    return LocalMotion(affinities, predicted.astype(np.float32), spread)


def carried(motion: LocalMotion, points0: Floats, points1: Floats, others: Floats) -> Floats:
    """Where (N, 2) other points of the first picture go if each moves as the match next to it does.

    points0, points1  those that the motion is of
    """
    index = cv2.flann_Index(np.ascontiguousarray(points0), {"algorithm": 4})  # type: ignore[attr-defined]
    near = index.knnSearch(np.ascontiguousarray(others), 1, params={})[0][:, 0]
    apart = np.einsum("nij,nj->ni", motion.affinities[near], others - points0[near])
    return np.asarray(points1[near] + apart, np.float32)


def sane(affinities: NDArray[np.floating], stretch: float = MAXIMUM_STRETCH) -> NDArray[np.bool_]:
    """Which of (M, 2, 2) neither mirror nor stretch or shrink any direction by more than `stretch`.

    The singular values of a 2×2 matrix: their squares' sum is the entries', their product the determinant.
    """
    area = determinants(affinities)
    squares = np.square(affinities).sum(axis=(1, 2))
    largest = np.sqrt((squares + np.sqrt(np.maximum(squares**2 - 4 * area**2, 0))) / 2)
    return np.asarray((area > 0) & (largest < stretch) & (area > largest / stretch))


def determinants(matrices: NDArray[np.floating]) -> NDArray[Any]:
    """Of (M, 2, 2)."""
    return np.asarray(matrices[:, 0, 0] * matrices[:, 1, 1] - matrices[:, 0, 1] * matrices[:, 1, 0])


def inverses(matrices: Floats) -> Floats:
    """Of (M, 2, 2); nothing useful where there is none."""
    area = determinants(matrices)
    area = np.where(np.abs(area) > 1e-12, area, 1e-12)
    turned = np.empty_like(matrices)
    turned[:, 0, 0], turned[:, 1, 1] = matrices[:, 1, 1], matrices[:, 0, 0]
    turned[:, 0, 1], turned[:, 1, 0] = -matrices[:, 0, 1], -matrices[:, 1, 0]
    return np.asarray(turned / area[:, None, None], np.float32)


def _overall(points0: Floats, points1: Floats) -> Floats:
    """The affinity (2, 3) of all matches, coarsely; the identity where they have none in common."""
    found, _ = cv2.estimateAffine2D(points0, points1, method=cv2.RANSAC, ransacReprojThreshold=20.0, maxIters=200)
    overall = np.eye(2, 3, dtype=np.float32) if found is None else np.asarray(found, np.float32)
    if found is None or not sane(overall[None, :, :2])[0]:
        overall = np.eye(2, 3, dtype=np.float32)
        overall[:, 2] = np.median(points1 - points0, axis=0)
    return overall


def _nearest(points: Floats, k: int) -> NDArray[np.int32]:
    """The k nearest of (M, 2) points to each, itself included: (k, M)."""
    index = cv2.flann_Index(points, {"algorithm": 4})  # type: ignore[attr-defined]  # a KD-tree, exact
    return np.ascontiguousarray(index.knnSearch(points, k, params={})[0].T)
