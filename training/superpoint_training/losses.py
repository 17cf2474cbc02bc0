"""The losses of DeTone et al. 2018, section 3.4, and a sparse contrastive alternative for the
descriptors.

Each returns a `Share`: a sum and what to divide it by. Processes of a distributed run add up both,
so that a step's gradient does not depend on how the batch was divided.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from superpoint_ros.network.superpoint import CELL
from superpoint_training.homography import warp_points_batch


@dataclass(frozen=True)
class Share:
    """total, a scalar with gradient; count, one without: the loss is their quotient, both summed
    over all processes.
    """

    total: Tensor
    count: Tensor


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
