"""Training pairs for SuperPoint: two views of a labelled picture and what corresponds between them.

DeTone et al. 2018, section 6: the second view is the first one seen through a random homography.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import Dataset

from superpoint_training.augmentation import photometric
from superpoint_training.config import PairsConfig
from superpoint_training.homography import sample_homography, warp_points
from superpoint_training.labels import cell_mask, cell_targets
from superpoint_training.pictures import PictureFolder
from superpoint_training.pseudo_labels import LabelFolder
from superpoint_training.samples import TRAINING, Batch

Array = NDArray[np.float64]

EDGE = 4  # pixels at the picture's edge that don't count, as a view may show nothing beyond
FINEST = 0.7  # a view smaller than this against its source is averaged down first, against aliasing


@dataclass(frozen=True)
class PairSamples(Dataset[Batch]):
    """Pairs of views of labelled pictures, endless; every picture once before any comes again.

    A sample, with two views and N = config.correspondences points:
    image        (2, H, W) uint8
    targets      (2, 65, Hc, Wc) float32, and valid (2, Hc, Wc) bool
    homography   (3, 3) float32, pixels of the first view to pixels of the second
    points       (2, N, 2) float32, the same points in either view; matched (N,) bool, which of them
                 are meant
    """

    pictures: Sequence[Path]
    labels: Path
    config: PairsConfig
    seed: int
    stream: int = TRAINING
    label_sigma: float = 0.0

    @cached_property
    def _folder(self) -> PictureFolder:
        return PictureFolder(self.pictures)

    def __getitem__(self, index: int) -> Batch:
        cv2.setNumThreads(1)
        rng = np.random.default_rng((self.seed, self.stream, index))
        number, picture = self._folder.read(turn(index, len(self.pictures), self.seed, self.stream))
        found = LabelFolder(self.labels).read(self.pictures[number]).xy.astype(np.float64)
        config, size = self.config, self.config.size
        fit = _fit((picture.shape[0], picture.shape[1]), size)
        first = sample_homography(rng, size, config.first) @ fit
        moves = [first, sample_homography(rng, size, config.second) @ first]
        views = [view(picture, move, size) for move in moves]
        points = [warp_points(found, move) for move in moves]
        targets = [
            cell_targets(_seen(p, v), size, rng, self.label_sigma) for p, (_, v) in zip(points, views, strict=True)
        ]
        between = moves[1] @ np.linalg.inv(moves[0])
        chosen, matched = _correspondences(rng, points[0], between, [v for _, v in views], config.correspondences)
        images = [photometric(rng, image, config.photometric) for image, _ in views]
        return {
            "image": torch.from_numpy(np.stack(images)),
            "targets": torch.from_numpy(np.stack(targets)),
            "valid": torch.from_numpy(np.stack([cell_mask(v) for _, v in views])),
            "homography": torch.from_numpy(between / between[2, 2]).float(),
            "points": torch.from_numpy(chosen).float(),
            "matched": torch.from_numpy(matched),
        }


def turn(index: int, count: int, seed: int, stream: int) -> int:
    """Which of `count` pictures is sample `index`'s: a new permutation each time round."""
    lap, place = divmod(index, count)
    return int(_permutation(seed, stream, lap, count)[place])


def view(picture: NDArray[np.uint8], move: Array, size: tuple[int, int]) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
    """A picture seen through a homography, and the pixels (H, W) bool of the view that show it."""
    height, width = picture.shape
    scale = _magnification(move, np.array([[(width - 1) / 2, (height - 1) / 2]]))
    if scale < FINEST:
        smaller = (max(1, round(width * scale)), max(1, round(height * scale)))
        picture = np.asarray(cv2.resize(picture, smaller, interpolation=cv2.INTER_AREA), np.uint8)
        move = move @ _resizing((smaller[1], smaller[0]), (height, width))
        height, width = picture.shape
    target = (size[1], size[0])
    image = cv2.warpPerspective(picture, move, target, flags=cv2.INTER_LINEAR)
    inside = np.zeros((height, width), np.uint8)
    inside[EDGE : height - EDGE, EDGE : width - EDGE] = 1
    valid = cv2.warpPerspective(inside, move, target, flags=cv2.INTER_NEAREST)
    return np.asarray(image, np.uint8), valid.astype(bool)


def _fit(source: tuple[int, int], size: tuple[int, int]) -> Array:
    """Scale a picture so that it just covers `size`, centred."""
    scale = max(size[0] / source[0], size[1] / source[1])
    matrix = np.diag([scale, scale, 1.0])
    matrix[:2, 2] = [(size[1] - 1) / 2 - scale * (source[1] - 1) / 2, (size[0] - 1) / 2 - scale * (source[0] - 1) / 2]
    return np.asarray(matrix)


def _resizing(source: tuple[int, int], target: tuple[int, int]) -> Array:
    """Pixels of a picture of one size (height, width) to pixels of the same picture resized to
    another.
    """
    x, y = target[1] / source[1], target[0] / source[0]
    return np.array([[x, 0, (x - 1) / 2], [0, y, (y - 1) / 2], [0, 0, 1]])


def _magnification(move: Array, at: Array) -> float:
    """How much longer lengths become around a point."""
    corners = warp_points(np.concatenate([at, at + [[1, 0]], at + [[0, 1]]]), move)
    area = abs(np.linalg.det(corners[1:] - corners[0]))
    return float(np.sqrt(area)) if np.isfinite(area) else 1.0


@lru_cache(maxsize=2)
def _permutation(seed: int, stream: int, lap: int, count: int) -> NDArray[np.int64]:
    return np.random.default_rng((seed, stream, 1, lap)).permutation(count)


def _seen(points: Array, valid: NDArray[np.bool_]) -> Array:
    """Those of points (N, 2) that lie on valid pixels."""
    return points[_on(points, valid)]


def _on(points: Array, valid: NDArray[np.bool_]) -> NDArray[np.bool_]:
    height, width = valid.shape
    # NaN, which is beyond the horizon, compares as outside
    inside = np.all((points > -0.5) & (points < (width - 0.5, height - 0.5)), axis=1)
    x, y = np.rint(np.where(inside[:, None], points, 0)).astype(int).T
    return np.asarray(inside & valid[y, x])


def _correspondences(
    rng: np.random.Generator, first: Array, between: Array, valid: Sequence[NDArray[np.bool_]], count: int
) -> tuple[Array, NDArray[np.bool_]]:
    """(2, count, 2) points and (count,) bool: labelled points seen in both views, then random ones,
    then padding.
    """
    height, width = valid[0].shape
    # Three times as many candidates as wanted, as not all are seen in both views.
    candidates = np.concatenate([rng.permutation(first), rng.uniform(0, (width - 1, height - 1), (3 * count, 2))])
    moved = warp_points(candidates, between)
    keep = np.flatnonzero(_on(candidates, valid[0]) & _on(moved, valid[1]))[:count]
    points = np.zeros((2, count, 2))
    points[0, : len(keep)], points[1, : len(keep)] = candidates[keep], moved[keep]
    return points, np.arange(count) < len(keep)
