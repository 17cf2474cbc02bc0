"""What lies between cuDNN's convolutions, each in one pass over memory, as Triton kernels.

At half precision the maps of the first stage take longer to read and write than to compute, so the
first convolution also does ReLU and BatchNorm, and a max-pool the BatchNorm before it. Maps are
channels_last; arithmetic is float32. torch brings Triton on most machines with a GPU; without it
`torch_network` does the same in torch's own steps.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

PIXELS = 64
"""Of a map that one program computes, all channels of each."""


def first_layer(grey: Tensor, weight: Tensor, bias: Tensor, norm: tuple[Tensor, Tensor] | None, stem: int) -> Tensor:
    """3×3 convolution of pixels, ReLU, BatchNorm.

    grey    (B, H, W) uint8
    weight  (C, stem², 3, 3) for pixels from 0 to 255; bias (C,)
    norm    (1, C, 1, 1) scale and shift; None if there is no BatchNorm

    Returns (B, C, H/stem, W/stem) of the weight's dtype.
    """
    batch, height, width = grey.shape
    rows, columns = height // stem, width // stem
    out = _channels_last(batch, weight.shape[0], rows, columns, weight)
    scale, shift = norm or (bias, bias)
    grid = triton.cdiv(rows * columns, PIXELS), batch
    _first[grid](
        grey, weight.contiguous(), bias, scale, shift, out, rows, columns,
        STEM=stem, CHANNELS=weight.shape[0], NORM=norm is not None, PIXELS=PIXELS,
        LOOKS=_wide(9 * stem**2), WIDE=max(_wide(weight.shape[0]), 16),
    )  # fmt: skip
    return out


def normed(x: Tensor, norm: tuple[Tensor, Tensor]) -> Tensor:
    """BatchNorm of (B, C, H, W): (1, C, 1, 1) scale and shift."""
    x = x.contiguous(memory_format=torch.channels_last)  # costs nothing where cuDNN has made it so
    out, (batch, channels, rows, columns) = torch.empty_like(x), x.shape
    pixels = batch * rows * columns
    _normed[(triton.cdiv(pixels, PIXELS),)](
        x, *norm, out, pixels, CHANNELS=channels, PIXELS=PIXELS, WIDE=_wide(channels)
    )
    return out


def halved(x: Tensor, norm: tuple[Tensor, Tensor] | None) -> Tensor:
    """2×2 max-pool of the BatchNorm of (B, C, H, W): (B, C, H/2, W/2)."""
    x = x.contiguous(memory_format=torch.channels_last)
    batch, channels, rows, columns = x.shape
    out = _channels_last(batch, channels, rows // 2, columns // 2, x)
    scale, shift = norm or (x, x)
    pixels = batch * (rows // 2) * (columns // 2)
    _halved[(triton.cdiv(pixels, PIXELS),)](
        x, scale, shift, out, pixels, columns // 2,
        CHANNELS=channels, NORM=norm is not None, PIXELS=PIXELS, WIDE=_wide(channels),
    )  # fmt: skip
    return out


@triton.jit
def _first(
    grey, weight, bias, scale, shift, out, rows, columns,
    STEM: tl.constexpr, CHANNELS: tl.constexpr, NORM: tl.constexpr,
    PIXELS: tl.constexpr, LOOKS: tl.constexpr, WIDE: tl.constexpr,
):  # fmt: skip
    picture = tl.program_id(1).to(tl.int64) * rows * columns
    pixel = tl.program_id(0) * PIXELS + tl.arange(0, PIXELS)
    channel = tl.arange(0, WIDE)
    there = channel < CHANNELS
    y, x = pixel // columns, pixel % columns
    # the pixels that each looks at as the rows of a matrix, for the matrix units
    look = tl.arange(0, LOOKS)
    tap, part = look % 9, look // 9
    row, column = y[:, None] + (tap // 3)[None, :] - 1, x[:, None] + (tap % 3)[None, :] - 1
    inside = (row >= 0) & (row < rows) & (column >= 0) & (column < columns) & (part < STEM * STEM)[None, :]
    place = (row * STEM + (part // STEM)[None, :]) * (columns * STEM) + column * STEM + (part % STEM)[None, :]
    values = tl.load(grey + picture * STEM * STEM + place, inside, 0).to(weight.dtype.element_ty)
    whole = (look < 9 * STEM * STEM)[:, None] & there[None, :]
    factors = tl.load(weight + look[:, None] + channel[None, :] * (9 * STEM * STEM), whole, 0.0)
    total = tl.dot(values, factors, input_precision="ieee")
    total += tl.load(bias + channel, there, 0.0).to(tl.float32)[None, :]
    total = tl.maximum(total, 0.0)
    if NORM:
        total = _scaled(total, scale, shift, channel, there)
    within = (pixel < rows * columns)[:, None] & there[None, :]
    tl.store(out + (picture + pixel)[:, None] * CHANNELS + channel[None, :], total.to(out.dtype.element_ty), within)


@triton.jit
def _normed(x, scale, shift, out, pixels, CHANNELS: tl.constexpr, PIXELS: tl.constexpr, WIDE: tl.constexpr):
    pixel = tl.program_id(0).to(tl.int64) * PIXELS + tl.arange(0, PIXELS)
    channel = tl.arange(0, WIDE)
    there = channel < CHANNELS
    place = pixel[:, None] * CHANNELS + channel[None, :]
    within = (pixel < pixels)[:, None] & there[None, :]
    value = _scaled(tl.load(x + place, within, 0.0).to(tl.float32), scale, shift, channel, there)
    tl.store(out + place, value.to(out.dtype.element_ty), within)


@triton.jit
def _halved(
    x, scale, shift, out, pixels, columns,
    CHANNELS: tl.constexpr, NORM: tl.constexpr, PIXELS: tl.constexpr, WIDE: tl.constexpr,
):  # fmt: skip
    pixel = tl.program_id(0).to(tl.int64) * PIXELS + tl.arange(0, PIXELS)
    channel = tl.arange(0, WIDE)
    there = channel < CHANNELS
    within = (pixel < pixels)[:, None] & there[None, :]
    # row by row over all pictures: one picture's rows are twice as many before as after
    corner = pixel // columns * columns * 4 + pixel % columns * 2
    most = tl.full((PIXELS, WIDE), float("-inf"), tl.float32)
    for part in tl.static_range(4):
        place = corner + part // 2 * columns * 2 + part % 2
        value = tl.load(x + place[:, None] * CHANNELS + channel[None, :], within, 0.0).to(tl.float32)
        if NORM:  # before the maximum: a scale may be negative
            value = _scaled(value, scale, shift, channel, there)
        most = tl.maximum(most, value)
    tl.store(out + pixel[:, None] * CHANNELS + channel[None, :], most.to(out.dtype.element_ty), within)


@triton.jit
def _scaled(value, scale, shift, channel, there):
    return (
        value * tl.load(scale + channel, there, 0.0).to(tl.float32)[None, :]
        + tl.load(shift + channel, there, 0.0).to(tl.float32)[None, :]
    )


def _channels_last(batch: int, channels: int, rows: int, columns: int, like: Tensor) -> Tensor:
    return like.new_empty((batch, rows, columns, channels)).permute(0, 3, 1, 2)


def _wide(channels: int) -> int:
    return int(triton.next_power_of_2(channels))
