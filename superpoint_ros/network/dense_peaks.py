"""From a heatmap to its peaks by operations on whole maps, whose shapes depend on no picture.

What a GPU runs, and a CUDA graph can hold: `peaks` gives the same keypoints faster on a CPU, but
its arrays are as long as there are candidates, and its rounds as many as it takes.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from superpoint_ros.network.peaks import FLAT_RADIUS

ROUNDS = 8
"""Of suppression. As many as the longest chain of neighbours are needed: four or five on photographs."""

PIXEL_BITS = (1 << 29) - 1
"""A float32 as float64 leaves so many bits of its mantissa unused: room for a pixel's number."""


def suppress_dense(heatmap: Tensor, radius: int) -> Tensor:
    """Greedy non-maximum suppression, as `heatmap.suppress`: (B, H, W), all others 0."""
    keys, rounds = unique_keys(heatmap), ROUNDS
    while True:
        kept, unfinished = _suppressed(keys, radius, rounds)
        if not bool(unfinished.any()):
            return _scores(kept)
        rounds *= 2


def strongest_dense(
    heatmap: Tensor, sizes: Tensor, threshold: float, radius: int, border: int, limit: int
) -> tuple[Tensor, Tensor]:
    """The keypoints of each picture: (B, K, 2) int64 x and y, and (B, K) scores, 0 where padded.

    heatmap (B, H, W) float32; sizes (B, 2) int64, height and width of each picture; others as in
    `heatmap.DetectionSettings`. K is the lower of `limit` and H·W.
    """
    rounds = ROUNDS
    while True:
        xy, scores, unfinished = strongest_in_rounds(heatmap, sizes, threshold, radius, border, limit, rounds)
        if not bool(unfinished.any()):
            return xy, scores
        rounds *= 2


def strongest_in_rounds(
    heatmap: Tensor, sizes: Tensor, threshold: float, radius: int, border: int, limit: int, rounds: int = ROUNDS
) -> tuple[Tensor, Tensor, Tensor]:
    """The same without waiting for the device; the third result, (B,) bool, says where `rounds` were too few."""
    candidates = inside(heatmap, sizes) & (heatmap > threshold)
    kept, unfinished = _suppressed(unique_keys(heatmap.masked_fill(~candidates, 0)), radius, rounds)
    if border:
        kept = kept.masked_fill(~inside(heatmap, sizes, border), 0)
    xy, scores = _strongest(kept, radius, limit)
    return xy, scores, unfinished


def flat_dense(image: Tensor, sizes: Tensor | None = None) -> Tensor:
    """As `heatmap.flat`: which pixels of (B, H, W) uint8 have a window of one single value."""
    brightness = image.float()
    darkness = -brightness
    if sizes is not None:
        darkness = darkness.masked_fill(~inside(image, sizes), -256)
    return _window_max(brightness, FLAT_RADIUS) == -_window_max(darkness, FLAT_RADIUS)


def inside(image: Tensor, sizes: Tensor, margin: int = 0) -> Tensor:
    """(B, H, W) bool: at least `margin` pixels away from the outside of each picture."""
    height, width = image.shape[-2:]
    y = torch.arange(height, device=image.device)[None, :, None]
    x = torch.arange(width, device=image.device)[None, None, :]
    bottom, right = (sizes.to(image.device) - margin)[:, :, None, None].unbind(dim=1)
    return (y >= margin) & (x >= margin) & (y < bottom) & (x < right)


def unique_keys(scores: Tensor) -> Tensor:
    """(B, H, W) float32, none negative, to float64 that sort alike, and of equals the first in row order first.

    0 stays 0. With no two alike, a pixel is a peak where it equals its window's maximum; and top-k,
    which promises nothing about equals, has one result.
    """
    pixels = scores[0].numel()
    later = torch.arange(pixels - 1, -1, -1, device=scores.device).view(scores.shape[1:])
    keys = (scores.double().view(torch.int64) | later).view(torch.float64)
    return keys.masked_fill(scores <= 0, 0)


def _scores(keys: Tensor) -> Tensor:
    return (keys.view(torch.int64) & ~PIXEL_BITS).view(torch.float64).float()


def _suppressed(keys: Tensor, radius: int, rounds: int) -> tuple[Tensor, Tensor]:
    """The keys that survive, others 0, and (B,) bool: whether some are still undecided.

    A round keeps what is the highest of its window and takes that window out. The fixed point is
    greedy suppression. A single max-pool is not: it lets pixels suppress that are suppressed.
    """
    if radius == 0:
        return keys, torch.zeros(len(keys), dtype=torch.bool, device=keys.device)
    kept = torch.zeros_like(keys)
    for _ in range(rounds):
        peaks = keys * (keys == _window_max(keys, radius))
        kept = kept + peaks
        keys = keys * (_window_max(peaks, radius) == 0)
    return kept, (keys > 0).flatten(1).any(dim=1)


def _strongest(kept: Tensor, radius: int, limit: int) -> tuple[Tensor, Tensor]:
    """(B, K, 2) x and y, (B, K) scores: the highest keys, no two within `radius`."""
    batch, height, width = kept.shape
    pixels = height * width
    # A square of this side has one survivor at most: a twenty-fifth of the values to sort.
    if radius:
        kept = F.max_pool2d(kept[:, None], radius + 1, ceil_mode=True)[:, 0]
    kept = kept.flatten(1)
    keys = kept.topk(min(limit, kept.shape[1]), dim=1).values
    keys = F.pad(keys, [0, min(limit, pixels) - keys.shape[1]])
    index = pixels - 1 - (keys.view(torch.int64) & PIXEL_BITS)
    return torch.stack([index % width, index // width], dim=-1), _scores(keys)


def _window_max(x: Tensor, radius: int) -> Tensor:
    """Maximum over the (2·radius + 1)² window of each pixel, as far as it is inside."""
    rows = F.max_pool2d(x[:, None], (1, 2 * radius + 1), stride=1, padding=(0, radius))
    return F.max_pool2d(rows, (2 * radius + 1, 1), stride=1, padding=(radius, 0))[:, 0]
