"""superpoint_ros/features/relative_pose.py and pose_fit.py"""

import cv2
import numpy as np
import pytest

from superpoint_ros.features.pose_fit import Sights, angle, cross, quaternion, settled, turned
from superpoint_ros.features.relative_pose import PoseStatus, estimate_pose

FOCAL = 400.0
TURN = cv2.Rodrigues(np.array([0.01, 0.03, -0.02]))[0]


def moved(translation, plane=False, noise=0.2, outliers=0.2, count=400, seed=0, widest=0.7):
    """Matched directions of points in space, seen before and after; their depths; and which matches are right."""
    rng = np.random.default_rng(seed)
    a = rng.uniform(-widest, widest, (count, 2))
    z = 4 / (1 + 0.2 * a[:, 0] - 0.3 * a[:, 1]) if plane else rng.uniform(2, 10, count)
    after = np.column_stack([a, np.ones(count)]) * z[:, None] @ TURN.T + translation
    b = after[:, :2] / after[:, 2:] + rng.normal(0, noise / FOCAL, (count, 2))
    wrong = rng.random(count) < outliers
    b[wrong] = rng.uniform(-0.7, 0.7, (wrong.sum(), 2))
    return a, b, z, ~wrong


def degrees(one, other):
    return np.degrees(np.arccos(np.clip(one @ other / np.linalg.norm(one) / np.linalg.norm(other), -1, 1)))


@pytest.mark.parametrize("translation", [(0.3, 0.05, 0.1), (0, 0, 0.5), (-0.4, 0.2, 0)])
@pytest.mark.parametrize("seed", range(3))
def test_rotation_and_direction_are_found(translation, seed):
    a, b, _, right = moved(translation, seed=seed)
    pose = estimate_pose(a, b, 1 / FOCAL)
    assert (pose.status, pose.metric) == (PoseStatus.OK, False)
    assert np.degrees(angle(pose.rotation @ TURN.T)) < 0.1
    assert degrees(pose.translation, np.array(translation)) < 1.5
    assert np.linalg.norm(pose.translation) == pytest.approx(1)
    assert pose.inliers[right].mean() > 0.95 and pose.inliers[~right].mean() < 0.2
    assert pose.homography_ratio < 0.4


@pytest.mark.parametrize("seed", range(3))
def test_a_mere_rotation_is_told_from_a_motion(seed):
    a, b, _, right = moved((0, 0, 0), seed=seed)
    pose = estimate_pose(a, b, 1 / FOCAL)
    assert pose.status == PoseStatus.ROTATION_ONLY
    assert np.isnan(pose.translation).all()
    assert np.degrees(angle(pose.rotation @ TURN.T)) < 0.02
    assert pose.inliers[right].mean() > 0.95
    assert pose.homography_ratio > 0.45


def test_a_camera_that_stands_still_does_not_move():
    a, _, _, _ = moved((0, 0, 0))
    pose = estimate_pose(a, a, 1 / FOCAL)
    assert pose.status == PoseStatus.ROTATION_ONLY
    np.testing.assert_allclose(pose.rotation, np.eye(3), atol=1e-9)


@pytest.mark.parametrize("seed", range(4))
def test_the_motion_before_a_plane_is_right_or_said_to_be_unknown(seed):
    a, b, _, _ = moved((0.3, 0.02, 0.05), plane=True, seed=seed)
    pose = estimate_pose(a, b, 1 / FOCAL)
    assert pose.homography_ratio > 0.45
    if pose.status == PoseStatus.OK:
        assert np.degrees(angle(pose.rotation @ TURN.T)) < 0.3
        assert degrees(pose.translation, np.array([0.3, 0.02, 0.05])) < 3
    else:
        assert pose.status == PoseStatus.DEGENERATE


@pytest.mark.parametrize("seed", range(4))
def test_a_small_piece_of_a_plane_leaves_several_motions_open(seed):
    """Seen at so small an angle all points lie before the camera with either of two poses."""
    a, b, _, _ = moved((0.3, 0.02, 0.05), plane=True, widest=0.12, outliers=0, seed=seed)
    assert estimate_pose(a, b, 1 / FOCAL).status in (PoseStatus.DEGENERATE, PoseStatus.ROTATION_ONLY)


@pytest.mark.parametrize("translation", [(0.3, 0.05, 0.1), (0, 0, 0)])
@pytest.mark.parametrize("plane", [True, False])
def test_with_depths_the_translation_is_in_metres(translation, plane):
    a, b, z, right = moved(translation, plane=plane)
    z[::3] = np.nan
    pose = estimate_pose(a, b, 1 / FOCAL, z)
    assert (pose.status, pose.metric) == (PoseStatus.OK, True)
    np.testing.assert_allclose(pose.translation, translation, atol=0.003)
    assert np.degrees(angle(pose.rotation @ TURN.T)) < 0.05
    assert not pose.inliers[::3].any() and pose.inliers[right & np.isfinite(z)].mean() > 0.95


def test_of_too_few_depths_only_the_direction_is_told():
    a, b, z, _ = moved((0.3, 0.05, 0.1))
    z[10:] = np.nan
    pose = estimate_pose(a, b, 1 / FOCAL, z)
    assert (pose.status, pose.metric) == (PoseStatus.OK, False)


def test_few_matches_and_wrong_ones_give_no_pose():
    a, b, _, _ = moved((0.3, 0.05, 0.1))
    few = estimate_pose(a[:14], b[:14], 1 / FOCAL)
    assert few.status == PoseStatus.TOO_FEW_MATCHES and np.isnan(few.rotation).all() and len(few.inliers) == 14
    rng = np.random.default_rng(2)
    wrong = estimate_pose(a, rng.uniform(-0.7, 0.7, a.shape), 1 / FOCAL)
    assert wrong.status == PoseStatus.DEGENERATE and not wrong.inliers.any()


def test_directions_that_are_not_known_are_no_matches():
    a, b, _, _ = moved((0.3, 0.05, 0.1))
    a[5], b[7] = np.nan, np.nan
    pose = estimate_pose(a, b, 1 / FOCAL)
    assert pose.status == PoseStatus.OK and not pose.inliers[[5, 7]].any()


def test_the_distance_from_the_epipolar_geometry_is_sampsons():
    """One match at a time, Hartley and Zisserman 11.4.3."""
    a, b, _, _ = moved((0.3, 0.05, 0.1), count=20)
    t = np.array([0.3, 0.05, 0.1])
    found = Sights.of(a, b, FOCAL).across(TURN, t)
    for x, y, distance in zip(a, b, found, strict=True):
        x, y, e = np.append(x, 1), np.append(y, 1), cross(t) @ TURN
        (p, q, _), (r, s, _) = e @ x, e.T @ y
        assert distance == pytest.approx(FOCAL * (y @ e @ x) / np.sqrt(p**2 + q**2 + r**2 + s**2))


def test_points_before_both_cameras_are_those_whose_depths_are():
    a, b, z, _ = moved((0.3, 0.05, 0.1), noise=0, outliers=0)
    t = np.array([0.3, 0.05, 0.1])
    sights = Sights.of(a, b, FOCAL)
    assert sights.in_front(TURN, t).all() and not sights.in_front(TURN, -t).any()


def test_fits_end_at_the_exact_pose_of_exact_matches():
    a, b, _, _ = moved((0.3, 0.05, 0.1), noise=0, outliers=0)
    near = cv2.Rodrigues(np.array([0.002, -0.001, 0.001]))[0] @ TURN
    rotation, translation = settled(
        near, np.array([0.95, 0.1, 0.3]) / np.linalg.norm([0.95, 0.1, 0.3]), Sights.of(a, b, FOCAL), 5
    )
    assert angle(rotation @ TURN.T) < 1e-5 and degrees(translation, np.array([0.3, 0.05, 0.1])) < 1e-3
    a, b, _, _ = moved((0, 0, 0), noise=0, outliers=0)
    assert angle(turned(near, Sights.of(a, b, FOCAL)) @ TURN.T) < 1e-7


def test_quaternions_are_those_that_turn_vectors_as_the_matrix_does():
    rng = np.random.default_rng(0)
    for turn in (*rng.normal(size=(20, 3)), np.zeros(3), np.array([1e-9, 0, 0]), np.array([0, np.pi, 0])):
        matrix = cv2.Rodrigues(turn)[0]
        x, y, z, w = quaternion(matrix)
        axis, vector = np.array([x, y, z]), rng.normal(size=3)
        turned = vector + 2 * np.cross(axis, np.cross(axis, vector) + w * vector)
        np.testing.assert_allclose(turned, matrix @ vector, atol=1e-9)
        assert w >= -1e-9
    assert np.isnan(quaternion(np.full((3, 3), np.nan))).all()
