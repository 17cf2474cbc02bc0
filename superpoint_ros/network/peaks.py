"""From what a network answers to keypoints and descriptors on the CPU: one picture, in numpy and OpenCV.

The same rules as the tensor versions in `heatmap` and `descriptors`, which a GPU runs. Only pixels
above the threshold are ever sorted or compared, and of them only the strongest if they suffice; and
nothing here starts threads: for a millisecond of work torch's would spin for ten.
"""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from superpoint_ros.network.superpoint import CELL

Map = NDArray[np.float32]

CANDIDATES = 6
"""Pixels for each keypoint asked for that are tried first where there are twice as many; photographs need 1.2 to 12,
the fewer the more there are."""

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
    height, width = heatmap.shape
    scores = heatmap.ravel()
    candidates = np.flatnonzero(scores > threshold)
    # What survives depends on stronger pixels alone: if the strongest give enough, the others change nothing.
    for count in (CANDIDATES * limit, len(candidates)):
        chosen = candidates
        if 2 * count < len(candidates):
            strengths = scores[candidates]
            chosen = candidates[strengths >= np.partition(strengths, -count)[-count]]
        y, x = np.divmod(_greedy(heatmap, chosen, radius), width)
        inside = (y >= border) & (x >= border) & (y < height - border) & (x < width - border)
        x, y = x[inside][:limit], y[inside][:limit]
        if len(x) == limit or len(chosen) == len(candidates):
            break
    return np.stack([x, y], axis=1), heatmap[y, x]


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


def greedy_peaks(heatmap: Map, threshold: float, radius: int) -> NDArray[np.int64]:
    """Pixels above `threshold` that survive greedy suppression, the strongest first.

    heatmap (H, W) float32, contiguous; threshold 0 or more; returns (N,) flat indices. Of equal pixels the first in row
    order comes first, here and in suppression.
    """
    return _greedy(heatmap, np.flatnonzero(heatmap.ravel() > threshold), radius)


def _greedy(heatmap: Map, candidates: NDArray[np.int64], radius: int) -> NDArray[np.int64]:
    """Of some pixels, flat indices ascending, those that survive.

    Every candidate gets a rank, so that no two are equal; each round keeps the pixels whose rank is
    the highest of their window, and takes their windows out (see `heatmap.suppress`).
    """
    # The bits of floats that are not negative sort as they do; the index behind them orders equals.
    bits = heatmap.ravel()[candidates].view(np.int32).astype(np.int64)
    candidates = np.sort((-bits << 32) | candidates) & 0xFFFFFFFF
    if radius == 0:
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
