"""The network in torch as an inference engine wants it: fewer passes over memory than `SuperPoint.forward`.

On a GPU the first layers take as long as their maps take to be read and written, so what counts is
how often that is done. Bias and ReLU go into the convolution. A BatchNorm behind a ReLU cannot go
into the next convolution, whose zero padding would have to become its shift; but it is one
multiply-add, and where a max-pool follows, it comes after that, on a quarter of the pixels.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from types import ModuleType

import torch
import torch.nn.functional as F
from torch import Tensor

from superpoint_ros.network.checkpoint import Checkpoint
from superpoint_ros.network.engines.devices import first_line, out_of_memory
from superpoint_ros.network.superpoint import (
    DESCRIPTOR_LAYERS,
    DETECTOR_LAYERS,
    ENCODER_LAYERS,
    SuperPoint,
    affine,
    fold_norms,
)

logger = logging.getLogger(__name__)

Convolve = Callable[[Tensor, Tensor, Tensor], Tensor]
"""Input, weight and bias to the ReLU of a convolution of the same size."""


@dataclass(frozen=True)
class _Layer:
    """A convolution, and the BatchNorm behind its ReLU.

    norm   (1, C, 1, 1) scale and shift; None if there is no BatchNorm
    rises  whether what is higher before it is so after it, so that a max-pool may come before it
    """

    weight: Tensor
    bias: Tensor
    norm: tuple[Tensor, Tensor] | None
    rises: bool


class TorchNetwork:
    """The network in channels_last and a given precision.

    convolve  convolution, bias and ReLU; by default cuDNN's in one kernel on a GPU, else torch's in two steps. One that
              fails (cuDNN may have none for a shape) is given up with a line of warning
    layers    the module `triton_layers`, for what lies between convolutions; None: torch's own steps
    """

    capturable = True

    def __init__(
        self,
        checkpoint: Checkpoint,
        device: torch.device,
        dtype: torch.dtype,
        convolve: Convolve | None = None,
        layers: ModuleType | None = None,
    ) -> None:
        self._dtype, self._triton = dtype, layers
        if convolve is None:
            convolve = _fused if device.type == "cuda" and torch.backends.cudnn.is_available() else _stepwise
        self._convolve = convolve
        model = fold_norms(checkpoint.build())
        self._stem = model.architecture.stem
        names = (*ENCODER_LAYERS, *DETECTOR_LAYERS, *DESCRIPTOR_LAYERS)
        self._layers = {name: _layer(model, name, device, dtype) for name in names}

    def __call__(self, grey: Tensor) -> tuple[Tensor, Tensor]:
        """From (B, H, W) uint8 to logits (B, 65, H/8, W/8) and descriptors (B, D, H/8, W/8) of any length."""
        x = self._first(grey)
        for stage in (1, 2, 3, 4):
            if stage > 1:
                x = self._normed(f"{stage}a", self._relu(f"{stage}a", x))
            x = self._relu(last := f"{stage}b", x)
            # with a stem the first stage has no max-pool
            x = self._halved(last, x) if self._stem <= stage < 4 else self._normed(last, x)
        return self._head(DETECTOR_LAYERS, x), self._head(DESCRIPTOR_LAYERS, x)

    def _first(self, grey: Tensor) -> Tensor:
        name, side = ENCODER_LAYERS[0], self._stem
        if self._triton is not None:
            layer = self._layers[name]
            return self._triton.first_layer(grey, layer.weight, layer.bias, layer.norm, side)
        batch, height, width = grey.shape
        # (B, H, W, C) and its strides from the start: a contiguous (B, 1, H, W) counts as NCHW, and is turned later
        blocks = grey.to(self._dtype).view(batch, height // side, side, width // side, side).transpose(2, 3)
        x = blocks.reshape(batch, height // side, width // side, side**2).permute(0, 3, 1, 2)
        return self._normed(name, self._relu(name, x))

    def _head(self, names: tuple[str, str], x: Tensor) -> Tensor:
        last = self._layers[names[1]]
        return F.conv2d(self._relu(names[0], x), last.weight, last.bias)

    def _relu(self, name: str, x: Tensor) -> Tensor:
        layer = self._layers[name]
        try:
            return self._convolve(x, layer.weight, layer.bias)
        except RuntimeError as error:
            none = "unable to find an engine" in str(error)  # cuDNN has none, or lacks memory for all: the steps show
            if self._convolve is _stepwise or (out_of_memory(error) and not none):
                raise
            logger.warning(
                "Convolution %s has no bias and ReLU in one kernel (%s); they are steps of their own.",
                name,
                first_line(error),
            )
            self._convolve = _stepwise
            return _stepwise(x, layer.weight, layer.bias)

    def _normed(self, name: str, x: Tensor) -> Tensor:
        norm = self._layers[name].norm
        if norm is None:
            return x
        if self._triton is not None:
            return self._triton.normed(x, norm)
        return torch.addcmul(norm[1], x, norm[0])

    def _halved(self, name: str, x: Tensor) -> Tensor:
        """The 2×2 max-pool of the BatchNorm."""
        layer = self._layers[name]
        if self._triton is not None:
            return self._triton.halved(x, layer.norm)
        return self._normed(name, _halved(x)) if layer.rises else _halved(self._normed(name, x))


def _layer(model: SuperPoint, name: str, device: torch.device, dtype: torch.dtype) -> _Layer:
    convolution, norm = getattr(model, f"conv{name}"), getattr(model, f"bn{name}", None)
    weight = convolution.weight.detach()
    if name == ENCODER_LAYERS[0]:
        weight = weight / 255  # pixels are 0 to 255
    weight = weight.to(device, dtype).contiguous(memory_format=torch.channels_last)
    bias = convolution.bias.detach().to(device, dtype)
    if norm is None:
        return _Layer(weight, bias, None, True)
    scale, shift = (part.detach()[None, :, None, None] for part in affine(norm))
    return _Layer(weight, bias, (scale.to(device, dtype), shift.to(device, dtype)), bool((scale >= 0).all()))


def _fused(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    padding = [weight.shape[-1] // 2] * 2
    return torch.cudnn_convolution_relu(x, weight, bias, [1, 1], padding, [1, 1], 1)


def _stepwise(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    return F.conv2d(x, weight, bias, padding=weight.shape[-1] // 2).relu_()


def _halved(x: Tensor) -> Tensor:
    """2×2 max-pool: `max_pool2d` would also write where each maximum was, four times the bytes of half precision."""
    batch, channels, height, width = x.shape
    blocks = x.permute(0, 2, 3, 1).view(batch, height // 2, 2, width // 2, 2, channels)
    return blocks.amax(dim=(2, 4)).permute(0, 3, 1, 2)  # still channels_last
