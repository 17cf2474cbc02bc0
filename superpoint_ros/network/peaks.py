"""From logits to keypoints and descriptors on the CPU: one picture, in numpy and OpenCV.

The same rules as the tensor versions in `heatmap` and `descriptors`, which a GPU runs. Only pixels
above the threshold are ever sorted or compared, a tenth of the work at 640×480; and nothing here
starts threads: for a millisecond of work torch's would spin for ten.
"""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from superpoint_ros.network.superpoint import CELL

Map = NDArray[np.float32]

FLAT_RADIUS = CELL // 2
"""Of the neighbourhood that must not be of one single value for a pixel to be a keypoint."""


def heatmap_of(logits: Map) -> Map:
    """`heatmap.heatmap_from_logits` of one picture: (65, Hc, Wc) to (8·Hc, 8·Wc) float32."""
    exponential = np.exp(logits - logits.max(axis=0))
    probability = exponential[:-1] / exponential.sum(axis=0)
    _, rows, columns = probability.shape
    pixels = probability.reshape(CELL, CELL, rows, columns).transpose(2, 0, 3, 1)
    return np.ascontiguousarray(pixels).reshape(rows * CELL, columns * CELL)


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
    y, x = np.divmod(greedy_peaks(heatmap, threshold, radius), width)
    inside = (y >= border) & (x >= border) & (y < height - border) & (x < width - border)
    x, y = x[inside][:limit], y[inside][:limit]
    return np.stack([x, y], axis=1), heatmap[y, x]


def sample(dense: Map, xy: Map) -> Map:
    """`descriptors.sample_descriptors` of one picture, bilinear.

    dense (D, Hc, Wc), unit length; xy (N, 2) pixels; returns (N, D) float32, unit length.
    """
    channels, rows, columns = dense.shape
    position = (xy.T + np.float32(0.5)) / np.float32(CELL) - np.float32(0.5)
    column = np.clip(position[0], 0, columns - 1)
    row = np.clip(position[1], 0, rows - 1)
    left, top = column.astype(np.int64), row.astype(np.int64)
    right, bottom = np.minimum(left + 1, columns - 1), np.minimum(top + 1, rows - 1)
    dx, dy = (column - left).astype(np.float32), (row - top).astype(np.float32)
    # A cell's descriptor in one piece: half the time, though turning the map takes a third of it.
    table = cv2.transpose(dense.reshape(channels, -1))
    mixed = np.zeros((len(xy), channels), np.float32)
    part = np.empty_like(mixed)
    for y, wy in ((top, 1 - dy), (bottom, dy)):
        for x, wx in ((left, 1 - dx), (right, dx)):
            np.take(table, y * columns + x, axis=0, out=part, mode="clip")
            part *= (wx * wy)[:, None]
            mixed += part
    length = np.sqrt(np.einsum("nd,nd->n", mixed, mixed))
    mixed /= np.maximum(length, np.float32(1e-12))[:, None]
    return mixed


def greedy_peaks(heatmap: NDArray[np.float32], threshold: float, radius: int) -> NDArray[np.int64]:
    """Pixels above `threshold` that survive greedy suppression, the strongest first.

    heatmap (H, W) float32, contiguous; threshold 0 or more; returns (N,) flat indices. Of equal pixels the first in row
    order comes first, here and in suppression.

    Every candidate gets a rank, so that no two are equal; each round keeps the pixels whose rank is
    the highest of their window, and takes their windows out (see `heatmap.suppress`).
    """
    scores = heatmap.ravel()
    candidates = np.flatnonzero(scores > threshold)
    # The bits of floats that are not negative sort as they do; the index behind them orders equals.
    bits = scores[candidates].view(np.int32).astype(np.int64)
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
