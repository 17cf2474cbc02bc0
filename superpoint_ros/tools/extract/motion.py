"""Matches, homographies and tracks from image to image, beside the network."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor

import torch

from superpoint_ros.features.levels import Levels, levels_for
from superpoint_ros.frontend.parameters import Parameters
from superpoint_ros.frontend.tracker import Motion, Tracker
from superpoint_ros.tools.extract.input import Camera
from superpoint_ros.tools.extract.task import Frame

MATCHERS = 4
"""Threads: on a GPU the network is several times as fast as the matching."""

Seen = tuple[Frame, "Future[Levels | None]"]
"""A frame and the levels of its picture; None if nothing is refined."""


class Motions:
    """What happened from image to image: many at a time where each depends on two images only, within a `with` block.

    With keyframes or tracks it depends on all that went before, so one comes after the other.

    device  as `Tracker` has it
    """

    def __init__(self, cameras: Sequence[Camera], values: Parameters, device: str = "cpu") -> None:
        self._device = device
        self._arguments = values.tracking()
        self._wanted = values.publish_matches or values.publish_homography or values.tracks
        self._independent = values.reference == "previous" and not values.tracks
        self._trackers = {camera: Tracker(device) for camera in cameras}
        self._refine, self._positions = values.refine, values.publish_matches
        self._previous: dict[Camera, Seen] = {}
        threads = max(1, min(MATCHERS, torch.get_num_threads() - 1)) if self._independent else 1
        self._pool = ThreadPoolExecutor(threads, "matcher")

    def __enter__(self) -> Motions:
        return self

    def __exit__(self, *error: object) -> None:
        self._pool.shutdown()

    def of(self, frame: Frame) -> Future[Motion] | None:
        """Of a frame and the one of its camera that was given before; None if it has no features or nobody asks."""
        if not self._wanted or frame.found is None or frame.stamp is None:
            return None
        # A task waits only for those queued before it, which one thread is enough for.
        seen = frame, self._pool.submit(self._levels, frame)
        if not self._independent:
            return self._pool.submit(self._advance, self._trackers[frame.camera], seen)
        previous, self._previous[frame.camera] = self._previous.get(frame.camera), seen
        return self._pool.submit(self._between, previous, seen)

    def _levels(self, frame: Frame) -> Levels | None:
        """What matches are refined by, made once for the two motions that a frame is part of."""
        if not self._refine or frame.seen is None or frame.found is None:
            return None
        return levels_for(frame.found, frame.seen.pixels, frame.seen.mask)

    def _between(self, previous: Seen | None, current: Seen) -> Motion:
        tracker = Tracker(self._device)
        if previous is not None:
            self._advance(tracker, previous)
        return self._advance(tracker, current)

    def _advance(self, tracker: Tracker, seen: Seen) -> Motion:
        frame, levels = seen
        assert frame.stamp is not None and frame.found is not None
        how = {**self._arguments, "levels": levels.result(), "positions": self._positions}
        return tracker.advance(frame.stamp, frame.found, **how)
