"""MagicPoint: the detector alone, trained on Synthetic Shapes (DeTone et al. 2018, section 4) or on labelled pictures
(section 5.1: what Homographic Adaptation found teaches the next MagicPoint).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch

from superpoint_ros.network.superpoint import SuperPoint
from superpoint_training.config import Config
from superpoint_training.evaluation.corners import CornerProtocol, evaluate_corners
from superpoint_training.evaluation.detectors import HeatmapDetector
from superpoint_training.initial import initial_network
from superpoint_training.lists import facts
from superpoint_training.losses import Share, detector_loss
from superpoint_training.pairs import LabelledSamples
from superpoint_training.pseudo_labels import LabelFolder
from superpoint_training.recipe import stage_recipe
from superpoint_training.samples import VALIDATION, Batch, ShapeSamples
from superpoint_training.shapes import SHAPES
from superpoint_training.sheet import detections_sheet
from superpoint_training.superpoint import pair_validation, validation_size
from superpoint_training.task import Forward, Task


def magicpoint_task(config: Config, start: SuperPoint | None = None) -> Task:
    """The task of training MagicPoint on Synthetic Shapes, from nothing or from `start`."""
    torch.manual_seed(config.run.seed)
    protocol = CornerProtocol(
        pictures=max(1, config.run.validation_samples // (2 * len(SHAPES))),
        size=config.shapes.size,
        seed=config.run.seed + 1,  # the evaluation's own pictures are not looked at in training
    )
    shown = ShapeSamples(config.shapes, config.run.seed, VALIDATION)

    def validate(network: SuperPoint) -> dict[str, float]:
        detector = HeatmapDetector("magicpoint", network, device=str(next(network.parameters()).device))
        found = evaluate_corners([detector], protocol)["magicpoint"]
        return {
            "map_clean": float(found["clean"]["map"]),  # type: ignore[arg-type]
            "map_noise": float(found["noise"]["map"]),  # type: ignore[arg-type]
        }

    return Task(
        name="magicpoint",
        model=initial_network(replace(config.network, descriptor_dim=0), start),
        samples=ShapeSamples(config.shapes, config.run.seed, label_sigma=config.loss.label_sigma),
        loss=lambda forward, batch, _: magicpoint_loss(forward, batch),
        validate=validate,
        pictures=lambda network: {"detections": detections_sheet(network, [shown[i]["image"] for i in range(12)])},
        recipe=stage_recipe(config, "magicpoint"),
    )


def labelled_task(
    config: Config, pictures: Sequence[Path], held_out: Sequence[Path], labels: Path, start: SuperPoint | None
) -> Task:
    """The task of training a detector alone on labelled pictures, from nothing or from `start`.

    held_out  pictures for validation; none: no validation
    """
    torch.manual_seed(config.run.seed)
    settings, seed = config.pairs, config.run.seed
    shown = LabelledSamples(pictures, labels, settings, seed, VALIDATION)
    return Task(
        name="magicpoint",
        model=initial_network(replace(config.network, descriptor_dim=0), start),
        samples=LabelledSamples(pictures, labels, settings, seed, label_sigma=config.loss.label_sigma),
        loss=lambda forward, batch, _: magicpoint_loss(forward, batch),
        validate=pair_validation(held_out, validation_size(settings), config.run),
        pictures=lambda network: {"detections": detections_sheet(network, [shown[i]["image"] for i in range(8)])},
        recipe=stage_recipe(config, "magicpoint", "pairs")
        | facts(pictures, held_out, config.magicpoint.best)
        | {"labels": LabelFolder(labels).note()},
    )


def magicpoint_loss(forward: Forward, batch: Batch) -> dict[str, tuple[float, Share]]:
    """The detector's cross-entropy on a batch of `ShapeSamples` or `LabelledSamples`."""
    logits, _ = forward(batch["image"])
    return {"detector": (1.0, detector_loss(logits, batch["targets"], batch["valid"]))}
