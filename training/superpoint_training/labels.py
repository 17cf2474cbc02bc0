"""From keypoints to what the detector head is asked for: a distribution over the 65 answers of each
8×8 cell.

DeTone et al. 2018, section 3.4 (eq. 2 and 3): a cell answers with the pixel of its keypoint, or the
dustbin; where several keypoints share a cell, one is chosen at random.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from superpoint_ros.network.peaks import strongest_peaks
from superpoint_ros.network.superpoint import CELL

DUSTBIN = CELL * CELL


def cell_targets(
    points: NDArray[np.floating], size: tuple[int, int], rng: np.random.Generator, sigma: float = 0.0
) -> NDArray[np.float32]:
    """Targets of the 65-way cross-entropy.

    points  (N, 2) pixels; those outside the picture don't count
    size    (height, width), multiples of 8
    sigma   0: each cell gets one of its keypoints, rounded to a pixel, with certainty (paper).
            Above 0: every keypoint is a Gaussian of this many pixels around its sub-pixel position,
            so that neighbours (also in the next cell) share it, and what is left of a cell's
            certainty goes to the dustbin.

    Returns (65, H/8, W/8) float32, each cell's column summing to 1.
    """
    height, width = size
    inside = np.all((points > -0.5) & (points < (width - 0.5, height - 0.5)), axis=1)
    heatmap = np.zeros(size, np.float32)
    if sigma > 0:
        _splat(heatmap, points[inside], sigma)
        cells = _cells(heatmap)
        cells /= np.maximum(cells.sum(axis=0), 1.0)
    else:
        pixels = rng.permutation(np.rint(points[inside]).astype(np.int64))
        if len(pixels):
            # Of a random order the first in each cell is a random choice.
            cell = pixels[:, 1] // CELL * (width // CELL) + pixels[:, 0] // CELL
            _, first = np.unique(cell, return_index=True)
            heatmap[pixels[first, 1], pixels[first, 0]] = 1.0
        cells = _cells(heatmap)
    return np.concatenate([cells, np.maximum(1.0 - cells.sum(axis=0, keepdims=True), 0.0)])


def uncrowded(
    points: NDArray[np.floating], scores: NDArray[np.floating], size: tuple[int, int], radius: int
) -> NDArray[np.intp]:
    """Which of points (N, 2) inside a picture a detector can answer: no two within `radius` pixels (Chebyshev, rounded
    to pixels), the one of higher score (N,) stays.
    """
    x, y = np.rint(points).astype(np.int64).T
    pixels = y * size[1] + x
    strongest = np.zeros(size, np.float32)
    order = np.argsort(scores, kind="stable")  # ascending, so that of equal pixels the strongest is written last
    owner = np.full(size[0] * size[1], -1, np.intp)
    owner[pixels[order]] = order
    strongest.ravel()[pixels[order]] = np.maximum(scores[order], np.finfo(np.float32).tiny)
    kept, _ = strongest_peaks(strongest, 0.0, radius, 0, max(len(points), 1))
    return np.sort(owner[kept[:, 1] * size[1] + kept[:, 0]])


def cell_mask(valid: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """(H, W) bool of pixels to (H/8, W/8): cells that are valid throughout."""
    height, width = valid.shape
    return np.asarray(valid.reshape(height // CELL, CELL, width // CELL, CELL).all(axis=(1, 3)))


def _cells(heatmap: NDArray[np.float32]) -> NDArray[np.float32]:
    """(H, W) to (64, H/8, W/8), a cell's pixels in row order."""
    height, width = heatmap.shape
    blocks = heatmap.reshape(height // CELL, CELL, width // CELL, CELL).transpose(1, 3, 0, 2)
    return np.ascontiguousarray(blocks.reshape(DUSTBIN, height // CELL, width // CELL))


def _splat(heatmap: NDArray[np.float32], points: NDArray[np.floating], sigma: float) -> None:
    reach = max(1, int(np.ceil(2.5 * sigma)))
    height, width = heatmap.shape
    centre = np.rint(points).astype(np.int64)
    window = np.arange(-reach, reach + 1)
    x, y = centre[:, :1] + window, centre[:, 1:] + window
    across = np.exp(-((x - points[:, :1]) ** 2) / (2 * sigma**2))
    down = np.exp(-((y - points[:, 1:]) ** 2) / (2 * sigma**2))
    mass = down[:, :, None] * across[:, None, :]
    mass /= mass.sum(axis=(1, 2), keepdims=True)
    rows, columns = np.broadcast_arrays(y[:, :, None], x[:, None, :])
    inside = (rows >= 0) & (rows < height) & (columns >= 0) & (columns < width)
    np.add.at(heatmap, (rows[inside], columns[inside]), mass[inside].astype(np.float32))
