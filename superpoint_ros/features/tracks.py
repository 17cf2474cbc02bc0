"""Tracks: which keypoints of successive frames are the same physical point."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from superpoint_ros.features.extractor import Features
from superpoint_ros.features.matching import match

REVIVAL_RATIO = 0.8
REVIVAL_SIMILARITY = 0.8
REVIVAL_RADIUS = 0.05
"""A lost track is taken up again only by a distinctive match near where it should be by now (as part
of the image diagonal). Mutual nearest neighbours alone, good between frames that show the same,
always find a partner among keypoints that have none: 40 % of them were more than 8 px wrong, with
these limits 16 % (four photographs, 24 warped and partly occluded frames of each)."""
DORMANT_LIMIT = 2048
"""Lost tracks that are remembered, newest first: matching them costs as much as a frame."""
NEVER = np.iinfo(np.int32).max - 1
"""Frames missed by a track that is found again, so that it is forgotten as a lost one."""
IDS = 2**31
"""Ids start again at 0 after this many: 20 hours of a thousand new keypoints thirty times a second."""


class Tracks:
    """Gives the keypoints of one camera ids that stay with the physical point.

    A keypoint takes over the id of the previous frame's keypoint that it matches; without one, that
    of a lost track that it clearly resembles; else it starts a track. No id is used twice.
    """

    def __init__(self) -> None:
        self._next = 0
        self.reset()

    def reset(self) -> None:
        """Forget all tracks; the next ones get new ids all the same."""
        self._features: Features | None = None
        self._ids = np.empty(0, np.int32)
        self._dormant_ids = np.empty(0, np.int32)
        self._dormant: Features | None = None
        self._missed = np.empty(0, np.int32)

    def advance(self, features: Features, matches: NDArray[np.int32], max_gap: int) -> NDArray[np.int32]:
        """Ids of a frame's keypoints, (N,) int32, all different.

        matches  (M, 2) rows of the previous frame's features and of these; ignored after `reset`
        max_gap  frames in a row that a track may miss and still be taken up again
        """
        ids = np.full(len(features), -1, np.int32)
        if self._features is not None and self._dormant is not None:
            ids[matches[:, 1]] = self._ids[matches[:, 0]]
            motion = _median_motion(self._features, features, matches)
            self._dormant = replace(self._dormant, xy=self._dormant.xy + motion)
            self._revive(self._dormant, features, ids)
            previous = replace(self._features, xy=self._features.xy + motion)
            self._bury(self._dormant, previous, matches, max_gap)
        else:
            self._dormant = features.rows(np.empty(0, np.intp))
        fresh = np.flatnonzero(ids < 0)
        ids[fresh] = (self._next + np.arange(len(fresh))) % IDS
        self._next = (self._next + len(fresh)) % IDS
        self._features, self._ids = features, ids
        return ids

    def _revive(self, dormant: Features, features: Features, ids: NDArray[np.int32]) -> None:
        """Give ids of lost tracks to keypoints without one."""
        free = np.flatnonzero(ids < 0)
        found = match(dormant, features.rows(free), REVIVAL_RATIO, REVIVAL_SIMILARITY)
        distance = np.linalg.norm(dormant.xy[found[:, 0]] - features.xy[free[found[:, 1]]], axis=1)
        found = found[distance <= REVIVAL_RADIUS * np.hypot(*features.size)]
        ids[free[found[:, 1]]] = self._dormant_ids[found[:, 0]]
        self._missed[found[:, 0]] = NEVER

    def _bury(self, dormant: Features, previous: Features, matches: NDArray[np.int32], max_gap: int) -> None:
        """Count the frame that lost tracks have missed; remember those lost just now."""
        lost = np.setdiff1d(np.arange(len(previous)), matches[:, 0])
        missed = np.concatenate([np.ones(len(lost), np.int32), self._missed + 1])
        ids = np.concatenate([self._ids[lost], self._dormant_ids])
        kept = np.flatnonzero(missed <= max_gap)[:DORMANT_LIMIT]
        both = _joined(previous.rows(lost), dormant)
        self._missed, self._dormant_ids, self._dormant = missed[kept], ids[kept], both.rows(kept)


def _median_motion(previous: Features, features: Features, matches: NDArray[np.int32]) -> NDArray[np.float32]:
    """Pixels, (2,) float32: lost tracks are taken to move like this."""
    if len(matches) == 0:
        return np.zeros(2, np.float32)
    return np.asarray(np.median(features.xy[matches[:, 1]] - previous.xy[matches[:, 0]], axis=0), np.float32)


def _joined(one: Features, other: Features) -> Features:
    return replace(
        one,
        xy=np.concatenate([one.xy, other.xy]),
        scores=np.concatenate([one.scores, other.scores]),
        scales=np.concatenate([one.scales, other.scales]),
        descriptors=np.concatenate([one.descriptors, other.descriptors]),
    )
