"""superpoint_ros/node/annotations.py, on made-up features: no network needed."""

from dataclasses import replace

import numpy as np
import pytest

pytest.importorskip("rclpy", reason="needs ROS 2 (rclpy)")

from std_msgs.msg import Header

from motion_scenes import motion_of, scene
from superpoint_ros.frontend.debug_image import INLIER, segments
from superpoint_ros.node.annotations import RADIUS, keypoint_marker, markers, motion_marker


@pytest.fixture
def header():
    return Header(frame_id="camera")


def test_foxglove_markers_count_pixels_from_the_corner(header):
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


def test_keypoints_of_coarser_levels_are_larger_in_foxglove(header):
    found = replace(scene(), scales=np.repeat([0.5, 1], 15).astype(np.float32))
    marker = keypoint_marker(header, found)
    assert marker.type == marker.LINE_LIST and len(marker.outline_colors) == 30 * 6
    ends = np.array([(p.x, p.y) for p in marker.points]).reshape(30, 6, 2, 2)
    np.testing.assert_allclose(ends.mean(axis=(1, 2)), found.xy + 0.5, atol=1e-4)
    radius = np.linalg.norm(ends - (found.xy + 0.5)[:, None, None], axis=-1)
    np.testing.assert_allclose(radius[:15], RADIUS, rtol=1e-3)
    np.testing.assert_allclose(radius[15:], 2 * RADIUS, rtol=1e-3)


def test_rviz_markers_lie_on_the_rays_and_leave_out_what_has_none(header):
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
