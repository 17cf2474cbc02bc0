"""Networks before training: new ones, and ones that take over what another network knows."""

from __future__ import annotations

import math

import torch

from superpoint_ros.network.superpoint import Architecture, SuperPoint
from superpoint_training.labels import DUSTBIN


def initial_network(architecture: Architecture, start: SuperPoint | None = None) -> SuperPoint:
    """A new network, with the weights of `start` where there is one.

    Raises ValueError if `start` does not fit (`adoptable`).
    """
    model = new_network(architecture)
    if start is not None:
        adopt(model, start)
    return model


def new_network(architecture: Architecture) -> SuperPoint:
    """An untrained network whose cells expect keypoints as seldom as Synthetic Shapes have them.

    That is in 3 cells of 100. Without that prior the first thousand steps go into learning it: behind a BatchNorm the
    dustbin's bias moves by one learning rate a step.
    """
    model = SuperPoint(architecture)
    bias = model.get_parameter("bnPb.bias" if architecture.batch_norm else "convPb.bias")
    with torch.no_grad():
        bias.zero_()
        bias[DUSTBIN] = math.log(DUSTBIN * 0.97 / 0.03)
    return model


def adopt(model: SuperPoint, start: SuperPoint) -> None:
    """Take over the encoder, the detector, and the descriptor head where both have the same, as `adoptable` says."""
    heads = adoptable(model.architecture, start.architecture)
    adopted = {name: tensor for name, tensor in start.state_dict().items() if _part(name) in heads}
    model.load_state_dict(adopted, strict=False)


def adoptable(ours: Architecture, theirs: Architecture) -> tuple[str, ...]:
    """Which of "encoder", "detector" and "descriptor head" a network takes over from another one.

    So MagicPoint's detector becomes SuperPoint's. Raises ValueError unless encoder and detector fit as a whole: in a
    network that takes over a part of them, the other part makes noise of it.
    """
    for name in ("channels", "head_channels", "batch_norm", "norm_first", "stem"):
        found, expected = getattr(theirs, name), getattr(ours, name)
        if found != expected:
            raise ValueError(f"its {name} is {found}; expected {expected}, as in network.{name}")
    same = bool(ours.descriptor_dim) and ours.descriptor_dim == theirs.descriptor_dim
    return ("encoder", "detector", "descriptor head")[: 3 if same else 2]


def _part(name: str) -> str:
    """Which part a tensor belongs to, by its layer: `convDb.weight` to the descriptor head."""
    layer = name.partition(".")[0].removeprefix("conv").removeprefix("bn")
    return {"P": "detector", "D": "descriptor head"}.get(layer[0], "encoder")
