"""superpoint_ros/features/anchors.py, on exact views of a made-up plane."""

from __future__ import annotations

import cv2
import numpy as np
from aligned_scenes import HEIGHT, SIZE, WIDTH, as_picture, motion, seen

from superpoint_ros.features.anchors import Anchors
from superpoint_ros.features.extractor import Features
from superpoint_ros.features.fit import jacobians, project
from superpoint_ros.features.levels import levels_of

COUNT = 150
POINTS = np.rint(np.random.default_rng(1).uniform((110, 90), (WIDTH - 111, HEIGHT - 91), (COUNT, 2)))
IDS = np.arange(COUNT, dtype=np.int32) * 3


def features(xy, size=SIZE):
    parts = np.asarray(xy, np.float32), np.ones(len(xy), np.float32), np.zeros((len(xy), 4), np.float32)
    return Features(*parts, size)


def follow(matrices, blurred=(), noise=0.4):
    """Errors of the tracks' positions in each view, measured by Anchors; `near` is off as keypoints are."""
    anchors, errors, previous = Anchors(), [], np.eye(3)
    for number, matrix in enumerate(matrices):
        rng = np.random.default_rng(number)
        true = project(matrix, POINTS)
        found = true + rng.normal(size=true.shape) * noise if number else POINTS
        picture = seen(matrix)
        if number in blurred:
            picture = cv2.GaussianBlur(picture, (31, 1), 8)
        steps = jacobians(matrix @ np.linalg.inv(previous), project(previous, POINTS)).astype(np.float32)
        order = rng.permutation(COUNT)  # the rows of keypoints change from frame to frame
        levels = levels_of(as_picture(picture, 1, number))
        places = anchors.measure(IDS[order], features(found[order]), levels, steps[order], np.float32(found[order]))
        errors.append(np.linalg.norm(places - true[order], axis=1))
        previous = matrix
    return errors


def test_errors_do_not_add_up_over_a_track():
    errors = follow([motion(0.6 * step, 1 + 0.004 * step, (0.9 * step, -0.5 * step)) for step in range(30)])
    assert np.median(errors[1]) < 0.1
    assert np.median(errors[-1]) < 0.15
    assert np.quantile(errors[-1], 0.9) < 0.4


def test_a_blurred_frame_costs_nothing_afterwards():
    errors = follow([motion(shift=(0.7 * step, 0)) for step in range(8)], blurred=(3, 4))
    assert np.median(errors[-1]) < 0.1


def test_a_patch_that_is_not_found_any_more_is_replaced_where_the_track_is():
    # A turn by 90 degrees beyond what a patch holds, and lasting zoom: the errors of a few handovers remain.
    errors = follow([motion(4 * step, 1.04**step) for step in range(12)])
    assert np.median(errors[-1]) < 0.4


def test_a_new_track_is_where_its_keypoint_is():
    anchors = Anchors()
    picture = levels_of(as_picture(seen(np.eye(3))))
    steps = np.tile(np.eye(2, dtype=np.float32), (COUNT, 1, 1))
    places = anchors.measure(IDS, features(POINTS), picture, steps, np.float32(POINTS))
    np.testing.assert_array_equal(places, np.float32(POINTS))
    shifted = POINTS + 0.4
    again = anchors.measure(IDS, features(shifted), picture, steps, np.float32(shifted))
    assert np.median(np.linalg.norm(again - POINTS, axis=1)) < 0.05
    anchors.reset()
    np.testing.assert_array_equal(
        anchors.measure(IDS, features(shifted), picture, steps, np.float32(shifted)), np.float32(shifted)
    )


def test_no_tracks_and_tracks_at_the_border_are_no_trouble():
    anchors = Anchors()
    picture = levels_of(as_picture(seen(np.eye(3))))
    for xy in (np.empty((0, 2)), np.array([[0, 0], [WIDTH - 1, HEIGHT - 1]]), np.empty((0, 2)), POINTS[:2]):
        ids, steps = np.arange(len(xy), dtype=np.int32), np.tile(np.eye(2, dtype=np.float32), (len(xy), 1, 1))
        assert anchors.measure(ids, features(xy), picture, steps, np.float32(xy)).shape == xy.shape


def test_the_patches_of_tracks_that_cannot_come_back_are_dropped():
    anchors = Anchors()
    picture = levels_of(as_picture(seen(np.eye(3))))
    for number in range(6):
        ids = IDS if number == 0 else IDS[:10]
        steps = np.tile(np.eye(2, dtype=np.float32), (len(ids), 1, 1))
        anchors.measure(ids, features(POINTS[: len(ids)]), picture, steps, np.float32(POINTS[: len(ids)]), max_gap=2)
        left = IDS if number <= 2 else IDS[:10]
        assert sorted(anchors._kept.ids.tolist()) == left.tolist()
