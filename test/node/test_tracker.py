"""superpoint_ros/node/tracker.py, on made-up features: no network needed."""

import numpy as np
import pytest

from superpoint_ros.features.extractor import Features
from superpoint_ros.features.homography import HomographyStatus
from superpoint_ros.node.tracker import Tracker

COUNT, DIM = 60, 16


def scene(shift=(0.0, 0.0), size=(240, 320), dim=DIM):
    """The same random points and descriptors each time, moved by `shift` pixels."""
    rng = np.random.default_rng(1)
    xy = rng.uniform((10, 10), (300, 220), (COUNT, 2)).astype(np.float32) + np.float32(shift)
    descriptors = rng.normal(size=(COUNT, dim)).astype(np.float32)
    descriptors /= np.linalg.norm(descriptors, axis=1, keepdims=True)
    return Features(xy, np.linspace(1, 0.1, COUNT, dtype=np.float32), descriptors, size)


def test_the_first_frame_has_no_reference():
    motion = Tracker().advance(5, scene(), threshold=3.0)
    assert motion.reference_stamp is None
    assert motion.homography.status == HomographyStatus.NO_REFERENCE
    assert np.isnan(motion.homography.matrix).all()
    assert len(motion.matches) == len(motion.similarity) == 0


def test_each_frame_is_compared_with_the_one_before():
    tracker = Tracker()
    tracker.advance(1, scene(), threshold=3.0)
    tracker.advance(2, scene(shift=(5, 0)), threshold=3.0)
    motion = tracker.advance(3, scene(shift=(5, 7)), threshold=3.0)
    assert motion.reference_stamp == 2
    assert motion.homography.status == HomographyStatus.OK
    np.testing.assert_allclose(
        motion.homography.matrix, [[1, 0, 0], [0, 1, 7], [0, 0, 1]], atol=1e-3
    )
    np.testing.assert_array_equal(motion.matches, np.stack([np.arange(COUNT)] * 2, axis=1))
    np.testing.assert_allclose(motion.similarity, 1, atol=1e-5)


@pytest.mark.parametrize(
    ("stamp", "features"),
    [(9, scene()), (11, scene(size=(480, 640))), (11, scene(dim=8))],
    ids=["stamps jump back", "size changes", "descriptor length changes"],
)
def test_the_reference_is_dropped_when(stamp, features):
    tracker = Tracker()
    tracker.advance(10, scene(), threshold=3.0)
    motion = tracker.advance(stamp, features, threshold=3.0)
    assert motion.homography.status == HomographyStatus.NO_REFERENCE
    after = tracker.advance(stamp + 1, features, threshold=3.0)
    assert (after.reference_stamp, after.homography.status) == (stamp, HomographyStatus.OK)


def test_equal_stamps_of_a_driver_without_a_clock_keep_the_reference():
    tracker = Tracker()
    tracker.advance(0, scene(), threshold=3.0)
    assert tracker.advance(0, scene(), threshold=3.0).homography.status == HomographyStatus.OK


def test_a_frame_without_keypoints_reports_too_few_matches():
    empty = Features(
        np.empty((0, 2), np.float32),
        np.empty(0, np.float32),
        np.empty((0, DIM), np.float32),
        (240, 320),
    )
    tracker = Tracker()
    tracker.advance(1, scene(), threshold=3.0)
    motion = tracker.advance(2, empty, threshold=3.0)
    assert (motion.reference_stamp, motion.homography.status) == (
        1,
        HomographyStatus.TOO_FEW_MATCHES,
    )
