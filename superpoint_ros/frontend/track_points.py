"""The tracks of a frame as visual-inertial estimators take them: where each point is, and how fast it moves.

As in the feature trackers of VINS-Mono (Qin, Li, Shen 2018, arXiv 1708.03852) and VINS-Fusion: only points that were
in the frame before, too. Their estimators take a point's observations to be of successive frames, so that a track that
was lost in between is another point to them; and they read ids as float32, which holds whole numbers up to IDS.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

LAYOUTS = ("none", "vins_mono", "vins_fusion")
"""Of ~/track_cloud."""
IDS = 2**24


@dataclass(frozen=True)
class TrackPoints:
    """M points.

    ids         (M,) int32
    pixels      (M, 2) float32, of the image as it came
    normalised  (M, 2) float64, on the plane at distance 1, without the lens
    velocity    (M, 2) float64, of `normalised`, per second
    """

    ids: NDArray[np.int32]
    pixels: NDArray[np.float32]
    normalised: NDArray[np.float64]
    velocity: NDArray[np.float64]


class PointTracks:
    """Remembers the tracks of the last frame."""

    def __init__(self) -> None:
        self._next = 0
        self._stamp = 0
        self._tracks = np.empty(0, np.int32)
        self._ids = np.empty(0, np.int32)
        self._places = np.empty((0, 2))

    def advance(
        self,
        stamp: int,
        tracks: NDArray[np.int32],
        pixels: NDArray[np.float32],
        normalised: NDArray[np.float64],
    ) -> TrackPoints:
        """The points of a frame that were in the last one, too.

        stamp   nanoseconds; unless later than the last, all points are new
        tracks  (N,) int32, ids that stay with the point, gaps and all
        pixels, normalised  (N, 2); rows with NaN, where a lens model cannot be inverted, are left out
        """
        good = np.isfinite(normalised).all(axis=1)
        tracks, pixels, normalised = tracks[good], pixels[good], normalised[good]
        seconds = (stamp - self._stamp) / 1e9
        known = np.intersect1d(tracks, self._tracks, return_indices=True) if seconds > 0 else None
        now, before = known[1:] if known is not None else (np.empty(0, np.intp),) * 2
        ids = np.full(len(tracks), -1, np.int32)
        ids[now] = self._ids[before]
        fresh = np.flatnonzero(ids < 0)
        following = (self._next + np.arange(len(tracks))) % IDS  # but for those that live since the numbers began anew
        ids[fresh] = following[~np.isin(following, ids[now])][: len(fresh)]
        velocity = (normalised[now] - self._places[before]) / max(seconds, 1e-9)
        self._next = (int(ids[fresh[-1]]) + 1) % IDS if len(fresh) else self._next
        self._stamp, self._tracks, self._ids, self._places = stamp, tracks, ids, normalised
        return TrackPoints(ids[now], pixels[now], normalised[now], velocity)
