"""Stereo matches and points of a pair of cameras, from a synchronised set of their frames."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from superpoint_ros.features.extractor import Features
from superpoint_ros.features.levels import Levels
from superpoint_ros.features.rectification import Uncalibrated
from superpoint_ros.features.stereo import StereoRig, match_stereo, points, stereo_rig
from superpoint_ros.frontend.parameters import Parameters
from superpoint_ros.frontend.stamps import nanoseconds
from superpoint_ros.node.camera import Camera
from superpoint_ros.node.faults import NUMBER
from superpoint_ros.node.mailbox import Frame


@dataclass(frozen=True)
class Seen:
    """A frame whose features are out.

    levels     of its picture, by which matches are refined; None: they are not
    track_ids  (N,) int32; empty without tracks
    """

    frame: Frame
    levels: Levels | None
    found: Features
    track_ids: NDArray[np.int32]


class StereoPair:
    """Two cameras of the node, the left one first.

    say  called with a sentence, once for each reason why the calibration is of no use
    """

    def __init__(self, left: Camera, right: Camera, say: Callable[[str], None]) -> None:
        self.left, self.right = left, right
        self._say = say
        self._said: set[str] = set()

    def publish(self, left: Seen, right: Seen, values: Parameters) -> None:
        """Match the two frames, if anyone wants to know, and publish what comes of it with the left one's header."""
        outputs = self.left.outputs
        if not (outputs.wants_stereo() or self.left.moves):
            return
        images = (left.levels, right.levels) if left.levels and right.levels else None
        rig = self._rig(left, right)
        matches = match_stereo(left.found, right.found, rig, **values.stereo(), images=images)
        header = self.left.header(left.frame)
        outputs.publish_stereo_matches(header, right.frame.header.stamp, matches)
        if rig is not None:
            seen = points(rig, matches)
            self.left.egomotion.measured(nanoseconds(left.frame.header.stamp), seen, len(left.found))
            outputs.publish_points(header, seen, left.found, left.track_ids)

    def _rig(self, left: Seen, right: Seen) -> StereoRig | None:
        first, second = (
            camera.inputs.calibration_of(seen.found.size, nanoseconds(seen.frame.header.stamp))
            for camera, seen in ((self.left, left), (self.right, right))
        )
        if first is None or second is None:
            return None
        try:
            return stereo_rig(first, second)
        except Uncalibrated as error:
            reason = NUMBER.sub("#", str(error))
            if reason not in self._said:
                self._said.add(reason)
                self._say(f"Stereo pair {self.left.name},{self.right.name}: {error}; it counts as not calibrated.")
            return None
