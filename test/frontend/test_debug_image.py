"""superpoint_ros/frontend/debug_image.py, on made-up features: no network needed."""

from dataclasses import replace

import numpy as np

from motion_scenes import SIZE, motion_of, scene
from superpoint_ros.features.extractor import Features
from superpoint_ros.frontend.debug_image import INLIER, OUTLIER, TRACK, Trails, draw, numbers, score_colours


def has(canvas, colour, tolerance=40):
    return (np.abs(canvas.astype(int) - colour).max(axis=2) < tolerance).any()


def test_every_keypoint_has_a_dot_in_the_colour_of_its_score():
    found = scene()
    canvas = draw(np.full(SIZE, 128, np.uint8), found, motion_of(found), [], [])
    assert canvas.shape == (*SIZE, 3) and canvas.dtype == np.uint8
    column, row = np.rint(found.xy).astype(int).T
    assert np.abs(canvas[row, column].astype(int) - score_colours(found.scores)).max() < 60
    assert (canvas[0, 0] == 128).all()


def test_matches_are_drawn_in_the_colour_of_inliers_and_outliers():
    frames = scene(), scene((-20, -10), wrong=4)
    motion = motion_of(*frames)
    assert (motion.homography.inliers.sum(), len(motion.matches)) == (26, 30)
    canvas = draw(np.zeros(SIZE, np.uint8), frames[1], motion, [], [])
    assert has(canvas, INLIER) and has(canvas, OUTLIER) and not has(canvas, TRACK)


def test_tracks_are_drawn_along_their_way():
    trails, paths = Trails(), []
    for step in range(4):
        found = scene((-15 * step, 0))
        paths = trails.add(np.arange(30, dtype=np.int32), found.xy)
    assert [len(path) for path in paths] == [4] * 30
    np.testing.assert_allclose(paths[3][:, 0], found.xy[3, 0] + [45, 30, 15, 0], atol=1e-3)
    canvas = draw(np.zeros(SIZE, np.uint8), found, motion_of(found), paths, [])
    assert has(canvas, TRACK) and not has(canvas, INLIER)


def test_a_track_that_missed_frames_is_one_path_and_a_new_one_none():
    trails = Trails()
    trails.add(np.array([5, 6], np.int32), np.zeros((2, 2), np.float32))
    trails.add(np.array([6], np.int32), np.ones((1, 2), np.float32))
    paths = trails.add(np.array([5, 7], np.int32), np.full((2, 2), 2, np.float32))
    assert [path.tolist() for path in paths] == [[[0, 0], [2, 2]]]
    trails.clear()
    assert trails.add(np.array([5, 7], np.int32), np.full((2, 2), 3, np.float32)) == []


def test_the_numbers_are_those_of_the_frame():
    frames = scene(), scene((-20, -10), wrong=4)
    lines = numbers(frames[1], motion_of(*frames, track_max_gap=3), gap=0.5, latency=0.0123)
    assert lines[0] == "30 keypoints, 12 ms"
    assert lines[1] == "26 of 30 matches are inliers (87%)"
    assert lines[2].startswith("OK, rmse 0.0") and lines[2].endswith("reference 0.50 s ago")
    assert lines[3] == "newest track 33"  # the four wrong steps begin tracks
    assert numbers(frames[0], motion_of(frames[0]), 0.0, 0.1)[1] == "NO_REFERENCE"


def test_a_blank_image_is_drawn_without_keypoints():
    none = Features(np.empty((0, 2), np.float32), np.empty(0, np.float32), np.empty((0, 16), np.float32), SIZE)
    canvas = draw(np.zeros(SIZE, np.uint8), none, motion_of(scene(), none), [], [])
    assert not canvas.any()


def test_keypoints_of_coarser_levels_are_circles_as_large_as_their_pixels():
    found = replace(scene(), scales=np.repeat([1, 4], [29, 1]).astype(np.float32))
    canvas = draw(np.zeros(SIZE, np.uint8), found, motion_of(found), [], [])
    x, y = np.rint(found.xy[29]).astype(int)
    assert not canvas[y, x].any() and canvas[y, x + 6].any() and not canvas[y, x + 9].any()
    x, y = np.rint(found.xy[0]).astype(int)
    assert canvas[y, x].any() and not canvas[y, x + 5].any()
