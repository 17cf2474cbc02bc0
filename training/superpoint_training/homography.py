"""Random homographies as the paper draws them, and what they do to points, pictures and batches.

DeTone et al. 2018, section 5.2 and figure 6: a homography is put together from a centre crop,
perspective, scale, in-plane rotation and translation. The paper gives no ranges; the defaults are
the re-implementations', with half their perspective. Pixels are x right, y down, (0, 0) the centre
of the top-left pixel. A homography maps pixels of the picture to pixels of its warped view.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from superpoint_ros.features.fit import project

Array = NDArray[np.float64]


@dataclass(frozen=True)
class HomographyRange:
    """From which homographies are drawn.

    crop          side of the patch that fills the view, before scaling, as a share of the picture's
    perspective   greatest keystone: how far a corner moves along x and along y, as a share of half the patch's side
    scale         (least, greatest) magnification of the view against the picture, besides the crop
    rotation      greatest in-plane rotation, degrees; 180 for every direction
    translation   greatest shift of the patch's centre, as a share of the picture's side
    distribution  "normal": truncated at two standard deviations, the range's end (paper); "uniform"
                  over the range

    Raises ValueError, naming the field, what was given and what is allowed.
    """

    crop: float = 0.85
    perspective: float = 0.2
    scale: tuple[float, float] = (0.8, 1.2)
    rotation: float = 90.0
    translation: float = 0.1
    distribution: Literal["normal", "uniform"] = "normal"

    def __post_init__(self) -> None:
        if not 0 < self.crop <= 1:
            raise ValueError(f"crop must be above 0 and at most 1, got {self.crop!r}")
        if not 0 <= self.perspective < 0.5:
            raise ValueError(f"perspective must be at least 0 and below 0.5, got {self.perspective!r}")
        if not 0 < self.scale[0] <= self.scale[1]:
            raise ValueError(f"scale must be two magnifications above 0, the lower first, got {self.scale!r}")
        if not 0 <= self.rotation <= 180:
            raise ValueError(f"rotation must be between 0 and 180 degrees, got {self.rotation!r}")
        if not 0 <= self.translation <= 1:
            raise ValueError(f"translation must be between 0 and 1, got {self.translation!r}")
        if self.distribution not in ("normal", "uniform"):
            raise ValueError(f"distribution must be normal or uniform, got {self.distribution!r}")


def sample_homography(rng: np.random.Generator, size: tuple[int, int], limits: HomographyRange) -> Array:
    """Draw one homography for pictures of `size` (height, width): (3, 3) float64, determinant above 0."""
    extent = np.array([size[1], size[0]], dtype=np.float64)
    (keystone_x, keystone_y), (shift_x, shift_y), spin, zoom = _draws(rng, limits.distribution)
    corners = np.array([[-1, -1], [1, -1], [1, 1], [-1, 1]]) * (limits.crop / 2)
    # Keystone: one pair of sides shortens and the opposite one lengthens, along x and along y.
    corners[:, 0] *= 1 + np.sign(corners[:, 1]) * keystone_x * limits.perspective
    corners[:, 1] *= 1 + np.sign(corners[:, 0]) * keystone_y * limits.perspective
    low, high = np.log(limits.scale)
    magnification = np.exp((low + high) / 2 + zoom * (high - low) / 2)
    angle = np.radians(limits.rotation) * spin
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    patch = (corners * extent / magnification) @ turn.T
    patch += (extent - 1) / 2 + np.array([shift_x, shift_y]) * limits.translation * extent
    view = np.array([[0, 0], [1, 0], [1, 1], [0, 1]]) * extent - 0.5
    found = cv2.getPerspectiveTransform(patch.astype(np.float32), view.astype(np.float32))
    return facing(np.asarray(found, np.float64))


def facing(homography: Array) -> Array:
    """The homography (3, 3), or its negative, whose determinant is positive.

    Both move points alike, but only this one has positive depths on this side of the horizon, as no view is mirrored.
    OpenCV scales the last element to 1, which gives the other where the first pixel lies beyond the horizon.
    """
    return np.asarray(homography * np.sign(np.linalg.det(homography)))


def scaling(source: tuple[int, int], target: tuple[int, int]) -> Array:
    """A resize between (height, width) sizes as a homography: x ↦ (x + 0.5) · scale − 0.5."""
    y, x = target[0] / source[0], target[1] / source[1]
    return np.array([[x, 0, (x - 1) / 2], [0, y, (y - 1) / 2], [0, 0, 1]])


def _draws(rng: np.random.Generator, distribution: str) -> tuple[Array, Array, float, float]:
    if distribution == "uniform":
        values = rng.uniform(-1, 1, 6)
    else:
        values = rng.standard_normal(6) / 2
        while np.any(far := np.abs(values) > 1):
            values[far] = rng.standard_normal(int(far.sum())) / 2
    return values[0:2], values[2:4], float(values[4]), float(values[5])


def warp_points(points: NDArray[np.floating], homography: Array) -> Array:
    """Move points (N, 2) by a (3, 3) homography of positive determinant (`facing`); returns (N, 2) float64.

    Points on the far side of the horizon come back as NaN, as no camera sees them.
    """
    depth = points @ homography[2, :2] + homography[2, 2]
    return np.asarray(np.where(depth[:, None] > 1e-9, project(homography, points), np.nan))


def warp_points_batch(points: Tensor, homographies: Tensor) -> Tensor:
    """Move points (B, N, 2) by homographies (B, 3, 3): (B, N, 2), NaN beyond the horizon."""
    mapped = points @ homographies[:, :, :2].transpose(1, 2) + homographies[:, None, :, 2]
    depth = mapped[..., 2:]
    return torch.where(depth > 1e-9, mapped[..., :2] / depth, torch.nan)


def warp_batch(images: Tensor, homographies: Tensor, size: tuple[int, int] | None = None) -> Tensor:
    """See each image through its homography, bilinearly, 0 where empty.

    images (B, C, H, W) float; homographies (B, 3, 3) float, image pixels to view pixels; returns
    (B, C, *size).
    """
    height, width = images.shape[-2:]
    grid = _source_pixels(homographies, size or (height, width))
    # align_corners=False: -1 and 1 are the outer edges of the outermost pixels
    scale = grid.new_tensor([2 / width, 2 / height])
    grid = ((grid + 0.5) * scale - 1).nan_to_num(nan=-4.0)
    return F.grid_sample(images, grid.to(images.dtype), mode="bilinear", padding_mode="zeros", align_corners=False)


def view_masks(
    homographies: Tensor, source: tuple[int, int], size: tuple[int, int] | None = None, border: float = 0.0
) -> Tensor:
    """Which pixels of each view show the picture, `border` pixels of the picture's edge not
    counted.

    homographies (B, 3, 3), picture to view; source (height, width) of the picture; returns (B, 1,
    *size) bool.
    """
    pixels = _source_pixels(homographies, size or source)
    upper = pixels.new_tensor([source[1] - 1 - border, source[0] - 1 - border])
    return ((pixels >= border) & (pixels <= upper)).all(dim=-1)[:, None]  # NaN compares as outside


def _source_pixels(homographies: Tensor, size: tuple[int, int]) -> Tensor:
    """For each pixel of the views, where in the picture it comes from: (B, H, W, 2), NaN beyond the
    horizon.
    """
    height, width = size
    inverse = torch.linalg.inv(homographies.double()).float()
    y, x = torch.meshgrid(
        torch.arange(height, device=inverse.device), torch.arange(width, device=inverse.device), indexing="ij"
    )
    pixels = torch.stack([x, y], dim=-1).reshape(1, -1, 2).float().expand(len(inverse), -1, -1)
    return warp_points_batch(pixels, inverse).reshape(-1, height, width, 2)
