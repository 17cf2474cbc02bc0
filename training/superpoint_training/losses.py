"""The losses of DeTone et al. 2018, section 3.4, and a sparse contrastive alternative for the
descriptors.

Each returns a `Share`: a sum and what to divide it by. Processes of a distributed run add up both,
so that a step's gradient does not depend on how the batch was divided.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from superpoint_ros.network.superpoint import CELL
from superpoint_training.homography import warp_points_batch
from superpoint_training.optimisation import at_least
from superpoint_training.processes import Processes


@dataclass(frozen=True)
class LossConfig:
    """The joint loss, eq. 1 to 6.

    label_sigma      spread of a keypoint's target, pixels; 0 gives the paper's single pixel
    descriptor       "hinge" (paper) or "infonce"
    weight           of the descriptor loss (λ)
    positive_weight  λ_d of the hinge
    positive_margin  m_p
    negative_margin  m_n
    radius           pixels within which two cells correspond (hinge), or within which a point is no
                     negative (infonce)
    temperature      of infonce
    reprojection     weight of the reprojection loss (`reprojection`), which sharpens where keypoints lie; 0: none
    reprojection_place
                     where a keypoint lies: "mean" of the heat in its 5×5 pixels, or "parabola", as keypoints are
                     refined where the network is deployed (subpixel)
    reprojection_radius
                     pixels within which two keypoints are the same: at the start and at the end of training
    reprojection_by_score
                     two keypoints count by the geometric mean of their scores, not all alike
    """

    label_sigma: float = 0.0
    descriptor: Literal["hinge", "infonce"] = "hinge"
    weight: float = 1e-4
    positive_weight: float = 250.0
    positive_margin: float = 1.0
    negative_margin: float = 0.2
    radius: float = 8.0
    temperature: float = 0.07
    reprojection: float = 0.0
    reprojection_place: Literal["mean", "parabola"] = "mean"
    reprojection_radius: tuple[float, float] = (3.0, 3.0)
    reprojection_by_score: bool = False

    def __post_init__(self) -> None:
        at_least(self, 0, "label_sigma", "weight", "positive_weight", "radius", "reprojection")
        if min(self.reprojection_radius) <= 0:
            raise ValueError(f"reprojection_radius must be two radii above 0, got {self.reprojection_radius}")
        if self.temperature <= 0:
            raise ValueError(f"temperature must be above 0, got {self.temperature}")


@dataclass(frozen=True)
class Share:
    """total, a scalar with gradient; count, one without: the loss is their quotient, both summed
    over all processes.
    """

    total: Tensor
    count: Tensor


def combine(shares: Mapping[str, tuple[float, Share]], here: Processes) -> tuple[Tensor, Tensor]:
    """This process's share of everyone's weighted loss, with gradient, and of each of its parts, (N,) without."""
    counts = here.all_reduce(torch.stack([share.count for _, share in shares.values()])).clamp_min(1)
    parts = torch.stack([share.total for _, share in shares.values()]) / counts
    weights = parts.new_tensor([weight for weight, _ in shares.values()])
    return (parts * weights).sum(), parts.detach()


def detector_loss(logits: Tensor, targets: Tensor, valid: Tensor) -> Share:
    """Cross-entropy over the 65 answers of each cell (eq. 2 and 3), averaged over the valid cells.

    logits (B, 65, Hc, Wc); targets (B, 65, Hc, Wc), distributions over dim 1; valid (B, Hc, Wc)
    bool.
    """
    entropy = -(targets * logits.float().log_softmax(dim=1)).sum(dim=1)
    return Share((entropy * valid).sum(), valid.sum().to(entropy.dtype))


def hinge_loss(
    first: Tensor,
    second: Tensor,
    homographies: Tensor,
    valid: tuple[Tensor, Tensor],
    positive_weight: float = 250.0,
    positive_margin: float = 1.0,
    negative_margin: float = 0.2,
    radius: float = 8.0,
) -> Share:
    """The paper's descriptor loss (eq. 4 to 6) over every pair of a cell of one view and a cell of
    the other.

    first, second  (B, D, Hc, Wc) unit length over D
    homographies   (B, 3, 3), pixels of the first view to pixels of the second
    valid          two (B, Hc, Wc) bool; pairs with an invalid cell don't count
    radius         pixels within which the warped centre of a cell and a cell's centre correspond

    The mean is over valid pairs, which without masks are the paper's (Hc Wc)².
    """
    centres = cell_centres(first.shape[-2], first.shape[-1], first.device)
    warped = warp_points_batch(centres[None].expand(len(first), -1, -1), homographies.float())
    corresponds = (torch.cdist(warped.nan_to_num(nan=-1e6), centres[None].expand(len(first), -1, -1)) <= radius).float()
    similarity = first.float().flatten(2).transpose(1, 2) @ second.float().flatten(2)
    loss = positive_weight * corresponds * (positive_margin - similarity).clamp_min(0) + (1 - corresponds) * (
        similarity - negative_margin
    ).clamp_min(0)
    both = valid[0].flatten(1)[:, :, None] & valid[1].flatten(1)[:, None, :]
    return Share((loss * both).sum(), both.sum().to(loss.dtype))


def info_nce_loss(
    first: Tensor, second: Tensor, points: tuple[Tensor, Tensor], matched: Tensor, temperature: float, radius: float
) -> Share:
    """Symmetric InfoNCE over correspondences; the other correspondences of the pair are the
    negatives, both ways.

    first, second  (B, N, D) unit-length descriptors of the same N points in either view
    points         two (B, N, 2), their pixels in either view
    matched        (B, N) bool; the others are padding and neither positive nor negative
    radius         points nearer than this to the true one, in the view that is searched, are no
                   negatives

    The mean is over matched points, of half the sum of both directions.
    """
    similarity = first.float() @ second.float().transpose(1, 2) / temperature
    same = torch.eye(matched.shape[1], dtype=torch.bool, device=matched.device)
    usable = matched[:, None, :] & matched[:, :, None]
    total = similarity.new_zeros(())
    for scores, searched in ((similarity, points[1]), (similarity.transpose(1, 2), points[0])):
        searched = searched.float().nan_to_num(nan=-1e6)
        near = torch.cdist(searched, searched) < radius
        allowed = (usable & ~near) | same
        scores = scores.masked_fill(~allowed, float("-inf"))
        loss = torch.logsumexp(scores, dim=2) - scores.diagonal(dim1=1, dim2=2)
        total = total + (loss * matched).sum() / 2
    return Share(total, matched.sum().to(similarity.dtype))


def cell_centres(rows: int, columns: int, device: torch.device) -> Tensor:
    """(rows · columns, 2) float32: the pixel at each cell's centre, (3.5, 3.5) for the first."""
    y, x = torch.meshgrid(torch.arange(rows, device=device), torch.arange(columns, device=device), indexing="ij")
    return torch.stack([x, y], dim=-1).reshape(-1, 2).float() * CELL + (CELL - 1) / 2
