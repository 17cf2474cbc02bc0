"""superpoint_ros/frontend/tracker.py, on made-up features: no network needed."""

import aligned_scenes
import numpy as np
import pytest
from aligned_scenes import as_picture, seen
from aligned_scenes import motion as turned

from superpoint_ros.features.extractor import Features
from superpoint_ros.features.homography import HomographyStatus, corner_error, project
from superpoint_ros.features.levels import levels_for
from superpoint_ros.frontend import tracker as module
from superpoint_ros.frontend.tracker import Tracker

COUNT, DIM = 60, 16
PLACES = np.rint(
    np.random.default_rng(3).uniform((70, 60), (aligned_scenes.WIDTH - 70, aligned_scenes.HEIGHT - 60), (COUNT, 2))
)
SECOND = 1_000_000_000
BLANK = Features(np.empty((0, 2), np.float32), np.empty(0, np.float32), np.empty((0, DIM), np.float32), (240, 320))


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
    np.testing.assert_allclose(motion.homography.matrix, [[1, 0, 0], [0, 1, 7], [0, 0, 1]], atol=1e-3)
    np.testing.assert_array_equal(motion.matches, np.stack([np.arange(COUNT)] * 2, axis=1))
    np.testing.assert_allclose(motion.similarity, 1, atol=1e-5)


@pytest.mark.parametrize(
    ("stamp", "features"),
    [(9 * SECOND, scene()), (11 * SECOND, scene(size=(480, 640))), (11 * SECOND, scene(dim=8))],
    ids=["stamps jump back", "size changes", "descriptor length changes"],
)
def test_the_reference_is_dropped_when(stamp, features):
    tracker = Tracker()
    tracker.advance(10 * SECOND, scene(), threshold=3.0)
    motion = tracker.advance(stamp, features, threshold=3.0)
    assert motion.homography.status == HomographyStatus.NO_REFERENCE
    after = tracker.advance(stamp + 1, features, threshold=3.0)
    assert (after.reference_stamp, after.homography.status) == (stamp, HomographyStatus.OK)


def test_a_frame_that_comes_late_is_compared_like_any_other():
    tracker = Tracker()
    for stamp in (10 * SECOND, 10 * SECOND + 66_000_000):
        tracker.advance(stamp, scene(), threshold=3.0, track_max_gap=5)
    late = tracker.advance(10 * SECOND + 33_000_000, scene((3, 0)), threshold=3.0, track_max_gap=5)
    assert (late.homography.status, late.reference_stamp) == (HomographyStatus.OK, 10 * SECOND + 66_000_000)
    assert late.track_ids.tolist() == list(range(COUNT))


def test_equal_stamps_of_a_driver_without_a_clock_keep_the_reference():
    tracker = Tracker()
    tracker.advance(0, scene(), threshold=3.0)
    assert tracker.advance(0, scene(), threshold=3.0).homography.status == HomographyStatus.OK


def test_a_frame_without_keypoints_reports_too_few_matches():
    tracker = Tracker()
    tracker.advance(1, scene(), threshold=3.0)
    motion = tracker.advance(2, BLANK, threshold=3.0)
    assert (motion.reference_stamp, motion.homography.status) == (
        1,
        HomographyStatus.TOO_FEW_MATCHES,
    )


def test_a_keyframe_stays_the_reference_while_its_inliers_hold():
    tracker = Tracker()
    for stamp in range(5):
        motion = tracker.advance(stamp, scene((stamp, 0)), 3.0, reference="keyframe", keyframe_min_inliers=0.5)
    assert motion.reference_stamp == 0
    np.testing.assert_allclose(motion.homography.matrix, [[1, 0, 4], [0, 1, 0], [0, 0, 1]], atol=1e-3)
    np.testing.assert_allclose(motion.reference_xy, scene().xy[motion.matches[:, 0]])


def replaced(features, count, seed):
    """The first `count` points exchanged for others."""
    rng = np.random.default_rng(seed)
    descriptors = features.descriptors.copy()
    descriptors[:count] = rng.normal(size=(count, DIM))
    descriptors /= np.linalg.norm(descriptors, axis=1, keepdims=True)
    xy = features.xy.copy()
    xy[:count] = rng.uniform((10, 10), (300, 220), (count, 2))
    return Features(xy, features.scores, descriptors, features.size)


def test_a_keyframe_that_fails_is_replaced_by_the_frame_before_without_a_gap():
    tracker = Tracker()
    changed = replaced(scene(), COUNT - 4, seed=5)
    other = Features(changed.xy + 9, changed.scores, changed.descriptors, changed.size)
    frames = [scene(), scene((2, 0)), changed, other, other]
    references = []
    for stamp, features in enumerate(frames):
        motion = tracker.advance(stamp, features, 3.0, None, 0.9, "keyframe", 0.5)
        references.append((motion.reference_stamp, motion.homography.status))
    # frame 2 resembles neither; frame 3 resembles 2, which takes the keyframe's place at once
    assert references[1] == (0, HomographyStatus.OK)
    assert references[2][1] != HomographyStatus.OK
    assert references[3:] == [(2, HomographyStatus.OK), (2, HomographyStatus.OK)]


def test_a_blank_frame_does_not_cost_the_keyframe():
    tracker = Tracker()
    for stamp, features in enumerate([scene(), BLANK, scene((3, 0))]):
        motion = tracker.advance(stamp, features, 3.0, reference="keyframe", keyframe_min_inliers=0.5)
    assert (motion.reference_stamp, motion.homography.status) == (0, HomographyStatus.OK)


def test_the_keyframe_homography_agrees_with_the_chain_of_frame_to_frame_ones(extractor, photograph):
    """Within what the errors of the chain allow; the keyframe changes on the way."""
    import cv2

    from superpoint_ros.features.homography import corner_error

    step = np.array([[1.02, -0.07, 3.0], [0.07, 1.02, -9.0], [2e-5, 0, 1]])
    frame_to_frame, to_keyframe = Tracker(), Tracker()
    poses = {0: np.eye(3)}  # from frame 0, by the chain
    keyframes, errors = set(), []
    for stamp in range(14):
        warp = np.linalg.matrix_power(step, stamp)
        picture = cv2.warpPerspective(photograph, warp, photograph.shape[::-1], borderMode=cv2.BORDER_REFLECT)
        found = extractor(picture)
        one = frame_to_frame.advance(stamp, found, 3.0)
        other = to_keyframe.advance(stamp, found, 3.0, reference="keyframe", keyframe_min_inliers=0.95)
        if stamp == 0:
            continue
        assert one.homography.status == other.homography.status == HomographyStatus.OK
        poses[stamp] = one.homography.matrix @ poses[stamp - 1]
        keyframe = other.reference_stamp
        keyframes.add(keyframe)
        chained = poses[stamp] @ np.linalg.inv(poses[keyframe])
        errors.append(corner_error(other.homography.matrix, chained, photograph.shape))
    assert len(keyframes) > 1
    assert np.median(errors) < 1.5 and max(errors) < 4


def test_tracks_go_on_while_the_reference_is_a_keyframe():
    tracker, ids = Tracker(), []
    for stamp in range(4):
        motion = tracker.advance(stamp, scene((stamp, 0)), 3.0, reference="keyframe", track_max_gap=3)
        ids.append(motion.track_ids.tolist())
    assert ids == [list(range(COUNT))] * 4


def test_tracks_are_empty_while_off_and_new_when_on_again():
    tracker = Tracker()
    assert len(tracker.advance(1, scene(), 3.0).track_ids) == 0
    first = tracker.advance(2, scene(), 3.0, track_max_gap=3).track_ids
    assert len(tracker.advance(3, scene(), 3.0).track_ids) == 0
    again = tracker.advance(4, scene(), 3.0, track_max_gap=3).track_ids
    assert not set(first.tolist()) & set(again.tolist())


def test_reset_drops_reference_keyframe_and_tracks():
    tracker = Tracker()
    before = tracker.advance(1, scene(), 3.0, reference="keyframe", track_max_gap=3)
    tracker.reset()
    after = tracker.advance(2, scene(), 3.0, reference="keyframe", track_max_gap=3)
    assert after.homography.status == HomographyStatus.NO_REFERENCE
    assert not set(before.track_ids.tolist()) & set(after.track_ids.tolist())
    motion = tracker.advance(3, scene(), 3.0, reference="keyframe", track_max_gap=3)
    assert (motion.reference_stamp, motion.track_ids.tolist()) == (2, after.track_ids.tolist())


# With pictures


def textured(matrix, noise=0.4, seed=0, points=PLACES):
    """Features of known points in a view of a plane, with the errors that keypoints have, and the view."""
    rng = np.random.default_rng(seed)
    descriptors = np.random.default_rng(9).normal(size=(len(points), DIM)).astype(np.float32)
    descriptors /= np.linalg.norm(descriptors, axis=1, keepdims=True)
    xy = (project(matrix, points) + rng.normal(size=points.shape) * noise).astype(np.float32)
    scores = np.linspace(1, 0.1, len(points), dtype=np.float32)
    return Features(xy, scores, descriptors, aligned_scenes.SIZE), as_picture(seen(matrix), 1, seed)


def step(number):
    return turned(0.5 * number, shift=(1.3 * number, -0.6 * number))


def test_pictures_refine_homographies_and_positions():
    tracker = Tracker()
    features, picture = textured(step(0), noise=0)
    tracker.advance(0, features, 3.0, levels=levels_for(features, picture), positions=True)
    features, picture = textured(step(3), seed=1)
    motion = tracker.advance(1, features, 3.0, levels=levels_for(features, picture), positions=True)
    assert motion.homography.refined
    assert corner_error(motion.homography.matrix, step(3), aligned_scenes.SIZE) < 0.06
    errors = np.linalg.norm(motion.current_xy - project(step(3), PLACES[motion.matches[:, 0]]), axis=1)
    assert np.median(errors) < 0.1
    features, _ = textured(step(4), seed=2)
    without = tracker.advance(2, features, 3.0)
    assert not without.homography.refined
    np.testing.assert_array_equal(without.current_xy, features.xy[without.matches[:, 1]])
    np.testing.assert_array_equal(without.points_xy, without.reference_xy)


@pytest.mark.parametrize("reference", ["previous", "keyframe"])
def test_errors_do_not_add_up_while_tracks_or_a_keyframe_go_on(reference):
    tracker = Tracker()
    for number in range(20):
        features, picture = textured(step(number), noise=0.4 if number else 0, seed=number)
        motion = tracker.advance(
            number,
            features,
            3.0,
            reference=reference,
            track_max_gap=3,
            levels=levels_for(features, picture),
            positions=True,
        )
    point = motion.track_ids[motion.matches[:, 1]]  # ids are the rows of the first frame
    errors = np.linalg.norm(motion.current_xy - project(step(19), PLACES[point % len(PLACES)]), axis=1)
    assert np.median(errors[point < len(PLACES)]) < 0.12


def test_where_a_tracks_point_was_is_as_exact_as_where_it_is():
    tracker = Tracker()
    for number in range(6):
        features, picture = textured(step(number), noise=0.4 if number else 0, seed=number)
        motion = tracker.advance(
            number, features, 3.0, track_max_gap=3, levels=levels_for(features, picture), positions=True
        )
    point = motion.track_ids[motion.matches[:, 1]]
    old = point < len(PLACES)  # ids are the rows of the first frame
    truth = project(step(4), PLACES[point[old]])
    assert np.median(np.linalg.norm(motion.points_xy[old] - truth, axis=1)) < 0.12
    assert np.median(np.linalg.norm(motion.reference_xy[old] - truth, axis=1)) > 0.2  # the keypoints themselves


def test_what_is_masked_in_the_picture_is_not_looked_at():
    tracker, mask = Tracker(), np.zeros(aligned_scenes.SIZE, bool)
    for number in range(2):
        features, picture = textured(step(number), seed=number)
        motion = tracker.advance(number, features, 3.0, levels=levels_for(features, picture, mask), positions=True)
    assert not motion.homography.refined
    np.testing.assert_array_equal(motion.current_xy, features.xy[motion.matches[:, 1]])


@pytest.mark.parametrize("where", ["match", "estimate_homography", "refine_matches", "local_motion"])
def test_a_frame_that_fails_is_as_if_it_had_not_been(monkeypatch, where):
    tracker, other = Tracker(), Tracker()
    arguments = {"track_max_gap": 3, "positions": True}
    frames = [textured(step(number), seed=number) for number in range(5)]
    for stamp in (0, 1):
        features, picture = frames[stamp]
        motion = tracker.advance(stamp, features, 3.0, levels=levels_for(features, picture), **arguments)
        other.advance(stamp, features, 3.0, levels=levels_for(features, picture), **arguments)
    with monkeypatch.context() as patch, pytest.raises(MemoryError):
        patch.setattr(module, where, lambda *_, **__: (_ for _ in ()).throw(MemoryError))
        shuffled = frames[2][0].rows(np.random.default_rng(0).permutation(COUNT)[:20])
        tracker.advance(2, shuffled, 3.0, levels=levels_for(shuffled, frames[2][1]), **arguments)
    for stamp in (3, 4):
        features, picture = frames[stamp]
        motion = tracker.advance(stamp, features, 3.0, levels=levels_for(features, picture), **arguments)
        expected = other.advance(stamp, features, 3.0, levels=levels_for(features, picture), **arguments)
        assert (motion.reference_stamp, motion.homography.status) == (1 if stamp == 3 else 3, HomographyStatus.OK)
        np.testing.assert_array_equal(motion.matches, expected.matches)
        if where != "local_motion":  # there tracks begin anew
            np.testing.assert_array_equal(motion.track_ids, expected.track_ids)


def test_a_reset_that_meets_a_failure_is_not_forgotten(monkeypatch):
    tracker = Tracker()
    tracker.advance(0, scene(), 3.0)
    tracker.reset()
    with monkeypatch.context() as patch, pytest.raises(MemoryError):
        patch.setattr(module, "unknown_homography", lambda *_, **__: (_ for _ in ()).throw(MemoryError))
        tracker.advance(1, scene(), 3.0)
    assert tracker.advance(2, scene(), 3.0).homography.status == HomographyStatus.NO_REFERENCE
    assert tracker.advance(3, scene(), 3.0).homography.status == HomographyStatus.OK
