"""Tracks: which keypoints of successive frames are the same physical point."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from superpoint_ros.features.extractor import Features
from superpoint_ros.features.matching import match
from superpoint_ros.features.neighbours import LocalMotion, carried, local_motion

Floats = NDArray[np.float32]

STEP = 4.0
STEP_SPREADS = 3.0
FARTHEST_STEP = 0.05
"""A step ends within so many pixels (of the keypoint's scale) and so many times its neighbours' spread from
where its neighbours say, and never beyond this part of the image diagonal: mutual nearest neighbours find
a partner for every keypoint that has none, mostly far away. In 19 steps of a drive (KITTI) and 52 rendered
ones 0.36 and 0.92 % jumped by more than 40 px, and now none and 0.03 %, for 0.6 and 0.2 % of the right ones."""
RESEMBLANCE = 0.6
"""Cosine between a keypoint and the mean of its track's: what has turned into another point by small steps ends."""
MEMORY = 0.7
"""What a track's mean descriptor keeps of itself from frame to frame, for points whose look changes slowly."""
FEWEST = 4
"""Matches among which neighbours mean something; of fewer each must be distinctive, as to be revived."""
REVIVAL_RATIO = 0.8
REVIVAL_SIMILARITY = 0.8
REVIVAL_RADIUS = 0.05
"""A lost track is taken up again only by a distinctive match near where it should be by now (as part
of the image diagonal). Mutual nearest neighbours alone, good between frames that show the same,
always find a partner among keypoints that have none: 40 % of them were more than 8 px wrong, with
these limits 16 % (four photographs, 24 warped and partly occluded frames of each)."""
DORMANT_LIMIT = 2048
"""Lost tracks that are remembered, newest first: matching them costs as much as a frame."""
IDS = 2**31
"""Ids start again at 0 after this many: 20 hours of a thousand new keypoints thirty times a second."""


@dataclass(frozen=True)
class _Known:
    """What is remembered of some tracks: where they are by now and how they look.

    features  the positions, and in `descriptors` the mean of each track's, unit length
    ids       (N,) int32
    missed    (N,) int32, frames in a row without the track
    """

    features: Features
    ids: NDArray[np.int32]
    missed: NDArray[np.int32]

    def rows(self, chosen: NDArray[np.intp]) -> _Known:
        return _Known(self.features.rows(chosen), self.ids[chosen], self.missed[chosen])


class Tracks:
    """Gives the keypoints of one camera ids that stay with the physical point.

    A keypoint takes over the id of the previous frame's keypoint that it matches, if it has moved as its
    neighbours have and still looks like the track; without one, that of a lost track that it clearly
    resembles; else it starts a track. No id is used twice.
    """

    def __init__(self) -> None:
        self._next = 0
        self.reset()

    def reset(self) -> None:
        """Forget all tracks; the next ones get new ids all the same."""
        self._current: _Known | None = None
        self._dormant: _Known | None = None

    @property
    def ids(self) -> NDArray[np.int32]:
        """Of the last frame's keypoints, (N,) int32; empty after `reset`."""
        return np.empty(0, np.int32) if self._current is None else self._current.ids

    def advance(self, features: Features, matches: NDArray[np.int32], max_gap: int) -> NDArray[np.int32]:
        """Ids of a frame's keypoints, (N,) int32, all different.

        matches  (M, 2) rows of the previous frame's features and of these; ignored after `reset`
        max_gap  frames in a row that a track may miss and still be taken up again

        An exception changes nothing.
        """
        ids, looks = np.full(len(features), -1, np.int32), features.descriptors.copy()
        none = _Known(features.rows(np.empty(0, np.intp)), np.empty(0, np.int32), np.empty(0, np.int32))
        dormant = none
        if self._current is not None and self._dormant is not None:
            last = self._current
            motion = _motion(last.features, features, matches)
            kept = matches[_continues(last.features, features, matches, motion)]
            before, now = kept.T
            ids[now] = last.ids[before]
            looks[now] = _mean(last.features.descriptors[before], features.descriptors[now])
            lost = last.rows(np.setdiff1d(np.arange(len(last.ids)), before))
            old = _joined(lost, self._dormant)
            old = replace(old, features=_moved(old.features, last.features, features, matches, motion))
            earlier = np.arange(len(lost.ids), len(old.ids))  # what is lost only now has been compared already
            revived = _revived(old.rows(earlier), features, ids)
            ids[revived[:, 1]] = old.ids[earlier[revived[:, 0]]]
            left = np.setdiff1d(np.arange(len(old.ids)), earlier[revived[:, 0]])
            left = left[old.missed[left] < max_gap][:DORMANT_LIMIT]
            dormant = replace(old.rows(left), missed=old.missed[left] + 1)
        fresh = np.flatnonzero(ids < 0)
        ids[fresh] = (self._next + np.arange(len(fresh))) % IDS
        self._next = (self._next + len(fresh)) % IDS
        self._current = _Known(replace(features, descriptors=looks), ids, np.zeros(len(ids), np.int32))
        self._dormant = dormant
        return ids


def _motion(before: Features, now: Features, matches: NDArray[np.int32]) -> LocalMotion | None:
    return local_motion(before.xy[matches[:, 0]], now.xy[matches[:, 1]]) if len(matches) >= FEWEST else None


def _continues(
    before: Features, now: Features, matches: NDArray[np.int32], motion: LocalMotion | None
) -> NDArray[np.bool_]:
    """Which matches, (M,) bool, are steps of tracks; `before` holds the tracks' mean descriptors."""
    alike = np.einsum("md,md->m", before.descriptors[matches[:, 0]], now.descriptors[matches[:, 1]])
    if motion is None:
        return np.asarray(alike >= REVIVAL_SIMILARITY)
    scales = np.maximum(np.maximum(before.scales[matches[:, 0]], now.scales[matches[:, 1]]), 1)
    off = np.linalg.norm(now.xy[matches[:, 1]] - motion.predicted, axis=1)
    limit = np.minimum(STEP * scales + STEP_SPREADS * motion.spread, FARTHEST_STEP * np.hypot(*now.size))
    return (off <= limit) & (alike >= RESEMBLANCE)


def _moved(
    lost: Features, before: Features, now: Features, matches: NDArray[np.int32], motion: LocalMotion | None
) -> Features:
    """Lost points move as the matches next to them do."""
    if motion is None or len(lost) == 0:
        return lost
    return replace(lost, xy=carried(motion, before.xy[matches[:, 0]], motion.predicted, lost.xy))


def _revived(lost: _Known, features: Features, ids: NDArray[np.int32]) -> NDArray[np.intp]:
    """Rows of lost tracks and of keypoints without an id that are the same, (R, 2)."""
    free = np.flatnonzero(ids < 0)
    found = match(lost.features, features.rows(free), REVIVAL_RATIO, REVIVAL_SIMILARITY)
    old, new = found[:, 0], free[found[:, 1]]
    distance = np.linalg.norm(lost.features.xy[old] - features.xy[new], axis=1)
    return np.stack([old, new], axis=1)[distance <= REVIVAL_RADIUS * np.hypot(*features.size)]


def _mean(looks: Floats, descriptors: Floats) -> Floats:
    mean = MEMORY * looks + (1 - MEMORY) * descriptors
    return np.asarray(mean / np.linalg.norm(mean, axis=1, keepdims=True), np.float32)


def _joined(one: _Known, other: _Known) -> _Known:
    features = replace(
        one.features,
        xy=np.concatenate([one.features.xy, other.features.xy]),
        scores=np.concatenate([one.features.scores, other.features.scores]),
        scales=np.concatenate([one.features.scales, other.features.scales]),
        descriptors=np.concatenate([one.features.descriptors, other.features.descriptors]),
    )
    return _Known(features, np.concatenate([one.ids, other.ids]), np.concatenate([one.missed, other.missed]))
