"""Slow and obvious versions, written from the definitions, of what the network floor computes."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

Weights = Mapping[str, Tensor]


def conv(weights: Weights, name: str, x: Tensor) -> Tensor:
    kernel = weights[f"{name}.weight"]
    return F.conv2d(x, kernel, weights[f"{name}.bias"], padding=kernel.shape[-1] // 2)


def norm(weights: Weights, name: str, x: Tensor) -> Tensor:
    """BatchNorm in eval mode, written out."""

    def of(statistic: str) -> Tensor:
        return weights[f"{name}.{statistic}"][None, :, None, None]

    scaled = (x - of("running_mean")) / (of("running_var") + 1e-3).sqrt()
    return scaled * of("weight") + of("bias")


def magic_leap(weights: Weights, image: Tensor) -> tuple[Tensor, Tensor]:
    """Logits and descriptors by the authors' code: convolution, then ReLU."""
    x = F.relu(conv(weights, "conv1a", image))
    x = F.relu(conv(weights, "conv1b", x))
    x = F.max_pool2d(x, kernel_size=2, stride=2)
    x = F.relu(conv(weights, "conv2a", x))
    x = F.relu(conv(weights, "conv2b", x))
    x = F.max_pool2d(x, kernel_size=2, stride=2)
    x = F.relu(conv(weights, "conv3a", x))
    x = F.relu(conv(weights, "conv3b", x))
    x = F.max_pool2d(x, kernel_size=2, stride=2)
    x = F.relu(conv(weights, "conv4a", x))
    x = F.relu(conv(weights, "conv4b", x))
    semi = conv(weights, "convPb", F.relu(conv(weights, "convPa", x)))
    desc = conv(weights, "convDb", F.relu(conv(weights, "convDa", x)))
    return semi, desc / desc.norm(dim=1, keepdim=True)


def stemmed(weights: Weights, image: Tensor) -> tuple[Tensor, Tensor]:
    """As Magic Leap's, but the first layer sees each 2×2 block of pixels as four channels, and there is one max-pool
    less; where there are BatchNorms, they come before the ReLU."""

    def layer(name: str, x: Tensor) -> Tensor:
        x = conv(weights, f"conv{name}", x)
        return norm(weights, f"bn{name}", x) if f"bn{name}.weight" in weights else x

    x = torch.cat([image[:, :, row::2, column::2] for row in (0, 1) for column in (0, 1)], dim=1)
    for stage in (1, 2, 3, 4):
        if stage > 2:
            x = F.max_pool2d(x, kernel_size=2, stride=2)
        x = F.relu(layer(f"{stage}b", F.relu(layer(f"{stage}a", x))))
    semi = layer("Pb", F.relu(layer("Pa", x)))
    desc = layer("Db", F.relu(layer("Da", x)))
    return semi, desc / desc.norm(dim=1, keepdim=True)


def rpautrat(weights: Weights, image: Tensor) -> tuple[Tensor, Tensor]:
    """Logits and descriptors by SuperPoint-PyTorch: convolution, ReLU, then BatchNorm."""

    def block(name: str, x: Tensor) -> Tensor:
        return norm(weights, f"{name}.bn", F.relu(conv(weights, f"{name}.conv", x)))

    def last(name: str, x: Tensor) -> Tensor:
        return norm(weights, f"{name}.bn", conv(weights, f"{name}.conv", x))

    x = block("backbone.0.1", block("backbone.0.0", image))
    x = F.max_pool2d(x, kernel_size=2, stride=2)
    x = block("backbone.1.1", block("backbone.1.0", x))
    x = F.max_pool2d(x, kernel_size=2, stride=2)
    x = block("backbone.2.1", block("backbone.2.0", x))
    x = F.max_pool2d(x, kernel_size=2, stride=2)
    x = block("backbone.3.1", block("backbone.3.0", x))
    desc = last("descriptor.1", block("descriptor.0", x))
    return last("detector.1", block("detector.0", x)), desc / desc.norm(dim=1, keepdim=True)


def hugging_face(weights: Weights, image: Tensor) -> tuple[Tensor, Tensor]:
    """Logits and descriptors by transformers' SuperPointForKeypointDetection."""

    def block(index: int, x: Tensor) -> Tensor:
        x = F.relu(conv(weights, f"encoder.conv_blocks.{index}.conv_a", x))
        return F.relu(conv(weights, f"encoder.conv_blocks.{index}.conv_b", x))

    x = image
    for index in (0, 1, 2):
        x = F.max_pool2d(block(index, x), kernel_size=2, stride=2)
    x = block(3, x)
    scores = F.relu(conv(weights, "keypoint_decoder.conv_score_a", x))
    scores = conv(weights, "keypoint_decoder.conv_score_b", scores)
    desc = F.relu(conv(weights, "descriptor_decoder.conv_descriptor_a", x))
    desc = conv(weights, "descriptor_decoder.conv_descriptor_b", desc)
    return scores, desc / desc.norm(dim=1, keepdim=True)


def heatmap(logits: NDArray[np.floating]) -> NDArray[np.float64]:
    """(65, Hc, Wc) logits of one picture to (8·Hc, 8·Wc) probabilities, pixel by pixel."""
    _, rows, columns = logits.shape
    probability = np.zeros((8 * rows, 8 * columns))
    for y in range(8 * rows):
        for x in range(8 * columns):
            cell = np.exp(logits[:, y // 8, x // 8].astype(np.float64))
            probability[y, x] = cell[8 * (y % 8) + x % 8] / cell.sum()
    return probability


def suppress(scores: NDArray[np.floating], radius: int) -> NDArray[np.floating]:
    """Greedy suppression: take pixels from the strongest on, refuse what lies near one taken."""
    height, width = scores.shape
    pixels = [(y, x) for y in range(height) for x in range(width) if scores[y, x] > 0]
    kept = np.zeros_like(scores)
    for y, x in sorted(pixels, key=lambda pixel: -scores[pixel]):  # stable: equal ones by row
        near = kept[max(0, y - radius) : y + radius + 1, max(0, x - radius) : x + radius + 1]
        if not near.any():
            kept[y, x] = scores[y, x]
    return kept


def flat(image: NDArray[np.uint8]) -> NDArray[np.bool_]:
    """Pixels whose 9×9 neighbourhood, as far as it lies in the image, has one value."""
    height, width = image.shape
    result = np.zeros((height, width), bool)
    for y in range(height):
        for x in range(width):
            near = image[max(0, y - 4) : y + 5, max(0, x - 4) : x + 5]
            result[y, x] = near.min() == near.max()
    return result


def bilinear(dense: NDArray[np.floating], x: float, y: float) -> NDArray[np.float64]:
    """A descriptor of the (D, Hc, Wc) map at a pixel; the centre of cell (i, j) is 8·i + 3.5."""
    _, rows, columns = dense.shape
    column = min(max((x - 3.5) / 8, 0), columns - 1)
    row = min(max((y - 3.5) / 8, 0), rows - 1)
    left, top = math.floor(column), math.floor(row)
    right, bottom = min(left + 1, columns - 1), min(top + 1, rows - 1)
    dx, dy = column - left, row - top
    upper = (1 - dx) * dense[:, top, left] + dx * dense[:, top, right]
    lower = (1 - dx) * dense[:, bottom, left] + dx * dense[:, bottom, right]
    mixed = (1 - dy) * upper + dy * lower
    return mixed / np.linalg.norm(mixed)


def bicubic(dense: NDArray[np.floating], x: float, y: float) -> NDArray[np.float64]:
    """The same by cubic convolution (Keys 1981, a = -0.75 as in torch), edge values repeated."""

    def kernel(t: float, a: float = -0.75) -> float:
        t = abs(t)
        if t <= 1:
            return (a + 2) * t**3 - (a + 3) * t**2 + 1
        return a * t**3 - 5 * a * t**2 + 8 * a * t - 4 * a if t < 2 else 0.0

    _, rows, columns = dense.shape
    column, row = (x - 3.5) / 8, (y - 3.5) / 8
    mixed = np.zeros(len(dense))
    for i in range(math.floor(row) - 1, math.floor(row) + 3):
        for j in range(math.floor(column) - 1, math.floor(column) + 3):
            value = dense[:, min(max(i, 0), rows - 1), min(max(j, 0), columns - 1)]
            mixed += kernel(row - i) * kernel(column - j) * value
    return mixed / np.linalg.norm(mixed)
