"""From samples of more than eight bits to grey levels: by a range that is set, or one that is found.

A radiometric thermal camera gives some hundred counts somewhere in 65536: over the whole range its pictures are
black. The range that is found comes from percentiles, and follows slowly and only when it must, so that a point
looks the same from frame to frame and is matched.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

Scale = Callable[[NDArray[Any]], NDArray[np.uint8]]
"""Samples of any shape and numeric type to uint8 of that shape."""

AUTOMATIC = (0.0, 0.0)
"""`intensity_range` that stands for one that is found."""

LOWEST, HIGHEST = 1.0, 99.0
"""Percentiles of a picture that its range holds; what few pixels show, such as the sun, may be clipped."""
MARGIN = 0.1
"""Part of the span between them that is added on either side, so that the next frames fit, too."""
LOOSE = 0.6
"""A range that is held gets narrower when a picture needs less than this part of it."""
STEP, STRIDE = 0.1, 0.5
"""Part of the way to a picture's range that the held one goes in a frame; the larger while it is FAR too wide, since
there is nothing to match yet."""
FAR = 16
MOSTLY, PATIENCE = 0.9, 5
"""A picture of which so many pixels lie in the held range does not widen it before so many more frames than not have
wanted that: the sun or a flame that passes must not leave a camera blind. And it widens it in steps."""
LARGEST = 1e30
"""Of floats: what is beyond stands for no measurement, as FLT_MAX does for depths."""
SMALLEST_SPAN = 64
"""Of integers: four grey levels a count. More would show little but the sensor's noise."""
SAMPLES = 1 << 14
"""Pixels that percentiles are taken of, evenly spread."""


@dataclass(frozen=True)
class FixedRange:
    """A Scale: `low` becomes 0, `high` 255, what lies outside is clipped, NaN becomes 0."""

    low: float
    high: float

    def __call__(self, samples: NDArray[Any]) -> NDArray[np.uint8]:
        """Grey levels of these samples."""
        if samples.dtype == np.uint16:
            return _table(self.low, self.high).take(samples)
        return _stretched(samples, self.low, self.high)


class FoundRange:
    """A Scale that remembers: one camera's range, found in its first picture and held while the pictures fit.

    low, high  the range; NaN before the first picture that has more than one value
    """

    def __init__(self) -> None:
        self.low = self.high = math.nan
        self._kind = ""
        self._odd = 0

    def __call__(self, samples: NDArray[Any]) -> NDArray[np.uint8]:
        """Follow this picture where it does not fit, and give its grey levels."""
        ends = self.follow(samples)
        return np.zeros(samples.shape, np.uint8) if ends is None else FixedRange(*ends)(samples)

    def follow(self, samples: NDArray[Any]) -> tuple[float, float] | None:
        """The range for this picture, low and high; None if it holds no number at all."""
        if samples.dtype.kind != self._kind:
            self.low, self.high, self._kind = math.nan, math.nan, samples.dtype.kind
        numbers = _some(samples)
        if not numbers.size:
            return None
        found = _ends(numbers)
        low, high = _widened(*found, whole_numbers=samples.dtype.kind in "iu")
        if found[0] == found[1]:  # black, or a closed shutter: says nothing of the pictures to come
            return (low, high) if math.isnan(self.low) else (self.low, self.high)
        span = self.high - self.low
        seen = min(found[1], self.high) - max(found[0], self.low)
        fits = self.low <= found[0] and found[1] <= self.high
        self._odd = max(self._odd - 1, 0) if fits else min(self._odd + 1, 2 * PATIENCE)
        mostly = not fits and np.mean((self.low <= numbers) & (numbers <= self.high)) >= MOSTLY
        if math.isnan(span):
            self.low, self.high = low, high
        elif mostly and self._odd <= PATIENCE:
            pass
        elif not mostly and seen < 0.5 * (found[1] - found[0]):
            self.low, self.high = low, high
        elif not fits or high - low < LOOSE * span:
            step = STRIDE if FAR * (high - low) < span else STEP
            self.low += step * (low - self.low)
            self.high += step * (high - self.high)
        return self.low, self.high


def scale_of(intensity_range: tuple[float, ...], found: FoundRange | None = None) -> Scale:
    """What a value of `intensity_range` means: a FixedRange, or for AUTOMATIC the range found so far, or a new one."""
    low, high = intensity_range
    return FixedRange(low, high) if (low, high) != AUTOMATIC else found or FoundRange()


def _some(samples: NDArray[Any]) -> NDArray[Any]:
    """About SAMPLES of those that are measurements, (N,)."""
    step = max(1, math.isqrt(samples.size // SAMPLES))
    numbers = samples[::step, ::step].ravel()
    return numbers[np.abs(numbers) < LARGEST] if samples.dtype.kind == "f" else numbers


def _ends(numbers: NDArray[Any]) -> tuple[float, float]:
    """Their percentiles; their extremes where those are one value."""
    low, high = np.percentile(numbers, [LOWEST, HIGHEST], method="nearest")
    if low == high:
        low, high = numbers.min(), numbers.max()
    return float(low), float(high)


def _widened(low: float, high: float, whole_numbers: bool) -> tuple[float, float]:
    smallest = SMALLEST_SPAN if whole_numbers else max(1e-6 * max(abs(low), abs(high)), 1e-30)
    half, middle = max((0.5 + MARGIN) * (high - low), 0.5 * smallest), 0.5 * (low + high)
    return middle - half, middle + half


@lru_cache(maxsize=8)
def _table(low: float, high: float) -> NDArray[np.uint8]:
    """Grey levels of all 65536 values of 16 bits, which takes half the time of working out every pixel."""
    return _stretched(np.arange(1 << 16), low, high)


def _stretched(samples: NDArray[Any], low: float, high: float) -> NDArray[np.uint8]:
    precise: Any = np.float32 if samples.dtype.itemsize <= 2 or samples.dtype == np.float32 else np.float64
    with np.errstate(all="ignore"):  # a float image may hold anything
        scaled: NDArray[Any] = (samples.astype(precise) - precise(low)) * precise(255 / (high - low))
    return np.rint(np.nan_to_num(scaled, nan=0.0).clip(0, 255)).astype(np.uint8)
