from __future__ import annotations

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from superpoint_ros.features.extractor import Features
from superpoint_ros.features.homography import (
    CONSENSUS,
    HomographyStatus,
    corner_error,
    estimate_homography,
    image_corners,
    project,
    unknown_homography,
)
from superpoint_ros.features.matching import match

SIZE = (240, 320)
OK, TOO_FEW = HomographyStatus.OK, HomographyStatus.TOO_FEW_MATCHES
DEGENERATE = HomographyStatus.DEGENERATE

SHIFT = np.array([[1, 0, 5], [0, 1, 3], [0, 0, 1.0]])


def features(xy, size=SIZE):
    count = len(xy)
    descriptors = np.zeros((count, 4), np.float32)
    return Features(np.asarray(xy, np.float32), np.ones(count, np.float32), descriptors, size)


def in_order(count):
    return np.stack([np.arange(count)] * 2, axis=1).astype(np.int32)


def estimate(points0, points1, size=SIZE, **options):
    matches = in_order(len(points0))
    return estimate_homography(features(points0, size), features(points1, size), matches, **options)


def spread(count, seed=0, size=SIZE):
    """Points all over the image."""
    return np.random.default_rng(seed).random((count, 2)) * (size[1] - 1, size[0] - 1)


def camera_motion(angle=0.0, zoom=1.0, shift=(0, 0), perspective=(0, 0)):
    """A homography about the image's centre."""
    cos, sin = zoom * np.cos(angle), zoom * np.sin(angle)
    there = np.array([[1, 0, -159.5], [0, 1, -119.5], [0, 0, 1]])
    turn = np.array([[cos, -sin, shift[0]], [sin, cos, shift[1]], [*perspective, 1]])
    matrix = np.linalg.inv(there) @ turn @ there
    return matrix / matrix[2, 2]


def assert_unknown(homography, status, matches):
    assert homography.status == status
    assert homography.matrix.shape == (3, 3)
    assert np.isnan(homography.matrix).all()
    assert homography.inliers.tolist() == [False] * matches
    assert homography.inliers.dtype == bool
    assert np.isnan(homography.rmse)


# What can be found


@given(
    angle=st.floats(-np.pi, np.pi),
    zoom=st.floats(0.5, 2),
    shift=st.tuples(st.floats(-80, 80), st.floats(-60, 60)),
    perspective=st.tuples(st.floats(-1e-3, 1e-3), st.floats(-1e-3, 1e-3)),
    seed=st.integers(0, 99),
)
def test_a_homography_is_recovered_from_exact_matches(angle, zoom, shift, perspective, seed):
    truth = camera_motion(angle, zoom, shift, perspective)
    points = spread(60, seed)
    found = estimate(points, project(truth, points))
    assert found.status == OK
    assert found.matrix[2, 2] == 1
    assert corner_error(found.matrix, truth, SIZE) < 0.01
    assert found.inliers.all()
    assert found.rmse < 1e-3


@pytest.mark.parametrize("outliers", [0.2, 0.5, 0.7])
def test_noise_and_outliers_are_survived(outliers):
    for seed in range(5):
        rng = np.random.default_rng(seed)
        truth = camera_motion(0.3, 1.2, (10, -8), (2e-4, -1e-4))
        points = spread(200, seed)
        true = rng.random(200) >= outliers
        moved = project(truth, points) + rng.normal(size=(200, 2)) * 0.5
        moved[~true] = spread(200, seed + 100)[~true]
        found = estimate(points, moved)
        assert found.status == OK
        assert corner_error(found.matrix, truth, SIZE) < 1.5
        assert found.inliers[true].mean() > 0.97
        assert found.inliers[~true].mean() < 0.1
        assert found.rmse == pytest.approx(0.5 * np.sqrt(2), rel=0.25)


def test_inliers_and_rmse_are_those_of_the_matrix():
    rng = np.random.default_rng(3)
    points = spread(100).astype(np.float32)
    moved = (points + rng.normal(size=(100, 2)) * 1.5 + 4).astype(np.float32)
    found = estimate(points, moved, threshold=2.0)
    errors = []
    for (x, y), (u, v) in zip(points.astype(float), moved.astype(float), strict=True):
        a, b, c = found.matrix @ (x, y, 1)
        errors.append(np.hypot(a / c - u, b / c - v))
    errors = np.array(errors)
    assert 20 < found.inliers.sum() < 100
    np.testing.assert_array_equal(found.inliers, errors <= 2.0)
    assert found.rmse == pytest.approx(np.sqrt(np.mean(errors[found.inliers] ** 2)))


def test_the_matches_say_which_rows_belong_together():
    rng = np.random.default_rng(0)
    points = spread(50)
    order = rng.permutation(50)
    matches = np.stack([order, np.arange(50)], axis=1).astype(np.uint32)
    found = estimate_homography(features(points), features(project(SHIFT, points)[order]), matches[:30])
    assert found.inliers.shape == (30,)
    assert corner_error(found.matrix, SHIFT, SIZE) < 0.01


def test_the_same_matches_give_the_same_homography():
    points = spread(300)
    moved = project(camera_motion(0.2), points) + np.random.default_rng(0).normal(size=(300, 2))
    moved[:150] = spread(150, 7)
    first = estimate(points, moved)
    for seed in range(3):
        cv2.setRNGSeed(seed)
        again = estimate(points, moved)
        np.testing.assert_array_equal(again.matrix, first.matrix)
        np.testing.assert_array_equal(again.inliers, first.inliers)
        assert again.rmse == first.rmse


def test_many_matches_are_all_fitted_though_consensus_is_sought_among_some():
    rng = np.random.default_rng(0)
    truth = camera_motion(0.2, 1.1, (5, 4), (1e-4, 1e-4))
    points = spread(4 * CONSENSUS)
    moved = project(truth, points) + rng.normal(size=points.shape) * 0.8
    moved[::5] = spread(len(points), 1)[::5]
    found = estimate(points, moved)
    right = np.arange(len(points)) % 5 > 0
    best, _ = cv2.findHomography(points[right], moved[right], 0)
    assert found.inliers[right].mean() > 0.99
    assert corner_error(found.matrix, best, SIZE) < 0.05


def test_the_matrix_has_the_least_error_over_its_inliers():
    points = spread(300)
    moved = project(camera_motion(0.3, 1.2, (10, -8), (2e-4, -1e-4)), points)
    moved += np.random.default_rng(1).normal(size=moved.shape) * 0.7
    found = estimate(points, moved)
    best, _ = cv2.findHomography(points[found.inliers], moved[found.inliers], 0)
    assert corner_error(found.matrix, best, SIZE) < 0.01


def test_the_two_images_may_differ_in_size():
    points = spread(60)
    scale = np.diag([4, 4, 1.0])
    small, large = features(points), features(project(scale, points), (960, 1280))
    found = estimate_homography(small, large, in_order(60))
    assert found.status == OK
    assert corner_error(found.matrix, scale, SIZE) < 0.05


def test_four_spread_matches_are_enough():
    corners = np.array([[10, 10], [310, 12], [300, 230], [15, 225.0]])
    found = estimate(corners, project(camera_motion(0.1), corners))
    assert found.status == OK
    assert corner_error(found.matrix, camera_motion(0.1), SIZE) < 0.1


# What cannot


@pytest.mark.parametrize("count", [0, 1, 3])
def test_fewer_than_four_matches_are_too_few(count):
    points = spread(count)
    assert_unknown(estimate(points, points), TOO_FEW, count)


def line(count, seed=0):
    along = np.random.default_rng(seed).random(count)
    return np.stack([20 + 280 * along, 30 + 150 * along], axis=1)


def flattening(factor):
    return np.array([[factor, 0, 100], [0, 1, 0], [0, 0, 1]])


NEAR_SINGULAR = np.array([[1, 0.5, 0], [0.5, 0.25 + 1e-5, 0], [0, 0, 1]])
MIRROR = np.array([[-1, 0, 319], [0, 1, 0], [0, 0, 1.0]])
FOLD = np.array([[1, 0, 0], [0, 1, 0], [-1 / 130, 0, 1]])
"""Its horizon, x = 130, crosses the image."""

DEGENERATE_SETS = {
    "on a line": lambda n: (line(n), line(n) + 4),
    "on a row": lambda n: (line(n) * (1, 0) + 50, line(n) * (1, 0) + 50),
    "on a line, with noise": lambda n: (line(n), line(n) + 4 + spread(n, 5) / 160),
    "a line that opens into a plane": lambda n: (line(n), spread(n)),
    "a plane that falls onto a line": lambda n: (spread(n), spread(n) * (0, 1) + (100, 0)),
    "in one corner": lambda n: (spread(n) / 16, spread(n) / 16 + 4),
    "in one corner, with noise": lambda n: (spread(n) / 16, spread(n) / 16 + spread(n, 5) / 160),
    "mirrored": lambda n: (spread(n), project(MIRROR, spread(n))),
    "upside down in a mirror": lambda n: (spread(n), spread(n) * (1, -1) + (0, 239)),
    "near-singular": lambda n: (spread(n), project(NEAR_SINGULAR, spread(n))),
    "flattened": lambda n: (spread(n), project(flattening(0.02), spread(n))),
    "stretched out": lambda n: (project(flattening(0.02), spread(n)), spread(n)),
    "shrunk to nothing": lambda n: (spread(n), spread(n) * 0.01 + 100),
    "folded": lambda n: (spread(n), project(FOLD, spread(n))),
    "all at one point": lambda n: (np.full((n, 2), 50.0), np.full((n, 2), 60.0)),
    "one point to many": lambda n: (np.full((n, 2), 50.0), spread(n)),
    "many points to one": lambda n: (spread(n), np.full((n, 2), 50.0)),
    "three points, many times": lambda n: (spread(3)[np.arange(n) % 3],) * 2,
    "all wrong": lambda n: (spread(n, 1), spread(n, 2)),
}


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("make", DEGENERATE_SETS.values(), ids=DEGENERATE_SETS)
@pytest.mark.parametrize("count", [4, 5, 8, 40, 300])
def test_a_degenerate_set_is_recognised(make, count):
    assert_unknown(estimate(*make(count)), DEGENERATE, count)


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize(
    "matrix",
    [None, MIRROR, FOLD, flattening(0.02), np.zeros((3, 3)), np.full((3, 3), np.nan), np.eye(3)],
    ids=["none", "a mirror", "a fold", "flat", "zero", "NaN", "without inliers"],
)
def test_what_the_estimator_may_find_is_not_believed(monkeypatch, matrix):
    monkeypatch.setattr(cv2, "findHomography", lambda *_, **__: (matrix, None))
    points = spread(60)
    points = points[np.abs(points[:, 0] - 130) > 50]  # away from the fold
    moved = points + 50 if matrix is None or (matrix == np.eye(3)).all() else project(matrix, points)
    assert_unknown(estimate(points, moved), DEGENERATE, len(points))


def test_many_wrong_matches_never_look_like_a_homography():
    for seed in range(10):
        for count in (100, 1024):
            found = estimate(spread(count, seed), spread(count, seed + 100))
            assert_unknown(found, DEGENERATE, count)


@pytest.mark.parametrize(
    "make",
    [line, lambda n, seed: spread(n, seed) / 10, lambda n, seed: spread(n, seed) / 6 + 90],
    ids=["a line", "a corner", "a patch"],
)
@pytest.mark.parametrize("wrong", [20, 50, 100])
def test_wrong_matches_elsewhere_do_not_turn_a_degenerate_set_into_a_homography(make, wrong):
    # Some of them agree by chance, and have great influence, being far from the others.
    for seed in range(20):
        noise = np.random.default_rng(seed).normal(size=(100, 2)) * 0.5
        points = np.vstack([make(100, seed), spread(wrong, seed + 500)])
        moved = np.vstack([make(100, seed) + 4 + noise, spread(wrong, seed + 900)])
        assert_unknown(estimate(points, moved), DEGENERATE, 100 + wrong)


def test_half_of_the_image_is_enough_and_a_corner_is_not():
    half, corner = spread(100) * (0.5, 1), spread(100) * (0.08, 0.08)
    noise = np.random.default_rng(0).normal(size=(100, 2)) * 0.5
    assert estimate(half, half + noise).status == OK
    assert estimate(corner, corner + noise).status == DEGENERATE


def test_a_homography_that_is_not_known_is_nan():
    unknown = unknown_homography(HomographyStatus.NO_REFERENCE, 7)
    assert_unknown(unknown, HomographyStatus.NO_REFERENCE, 7)


def test_statuses_have_the_numbers_of_the_message():
    assert [status.name for status in HomographyStatus] == [
        "OK", "NO_REFERENCE", "TOO_FEW_MATCHES", "DEGENERATE",
    ]  # fmt: skip
    assert [int(status) for status in HomographyStatus] == [0, 1, 2, 3]


# Arguments


@pytest.mark.parametrize("row", [(20, 0), (0, 30), (-1, 0), (0, -1)])
def test_a_match_outside_the_features_is_refused_with_their_numbers(row):
    matches = np.array([(0, 0), (1, 1), (2, 2), row], np.int32)
    with pytest.raises(ValueError, match="^matches point outside the 20 and 30 features$"):
        estimate_homography(features(spread(20)), features(spread(30)), matches)


@pytest.mark.parametrize(
    "matches",
    [np.zeros((5, 3), int), np.zeros(8, int), np.zeros((5, 2)), [], None],
    ids=["three columns", "one row", "floats", "a list", "None"],
)
def test_what_is_no_array_of_matches_is_refused_with_its_shape(matches):
    with pytest.raises(ValueError, match=r"^matches must be \(M, 2\) integers, got shape \("):
        estimate_homography(features(spread(20)), features(spread(20)), matches)


@pytest.mark.parametrize("threshold", [0, -3.0, np.nan, np.inf, "3", None, True])
def test_a_threshold_that_is_not_positive_is_refused(threshold):
    with pytest.raises(ValueError, match=f"^threshold must be a positive .* got {threshold!r}$"):
        estimate(spread(20), spread(20), threshold=threshold)


# Helpers


def test_projection_divides_by_the_third_coordinate():
    matrix = camera_motion(0.4, 1.3, (5, 6), (1e-3, 2e-3))
    for point, mapped in zip(spread(9), project(matrix, spread(9)), strict=True):
        x, y, w = matrix @ (*point, 1)
        np.testing.assert_allclose(mapped, (x / w, y / w))
    assert np.isinf(project(FOLD, np.array([[130.0, 50.0]]))).all()
    assert project(FOLD, np.empty((0, 2))).shape == (0, 2)


def test_image_corners_are_pixel_centres_clockwise_from_the_top_left():
    assert image_corners(SIZE).tolist() == [[0, 0], [319, 0], [319, 239], [0, 239]]


def test_the_corner_error_is_the_mean_distance_of_the_corners():
    assert corner_error(SHIFT, np.eye(3), SIZE) == pytest.approx(np.hypot(5, 3))
    assert corner_error(np.diag([2, 1, 1.0]), np.eye(3), SIZE) == pytest.approx(319 / 2)
    assert corner_error(SHIFT * 7, SHIFT, SIZE) == pytest.approx(0)


# From end to end


@pytest.mark.parametrize(
    "truth",
    [
        camera_motion(shift=(14, -9)),
        camera_motion(angle=np.radians(15)),
        camera_motion(zoom=1.15),
        camera_motion(np.radians(-8), 0.9, (6, 10), (3e-4, -2e-4)),
    ],
    ids=["shift", "roll", "zoom", "perspective"],
)
def test_the_motion_of_a_photograph_is_found_within_a_pixel(extractor, photograph, truth):
    warped = cv2.warpPerspective(photograph, truth, (320, 240))
    f0, f1 = extractor.batch([photograph, warped])
    matches = match(f0, f1)
    found = estimate_homography(f0, f1, matches)
    assert found.status == OK
    assert corner_error(found.matrix, truth, SIZE) < 1
    assert found.inliers.sum() > 50
    assert found.inliers.mean() > 0.5


def test_two_unrelated_photographs_have_no_homography(extractor, photograph):
    data = pytest.importorskip("skimage.data", reason="scikit-image is not installed")
    other = cv2.resize(cv2.cvtColor(data.coffee(), cv2.COLOR_RGB2BGR), (320, 240))
    f0, f1 = extractor.batch([photograph, other])
    found = estimate_homography(f0, f1, matches := match(f0, f1))
    assert len(matches) > 10
    assert_unknown(found, DEGENERATE, len(matches))
