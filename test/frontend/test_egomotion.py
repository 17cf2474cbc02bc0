"""superpoint_ros/frontend/egomotion.py"""

import numpy as np
import pytest

from space_scenes import SIZE, K, render, yawed
from superpoint_ros.features.levels import levels_for
from superpoint_ros.features.rectification import Calibration
from superpoint_ros.features.relative_pose import PoseStatus
from superpoint_ros.features.stereo import match_stereo, points, stereo_rig
from superpoint_ros.frontend.egomotion import Egomotion
from superpoint_ros.frontend.tracker import Tracker

LEFT, RIGHT = (
    Calibration("plumb_bob", K, np.zeros(0), np.eye(3), K, (1, 1), (0, 0), SIZE, shift) for shift in (0.0, -0.12 * 280)
)
RIG = stereo_rig(LEFT, RIGHT)


def drive(extractor, tracking, with_depths=True, calibrated=lambda number: True, frames=4):
    """Poses from frame to frame, and what they should be, of a camera that goes along and turns."""
    tracker, egomotion, found, before = Tracker(), Egomotion(), [], {}
    for number in range(1, frames + 1):
        rotation, place = yawed(0.02 * number), np.array([0.1, 0.0, 0.1]) * number
        pictures = [render(rotation, place + rotation @ [x, 0, 0]) for x in (0, 0.12)]
        left, right = extractor.batch(pictures)
        motion = tracker.advance(number, left, 3.0, levels=levels_for(left, pictures[0]), positions=True, **tracking)
        pose = egomotion.advance(number, motion, LEFT if calibrated(number) else None)
        if with_depths:
            egomotion.measured(number, points(RIG, match_stereo(left, right, RIG, images=tuple(pictures))), len(left))
        before[number] = rotation, place
        start = before.get(motion.reference_stamp, (rotation, place))
        found.append((pose, rotation.T @ start[0], rotation.T @ (start[1] - place)))
    return found


@pytest.mark.parametrize("tracking", [{"track_max_gap": 5}, {}, {"reference": "keyframe"}])
def test_with_depths_of_the_reference_every_motion_is_metric(extractor, tracking):
    (first, *_), *others = drive(extractor, tracking)
    assert first.status == PoseStatus.NO_REFERENCE
    for pose, rotation, translation in others:
        assert (pose.status, pose.metric) == (PoseStatus.OK, True)
        np.testing.assert_allclose(pose.rotation, rotation, atol=2e-3)
        np.testing.assert_allclose(pose.translation, translation, atol=0.015)


def test_without_depths_it_is_a_direction(extractor):
    *_, (pose, _, translation) = drive(extractor, {"reference": "keyframe"}, with_depths=False)
    assert (pose.status, pose.metric) == (PoseStatus.OK, False)
    assert pose.translation @ translation / np.linalg.norm(translation) > np.cos(np.radians(5))


def test_a_calibration_that_comes_late_serves_for_the_reference(extractor):
    poses = drive(extractor, {}, calibrated=lambda number: number != 2, frames=3)
    assert [pose.status for pose, *_ in poses] == [
        PoseStatus.NO_REFERENCE,
        PoseStatus.NO_CALIBRATION,
        PoseStatus.OK,
    ]
