"""Where the points of tracks are, measured against the pictures in which the tracks began.

From frame to frame errors add up; a track that keeps the patch it began with has only that of one comparison,
however long it is. A patch that is not found for some frames is replaced by a newer one, and only there an
error is handed on.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from superpoint_ros.features.extractor import Features
from superpoint_ros.features.levels import RADIUS, Levels
from superpoint_ros.features.lucas_kanade import warped
from superpoint_ros.features.neighbours import inverses, sane
from superpoint_ros.features.refinement import Floats, look, units

SIDE = 31
"""Pixels: of what is kept of a picture for a track, so that a patch of it may be turned and shrunk to a half."""
PATIENCE = 3
"""Frames in a row in which a patch may not be found, as when one is blurred, before a newer one takes its place."""


@dataclass(frozen=True)
class _Kept:
    """Of N tracks, by ascending id.

    ids      (N,) int32
    patches  (N, SIDE, SIDE) uint8
    middles  (N, 2) float32, of the track's point in its patch, in its pixels
    units    (N, 1) float32, source pixels to one of these
    warps    (N, 2, 2) float32, from where the track began to where it was last seen
    offsets  (N, 2) float32, pixels from the keypoint to the track's point where it was last seen
    seen     (N,) the number of that frame
    failed   (N,) frames in a row in which the patch was not found
    """

    ids: NDArray[np.int32]
    patches: NDArray[np.uint8]
    middles: Floats
    units: Floats
    warps: Floats
    offsets: Floats
    seen: NDArray[np.int64]
    failed: NDArray[np.int64]

    def rows(self, chosen: NDArray[np.integer] | NDArray[np.bool_]) -> _Kept:
        return _Kept(*(getattr(self, name)[chosen] for name in self.__dataclass_fields__))

    def and_(self, other: _Kept) -> _Kept:
        parts = (np.concatenate([getattr(one, name) for one in (self, other)]) for name in self.__dataclass_fields__)
        joined = _Kept(*parts)
        return joined.rows(np.argsort(joined.ids, kind="stable"))


class Anchors:
    """The patches of one camera's tracks."""

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        """Forget them all."""
        self._kept: _Kept | None = None
        self._frame = 0

    def measure(
        self, ids: NDArray[np.int32], features: Features, picture: Levels, steps: Floats, near: Floats, max_gap: int = 5
    ) -> Floats:
        """Positions of the tracks of a frame's keypoints, (N, 2) float32, source pixels.

        ids    (N,) int32, of the keypoints
        steps  (N, 2, 2) float32, how the surroundings of each were warped since the frame before
        near   (N, 2) float32, where what was the keypoint in the frame before is now, refined if that was possible
        max_gap  frames in a row that a track may miss, after which its patch is dropped

        A new track's is its keypoint's own.
        """
        self._frame += 1
        positions, level = features.xy.astype(np.float32), picture.level(features.scales)
        old, rows = np.empty(0, np.intp), np.empty(0, np.intp)
        kept = self._kept
        if kept is not None:
            _, rows, old = np.intersect1d(ids, kept.ids, assume_unique=True, return_indices=True)
        if kept is not None and len(rows):
            known = kept.rows(old)
            warps = steps[rows] @ known.warps
            handed = near[rows] + np.einsum("nij,nj->ni", steps[rows], known.offsets)
            found, deviation = _look(known, warps, picture, level[rows], handed)
            good = np.isfinite(deviation)
            positions[rows] = np.where(good[:, None], found, handed)
            offsets = positions[rows] - features.xy[rows]
            seen, failed = np.full(len(rows), self._frame), np.where(good, 0, known.failed + 1)
            held = failed < PATIENCE
            stay = replace(known, warps=warps, offsets=offsets, seen=seen, failed=failed).rows(held)
            gone = np.ones(len(kept.ids), bool)
            gone[old] = False
            gone &= kept.seen >= self._frame - max_gap
            kept = kept.rows(gone).and_(stay)
            rows = rows[held]
        begin = np.ones(len(ids), bool)
        begin[rows] = False
        new = self._new(ids, features, picture, level, positions, np.flatnonzero(begin))
        self._kept = new if kept is None else kept.and_(new)
        return positions

    def _new(
        self,
        ids: NDArray[np.int32],
        features: Features,
        picture: Levels,
        level: NDArray[np.intp],
        positions: Floats,
        rows: NDArray[np.intp],
    ) -> _Kept:
        unit = units(level)
        places = (positions + 0.5) / unit - 0.5
        rows = rows[picture.fits(level[rows], places[rows], np.float32(SIDE // 2 + 1))]
        first = np.rint(places[rows]).astype(np.intp) - SIDE // 2
        corners = picture.corners[level[rows] - picture.finest].astype(np.intp)
        column, row = (first + corners).T
        count = len(rows)
        return _Kept(
            ids[rows],
            sliding_window_view(picture.pixels, (SIDE, SIDE))[row, column],
            (places[rows] - first).astype(np.float32),
            unit[rows],
            np.broadcast_to(np.eye(2, dtype=np.float32), (count, 2, 2)),
            positions[rows] - features.xy[rows],
            np.full(count, self._frame),
            np.zeros(count, np.int64),
        ).rows(np.argsort(ids[rows], kind="stable"))


def _look(
    known: _Kept, warps: Floats, picture: Levels, level: NDArray[np.intp], points: Floats
) -> tuple[Floats, Floats]:
    inverse = inverses(warps) * (units(level) / known.units)[:, :, None]
    margin = np.abs(inverse).sum(axis=2) * (RADIUS + 1)
    fits = ((known.middles >= margin) & (known.middles <= SIDE - 1 - margin)).all(axis=1) & sane(warps)

    def patches(rows: NDArray[np.intp]) -> Floats:
        column = known.patches[rows].reshape(-1, SIDE).astype(np.float32)  # one below the other
        below = np.arange(len(rows), dtype=np.float32)[:, None] * np.array([0, SIDE], np.float32)
        return warped(column, known.middles[rows] + below, inverse[rows])

    return look(patches, fits, picture, level, points)
