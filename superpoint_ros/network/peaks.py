"""From what a network answers to keypoints and descriptors on the CPU: one picture, in numpy and OpenCV.

The same rules as the tensor versions in `dense_peaks` and `descriptors`, which a GPU may run. Only pixels
that may be among the strongest keypoints are ever sorted or compared one by one; and nothing here
starts threads: for a millisecond of work torch's would spin for ten.
"""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from superpoint_ros.network.superpoint import CELL

Map = NDArray[np.float32]

TOGETHER = 64
"""Keypoints whose descriptors are sampled at a time: what is gathered for them stays in a core's cache."""

FLAT_RADIUS = CELL // 2
"""Of the neighbourhood that must not be of one single value for a pixel to be a keypoint."""


def heatmap_of(logits: Map) -> Map:
    """`heatmap.heatmap_from_logits` of one picture: (65, Hc, Wc) to (8·Hc, 8·Wc) float32."""
    exponential = np.exp(logits - logits.max(axis=0))
    probability = exponential[:-1] / exponential.sum(axis=0)
    _, rows, columns = probability.shape
    pixels = probability.reshape(CELL, CELL, rows, columns).transpose(2, 0, 3, 1)
    return np.ascontiguousarray(pixels).reshape(rows * CELL, columns * CELL)


def cells_of(dense: Map) -> Map:
    """(D, Hc, Wc) to (Hc, Wc, D): a cell's descriptor in one piece, as `sample` reads it."""
    channels, rows, columns = dense.shape
    return np.asarray(cv2.transpose(dense.reshape(channels, -1)), np.float32).reshape(rows, columns, channels)


def strongest_peaks(
    heatmap: Map, threshold: float, radius: int, border: int, limit: int
) -> tuple[NDArray[np.int64], Map]:
    """What `heatmap.detect` keeps of one picture: (N, 2) pixels x and y, (N,) scores descending.

    heatmap  (H, W) float32
    border   pixels along the edge in which nothing is kept
    limit    the most keypoints
    """
    heatmap = np.ascontiguousarray(heatmap)
    highest = np.flatnonzero((heatmap == cv2.dilate(heatmap, _window(radius))) & (heatmap > threshold))
    strengths = heatmap.ravel()[highest[_inside(highest, heatmap.shape, border)]]
    found = highest[:0]
    # Those that are the highest of their windows nearly always survive, and what is weaker than `limit` survivors is
    # none of the result, nor does it suppress any.
    if len(strengths) >= limit:
        least = np.partition(strengths, -limit)[-limit]
        found = _survivors(heatmap, np.flatnonzero(heatmap.ravel() >= least), highest, radius)
        found = found[_inside(found, heatmap.shape, border)]
    if len(found) < limit:
        found = _survivors(heatmap, np.flatnonzero(heatmap.ravel() > threshold), highest, radius)
        found = found[_inside(found, heatmap.shape, border)]
    found = found[:limit]
    y, x = np.divmod(found, heatmap.shape[1])
    return np.stack([x, y], axis=1), heatmap.ravel()[found]


def _survivors(
    heatmap: Map, candidates: NDArray[np.int64], highest: NDArray[np.int64], radius: int
) -> NDArray[np.int64]:
    """Of some candidates, all pixels down to a score, those that survive, the strongest first; flat indices.

    highest  pixels that are the highest of their windows
    """
    scores = heatmap.ravel()
    # They survive, whatever becomes of others, but for those that have an equal: it may come before them.
    ordered = np.sort(scores[candidates])
    sure = highest[scores[highest] >= ordered[:1]] if len(ordered) else highest[:0]
    sure = sure[~np.isin(scores[sure], ordered[1:][ordered[1:] == ordered[:-1]])]
    kept = np.zeros(heatmap.shape, np.uint8)
    kept.ravel()[sure] = 1
    undecided = candidates[cv2.dilate(kept, _window(radius)).ravel()[candidates] == 0]
    return _in_order(heatmap, np.concatenate([sure, _greedy(heatmap, undecided, radius)]))


def sample(cells: Map, xy: Map) -> Map:
    """`descriptors.sample_descriptors` of one picture, bilinear.

    cells (Hc, Wc, D), of any length, at least 2×2; xy (N, 2) pixels; returns (N, D) float32, unit length.
    """
    rows, columns, channels = cells.shape
    position = (xy.T + np.float32(0.5)) / np.float32(CELL) - np.float32(0.5)
    column = np.clip(position[0], 0, columns - 1)
    row = np.clip(position[1], 0, rows - 1)
    # At the last centre the one before it counts nothing, so that there is always a next.
    left, top = np.minimum(column.astype(np.int64), columns - 2), np.minimum(row.astype(np.int64), rows - 2)
    dx, dy = (column - left).astype(np.float32), (row - top).astype(np.float32)
    weights = np.stack([(1 - dy) * (1 - dx), (1 - dy) * dx, dy * (1 - dx), dy * dx], axis=1)
    corners = (top * columns + left)[:, None] + np.array([0, 1, columns, columns + 1])
    table = cells.reshape(-1, channels)
    mixed = np.empty((len(xy), channels), np.float32)
    for start in range(0, len(xy), TOGETHER):
        some = slice(start, start + TOGETHER)
        found = np.take(table, corners[some], axis=0, mode="clip")
        np.matmul((weights[some] / _length(found))[:, None], found, out=mixed[some, None])
    mixed /= _length(mixed)[:, None]
    return mixed


def _length(vectors: Map) -> Map:
    return np.maximum(np.sqrt(np.einsum("...d,...d->...", vectors, vectors)), np.float32(1e-12))


def _greedy(heatmap: Map, candidates: NDArray[np.int64], radius: int) -> NDArray[np.int64]:
    """Of some pixels, flat indices ascending, those that survive.

    A pixel survives if no survivor within `radius` (Chebyshev) comes before it: the stronger, of equal ones the first
    in row order. Every candidate gets a rank, so that no two are equal; each round keeps the pixels whose rank is the
    highest of their window, and takes their windows out.
    """
    candidates = _in_order(heatmap, candidates)
    if radius == 0 or not len(candidates):
        return candidates
    rank = np.zeros(heatmap.shape, _counting_to(len(candidates)))
    rank.ravel()[candidates] = np.arange(len(candidates), 0, -1)
    kept = np.zeros(heatmap.shape, np.uint8)
    window = _window(radius)
    alive = candidates
    while len(alive):
        highest = cv2.dilate(rank, window).ravel()
        kept.ravel()[alive[rank.ravel()[alive] == highest[alive]]] = 1
        gone = cv2.dilate(kept, window).ravel()[alive] > 0
        rank.ravel()[alive[gone]] = 0
        alive = alive[~gone]
    return candidates[kept.ravel()[candidates] > 0]


def _in_order(heatmap: Map, pixels: NDArray[np.int64]) -> NDArray[np.int64]:
    """Flat indices, the strongest first; of equal pixels the first in row order."""
    # The bits of floats that are not negative sort as they do; the index behind them orders equals.
    bits = heatmap.ravel()[pixels].view(np.int32).astype(np.int64)
    return np.asarray(np.sort((-bits << 32) | pixels) & 0xFFFFFFFF)


def _inside(pixels: NDArray[np.int64], shape: tuple[int, ...], border: int) -> NDArray[np.bool_]:
    """Which of some flat indices are at least `border` pixels from a map's edge."""
    y, x = np.divmod(pixels, shape[1])
    return (y >= border) & (x >= border) & (y < shape[0] - border) & (x < shape[1] - border)


def _counting_to(count: int) -> Any:
    """The fastest type for `cv2.dilate` that has all whole numbers up to `count`."""
    if count < 1 << 16:
        return np.uint16
    return np.float32 if count < 1 << 24 else np.float64


def blank(image: NDArray[np.uint8], radius: int) -> NDArray[np.bool_]:
    """Which pixels of an (H, W) image have a window of one single value, as far as it is inside."""
    window = _window(radius)
    return np.asarray(cv2.dilate(image, window) == cv2.erode(image, window))


def _window(radius: int) -> NDArray[np.uint8]:
    return np.ones((2 * radius + 1, 2 * radius + 1), np.uint8)
