"""What would help a CPU that is slower than its cameras: measured on the spot, and said once."""

from __future__ import annotations

import copy
import time
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from superpoint_ros.features.extractor import Extractor
from superpoint_ros.features.image import target_size
from superpoint_ros.network.named_weights import DEFAULT, FAST, find_weights

WINDOW, WINDOWS = 10.0, 3
"""Seconds over which drops are looked at, and how many times in a row there must be too many: a
machine that starts up is busy with other things."""

DROPS = 0.2
"""Part of the images dropped from which on the node is slower than its cameras."""

SMALLEST = 160
"""Pixels of the longer side below which `resize` is no good advice."""

RUNS = 3
"""Of each choice, of which the fastest counts."""


class Advice:
    """Watches how many images are dropped, in the worker's thread.

    weights  as in the node's parameters
    counts   images that came in, and those dropped, so far
    clock    seconds, steady
    """

    def __init__(
        self, weights: str, counts: Callable[[], tuple[int, int]], clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._weights = weights
        self._counts = counts
        self._clock = clock
        self._start: tuple[float, int, int] | None = None
        self._slow = 0
        self._given = False

    def after(self, extractor: Extractor, picture: NDArray[np.uint8], whole: float, extraction: float) -> str:
        """To be called after each picture, (H, W) grey; returns a sentence for the log, once, else "".

        whole, extraction  seconds that it took, and of these its extraction

        Then, and only then, the picture is extracted again, in the time of two or three others.
        """
        if self._given or extractor.device != "cpu":
            return ""
        now = (self._clock(), *self._counts())
        if self._start is None:
            self._start = now
        seconds, images, dropped = (new - old for new, old in zip(now, self._start, strict=True))
        if seconds < WINDOW:
            return ""
        self._start = now
        self._slow = self._slow + 1 if dropped > DROPS * images else 0
        if self._slow < WINDOWS:
            return ""
        self._given = True
        return self._sentence(extractor, picture, whole - extraction, (images / seconds, (images - dropped) / seconds))

    def _sentence(
        self, extractor: Extractor, picture: NDArray[np.uint8], other: float, rates: tuple[float, float]
    ) -> str:
        fast, small = self._fast(extractor), _smaller(extractor, picture)
        choices = [(f"`weights: {FAST}`", fast), (f"`resize: {small.resize if small else 0}`", small)]
        choices.append(("both", _smaller(fast, picture) if fast else None))
        gains = [
            f"{_rate(1 / (other + self._time(one, picture)))} with {name}" for name, one in choices if one is not None
        ]
        if not gains:
            return ""
        gains[0] = gains[0].replace(" with", " a second with")
        return (
            f"Of {_rate(rates[0])} images a second {_rate(rates[1])} are extracted: the CPU is slower than the camera. "
            f"By what was measured just now it would extract {', '.join(gains)}."
        )

    def _fast(self, extractor: Extractor) -> Extractor | None:
        """One with the fast weights, all else as it is; None where others than the default ones are used."""
        try:
            if find_weights(self._weights) != find_weights(DEFAULT):
                return None
            fast = Extractor(FAST, "cpu", extractor.engine.split()[0])
        except (OSError, ValueError, RuntimeError):  # advice is no reason to fail
            return None
        fast.settings, fast.resize, fast.scales = extractor.settings, extractor.resize, extractor.scales
        return fast

    def _time(self, extractor: Extractor, picture: NDArray[np.uint8]) -> float:
        times = []
        for _ in range(RUNS):
            start = self._clock()
            extractor(picture)
            times.append(self._clock() - start)
        return min(times)  # in the first its memory is fresh, and so slow


def _smaller(extractor: Extractor, picture: NDArray[np.uint8]) -> Extractor | None:
    """The same at half the size; None where that is too small."""
    side = max(target_size((picture.shape[0], picture.shape[1]), extractor.resize)) // 2
    if side < SMALLEST:
        return None
    smaller = copy.copy(extractor)
    smaller.resize = side
    return smaller


def _rate(frequency: float) -> str:
    return f"{frequency:.1f}" if frequency < 10 else f"{frequency:.0f}"
