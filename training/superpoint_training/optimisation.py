"""How a stage is trained: its settings, its learning rate, and which layers learn at all."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from torch.nn.modules.batchnorm import _BatchNorm

from superpoint_ros.network.superpoint import SuperPoint

STAGES = 4
"""Of the encoder."""


def at_least(section: object, lowest: int, *names: str) -> None:
    """Raise ValueError, naming it, for a setting below `lowest`."""
    for name in names:
        if getattr(section, name) < lowest:
            raise ValueError(f"{name} must be at least {lowest}, got {getattr(section, name)}")


@dataclass(frozen=True)
class Optimisation:
    """How one stage is trained.

    steps          of the optimiser
    batch_size     pictures (MagicPoint), pairs (SuperPoint) or views (distillation) a step, over all processes together
    accumulate     parts of a process's batch that go through the network one after the other, for less memory; each
                   counts alike in the gradient, and is what BatchNorm sees
    learning_rate  of Adam, at its highest
    eps            of Adam: a gradient much smaller than this hardly moves its weight
    weight_decay   decoupled (AdamW)
    schedule       "constant", or "cosine" down to nothing at the last step or at the end of the
                   budget
    warmup         steps over which the learning rate rises from nothing
    clip           greatest gradient norm; 0 does not clip
    average        decay of a moving average of the weights, which is then what is validated and
                   exported; 0: none
    norm_momentum  of BatchNorm's running statistics
    freeze_stages  so many stages of the encoder, from the first, stay as they are; 1 and 2 are most of the arithmetic
    freeze_norms   BatchNorm normalises by the statistics that it started with
    best           figure of the validation that decides which weights are exported, those at the start among them, as
                   in "homography_3"; with a minus before one that should be low; "": the last weights
    patience       validations in a row without a better `best` after which training ends; 0: it goes on
    """

    steps: int = 200_000
    batch_size: int = 32
    accumulate: int = 1
    learning_rate: float = 1e-3
    eps: float = 1e-8
    weight_decay: float = 0.0
    schedule: Literal["constant", "cosine"] = "constant"
    warmup: int = 0
    clip: float = 0.0
    average: float = 0.0
    norm_momentum: float = 0.1
    freeze_stages: int = 0
    freeze_norms: bool = False
    best: str = ""
    patience: int = 0

    def __post_init__(self) -> None:
        at_least(self, 1, "steps", "batch_size", "accumulate")
        at_least(self, 0, "weight_decay", "warmup", "clip", "patience")
        if self.learning_rate <= 0:
            raise ValueError(f"learning_rate must be above 0, got {self.learning_rate}")
        if self.eps <= 0:
            raise ValueError(f"eps must be above 0, got {self.eps}")
        if not 0 <= self.average < 1:
            raise ValueError(f"average must be at least 0 and below 1, got {self.average}")
        if not 0 <= self.freeze_stages <= STAGES:
            raise ValueError(f"freeze_stages must be between 0 and {STAGES}, got {self.freeze_stages}")
        if self.patience and not self.best:
            raise ValueError("patience is of `best`, which names no figure, as in best=homography_3")

    @property
    def freezes(self) -> bool:
        """Whether anything stays as it was at the start."""
        return bool(self.freeze_stages or self.freeze_norms)


def learning_rate(settings: Optimisation, step: int, progress: float) -> float:
    """Of a step, counted from 0; progress is from 0 to 1."""
    rate = settings.learning_rate * min(1.0, (step + 1) / max(settings.warmup, 1))
    if settings.schedule == "cosine":
        rate *= 0.5 * (1 + math.cos(min(progress, 1.0) * math.pi))
    return rate


def freeze(model: SuperPoint, settings: Optimisation) -> None:
    """Exclude the frozen stages' parameters from the gradient, in place."""
    for name, parameter in model.named_parameters():
        if _stage(name) <= settings.freeze_stages:
            parameter.requires_grad_(False)


def to_training(model: SuperPoint, settings: Optimisation) -> None:
    """Put a network into training mode, all but the BatchNorms that stay as they are."""
    model.train()
    for name, layer in model.named_modules():
        if isinstance(layer, _BatchNorm):  # the one of many GPUs, too, which is no BatchNorm2d
            layer.momentum = settings.norm_momentum
            if settings.freeze_norms or _stage(name) <= settings.freeze_stages:
                layer.eval()


def _stage(name: str) -> int:
    """Of the encoder, by a layer's or tensor's name, as in conv1a.weight; the heads come after all stages."""
    digit = name.partition(".")[0].removeprefix("conv").removeprefix("bn")[:1]
    return int(digit) if digit.isdecimal() else STAGES + 1
