"""The SuperPoint network: a VGG encoder with a detector head and a descriptor head.

DeTone, Malisiewicz, Rabinovich, "SuperPoint: Self-Supervised Interest Point Detection and
Description", 2018 (arXiv 1712.07629), section 3. Layers carry the names of the authors' code
(conv1a … convDb).
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor, nn

CELL = 8
"""Side of a cell in pixels: three times halved, by 2×2 max-pools or the stem."""

ENCODER_LAYERS = ("1a", "1b", "2a", "2b", "3a", "3b", "4a", "4b")
DETECTOR_LAYERS = ("Pa", "Pb")
DESCRIPTOR_LAYERS = ("Da", "Db")


@dataclass(frozen=True)
class Architecture:
    """What a weights file must say about the network it belongs to.

    channels        of the four encoder stages, two 3×3 convolutions each
    head_channels   of the 3×3 convolution in each head
    descriptor_dim  length of a descriptor; 0 leaves the descriptor head out (MagicPoint)
    batch_norm      False: conv-ReLU (Magic Leap). True: conv-ReLU-BatchNorm (rpautrat), and a
                    BatchNorm without ReLU after the last layer of each head.
    norm_first      with batch_norm: conv-BatchNorm-ReLU, which `fold_norms` turns into plain
                    convolutions exactly
    stem            side of the block of pixels that becomes the channels of one (space to depth).
                    1: stage 1 sees every pixel and ends in a max-pool. 2: it sees four channels at
                    half the resolution and has no max-pool; a quarter of its arithmetic.

    Raises ValueError for another stem, or norm_first without batch_norm.
    """

    channels: tuple[int, int, int, int] = (64, 64, 128, 128)
    head_channels: int = 256
    descriptor_dim: int = 256
    batch_norm: bool = False
    norm_first: bool = False
    stem: int = 1

    def __post_init__(self) -> None:
        if self.stem not in (1, 2):
            raise ValueError(f"stem must be 1 or 2, got {self.stem!r}")
        if self.norm_first and not self.batch_norm:
            raise ValueError("norm_first asks for batch_norm, which is off")


class SuperPoint(nn.Module):
    """Grey image to cell logits and dense descriptors; `heatmap` and `descriptors` do the rest."""

    def __init__(self, architecture: Architecture | None = None) -> None:
        super().__init__()
        self.architecture = architecture = architecture or Architecture()
        previous = architecture.stem**2
        for stage, channels in enumerate(architecture.channels, start=1):
            self._add_layer(f"{stage}a", previous, channels, kernel=3)
            self._add_layer(f"{stage}b", channels, channels, kernel=3)
            previous = channels
        self._add_layer("Pa", previous, architecture.head_channels, kernel=3)
        self._add_layer("Pb", architecture.head_channels, CELL * CELL + 1, kernel=1)
        if architecture.descriptor_dim:
            self._add_layer("Da", previous, architecture.head_channels, kernel=3)
            self._add_layer("Db", architecture.head_channels, architecture.descriptor_dim, kernel=1)

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor | None]:
        """Run the network.

        image  (B, 1, H, W) float in [0, 1]; H and W multiples of 8

        Returns cell logits (B, 65, H/8, W/8), the last channel the dustbin, and descriptors
        (B, D, H/8, W/8) float32 of unit length, or None without a descriptor head.
        """
        x = image
        stem = self.architecture.stem
        if stem > 1:
            x = F.pixel_unshuffle(x, stem)
        for stage in (1, 2, 3, 4):
            if stage > stem:
                x = F.max_pool2d(x, 2)
            for name in (f"{stage}a", f"{stage}b"):
                x = self._layer(name, x)
        logits = self._head(DETECTOR_LAYERS, x)
        if not self.architecture.descriptor_dim:
            return logits, None
        # in float32, as squares of half precision overflow
        return logits, F.normalize(self._head(DESCRIPTOR_LAYERS, x).float(), dim=1)

    def _add_layer(self, name: str, inputs: int, outputs: int, kernel: int) -> None:
        setattr(self, f"conv{name}", nn.Conv2d(inputs, outputs, kernel, padding=kernel // 2))
        if self.architecture.batch_norm:
            # eps of the TensorFlow code that rpautrat's weights come from
            setattr(self, f"bn{name}", nn.BatchNorm2d(outputs, eps=1e-3))

    def _layer(self, name: str, x: Tensor, relu: bool = True) -> Tensor:
        x = getattr(self, f"conv{name}")(x)
        norm = getattr(self, f"bn{name}", None)
        if norm is not None and self.architecture.norm_first:
            x, norm = norm(x), None
        if relu:
            x = F.relu(x)
        return x if norm is None else norm(x)

    def _head(self, names: tuple[str, str], x: Tensor) -> Tensor:
        return self._layer(names[1], self._layer(names[0], x), relu=False)


@torch.no_grad()
def fold_norms(model: SuperPoint) -> SuperPoint:
    """Fold BatchNorms into convolutions wherever that is exact, in place, for inference.

    With `norm_first` that is everywhere, and the network becomes one without BatchNorm, its
    architecture too. Else it is the heads' four, because a 1×1 convolution has no padding; the
    encoder's shift would have to be continued into the zero padding of the next 3×3 convolution.

    Raises ValueError unless `model` is in eval mode.
    """
    if model.training:
        raise ValueError("fold_norms needs a model in eval mode: the running statistics become weights")
    if model.architecture.norm_first:
        for name in (*ENCODER_LAYERS, *DETECTOR_LAYERS, *DESCRIPTOR_LAYERS):
            _fold_after(model, name)
        model.architecture = replace(model.architecture, batch_norm=False, norm_first=False)
        return model
    for first, last in (DETECTOR_LAYERS, DESCRIPTOR_LAYERS):
        _fold_before(model, first, last)
        _fold_after(model, last)
    return model


def _fold_after(model: SuperPoint, name: str) -> None:
    """The BatchNorm right behind a convolution goes into it."""
    norm = getattr(model, f"bn{name}", None)
    if norm is None:
        return
    conv = getattr(model, f"conv{name}")
    scale, shift = affine(norm)
    conv.bias.copy_(conv.bias.double() * scale + shift)
    conv.weight.copy_(conv.weight.double() * scale[:, None, None, None])
    setattr(model, f"bn{name}", None)


def _fold_before(model: SuperPoint, first: str, last: str) -> None:
    """The BatchNorm of layer `first` goes into the 1×1 convolution of the next layer, `last`."""
    norm = getattr(model, f"bn{first}", None)
    if norm is None:
        return
    conv = getattr(model, f"conv{last}")
    scale, shift = affine(norm)
    weight = conv.weight.double()
    conv.bias.copy_(conv.bias.double() + weight[:, :, 0, 0] @ shift)
    conv.weight.copy_(weight * scale[None, :, None, None])
    setattr(model, f"bn{first}", None)


def affine(norm: nn.BatchNorm2d) -> tuple[Tensor, Tensor]:
    """The scale and shift, in float64, that a BatchNorm in eval mode applies."""
    assert norm.running_var is not None and norm.running_mean is not None
    scale = norm.weight.double() / torch.sqrt(norm.running_var.double() + norm.eps)
    return scale, norm.bias.double() - norm.running_mean.double() * scale
