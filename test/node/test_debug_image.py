"""superpoint_ros/node/debug_image.py and annotations.py, without a network."""

import numpy as np
import pytest

from superpoint_ros.features.extractor import Features
from superpoint_ros.node.debug_image import INLIER, OUTLIER, TRACK, Trails, draw, numbers, score_colours
from superpoint_ros.node.tracker import Tracker

SIZE = (240, 320)


def scene(shift=(0.0, 0.0), wrong=0):
    """Thirty points moved by `shift`; the first `wrong` of them elsewhere."""
    rng = np.random.default_rng(1)
    xy = rng.uniform((60, 80), (300, 220), (30, 2)).astype(np.float32) + np.float32(shift)
    xy[:wrong] = np.stack([np.linspace(200, 280, wrong), np.full(wrong, 60)], axis=1)
    descriptors = rng.normal(size=(30, 16)).astype(np.float32)
    descriptors /= np.linalg.norm(descriptors, axis=1, keepdims=True)
    return Features(xy, np.linspace(0.9, 0.006, 30, dtype=np.float32), descriptors, SIZE)


def motion_of(*frames, **options):
    tracker = Tracker()
    for stamp, features in enumerate(frames):
        motion = tracker.advance(stamp * 10**9, features, 3.0, **options)
    return motion


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
    assert lines[3] == "newest track 29"
    assert numbers(frames[0], motion_of(frames[0]), 0.0, 0.1)[1] == "NO_REFERENCE"


def test_a_blank_image_is_drawn_without_keypoints():
    none = Features(np.empty((0, 2), np.float32), np.empty(0, np.float32), np.empty((0, 16), np.float32), SIZE)
    canvas = draw(np.zeros(SIZE, np.uint8), none, motion_of(scene(), none), [], [])
    assert not canvas.any()


# Annotations


@pytest.fixture
def header():
    pytest.importorskip("rclpy", reason="needs ROS 2 (rclpy)")
    from std_msgs.msg import Header

    return Header(frame_id="camera")


def test_foxglove_markers_count_pixels_from_the_corner(header):
    from superpoint_ros.node.annotations import keypoint_marker, motion_marker

    frames = scene(), scene((-20, -10), wrong=4)
    motion = motion_of(*frames)
    dots, lines = keypoint_marker(header, frames[1]), motion_marker(header, frames[1], motion)
    assert (dots.type, lines.type) == (dots.POINTS, lines.LINE_LIST)
    np.testing.assert_allclose([(p.x, p.y) for p in dots.points], frames[1].xy + 0.5)
    assert len(dots.outline_colors) == 30
    ends = np.array([(p.x, p.y) for p in lines.points]).reshape(30, 2, 2)
    np.testing.assert_allclose(ends[:, 0], frames[0].xy[motion.matches[:, 0]] + 0.5)
    np.testing.assert_allclose(ends[:, 1], frames[1].xy[motion.matches[:, 1]] + 0.5)
    green = np.isclose([colour.g for colour in lines.outline_colors], INLIER[1] / 255)
    np.testing.assert_array_equal(green, motion.homography.inliers)


def test_rviz_markers_lie_on_the_rays_and_leave_out_what_has_none(header):
    from superpoint_ros.node.annotations import markers
    from superpoint_ros.node.debug_image import segments

    frames = scene(), scene((-20, -10))
    motion = motion_of(*frames)
    rays = (frames[1].xy.astype(float) - (160, 120)) / 200
    rays[7] = np.nan
    ends = (segments(frames[1], motion).reshape(-1, 2) - (160, 120)) / 200
    ends[9] = np.nan
    dots, lines = markers(header, frames[1], motion, rays, ends).markers
    assert (len(dots.points), len(dots.colors), len(lines.points), len(lines.colors)) == (29, 29, 58, 58)
    point = dots.points[0]
    np.testing.assert_allclose((point.x / point.z, point.y / point.z), rays[0])
    empty = markers(header, frames[1], motion, np.full((30, 2), np.nan), np.full((60, 2), np.nan))
    assert [marker.action for marker in empty.markers] == [dots.DELETE] * 2
