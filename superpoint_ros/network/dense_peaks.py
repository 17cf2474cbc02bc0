"""From a heatmap to its peaks by operations on whole maps, whose shapes depend on no picture.

What a GPU without Triton runs, and a CUDA graph can hold: `peaks` gives the same keypoints faster on a CPU, but
its arrays are as long as there are candidates, and its rounds as many as it takes. (A graph cannot
hold `torch.where` with a number either, which is copied from the host: `masked_fill` takes one.)
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from superpoint_ros.network.peaks import FLAT_RADIUS

ROUNDS = 5
"""Of suppression; the strongest 1024 keypoints of 39 photographs took two to five. `Peaks.undecided` says where more
are needed."""

LOW_BITS = (1 << 32) - 1


@dataclass(frozen=True)
class Peaks:
    """The keypoints of a batch.

    xy         (B, K, 2) int64, pixels
    scores     (B, K) float32, descending, 0 where there is none; of equal ones the first in row order comes first
    undecided  (B,) float32, the strongest pixel that may or may not be a keypoint after so many rounds; 0 if none is
    """

    xy: Tensor
    scores: Tensor
    undecided: Tensor

    def unfinished(self, limit: int) -> bool:
        """Whether more rounds could change the first `limit` keypoints of a picture. Waits for the device."""
        weakest = self.scores[:, limit - 1] if limit <= self.scores.shape[1] else torch.zeros_like(self.undecided)
        return bool(((self.undecided > 0) & (self.undecided >= weakest)).any())


def strongest_dense(
    heatmap: Tensor, sizes: Tensor, threshold: float, radius: int, border: int, limit: int
) -> tuple[Tensor, Tensor]:
    """The keypoints of each picture: (B, K, 2) int64 x and y, and (B, K) scores, 0 where padded.

    heatmap (B, H, W) float32; sizes (B, 2) int64, height and width of each picture; others as in
    `heatmap.DetectionSettings`. K is the lower of `limit` and H·W.
    """
    scores = heatmap.masked_fill(~(inside(heatmap, sizes) & (heatmap > threshold)), 0)
    dropped = ~inside(heatmap, sizes, border) if border else None
    rounds, pixels = ROUNDS, heatmap[0].numel()
    while (found := strongest_in_rounds(scores, dropped, radius, limit, rounds)).unfinished(limit):
        rounds *= 2
    missing = min(limit, pixels) - found.scores.shape[1]
    return F.pad(found.xy, [0, 0, 0, missing]), F.pad(found.scores, [0, missing])


def strongest_in_rounds(scores: Tensor, dropped: Tensor | None, radius: int, limit: int, rounds: int = ROUNDS) -> Peaks:
    """The same without waiting for the device.

    scores   (B, H, W) float32, 0 where there is no candidate
    dropped  (B, H, W) bool, where a keypoint suppresses others, but is none of the result. None: nowhere

    K is the lower of `limit` and how many keypoints there can be.
    """
    kept, undecided = _suppressed(scores, radius, rounds)
    if dropped is not None:
        kept = kept.masked_fill(dropped, 0)
    xy, strengths = _strongest(kept, radius, limit)
    return Peaks(xy, strengths, undecided)


def room(shape: tuple[int, int], radius: int) -> int:
    """How many keypoints there can be, no two within `radius`, in a map of (height, width)."""
    side = radius + 1
    return -(-shape[0] // side) * -(-shape[1] // side)


def flat_dense(image: Tensor, within: Tensor) -> Tensor:
    """As `heatmap.flat`: which pixels of (B, H, W) uint8 have a window of one single value.

    within  (B, H, W) bool, what is of a picture, and may be looked at
    """
    extremes = torch.stack([image, 255 - image], dim=1).float() * within[:, None]
    return _window_max(extremes, FLAT_RADIUS).sum(dim=1) == 255


def inside(image: Tensor, sizes: Tensor, margin: int = 0) -> Tensor:
    """(B, H, W) bool: at least `margin` pixels away from the outside of each picture."""
    height, width = image.shape[-2:]
    y = torch.arange(height, device=image.device)[None, :, None]
    x = torch.arange(width, device=image.device)[None, None, :]
    bottom, right = (sizes.to(image.device) - margin)[:, :, None, None].unbind(dim=1)
    return (y >= margin) & (x >= margin) & (y < bottom) & (x < right)


def _suppressed(scores: Tensor, radius: int, rounds: int) -> tuple[Tensor, Tensor]:
    """Greedy suppression: the scores that survive, others 0, and (B,) the strongest that is still undecided.

    A round keeps what is the highest of its window and takes the rest of that window out. The fixed
    point is greedy suppression. A single max-pool is not: it lets pixels suppress that are suppressed.
    """
    if radius == 0:
        return scores, scores.new_zeros(len(scores))
    height, width = scores.shape[-2:]
    own = torch.arange(height * width, device=scores.device).view(height, width)
    kept = scores
    for _ in range(rounds):
        kept = scores * (_highest(scores, radius) == own)
        scores = torch.where(_window_max(kept[:, None], radius)[:, 0] > 0, kept, scores)
    return kept, (scores - kept).amax(dim=(1, 2))


def _strongest(kept: Tensor, radius: int, limit: int) -> tuple[Tensor, Tensor]:
    """(B, K, 2) x and y, (B, K) scores: the highest values, no two within `radius`."""
    height, width = kept.shape[-2:]
    # A square of this side has one survivor at most: a twenty-fifth of the values to sort.
    values, index = F.max_pool2d(kept[:, None], radius + 1, ceil_mode=True, return_indices=True)
    # As integers, floats that are not negative sort as they do; the place below them orders equals.
    later = height * width - 1 - index.flatten(1)
    keys = (values.flatten(1).view(torch.int32).long() << 32) | later
    keys = keys.topk(min(limit, keys.shape[1]), dim=1).values
    index = height * width - 1 - (keys & LOW_BITS)
    scores = (keys >> 32).int().view(torch.float32)
    return torch.stack([index % width, index // width], dim=-1), scores


def _highest(scores: Tensor, radius: int) -> Tensor:
    """(B, H, W) int64: where in the map the highest of each pixel's window is; of equals the first in row order."""
    side = 2 * radius + 1
    # A max-pool reads its window row by row, and only what is higher takes the place of what it has.
    rows, column = F.max_pool2d(scores[:, None], (1, side), stride=1, padding=(0, radius), return_indices=True)
    _, row = F.max_pool2d(rows, (side, 1), stride=1, padding=(radius, 0), return_indices=True)
    return column.flatten(1).gather(1, row.flatten(1)).view(scores.shape)


def _window_max(x: Tensor, radius: int) -> Tensor:
    """Maximum of (B, C, H, W) over the (2·radius + 1)² window of each pixel, as far as it is inside."""
    side = 2 * radius + 1
    rows = F.max_pool2d(x, (1, side), stride=1, padding=(0, radius))
    return F.max_pool2d(rows, (side, 1), stride=1, padding=(radius, 0))
