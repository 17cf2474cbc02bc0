"""From frame to frame: the reference, its matches with the current frame, homography and tracks."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import numpy as np
import torch
from numpy.typing import NDArray

from superpoint_ros.features.anchors import Anchors
from superpoint_ros.features.device_matching import NearestOnDevice
from superpoint_ros.features.extractor import Features
from superpoint_ros.features.homography import (
    Homography,
    HomographyStatus,
    estimate_homography,
    unknown_homography,
)
from superpoint_ros.features.levels import Levels
from superpoint_ros.features.matching import Nearest, match, match_similarity
from superpoint_ros.features.neighbours import local_motion
from superpoint_ros.features.refinement import refine_matches
from superpoint_ros.features.tracks import Tracks
from superpoint_ros.frontend.stamps import jumped_back

Floats = NDArray[np.float32]

REFERENCES = ("previous", "keyframe")


@dataclass(frozen=True)
class Motion:
    """What happened between the reference frame and the current one.

    reference_stamp  nanoseconds; None when there was no reference
    matches          (M, 2) int32, rows of the reference and of the current features
    similarity       (M,) float32, cosine
    homography       maps reference pixels to current pixels
    track_ids        (N,) int32, of the current features; empty when tracks are off
    reference_xy     (M, 2) float32, the matched keypoints in the reference
    current_xy       (M, 2) float32, where these are now: refined by the pictures, if that is asked for and
                     was possible, else the matched keypoints. With tracks and the previous frame as
                     reference: where the track's point is, measured against the picture it began in
    points_xy        (M, 2) float32, where in the reference that was which is at current_xy now: the matched
                     keypoint, or the track's point as it was measured there
    """

    reference_stamp: int | None
    matches: NDArray[np.int32]
    similarity: NDArray[np.float32]
    homography: Homography
    track_ids: NDArray[np.int32] = field(default_factory=lambda: np.empty(0, np.int32))
    reference_xy: NDArray[np.float32] = field(default_factory=lambda: np.empty((0, 2), np.float32))
    current_xy: NDArray[np.float32] = field(default_factory=lambda: np.empty((0, 2), np.float32))
    points_xy: NDArray[np.float32] = field(default_factory=lambda: np.empty((0, 2), np.float32))

    @property
    def inlier_ratio(self) -> float:
        """Inliers by matches; 0 unless the homography is OK."""
        return float(self.homography.inliers.sum() / max(len(self.matches), 1))


@dataclass(frozen=True)
class _Past:
    """A frame that may be a reference; its picture, in grey, if matches are refined."""

    stamp: int
    features: Features
    picture: Levels | None


class Tracker:
    """Remembers what the next frame of one camera is compared with.

    device  where descriptors are compared, "cpu" or "cuda:N"; on a GPU the tracker has copies of the few that it
            needs there
    """

    def __init__(self, device: str = "cpu") -> None:
        self._nearest: Nearest | None = None if device == "cpu" else NearestOnDevice(torch.device(device))
        self._previous: _Past | None = None
        self._keyframe: _Past | None = None
        self._tracks = Tracks()
        self._anchors = Anchors()
        self._places = np.empty((0, 2), np.float32)  # of the last frame's keypoints, as its anchors measured them
        self._forget = False

    def reset(self) -> None:
        """Forget references and tracks before the next frame. From any thread."""
        self._forget = True

    def advance(
        self,
        stamp: int,
        features: Features,
        threshold: float,
        ratio: float | None = None,
        min_similarity: float | None = None,
        reference: str = "previous",
        keyframe_min_inliers: float = 0.0,
        track_max_gap: int | None = None,
        levels: Levels | None = None,
        positions: bool = False,
    ) -> Motion:
        """Compare a frame with its reference, then remember it. A frame that fails is as if it had not been.

        stamp      nanoseconds; one that has jumped back (a bag loops) drops references and
                   tracks, as does another image size or descriptor length
        threshold  pixels, of the homography's inliers; `ratio` and `min_similarity` as in `match`
        reference  "previous", or "keyframe": a frame stays the reference until its homography fails
                   or has an inlier ratio below `keyframe_min_inliers`; then the frame before the
                   current one takes its place at once, so that the chain of homographies holds
        track_max_gap  as in `Tracks.advance`; None: no tracks
        levels     of the image, `levels_for` the features, to refine the homography by; None: it is not refined
        positions  refine the matches' positions as well
        """
        current, previous, forget = _Past(stamp, features, levels), self._previous, self._forget
        if forget or previous is None or not _comparable(previous, current):
            self._tracks.reset()
            homography = unknown_homography(HomographyStatus.NO_REFERENCE, 0)
            none = np.empty((0, 2), np.int32)
            motion = Motion(None, none, np.empty(0, np.float32), homography)
            motion = self._tracked(motion, current, none, track_max_gap, positions and reference == "previous")
            self._previous = self._keyframe = current
            self._forget &= not forget
            return motion

        def compare(past: _Past) -> Motion:
            return _compare(past, current, threshold, ratio, min_similarity, self._nearest)

        anchor = previous
        if reference == "keyframe" and self._keyframe is not None:
            anchor = self._keyframe
        motion = compare(anchor)
        if anchor is not previous and _weak(motion, keyframe_min_inliers):
            nearer = compare(previous)
            if nearer.inlier_ratio > motion.inlier_ratio:
                motion, anchor = nearer, previous
        since_previous = motion.matches
        if anchor is not previous and track_max_gap is not None:
            since_previous = match(previous.features, features, ratio, min_similarity, self._nearest)
        if positions:
            motion = _refined(motion, anchor, current)
        measured = positions and reference == "previous"
        motion = self._tracked(motion, current, since_previous, track_max_gap, measured)
        self._previous, self._keyframe = current, anchor if reference == "keyframe" else current
        return motion

    def _tracked(
        self, motion: Motion, current: _Past, since_previous: NDArray[np.int32], max_gap: int | None, measured: bool
    ) -> Motion:
        """With the ids of tracks; `measured`: and where their points are, the motion being that from the last frame."""
        if max_gap is None:
            self._tracks.reset()
            self._forget_places()
            return motion
        before = self._tracks.ids
        ids = self._tracks.advance(current.features, since_previous, max_gap)
        motion = replace(motion, track_ids=ids)
        if current.picture is None or not measured:
            self._forget_places()
            return motion
        try:
            return self._measured(motion, current.features, current.picture, before, max_gap)
        except Exception:
            self._tracks.reset()  # they are a frame ahead of what the next one is compared with
            self._forget_places()
            raise

    def _forget_places(self) -> None:
        self._anchors.reset()
        self._places = np.empty((0, 2), np.float32)

    def _measured(
        self, motion: Motion, now: Features, picture: Levels, before: NDArray[np.int32], max_gap: int
    ) -> Motion:
        rows0, rows1 = motion.matches.T
        steps = np.tile(np.eye(2, dtype=np.float32), (len(now), 1, 1))
        if len(rows1) >= 3:
            steps[rows1] = local_motion(motion.reference_xy, now.xy[rows1]).affinities
        near = now.xy.copy()
        near[rows1] = motion.current_xy
        places = self._anchors.measure(motion.track_ids, now, picture, steps, near, max_gap)
        same = before[rows0] == motion.track_ids[rows1] if len(before) else np.zeros(len(rows0), bool)
        known, self._places = self._places, places
        return replace(
            motion,
            current_xy=np.where(same[:, None], places[rows1], motion.current_xy),
            points_xy=np.where(same[:, None], known[rows0], motion.points_xy) if len(known) else motion.points_xy,
        )


def _compare(
    past: _Past,
    current: _Past,
    threshold: float,
    ratio: float | None,
    min_similarity: float | None,
    nearest: Nearest | None,
) -> Motion:
    before, now = past.features, current.features
    matches = match(before, now, ratio, min_similarity, nearest)
    similarity = match_similarity(before, now, matches)
    homography = estimate_homography(before, now, matches, threshold, _pictures(past, current))
    places = before.xy[matches[:, 0]], now.xy[matches[:, 1]]
    return Motion(
        past.stamp, matches, similarity, homography, reference_xy=places[0], current_xy=places[1], points_xy=places[0]
    )


def _refined(motion: Motion, past: _Past, current: _Past) -> Motion:
    pictures = _pictures(past, current)
    if pictures is None:
        return motion
    return replace(motion, current_xy=refine_matches(past.features, current.features, motion.matches, pictures)[0])


def _pictures(past: _Past, current: _Past) -> tuple[Levels, Levels] | None:
    return None if past.picture is None or current.picture is None else (past.picture, current.picture)


def _weak(motion: Motion, keyframe_min_inliers: float) -> bool:
    return motion.homography.status != HomographyStatus.OK or motion.inlier_ratio < keyframe_min_inliers


def _comparable(previous: _Past, current: _Past) -> bool:
    if jumped_back(previous.stamp, current.stamp):
        return False
    before, now = previous.features, current.features
    return before.size == now.size and before.descriptors.shape[1] == now.descriptors.shape[1]
