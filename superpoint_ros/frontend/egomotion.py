"""One camera's motion in space, from its reference to the current frame: by its calibration, and stereo depths."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from superpoint_ros.features.rectification import Calibration, rays
from superpoint_ros.features.relative_pose import PoseStatus, RelativePose, estimate_pose, unknown_pose
from superpoint_ros.features.stereo import StereoPoints, pixel_of
from superpoint_ros.frontend.tracker import Motion


@dataclass(frozen=True)
class _Known:
    """What belongs to a frame that may be a reference: its calibration, and depths by keypoint, NaN where unknown."""

    camera: Calibration
    depths: NDArray[np.float64] | None = None


class Egomotion:
    """Remembers calibrations and depths of the frames that the next one may be compared with."""

    def __init__(self) -> None:
        self._known: dict[int, _Known] = {}
        self._last = 0

    def advance(self, stamp: int, motion: Motion, camera: Calibration | None) -> RelativePose:
        """The pose that a frame's `motion` means.

        stamp   nanoseconds
        camera  calibration of the frame's image; None: there is none
        """
        before, known = motion.reference_stamp, self._known
        self._known = {key: known[key] for key in (before, self._last) if key in known}
        self._last = stamp
        if camera is not None:
            self._known[stamp] = _Known(camera)
        if camera is None:
            return unknown_pose(PoseStatus.NO_CALIBRATION, len(motion.matches))
        if before is None:
            return unknown_pose(PoseStatus.NO_REFERENCE, len(motion.matches))
        reference = known.get(before, _Known(camera))  # nobody listened yet, or its CameraInfo came late
        depths = None if reference.depths is None else reference.depths[motion.matches[:, 0]]
        sights = rays(reference.camera, motion.points_xy), rays(camera, motion.current_xy)
        return estimate_pose(*sights, pixel_of(camera), depths)

    def measured(self, stamp: int, points: StereoPoints, keypoints: int) -> None:
        """Take the stereo points of the frame that came last, which has so many keypoints."""
        if stamp in self._known:
            depths = np.full(keypoints, np.nan)
            depths[points.rows] = points.xyz[:, 2]
            self._known[stamp] = replace(self._known[stamp], depths=depths)
