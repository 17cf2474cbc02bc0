"""What a stage brings to the training loop, and what it gets back."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import cast

import torch
from torch import Tensor
from torch.utils.data import Dataset

from superpoint_ros.network.superpoint import SuperPoint
from superpoint_training.losses import Share
from superpoint_training.samples import Batch

Forward = Callable[[Tensor], tuple[Tensor, Tensor | None]]
"""Images to cell logits and dense descriptors, as `SuperPoint.forward`."""


@dataclass(frozen=True)
class Task:
    """What is trained.

    name      for progress and files
    model     the network, on the CPU
    samples   index -> sample
    loss      (forward, batch on the device, progress from 0 to 1) -> named shares of the loss with their weights;
              forward is the network's
    validate  network in eval mode -> figures; on the leading process only
    pictures  network in eval mode -> name -> (H, W, 3) uint8 RGB for TensorBoard
    unit      what a batch holds: images or pairs
    recipe    what decides the course of the run, as `recipe.stage_recipe` has it, and its pictures: a run is only
              resumed with the same
    """

    name: str
    model: SuperPoint
    samples: Dataset[Batch]
    loss: Callable[[Forward, Batch, float], dict[str, tuple[float, Share]]]
    validate: Callable[[SuperPoint], dict[str, float]]
    pictures: Callable[[SuperPoint], Mapping[str, object]]
    unit: str = "images"
    recipe: Mapping[str, object] = field(default_factory=dict)


@dataclass(frozen=True)
class Outcome:
    """How a run ended.

    model     what is exported: the averaged weights where there is an average, and the best where they are chosen by
              validation; eval mode, on the CPU
    step      the last one
    exported  the step after which `model` was
    seconds   of training, those before it was resumed included
    figures   of the validation of `model`
    why       "finished", "budget", "patience" or "signal"
    """

    model: SuperPoint
    step: int
    exported: int
    seconds: float
    figures: dict[str, float]
    why: str


def memory_format(device: torch.device) -> torch.memory_format:
    """In which order a network's numbers lie for training: channels last, but channels first on a CPU without AVX-512.

    A step of the default architecture takes 0.7 of the other order's time with AVX-512, 1.1 of it with AVX2, where
    oneDNN's gradient of 64 channels' weights takes three to five times as long.
    """
    slow = device.type == "cpu" and torch.backends.cpu.get_cpu_capability() != "AVX512"
    return torch.contiguous_format if slow else torch.channels_last


def to_device(model: SuperPoint, device: torch.device) -> SuperPoint:
    """The network on a device, as `memory_format` says."""
    moved = model.to(device).to(memory_format=memory_format(device))  # type: ignore[call-overload]
    return cast(SuperPoint, moved)


def as_network_input(image: Tensor) -> Tensor:
    """Views (B, V, H, W) uint8 to (V · B, 1, H, W) float32 in [0, 1], first views first."""
    views = image.transpose(0, 1).flatten(0, 1)[:, None]
    return views.float().div(255).contiguous(memory_format=memory_format(image.device))
