"""Matches, homographies and tracks from image to image, beside the network."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor

import torch

from superpoint_ros.features.extractor import Features
from superpoint_ros.frontend.parameters import Parameters
from superpoint_ros.frontend.tracker import Motion, Tracker
from superpoint_ros.tools.extract.input import Camera
from superpoint_ros.tools.extract.task import Frame

MATCHERS = 4
"""Threads: on a GPU the network is several times as fast as the matching."""


class Motions:
    """What happened from image to image: many at a time where each depends on two images only, within a `with` block.

    With keyframes or tracks it depends on all that went before, so one comes after the other.
    """

    def __init__(self, cameras: Sequence[Camera], values: Parameters) -> None:
        self._arguments = values.tracking()
        self._wanted = values.publish_matches or values.publish_homography or values.tracks
        self._independent = values.reference == "previous" and not values.tracks
        self._trackers = {camera: Tracker() for camera in cameras}
        self._previous: dict[Camera, tuple[int, Features]] = {}
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
        current = frame.stamp, frame.found
        if not self._independent:
            return self._pool.submit(self._trackers[frame.camera].advance, *current, **self._arguments)
        previous, self._previous[frame.camera] = self._previous.get(frame.camera), current
        return self._pool.submit(self._between, previous, current)

    def _between(self, previous: tuple[int, Features] | None, current: tuple[int, Features]) -> Motion:
        tracker = Tracker()
        if previous is not None:
            tracker.advance(*previous, **self._arguments)
        return tracker.advance(*current, **self._arguments)
