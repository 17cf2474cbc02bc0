"""Descriptors at keypoints, sampled from the coarse descriptor map.

DeTone et al. 2018, section 3.4: interpolate the H/8 × W/8 map at each keypoint, then L2-normalise.
The paper interpolates bicubically; every public set of weights (Magic Leap, rpautrat, Hugging Face)
was evaluated with bilinear sampling, which needs 4 reads instead of 16 and is what ours were trained
with. In torch, on any device and with gradients; `peaks.sample` is the same in numpy.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from superpoint_ros.network.superpoint import CELL

SHORTEST = 1e-12
"""Length below which a vector is not made one of unit length."""


@dataclass(frozen=True)
class CellGrid:
    """What sampling must know of a map of cells, on its device, so that a CUDA graph need not make it each time.

    last     (2,) float32, column and row of the last cell
    strides  (2,) float32, from a cell to the next in a row and in a column
    corners  (4,) int64, from a cell to its neighbours right, below, and both
    """

    last: Tensor
    strides: Tensor
    corners: Tensor

    @staticmethod
    def of(rows: int, columns: int, device: torch.device) -> CellGrid:
        """Of a map of so many cells."""
        right, below = min(columns - 1, 1), min(rows - 1, 1) * columns
        return CellGrid(
            torch.tensor([columns - 1, rows - 1], dtype=torch.float32, device=device),
            torch.tensor([1, columns], dtype=torch.float32, device=device),
            torch.tensor([0, right, below, below + right], device=device),
        )


def sample_descriptors(dense: Tensor, xy: Tensor, grid: CellGrid | None = None) -> Tensor:
    """Interpolate descriptors at pixel positions, bilinear between cells of unit length.

    dense  (B, D, Hc, Wc) float, one per 8×8 cell, of any length: only the cells that are read are normalised; in
           channels_last each is read in one piece
    xy     (B, K, 2) float32, pixels of the network input, (0, 0) the centre of the top-left pixel
    grid   of (Hc, Wc); None makes one

    Returns (B, K, D) float32, unit length. The centre of cell (0, 0) is pixel (3.5, 3.5); beyond
    the outermost centres the map is continued with its edge values.
    """
    batch, channels, rows, columns = dense.shape
    grid = grid or CellGrid.of(rows, columns, dense.device)
    table = dense.permute(0, 2, 3, 1).reshape(batch, rows * columns, channels)
    position = (xy * (1 / CELL) + (0.5 / CELL - 0.5)).clamp_min(0).minimum(grid.last)
    # At the last centre the one before it counts nothing, so that there is always a next.
    first = position.floor().minimum((grid.last - 1).clamp_min(0))
    beyond = position - first
    cells = (first * grid.strides).sum(dim=-1).long()[..., None] + grid.corners
    share = torch.stack([1 - beyond, beyond], dim=-1)
    weights = (share[:, :, 1, :, None] * share[:, :, 0, None, :]).flatten(2)
    found = table.gather(1, cells.flatten(1)[..., None].expand(-1, -1, channels)).float()
    found = found.view(batch, -1, 4, channels)
    mixed = (found * (weights / _length(found))[..., None]).sum(dim=2)
    return mixed / _length(mixed)[..., None]


def _length(vectors: Tensor) -> Tensor:
    # linalg.vector_norm has no gradient at 0, which a blank map would meet in training
    return vectors.square().sum(dim=-1).clamp_min(SHORTEST**2).sqrt()
