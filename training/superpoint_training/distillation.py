"""Distillation: a small network learns to answer as a large one does.

Hinton, Vinyals, Dean, "Distilling the Knowledge in a Neural Network", 2015 (arXiv 1503.02531). The
teacher sees a view of a picture as it is, the student the same view as a worse camera would. The
student learns the teacher's distribution over the 65 answers of each cell (at temperature 1: what
counts is the score itself) and the direction of its descriptors, so that features of either can be
matched with the other's.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.data import Dataset

from superpoint_ros.network.checkpoint import Checkpoint
from superpoint_ros.network.superpoint import CELL, SuperPoint
from superpoint_training.adaptation import Network, average_heatmap, inference_network
from superpoint_training.augmentation import photometric
from superpoint_training.config import Config, DistillationConfig
from superpoint_training.homography import Array, HomographyRange, sample_homography
from superpoint_training.initial import initial_network
from superpoint_training.labels import cell_mask
from superpoint_training.lists import facts
from superpoint_training.losses import Share
from superpoint_training.pairs import turn, view
from superpoint_training.pictures import PictureFolder
from superpoint_training.processes import Processes
from superpoint_training.recipe import stage_recipe
from superpoint_training.samples import TRAINING, VALIDATION, Batch
from superpoint_training.sheet import detections_sheet
from superpoint_training.superpoint import pair_validation
from superpoint_training.task import Forward, Task, as_network_input, memory_format

SHOWN = 8
"""Views for TensorBoard, and twice as many for the figures that compare student and teacher."""


@dataclass(frozen=True)
class ViewSamples(Dataset[Batch]):
    """Views of pictures, endless; every picture once before any comes again.

    A sample:
    image         (2, H, W) uint8, the same view as the student sees it and as it is
    valid         (Hc, Wc) bool, cells where it shows the picture
    homographies  (config.views, 3, 3) float32, further views of the view, for the teacher's average
    """

    pictures: Sequence[Path]
    config: DistillationConfig
    seed: int
    stream: int = TRAINING
    memory: int = 0

    @cached_property
    def _folder(self) -> PictureFolder:
        return PictureFolder(self.pictures, self.memory)

    def __getitem__(self, index: int) -> Batch:
        cv2.setNumThreads(1)
        rng = np.random.default_rng((self.seed, self.stream, index))
        _, picture = self._folder.read(turn(index, len(self.pictures), self.seed, self.stream))
        config = self.config
        clean, shown = view(picture, sample_view(rng, (picture.shape[0], picture.shape[1]), config), config.size)
        degraded = photometric(rng, clean, config.photometric) if rng.random() < config.degraded else clean
        further = [sample_homography(rng, config.size, config.homography) for _ in range(config.views)]
        return {
            "image": torch.from_numpy(np.stack([degraded, clean])),
            "valid": torch.from_numpy(cell_mask(shown)),
            "homographies": torch.from_numpy(np.array(further).reshape(-1, 3, 3)).float(),
        }


def sample_view(rng: np.random.Generator, picture: tuple[int, int], config: DistillationConfig) -> Array:
    """Draw where a view of `config.size` lies in a picture of (height, width): (3, 3) float64, picture to view.

    Its centre is anywhere from where an upright view would lie within the picture; its pixels have
    sides of `config.scale` pixels of the picture, fewer where the picture is too small for that.
    """
    extent, size = (np.array([sides[1], sides[0]], dtype=np.float64) for sides in (picture, config.size))
    low, high = np.log(config.scale)
    side = min(float(np.exp(rng.uniform(low, high))), float((extent / size).min()))
    centre = (extent - 1) / 2 + rng.uniform(-0.5, 0.5, 2) * (extent - side * size)
    placing = np.diag([1 / side, 1 / side, 1.0])
    placing[:2, 2] = (size - 1) / 2 - centre / side
    turning = HomographyRange(1.0, config.perspective, (1.0, 1.0), config.rotation, 0.0, "uniform")
    return np.asarray(sample_homography(rng, config.size, turning) @ placing)


def distillation_task(
    config: Config,
    pictures: Sequence[Path],
    held_out: Sequence[Path],
    teacher: Checkpoint,
    here: Processes,
    start: SuperPoint | None = None,
) -> Task:
    """The task of learning what `teacher` answers.

    held_out  pictures for validation; none: no validation
    start     a network of the student's architecture whose weights are taken over
    """
    torch.manual_seed(config.run.seed)
    model = initial_network(config.network, start)
    settings, seed, memory = config.distillation, config.run.seed, config.inputs.memory
    network = inference_network(teacher.build(), here.device)
    on_pairs = pair_validation(held_out, max(settings.size), config.run)
    views = ViewSamples(held_out or pictures, settings, seed, VALIDATION)

    def loss(forward: Forward, batch: Batch, _: float) -> dict[str, tuple[float, Share]]:
        return distillation_loss(forward, network, batch, settings)

    def validate(student: SuperPoint) -> dict[str, float]:
        if not held_out:
            return {}
        device = next(student.parameters()).device
        batch = torch.utils.data.default_collate([views[index] for index in range(2 * SHOWN)])
        batch = {name: tensor.to(device) for name, tensor in batch.items()}
        batch["image"] = as_network_input(batch["image"])
        shares = distillation_loss(student, network, batch, settings)
        return {name: float(share.total / share.count) for name, (_, share) in shares.items()} | on_pairs(student)

    return Task(
        name="distill",
        model=model,
        samples=ViewSamples(pictures, settings, seed, memory=memory),
        loss=loss,
        validate=validate,
        unit="views",
        pictures=lambda student: {
            "detections": detections_sheet(student, [views[i]["image"][:1] for i in range(SHOWN)])
        },
        recipe=stage_recipe(config, "distill")
        | facts(pictures, held_out, config.distill.best)
        | {"teacher": teacher.weights_id},
    )


def distillation_loss(
    forward: Forward, teacher: Network, batch: Batch, settings: DistillationConfig
) -> dict[str, tuple[float, Share]]:
    """How far the student is from the teacher on a batch of `ViewSamples`, over the cells that show the picture.

    detector    Kullback-Leibler divergence of the 65 answers, nats
    descriptor  1 - cosine
    """
    degraded, clean = batch["image"].chunk(2)
    answers, theirs = teacher_answers(teacher, clean, batch["homographies"], settings)
    logits, ours = forward(degraded.contiguous(memory_format=memory_format(degraded.device)))
    assert ours is not None
    valid = batch["valid"]
    if settings.views:
        valid = valid & _inner(valid)
    divergence = F.kl_div(logits.float().log_softmax(dim=1), answers, reduction="none").sum(dim=1)
    distance = 1 - (ours.float() * theirs).sum(dim=1)
    count = valid.sum().to(divergence.dtype)
    return {
        "detector": (1.0, Share((divergence * valid).sum(), count)),
        "descriptor": (settings.weight, Share((distance * valid).sum(), count)),
    }


@torch.no_grad()
def teacher_answers(
    teacher: Network, clean: Tensor, homographies: Tensor, settings: DistillationConfig
) -> tuple[Tensor, Tensor]:
    """What the student is to answer to views (B, 1, H, W): probabilities (B, 65, Hc, Wc), and descriptors
    (B, D, Hc, Wc) of unit length. With `settings.views`, the probabilities are of the heatmap averaged over the view
    itself and its further views `homographies` (B, N, 3, 3).
    """
    logits, dense = teacher(clean)
    assert dense is not None
    if not settings.views:
        return logits.float().softmax(dim=1), dense.float()
    heatmaps = torch.stack(
        [
            average_heatmap(teacher, one[0], more, settings.batch, settings.border)
            for one, more in zip(clean, homographies, strict=True)
        ]
    )
    cells = F.pixel_unshuffle(heatmaps[:, None], CELL)
    cells = cells / cells.sum(dim=1, keepdim=True).clamp_min(1)  # an average over moved views may exceed a cell's whole
    return torch.cat([cells, (1 - cells.sum(dim=1, keepdim=True)).clamp_min(0)], dim=1), dense.float()


def _inner(valid: Tensor) -> Tensor:
    """Cells that are not at the view's edge, where no view counts for the average."""
    inner = torch.zeros_like(valid)
    inner[:, 1:-1, 1:-1] = True
    return inner
