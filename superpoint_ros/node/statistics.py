"""What the node counts and times."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

WINDOW = 256
"""Frames over which percentiles are taken."""


@dataclass(frozen=True)
class Snapshot:
    """Counters since configuration, percentiles over the last frames.

    latency_ms  from receiving an image to having published its features, (p50, p95); steady clock
    age_ms      from an image's stamp to that moment, (p50, p95); ROS clock, so it includes the
                camera driver and the network, and means nothing where stamps come from another
                clock
    silence_s   since the last image, or since configuration
    """

    frames_in: int
    frames_out: int
    frames_dropped: int
    latency_ms: tuple[float, float]
    age_ms: tuple[float, float]
    keypoints: float
    silence_s: float
    frames_lost: int = 0
    frames_skipped: int = 0


@dataclass(frozen=True)
class Period:
    """What happened since one looked last; medians in seconds, NaN without a frame.

    lost          images that the middleware says never arrived
    empty         frames without a single keypoint
    rates         images in and frames out, Hz
    skipped       images beyond the `rate` asked for
    motionless_s  seconds since a homography was OK, or since they began to fail; 0 unless they do
    """

    frames_in: int
    frames_out: int
    dropped: int
    latency: float
    age: float
    lost: int = 0
    empty: int = 0
    rates: tuple[float, float] = (0.0, 0.0)
    motionless_s: float = 0.0
    skipped: int = 0


class Statistics:
    """Counters of one camera, safe to use from any thread."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._frames_in = self._frames_out = self._frames_dropped = 0
        self._latency: deque[float] = deque(maxlen=WINDOW)
        self._age: deque[float] = deque(maxlen=WINDOW)
        self._keypoints: deque[int] = deque(maxlen=WINDOW)
        self._frames_lost = self._frames_skipped = self._empty = 0
        self._last_image = self._looked = clock()
        self._motionless_since: float | None = None
        self._seen = (0, 0, 0, 0, 0, 0)

    def listening(self) -> None:
        """From now on images are expected."""
        with self._lock:
            self._last_image = self._clock()
            self._motionless_since = None

    def received(self) -> None:
        """An image came in."""
        with self._lock:
            self._frames_in += 1
            self._last_image = self._clock()

    def lost(self, count: int) -> None:
        """The middleware lost images."""
        with self._lock:
            self._frames_lost += count

    def dropped(self) -> None:
        """An image that was waiting gave way to a newer one."""
        with self._lock:
            self._frames_dropped += 1

    def skipped(self) -> None:
        """An image came sooner than `rate` allows."""
        with self._lock:
            self._frames_skipped += 1

    def published(self, latency: float, age: float, keypoints: int) -> None:
        """A frame's results went out; times in seconds."""
        with self._lock:
            self._frames_out += 1
            self._latency.append(latency)
            self._age.append(age)
            self._keypoints.append(keypoints)
            self._empty += keypoints == 0

    def compared(self, ok: bool) -> None:
        """A frame's homography from its reference was found, or not."""
        with self._lock:
            if ok:
                self._motionless_since = None
            elif self._motionless_since is None:
                self._motionless_since = self._clock()

    def counts(self) -> tuple[int, int]:
        """Images that came in and were to be processed, and those of them that were dropped."""
        with self._lock:
            return self._frames_in - self._frames_skipped, self._frames_dropped

    def period(self) -> Period:
        """What happened since the last call."""
        with self._lock:
            counts = (
                self._frames_in,
                self._frames_out,
                self._frames_dropped,
                self._frames_lost,
                self._empty,
                self._frames_skipped,
            )
            new = tuple(now - then for now, then in zip(counts, self._seen, strict=True))
            frames_in, frames_out, dropped, lost, empty, skipped = new
            now, self._seen = self._clock(), counts
            seconds, self._looked = max(now - self._looked, 1e-3), now
            since = self._motionless_since
            latency, age = (
                _median(list(values)[-frames_out:] if frames_out else []) for values in (self._latency, self._age)
            )
            return Period(
                frames_in,
                frames_out,
                dropped,
                latency,
                age,
                lost,
                empty,
                rates=(frames_in / seconds, frames_out / seconds),
                motionless_s=0.0 if since is None else now - since,
                skipped=skipped,
            )

    def snapshot(self) -> Snapshot:
        """The state now; percentiles are NaN before the first frame."""
        with self._lock:
            return Snapshot(
                self._frames_in,
                self._frames_out,
                self._frames_dropped,
                _percentiles_ms(self._latency),
                _percentiles_ms(self._age),
                _median(self._keypoints),
                self._clock() - self._last_image,
                self._frames_lost,
                self._frames_skipped,
            )


def diagnostic_values(snapshot: Snapshot, faults: Mapping[str, int], facts: Mapping[str, str]) -> dict[str, str]:
    """Key-value pairs for diagnostic_msgs: counters, times, and `facts` (device, weights …)."""
    return {
        "frames_in": str(snapshot.frames_in),
        "frames_out": str(snapshot.frames_out),
        "frames_dropped": str(snapshot.frames_dropped),
        "frames_skipped": str(snapshot.frames_skipped),
        "frames_lost": str(snapshot.frames_lost),
        **{f"frames_{kind}": str(count) for kind, count in faults.items()},
        "latency_ms_p50": f"{snapshot.latency_ms[0]:.2f}",
        "latency_ms_p95": f"{snapshot.latency_ms[1]:.2f}",
        "age_ms_p50": f"{snapshot.age_ms[0]:.2f}",
        "age_ms_p95": f"{snapshot.age_ms[1]:.2f}",
        "keypoints_median": f"{snapshot.keypoints:.0f}",
        **facts,
    }


def _median(values: Sequence[float] | deque[int]) -> float:
    return float(np.median(values)) if values else float("nan")


def _percentiles_ms(seconds: Sequence[float] | deque[float]) -> tuple[float, float]:
    if not seconds:
        return float("nan"), float("nan")
    p50, p95 = np.percentile(np.asarray(seconds), [50, 95]) * 1e3
    return float(p50), float(p95)
