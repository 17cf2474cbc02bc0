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
from superpoint_training.homography import sample_homography, scaling, warp_points
from superpoint_training.labels import cell_mask, cell_targets, uncrowded
from superpoint_training.pictures import PictureFolder
from superpoint_training.pseudo_labels import LabelFolder, Labels
from superpoint_training.samples import TRAINING, Batch

Array = NDArray[np.float64]

EDGE = 4  # pixels at the picture's edge that don't count, as a view may show nothing beyond
FINEST = 0.7  # a view smaller than this against its source is averaged down first, against aliasing


@dataclass(frozen=True)
class LabelledSamples(Dataset[Batch]):
    """Single views of labelled pictures, for a detector alone; endless, every picture once before any comes again.

    A sample is as `ShapeSamples`'.
    """

    pictures: Sequence[Path]
    labels: Path
    config: PairsConfig
    seed: int
    stream: int = TRAINING
    label_sigma: float = 0.0

    def __getitem__(self, index: int) -> Batch:
        rng, picture, found, move = self._drawn(index)
        image, valid = view(picture, move, self.config.size)
        targets = view_targets(rng, found, move, valid, self.config, self.label_sigma)
        return {
            "image": torch.from_numpy(photometric(rng, image, self.config.photometric))[None],
            "targets": torch.from_numpy(targets),
            "valid": torch.from_numpy(cell_mask(valid)),
        }

    @cached_property
    def _labelled(self) -> LabelledPictures:
        return LabelledPictures(self.pictures, self.labels)

    def _drawn(self, index: int) -> tuple[np.random.Generator, NDArray[np.uint8], Labels, Array]:
        """What chance decides on, a picture with its labels, and the (first) view's homography."""
        cv2.setNumThreads(1)
        rng = np.random.default_rng((self.seed, self.stream, index))
        picture, found = self._labelled.read(turn(index, len(self.pictures), self.seed, self.stream))
        move = sample_homography(rng, self.config.size, self.config.first) @ _placed(rng, picture.shape, self.config)
        return rng, picture, found, move


@dataclass(frozen=True)
class PairSamples(LabelledSamples):
    """Pairs of views of labelled pictures; the first ones are those of `LabelledSamples`.

    A sample, with two views and N = config.correspondences points:
    image        (2, H, W) uint8
    targets      (2, 65, Hc, Wc) float32, and valid (2, Hc, Wc) bool
    homography   (3, 3) float32, pixels of the first view to pixels of the second
    points       (2, N, 2) float32, the same points in either view; matched (N,) bool, which of them
                 are meant
    """

    def __getitem__(self, index: int) -> Batch:
        rng, picture, found, first = self._drawn(index)
        config, size = self.config, self.config.size
        moves = [first, sample_homography(rng, size, config.second) @ first]
        views = [view(picture, move, size) for move in moves]
        targets = [
            view_targets(rng, found, move, valid, config, self.label_sigma)
            for move, (_, valid) in zip(moves, views, strict=True)
        ]
        between = moves[1] @ np.linalg.inv(moves[0])
        places = warp_points(found.xy, moves[0])
        chosen, matched = _correspondences(rng, places, between, [v for _, v in views], config.correspondences)
        images = [photometric(rng, image, config.photometric) for image, _ in views]
        return {
            "image": torch.from_numpy(np.stack(images)),
            "targets": torch.from_numpy(np.stack(targets)),
            "valid": torch.from_numpy(np.stack([cell_mask(v) for _, v in views])),
            "homography": torch.from_numpy(between).float(),
            "points": torch.from_numpy(chosen).float(),
            "matched": torch.from_numpy(matched),
        }


class LabelledPictures:
    """Pictures by number with their labels; where either cannot be read, the next is taken."""

    def __init__(self, pictures: Sequence[Path], labels: Path) -> None:
        self._pictures, self._labels = PictureFolder(pictures), LabelFolder(labels)

    def read(self, number: int) -> tuple[NDArray[np.uint8], Labels]:
        """Raises ValueError as `PictureFolder.read`."""
        while True:
            found, picture = self._pictures.read(number)
            try:
                return picture, self._labels.read(self._pictures.paths[found], picture.shape)
            except (ValueError, OSError) as error:
                self._pictures.leave_out(found, str(error))


def view_targets(
    rng: np.random.Generator, found: Labels, move: Array, valid: NDArray[np.bool_], config: PairsConfig, sigma: float
) -> NDArray[np.float32]:
    """What a detector should answer, (65, Hc, Wc) float32, to a view whose pixels `valid` (H, W) show the picture."""
    points = warp_points(found.xy, move)
    seen = _on(points, valid)
    points, scores = points[seen], found.scores[seen]
    if config.nms_radius:
        points = points[uncrowded(points, scores, config.size, config.nms_radius)]
    return cell_targets(points, config.size, rng, sigma)


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
        move = move @ scaling((smaller[1], smaller[0]), (height, width))
        height, width = picture.shape
    target = (size[1], size[0])
    image = cv2.warpPerspective(picture, move, target, flags=cv2.INTER_LINEAR)
    inside = np.zeros((height, width), np.uint8)
    inside[EDGE : height - EDGE, EDGE : width - EDGE] = 1
    valid = cv2.warpPerspective(inside, move, target, flags=cv2.INTER_NEAREST)
    return np.asarray(image, np.uint8), valid.astype(bool)


def _placed(rng: np.random.Generator, source: tuple[int, ...], config: PairsConfig) -> Array:
    """Where a view lies before any homography: over the whole picture or, by `config.fit`, a part of it; picture to
    view. A picture that is smaller than the view is enlarged to cover it, either way.
    """
    size, extent = np.array(config.size[::-1]), np.array([source[1], source[0]])
    scale = float((size / extent).max())
    spare = np.zeros(2)
    if config.fit == "native" and scale < 1:
        scale = 1.0
        spare = rng.uniform(-0.5, 0.5, 2) * (extent - size)
    matrix = np.diag([scale, scale, 1.0])
    matrix[:2, 2] = (size - 1) / 2 - scale * (extent - 1) / 2 + spare
    return np.asarray(matrix)


def _magnification(move: Array, at: Array) -> float:
    """How much longer lengths become around a point."""
    corners = warp_points(np.concatenate([at, at + [[1, 0]], at + [[0, 1]]]), move)
    area = abs(np.linalg.det(corners[1:] - corners[0]))
    return float(np.sqrt(area)) if np.isfinite(area) else 1.0


@lru_cache(maxsize=2)
def _permutation(seed: int, stream: int, lap: int, count: int) -> NDArray[np.int64]:
    return np.random.default_rng((seed, stream, 1, lap)).permutation(count)


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
