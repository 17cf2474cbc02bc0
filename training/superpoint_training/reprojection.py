"""The reprojection loss: a keypoint of one view and the same one of the other should be one place, to a fraction of a
pixel.

Zhao et al. 2022 (ALIKE): differentiable keypoint detection and keypoint reprojection loss. The cross-entropy only says
which pixel a label lies on; this says how far apart two answers are, and so reaches below the pixel.
"""

from __future__ import annotations

import torch
from torch import Tensor

from superpoint_ros.network.heatmap import DetectionSettings, detect, heatmap_from_logits, refine
from superpoint_ros.network.superpoint import CELL
from superpoint_training.homography import warp_points_batch
from superpoint_training.losses import Share

STRONGEST = 256
"""Keypoints of a view that count."""
THRESHOLD, RADIUS, BORDER = 0.01, 4, 4
"""Of a keypoint's score, of suppression, and along a view's edge, pixels."""
REACH = 2  # pixels to either side of a peak that its position is the mean over
FAR = 1e6  # pixels: where there is no peak


def reprojection_loss(
    first: Tensor,
    second: Tensor,
    homographies: Tensor,
    valid: Tensor,
    near: float = 3.0,
    place: str = "mean",
    by_score: bool = False,
) -> Share:
    """Pixels between each view's keypoints and the other's, seen through the homography, both ways.

    first, second  (B, 65, Hc, Wc) cell logits of either view
    homographies   (B, 3, 3), pixels of the first view to pixels of the second
    valid          (B, 2, Hc, Wc) bool; a keypoint in an invalid cell doesn't count
    near           pixels, in both views, within which two peaks are the same keypoint
    place          where a keypoint is: "mean" of the heat around it, or "parabola" as `heatmap.refine` has it
    by_score       each pair counts by the geometric mean of its scores, not all alike

    Keypoints are the detector's own, after suppression; those that are each other's nearest, and near enough, are taken
    for the same. The mean is over these.
    """
    heatmaps = heatmap_from_logits(torch.cat([first, second]))
    masks = valid.transpose(0, 1).flatten(0, 1).repeat_interleave(CELL, 1).repeat_interleave(CELL, 2)
    peaks, scores = strongest_valid(heatmaps.detach(), masks)
    extents = _extents(heatmaps)
    places = refine(heatmaps, peaks, extents) if place == "parabola" else peak_positions(heatmaps, peaks)
    there = scores > 0
    (ours, theirs), (our_peaks, their_peaks) = places.chunk(2), there.chunk(2)
    there_ours = warp_points_batch(ours, homographies.float())
    here_theirs = warp_points_batch(theirs, torch.linalg.inv(homographies.double()).float())
    with torch.no_grad():
        gap = torch.maximum(_gaps(there_ours, theirs), _gaps(ours, here_theirs))
        gap = gap.masked_fill(~(our_peaks[:, :, None] & their_peaks[:, None, :]), FAR)
        nearest, partner = gap.min(dim=2)
        mutual = gap.argmin(dim=1).gather(1, partner) == torch.arange(gap.shape[1], device=gap.device)
        same = mutual & (nearest < near)
    picture, one = same.nonzero(as_tuple=True)
    other = partner[picture, one]
    in_second = there_ours[picture, one] - theirs[picture, other]
    in_first = here_theirs[picture, other] - ours[picture, one]
    our_scores, their_scores = scores.chunk(2)
    together = (our_scores[picture, one] * their_scores[picture, other]).sqrt()
    weight = together if by_score else torch.ones_like(together)
    # The norm has no gradient at 0, where two answers agree exactly.
    apart = (torch.cat([in_second, in_first]).square().sum(dim=1) + 1e-6).sqrt()
    return Share((apart * weight.repeat(2)).sum() / 2, weight.sum())


def strongest_valid(heatmaps: Tensor, masks: Tensor) -> tuple[Tensor, Tensor]:
    """The strongest peaks in valid pixels: (B, N, 2) int64 x and y, and (B, N) scores, 0 where there are no more.

    Peaks are found before the mask is asked: where it cut one off, its shoulder would be the next.
    """
    everything = DetectionSettings(heatmaps[0].numel(), THRESHOLD, RADIUS, BORDER)
    found = detect(heatmaps, _extents(heatmaps), everything)
    peaks = found.xy.long()
    row, column = peaks[..., 1], peaks[..., 0]
    counts = masks.flatten(1).gather(1, row * masks.shape[2] + column)
    scores, chosen = (found.scores * counts).topk(min(STRONGEST, found.scores.shape[1]), dim=1)
    return peaks.gather(1, chosen[..., None].expand(-1, -1, 2)), scores


def peak_positions(heatmaps: Tensor, peaks: Tensor) -> Tensor:
    """The mean position of the heat in a window around each peak, with gradient.

    heatmaps (B, H, W) float32; peaks (B, N, 2) int64 pixels x and y; returns (B, N, 2) float32.
    """
    height, width = heatmaps.shape[-2:]
    steps = torch.arange(-REACH, REACH + 1, device=peaks.device)
    dy, dx = (grid.flatten() for grid in torch.meshgrid(steps, steps, indexing="ij"))
    x, y = peaks[..., :1] + dx, peaks[..., 1:] + dy
    inside = (x >= 0) & (x < width) & (y >= 0) & (y < height)
    index = (y.clamp(0, height - 1) * width + x.clamp(0, width - 1)).flatten(1)
    heat = heatmaps.flatten(1).gather(1, index).view(x.shape) * inside
    share = heat / heat.sum(dim=2, keepdim=True).clamp_min(1e-12)
    return torch.stack([(share * dx).sum(dim=2), (share * dy).sum(dim=2)], dim=-1) + peaks


def _extents(heatmaps: Tensor) -> Tensor:
    return torch.tensor([heatmaps.shape[-2:]], device=heatmaps.device).expand(len(heatmaps), -1)


def _gaps(one: Tensor, other: Tensor) -> Tensor:
    """Distances (B, N, M); beyond the horizon is far."""
    return torch.cdist(one.nan_to_num(nan=-FAR), other.nan_to_num(nan=2 * FAR))
