"""SuperPoint: detector and descriptor trained together on pairs of views (DeTone et al. 2018,
sections 3.4 and 6).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import torch

from superpoint_ros.network.checkpoint import Checkpoint
from superpoint_ros.network.descriptors import sample_descriptors
from superpoint_ros.network.superpoint import SuperPoint
from superpoint_training.config import Config, PairsConfig, RunConfig
from superpoint_training.evaluation.benchmark import PairProtocol, evaluate_pairs, summarise
from superpoint_training.evaluation.detectors import network_detector
from superpoint_training.evaluation.warps import warped_pairs
from superpoint_training.initial import initial_network
from superpoint_training.lists import facts
from superpoint_training.losses import LossConfig, Share, detector_loss, hinge_loss, info_nce_loss
from superpoint_training.pairs import PairSamples
from superpoint_training.pseudo_labels import LabelFolder
from superpoint_training.recipe import stage_recipe
from superpoint_training.reprojection import reprojection_loss
from superpoint_training.samples import VALIDATION, Batch
from superpoint_training.sheet import detections_sheet
from superpoint_training.task import Forward, Task

VALIDATION_KINDS = ("viewpoint", "rotation", "strong")


def superpoint_task(
    config: Config,
    pictures: Sequence[Path],
    held_out: Sequence[Path],
    labels: Path,
    start: SuperPoint | None,
) -> Task:
    """The task of training SuperPoint on labelled pictures.

    held_out  pictures for validation; none: no validation
    start     a network whose weights are taken over, as MagicPoint's are (`initial.adoptable`)
    """
    torch.manual_seed(config.run.seed)
    model = initial_network(config.network, start)
    shown = PairSamples(pictures, labels, config.pairs, config.run.seed, VALIDATION)
    return Task(
        name="superpoint",
        model=model,
        samples=PairSamples(pictures, labels, config.pairs, config.run.seed, label_sigma=config.loss.label_sigma),
        loss=lambda forward, batch, progress: superpoint_loss(forward, batch, config.loss, progress),
        validate=pair_validation(held_out, validation_size(config.pairs), config.run),
        unit="pairs",
        recipe=stage_recipe(config, "superpoint")
        | facts(pictures, held_out, config.superpoint.best)
        | {"labels": LabelFolder(labels).note()},
        pictures=lambda network: {"detections": detections_sheet(network, [shown[i]["image"][:1] for i in range(8)])},
    )


def validation_size(pairs: PairsConfig) -> int | None:
    """The longer side of pictures in validation: of a view, or as they are where views are."""
    return None if pairs.fit == "native" else max(pairs.size)


def pair_validation(
    held_out: Sequence[Path], size: int | None, run: RunConfig
) -> Callable[[SuperPoint], dict[str, float]]:
    """A function that measures a network (in eval mode) on pairs warped from pictures, `size` pixels on the longer
    side; without pictures it has no figures, and without a descriptor head those of the detector.
    """
    pairs = warped_pairs(held_out, run.validation_samples, VALIDATION_KINDS, size, run.seed) if held_out else []

    def validate(network: SuperPoint) -> dict[str, float]:
        if not pairs:
            return {}
        state = {name: tensor.cpu() for name, tensor in network.state_dict().items()}
        checkpoint = Checkpoint(network.architecture, state, {"name": "validation"})
        detector = network_detector(checkpoint, device=str(next(network.parameters()).device))
        figures = summarise(evaluate_pairs([detector], pairs, PairProtocol(size=size), skip=lambda *_: None))
        return _flat(figures)

    return validate


def superpoint_loss(
    forward: Forward, batch: Batch, settings: LossConfig, progress: float = 0.0
) -> dict[str, tuple[float, Share]]:
    """The joint loss (eq. 1) on a batch of `PairSamples`: both views' detector losses, the
    descriptor loss, and with `settings.reprojection` the reprojection loss.

    progress  of the training, from 0 to 1
    """
    logits, dense = forward(batch["image"])
    assert dense is not None
    targets, valid = batch["targets"], batch["valid"]
    first, second = logits.chunk(2)
    ours, theirs = dense.chunk(2)
    if settings.descriptor == "hinge":
        descriptor = hinge_loss(
            ours,
            theirs,
            batch["homography"],
            (valid[:, 0], valid[:, 1]),
            settings.positive_weight,
            settings.positive_margin,
            settings.negative_margin,
            settings.radius,
        )
    else:
        points = (batch["points"][:, 0], batch["points"][:, 1])
        sampled = sample_descriptors(ours, points[0]), sample_descriptors(theirs, points[1])
        descriptor = info_nce_loss(*sampled, points, batch["matched"], settings.temperature, settings.radius)
    parts = {
        "detector": (1.0, detector_loss(first, targets[:, 0], valid[:, 0])),
        "detector_warped": (1.0, detector_loss(second, targets[:, 1], valid[:, 1])),
        "descriptor": (settings.weight, descriptor),
    }
    if settings.reprojection:
        start, end = settings.reprojection_radius
        how = start + progress * (end - start), settings.reprojection_place, settings.reprojection_by_score
        loss = reprojection_loss(first, second, batch["homography"], valid, *how)
        parts["reprojection"] = settings.reprojection, loss
    return parts


def _flat(figures: dict[str, object]) -> dict[str, float]:
    """{"homography": {"3": 0.9}} to {"homography_3": 0.9}."""
    flat: dict[str, float] = {}
    for name, value in figures.items():
        if isinstance(value, dict):
            flat |= {f"{name}_{key}": float(inner) for key, inner in value.items()}
        elif isinstance(value, (int, float)):
            flat[name] = float(value)
    return flat
