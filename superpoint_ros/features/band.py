"""Mutual nearest neighbours of a stereo pair: only what lies along the epipolar line is compared."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]

ROWS = 128
"""Keypoints that are compared at a time with all that lie as high as any of them: of 1024 a third of the arithmetic."""
NOTHING = -2.0
"""Similarity to what lies outside the band."""


@dataclass(frozen=True)
class Side:
    """Keypoints of one rectified camera; lengths in any unit, the same for both cameras.

    descriptors  (N, D) float32, unit length
    places       (N, 2) float64, x and y; NaN where a keypoint cannot be rectified: it matches nothing
    slack        (N,) float64, how far from its row a keypoint's partner may lie
    """

    descriptors: Floats
    places: NDArray[np.float64]
    slack: NDArray[np.float64]

    def rows(self, chosen: NDArray[np.intp]) -> Side:
        """Those of an index."""
        return Side(self.descriptors[chosen], self.places[chosen], self.slack[chosen])


def match_in_band(
    left: Side, right: Side, max_disparity: float, ratio: float | None = None, min_similarity: float | None = None
) -> NDArray[np.int32]:
    """Match keypoints that are each other's nearest among those that may be the same point.

    May be: rows at most the greater of the two slacks apart, x of the left one beyond that of the right one, by at
    most `max_disparity`. `ratio` and `min_similarity` as in `matching.match`, the second nearest within the band.

    Returns (M, 2) int32, rows of left and right, ascending in the first; every row occurs at most once.
    """
    order0, order1 = (np.argsort(each.places[:, 1], kind="stable") for each in (left, right))
    order0, order1 = (
        order[np.isfinite(each.places[order]).all(axis=1)] for order, each in ((order0, left), (order1, right))
    )
    if not len(order0) or not len(order1):
        return np.empty((0, 2), np.int32)
    a, b = left.rows(order0), right.rows(order1)
    forward, best, second = np.zeros(len(order0), np.intp), np.empty(len(order0)), np.empty(len(order0))
    backward, highest = np.full(len(order1), -1), np.full(len(order1), NOTHING)
    for begin in range(0, len(order0), ROWS):
        some = slice(begin, min(begin + ROWS, len(order0)))
        window = _window(a, b, some)
        similarity = np.where(
            _allowed(a, b, some, window, max_disparity), a.descriptors[some] @ b.descriptors[window].T, NOTHING
        )
        if not similarity.size:
            best[some] = second[some] = NOTHING
            continue
        here = np.arange(len(similarity))
        above = similarity.argmax(axis=0)
        higher = similarity[above, np.arange(similarity.shape[1])] > highest[window]
        backward[window][higher] = above[higher] + begin
        highest[window] = np.maximum(highest[window], similarity.max(axis=0))
        nearest = similarity.argmax(axis=1)
        forward[some], best[some] = nearest + window.start, similarity[here, nearest]
        similarity[here, nearest] = NOTHING
        second[some] = similarity.max(axis=1)
    keep = (best > NOTHING) & (backward[forward] == np.arange(len(order0)))
    if min_similarity is not None:
        keep &= best >= min_similarity
    if ratio is not None:
        keep &= 1 - best < ratio**2 * (1 - second)  # squared distances of unit vectors are 2 − 2 cos
    found = np.stack([order0[keep], order1[forward[keep]]], axis=1).astype(np.int32)
    return np.asarray(found[found[:, 0].argsort()])


def _window(a: Side, b: Side, some: slice) -> slice:
    """Which of `b`, sorted by row, may lie in the band of any of some of `a`."""
    rows = a.places[some, 1]
    slack = max(a.slack[some].max(), b.slack.max())
    return slice(
        int(np.searchsorted(b.places[:, 1], rows[0] - slack, "left")),
        int(np.searchsorted(b.places[:, 1], rows[-1] + slack, "right")),
    )


def _allowed(a: Side, b: Side, some: slice, window: slice, max_disparity: float) -> NDArray[Any]:
    (x0, y0), (x1, y1) = a.places[some].T, b.places[window].T
    disparity = x0[:, None] - x1
    near = np.abs(y0[:, None] - y1) <= np.maximum(a.slack[some, None], b.slack[window])
    return np.asarray(near & (disparity > 0) & (disparity <= max_disparity))
