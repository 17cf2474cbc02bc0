"""The SuperPoint network: a VGG encoder with a detector head and a descriptor head.

DeTone, Malisiewicz, Rabinovich, "SuperPoint: Self-Supervised Interest Point Detection and
Description", 2018 (arXiv 1712.07629), section 3. Layers carry the names of the authors' code
(conv1a … convDb).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

CELL = 8
"""Side of a cell in pixels: three 2×2 max-pools."""

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
    """

    channels: tuple[int, int, int, int] = (64, 64, 128, 128)
    head_channels: int = 256
    descriptor_dim: int = 256
    batch_norm: bool = False


class SuperPoint(nn.Module):
    """Grey image to cell logits and dense descriptors; `heatmap` and `descriptors` do the rest."""

    def __init__(self, architecture: Architecture | None = None) -> None:
        super().__init__()
        self.architecture = architecture = architecture or Architecture()
        previous = 1
        for stage, channels in enumerate(architecture.channels, start=1):
            self._add_layer(f"{stage}a", previous, channels, kernel=3)
            self._add_layer(f"{stage}b", channels, channels, kernel=3)
            previous = channels
        self._add_layer("Pa", previous, architecture.head_channels, kernel=3)
        self._add_layer("Pb", architecture.head_channels, CELL * CELL + 1, kernel=1)
        if architecture.descriptor_dim:
            self._add_layer("Da", previous, architecture.head_channels, kernel=3)
            self._add_layer("Db", architecture.head_channels, architecture.descriptor_dim, kernel=1)

    def forward(self, image: Tensor, valid: Tensor | None = None) -> tuple[Tensor, Tensor | None]:
        """Run the network.

        image  (B, 1, H, W) float in [0, 1]; H and W multiples of 8
        valid  (B, 1, H, W) of the same dtype, 1 inside each picture and 0 in the padding that a
               batch of unequal sizes needs (each picture's extent a multiple of 8). With it a
               picture's result does not depend on what it is batched with, since every layer then
               sees the same zero border as it would alone.

        Returns cell logits (B, 65, H/8, W/8), the last channel the dustbin, and descriptors
        (B, D, H/8, W/8) float32 of unit length, or None without a descriptor head.
        """
        x = image
        for stage in (1, 2, 3, 4):
            if stage > 1:
                x = F.max_pool2d(x, 2)
                valid = None if valid is None else valid[..., ::2, ::2]
            for name in (f"{stage}a", f"{stage}b"):
                x = self._layer(name, x)
                x = x if valid is None else x * valid
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
        if relu:
            x = F.relu(x)
        norm = getattr(self, f"bn{name}", None)
        return x if norm is None else norm(x)

    def _head(self, names: tuple[str, str], x: Tensor) -> Tensor:
        # The last layer of a head is 1×1: what lies in a batch's padding cannot reach the picture
        # any more.
        return self._layer(names[1], self._layer(names[0], x), relu=False)


@torch.no_grad()
def fold_head_norms(model: SuperPoint) -> SuperPoint:
    """Fold the heads' four BatchNorms into their 1×1 convolutions, in place, for inference.

    Exact, because a 1×1 convolution has no padding. The encoder's cannot be folded exactly: their
    shift would have to be continued into the zero padding of the next 3×3 convolution.

    Raises ValueError unless `model` is in eval mode.
    """
    if model.training:
        raise ValueError("fold_head_norms needs a model in eval mode: the running statistics become weights")
    for first, last in (DETECTOR_LAYERS, DESCRIPTOR_LAYERS):
        norm_in = getattr(model, f"bn{first}", None)
        norm_out = getattr(model, f"bn{last}", None)
        if norm_in is None or norm_out is None:
            continue
        conv = getattr(model, f"conv{last}")
        scale_in, shift_in = _affine(norm_in)
        scale_out, shift_out = _affine(norm_out)
        weight = conv.weight[:, :, 0, 0].double()
        bias = (weight @ shift_in + conv.bias.double()) * scale_out + shift_out
        weight = scale_out[:, None] * weight * scale_in[None, :]
        conv.weight.copy_(weight[:, :, None, None])
        conv.bias.copy_(bias)
        setattr(model, f"bn{first}", None)
        setattr(model, f"bn{last}", None)
    return model


def _affine(norm: nn.BatchNorm2d) -> tuple[Tensor, Tensor]:
    """The scale and shift, in float64, that a BatchNorm in eval mode applies."""
    assert norm.running_var is not None and norm.running_mean is not None
    scale = norm.weight.double() / torch.sqrt(norm.running_var.double() + norm.eps)
    return scale, norm.bias.double() - norm.running_mean.double() * scale
