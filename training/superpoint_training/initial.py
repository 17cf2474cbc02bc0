"""Networks before training: new ones, and ones that take over what another network knows."""

from __future__ import annotations

import math

import torch

from superpoint_ros.network.superpoint import Architecture, SuperPoint
from superpoint_training.labels import DUSTBIN


def initial_network(architecture: Architecture, start: SuperPoint | None = None) -> SuperPoint:
    """A new network, with the weights of `start` where there is one.

    Raises ValueError if no layer of `start` fits.
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


def adopt(model: SuperPoint, start: SuperPoint) -> list[str]:
    """Take over the tensors of `start` whose name and shape agree, and return their names.

    So MagicPoint's detector becomes SuperPoint's. Raises ValueError if there are none, as then `start` is of another
    architecture.
    """
    ours, theirs = model.state_dict(), start.state_dict()
    shared = [name for name, tensor in theirs.items() if name in ours and ours[name].shape == tensor.shape]
    if not any(name.endswith("weight") for name in shared):
        raise ValueError(f"nothing to start from: {start.architecture} shares no layer with {model.architecture}")
    model.load_state_dict({name: theirs[name] for name in shared}, strict=False)
    return shared
