"""Training samples, drawn on the fly: each is a function of the run's seed and its index, and of
nothing else.

So it does not matter which process draws a sample or when, and a resumed run goes on with the very
next one.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import cv2
import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset, Sampler

from superpoint_training.augmentation import photometric
from superpoint_training.config import ShapesConfig
from superpoint_training.homography import sample_homography
from superpoint_training.labels import cell_targets
from superpoint_training.shapes import draw_shape

Batch = dict[str, Tensor]

TRAINING, VALIDATION = 0, 1
"""Streams of random numbers: a validation never sees a training sample."""


@dataclass(frozen=True)
class ShapeSamples(Dataset[Batch]):
    """Synthetic Shapes with their targets, endless.

    A sample: image (1, H, W) uint8; targets (65, Hc, Wc) float32; valid (Hc, Wc) bool.
    """

    config: ShapesConfig
    seed: int
    stream: int = TRAINING
    label_sigma: float = 0.0

    def __getitem__(self, index: int) -> Batch:
        # OpenCV's own threads cost more than they give on pictures this small, and fight over the
        # cores.
        cv2.setNumThreads(1)
        rng = np.random.default_rng((self.seed, self.stream, index))
        config = self.config
        kind = config.kinds[int(rng.integers(len(config.kinds)))]
        homography = sample_homography(rng, config.size, config.homography)
        image, corners = draw_shape(rng, kind, config.size, homography)
        image = photometric(rng, image, config.photometric)
        targets = cell_targets(corners, config.size, rng, self.label_sigma)
        return {
            "image": torch.from_numpy(image)[None],
            "targets": torch.from_numpy(targets),
            "valid": torch.ones(targets.shape[1:], dtype=torch.bool),
        }


@dataclass(frozen=True)
class StepIndices(Sampler[list[int]]):
    """The sample indices of each step from `first_step` to `last_step`, for one of `world`
    processes.

    Step s holds the indices s · batch_size to (s + 1) · batch_size, dealt out to the processes in
    turn.
    """

    first_step: int
    last_step: int
    batch_size: int
    rank: int = 0
    world: int = 1

    def __iter__(self) -> Iterator[list[int]]:
        for step in range(self.first_step, self.last_step):
            first = step * self.batch_size
            yield list(range(first + self.rank, first + self.batch_size, self.world))

    def __len__(self) -> int:
        return self.last_step - self.first_step
