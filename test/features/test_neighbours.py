from __future__ import annotations

import numpy as np
import pytest

from superpoint_ros.features.neighbours import NEIGHBOURS, inverses, local_motion, sane

RNG = np.random.default_rng(0)
POINTS = RNG.uniform(0, 400, (200, 2)).astype(np.float32)


def bent(points):
    return points + np.stack([8 * np.sin(points[:, 1] / 60), 8 * np.cos(points[:, 0] / 60)], axis=1).astype(np.float32)


def slow_motion(points0, points1, row):
    """By least squares over the others that are nearest, all alike: affinity and prediction."""
    near = np.argsort(np.linalg.norm(points0 - points0[row], axis=1))[1 : NEIGHBOURS + 1]
    middle0, middle1 = points0[near].mean(axis=0), points1[near].mean(axis=0)
    affinity = np.linalg.lstsq(points0[near] - middle0, points1[near] - middle1, rcond=None)[0].T
    return affinity, middle1 + affinity @ (points0[row] - middle0)


def test_the_motion_is_that_of_the_nearest_matches():
    found = local_motion(POINTS, bent(POINTS))
    assert (found.affinities.shape, found.predicted.shape, found.spread.shape) == ((200, 2, 2), (200, 2), (200,))
    expected = [slow_motion(POINTS, bent(POINTS), row) for row in range(200)]
    assert np.median(np.abs(found.affinities - [affinity for affinity, _ in expected])) < 0.02
    assert np.median(np.abs(found.predicted - [place for _, place in expected])) < 0.2


def test_an_affine_motion_is_found_exactly():
    turn, shift = np.array([[0.5, -0.9], [0.9, 0.5]], np.float32), np.float32([30, -7])
    found = local_motion(POINTS, POINTS @ turn.T + shift)
    np.testing.assert_allclose(found.affinities, np.broadcast_to(turn, (200, 2, 2)), atol=1e-3)
    np.testing.assert_allclose(found.predicted, POINTS @ turn.T + shift, atol=0.05)
    assert found.spread.max() < 0.05


def test_wrong_matches_do_not_move_their_neighbours():
    turn = np.array([[0.5, -0.9], [0.9, 0.5]], np.float32)
    moved = POINTS @ turn.T + np.float32(30)
    wrong = moved.copy()
    wrong[::4] = RNG.uniform(0, 400, (50, 2))
    found = local_motion(POINTS, wrong)
    assert np.quantile(np.abs(found.affinities - turn).max(axis=(1, 2)), 0.95) < 0.05
    assert np.quantile(np.linalg.norm(found.predicted - moved, axis=1), 0.95) < 2


def test_a_match_does_not_speak_for_itself():
    moved = POINTS + np.float32([5, 5])
    moved[7] += 100
    found = local_motion(POINTS, moved)
    assert np.linalg.norm(found.predicted[7] - POINTS[7] - 5) < 0.5


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("points", [POINTS[:3], np.full((9, 2), 50, np.float32), POINTS[:9] * np.float32([1, 0])])
def test_points_that_leave_it_open_are_no_trouble(points):
    found = local_motion(points, points + np.float32(3))
    assert np.isfinite(found.affinities).all() and sane(found.affinities).all()
    np.testing.assert_allclose(found.predicted, points + 3, atol=0.5)


def test_sane_affinities_neither_mirror_nor_stretch_too_much():
    matrices = np.array([np.eye(2), [[0, -1], [1, 0]], [[1, 0], [0, -1]], [[6, 0], [0, 1]], [[1, 0], [0, 0.1]]])
    assert sane(matrices).tolist() == [True, True, False, False, False]


def test_inverses_are_those_of_numpy():
    matrices = RNG.normal(size=(50, 2, 2)).astype(np.float32)
    np.testing.assert_allclose(inverses(matrices), np.linalg.inv(matrices), rtol=1e-3, atol=1e-3)
