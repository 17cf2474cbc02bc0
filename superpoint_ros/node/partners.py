"""Why a synchronised rig makes no sets: which camera sends nothing, or how far its stamps are from the others'."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Sequence

import numpy as np

KEPT = 32
"""Stamps of each camera that are compared."""


class Partners:
    """What came in of each camera, and when the last set was complete. Safe to use from any thread.

    cameras   their names
    slop      seconds that the stamps of a set may differ; 0: none
    patience  seconds without a set, after which that is trouble
    clock     seconds, steady
    """

    def __init__(
        self, cameras: Sequence[str], slop: float, patience: float, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._slop = slop
        self._patience = patience
        self._clock = clock
        self._last_set = clock()
        self._last = dict.fromkeys(cameras, self._last_set)
        self._stamps: dict[str, deque[int]] = {name: deque(maxlen=KEPT) for name in cameras}

    def came(self, camera: str, stamp: int) -> None:
        """A frame came in; its stamp in nanoseconds."""
        self._last[camera] = self._clock()
        self._stamps[camera].append(stamp)

    def matched(self) -> None:
        """A set was complete."""
        self._last_set = self._clock()

    def trouble(self) -> str:
        """A sentence that names the camera that is missing, or the offset of the stamps; empty while there are sets."""
        now = self._clock()
        if now - self._last_set <= self._patience:
            return ""
        silent = {name: now - last for name, last in self._last.items() if now - last > self._patience}
        if len(silent) == len(self._last):
            return ""  # no camera sends anything: there is nothing to be matched
        reasons = [f"camera {name} has sent no image for {seconds:.0f} s" for name, seconds in silent.items()]
        if not silent:
            reasons = self._offsets() or ["the stamps of the cameras do not fit"]
        return f"no set of frames for {now - self._last_set:.0f} s: {' and '.join(reasons)}"

    def _offsets(self) -> list[str]:
        first, *others = self._stamps
        mine = np.array(self._stamps[first])
        allowed = f"sync_slop allows {1e3 * self._slop:g} ms" if self._slop else "synchronise is exact"
        found = []
        for name in others:
            apart = np.array(self._stamps[name])[:, None] - mine
            nearest = apart[np.arange(len(apart)), np.abs(apart).argmin(axis=1)] / 1e9
            offset = float(np.median(nearest))
            if abs(offset) > self._slop:
                word = "after" if offset > 0 else "before"
                found.append(f"frames of camera {name} are {_span(abs(offset))} {word} those of {first}, and {allowed}")
        return found


def _span(seconds: float) -> str:
    return f"{1e3 * seconds:.3g} ms" if seconds < 1 else f"{seconds:.1f} s"
