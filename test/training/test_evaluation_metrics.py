"""The metrics against cases worked by hand and slow versions written from the definitions."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from superpoint_training.evaluation.metrics import (
    area_under_curve,
    average_precision,
    claim_corners,
    common_views,
    homography_error,
    matching_score,
    nearest_neighbour_ap,
    pairwise_distances,
    repeatability,
    share_within,
)

SIZE = (100, 200)


def shift(x: float, y: float) -> np.ndarray:
    return np.array([[1.0, 0, x], [0, 1, y], [0, 0, 1]])


def points(*rows: tuple[float, float]) -> np.ndarray:
    return np.array(rows, np.float64).reshape(-1, 2)


# --- the common region ---------------------------------------------------------------------


def test_points_outside_the_other_image_are_not_in_the_common_region() -> None:
    # A shift of 50 px to the right: of image 0's points, those beyond x = 149.5 leave image 1.
    view0, view1 = common_views(
        points((10, 10), (149, 10), (150, 10)), points((49, 5), (50, 5)), shift(50, 0), SIZE, SIZE
    )
    np.testing.assert_array_equal(view0.seen, [True, True, False])
    np.testing.assert_array_equal(view0.mapped, [[60, 10], [199, 10]])
    np.testing.assert_array_equal(view1.seen, [False, True])
    np.testing.assert_array_equal(view1.mapped, [[0, 5]])


def test_the_common_region_ends_at_the_edge_of_the_outermost_pixel() -> None:
    view0, _ = common_views(points((-0.5, -0.5), (199.4, 99.4), (199.6, 0)), points(), np.eye(3), SIZE, SIZE)
    np.testing.assert_array_equal(view0.seen, [True, True, False])


def test_points_behind_the_horizon_are_not_in_the_common_region() -> None:
    # The third coordinate is 1 - x / 100. At (300, -20) it is -2, and the division gives (75, 10).
    homography = np.array([[-1.0, 0, 150], [0, 1, 0], [-0.01, 0, 1]])
    view0, _ = common_views(points((20, 10), (300, -20)), points(), homography, SIZE, SIZE)
    np.testing.assert_array_equal(view0.seen, [True, False])


def test_the_sign_and_scale_of_the_homography_do_not_matter() -> None:
    xy0, xy1 = points((10, 10), (30, 40)), points((12, 11), (33, 44))
    homography = np.array([[1.1, 0.1, 2], [-0.1, 0.9, 3], [1e-4, 2e-4, 1]])
    expected = repeatability(xy0, xy1, homography, SIZE, SIZE)
    assert repeatability(xy0, xy1, -3 * homography, SIZE, SIZE) == expected


# --- repeatability -------------------------------------------------------------------------


def test_repeatability_of_a_case_worked_by_hand() -> None:
    # Image 1 is image 0 moved by (10, 0). Point 0 is found again 1 px off, point 1 is 3 px off
    # (still within epsilon), point 2 has nobody within 3 px, point 3 leaves the image. Of image 1's
    # points, two are found, (100, 90) is not, and (5, 5) was not visible in image 0.
    xy0 = points((20, 20), (50, 50), (80, 20), (195, 50))
    xy1 = points((31, 20), (60, 53), (100, 90), (5, 5))
    result = repeatability(xy0, xy1, shift(10, 0), SIZE, SIZE)
    assert result.value == pytest.approx((2 + 2) / (3 + 3))
    assert result.localisation_error == pytest.approx((1 + 3 + 1 + 3) / 4)


def test_repeatability_counts_only_the_strongest_points_in_the_common_region() -> None:
    # With k = 1 the strongest of image 0 that image 1 sees is its second.
    xy0, xy1 = points((199, 50), (20, 20), (50, 50)), points((30, 20), (60, 50))
    result = repeatability(xy0, xy1, shift(10, 0), SIZE, SIZE, count=1)
    assert result.value == 1.0
    assert result.localisation_error == 0.0


def test_several_points_may_repeat_one_point_of_the_other_image() -> None:
    result = repeatability(points((10, 10), (12, 10)), points((11, 10)), np.eye(3), SIZE, SIZE)
    assert result.value == 1.0


@pytest.mark.parametrize("swap", [False, True])
def test_an_image_without_points_in_the_common_region_has_repeatability_0(swap: bool) -> None:
    xy = [points((10, 10)), points()]
    result = repeatability(*(xy[::-1] if swap else xy), np.eye(3), SIZE, SIZE)
    assert result.value == 0.0
    assert np.isnan(result.localisation_error)


def slow_repeatability(xy0, xy1, homography, size0, size1, count, epsilon) -> float:
    """Point by point, from the definition."""

    def mapped(point, matrix):
        x, y, w = matrix @ [*point, 1.0]
        return np.array([x / w, y / w])

    def inside(point, size):
        return -0.5 <= point[0] < size[1] - 0.5 and -0.5 <= point[1] < size[0] - 0.5

    inverse = np.linalg.inv(homography)
    first = [mapped(p, homography) for p in xy0 if inside(mapped(p, homography), size1)][:count]
    second = [p for p in xy1 if inside(mapped(p, inverse), size0)][:count]
    found = sum(any(np.linalg.norm(p - q) <= epsilon for q in second) for p in first)
    found += sum(any(np.linalg.norm(p - q) <= epsilon for p in first) for q in second)
    return found / (len(first) + len(second)) if first and second else 0.0


@given(st.integers(0, 2**32 - 1))
@settings(max_examples=30, deadline=None)
def test_repeatability_is_the_slow_definition(seed: int) -> None:
    rng = np.random.default_rng(seed)
    xy0, xy1 = rng.uniform(0, 60, (rng.integers(0, 25), 2)), rng.uniform(0, 60, (20, 2))
    homography = np.eye(3) + rng.uniform(-1, 1, (3, 3)) * [
        [0.2, 0.2, 15],
        [0.2, 0.2, 15],
        [1e-3, 1e-3, 0],
    ]
    geometry = (homography, (60, 50), (55, 64), 12, 3.0)
    assert repeatability(xy0, xy1, *geometry).value == pytest.approx(slow_repeatability(xy0, xy1, *geometry))


# --- matching ------------------------------------------------------------------------------


def test_matching_score_of_a_case_worked_by_hand() -> None:
    # Image 1 is image 0 at twice the size, so 2 px in image 1 are 1 px in image 0. Of three points
    # of image 0 all are visible in image 1; image 1 has four, one of them beyond image 0.
    xy0 = points((10, 10), (40, 20), (20, 40))
    xy1 = points((20, 20), (84, 40), (60, 60), (110, 20))
    matches = np.array([[0, 0], [1, 1], [2, 2]])
    # In image 1 the errors are 0, 4 and 28 px: one of three is right. In image 0 they are 0, 2 and
    # 14 px: two of the three points of image 1 that image 0 sees.
    score = matching_score(xy0, xy1, matches, np.diag([2.0, 2.0, 1.0]), (50, 50), (100, 200))
    assert score == pytest.approx((1 / 3 + 2 / 3) / 2)


def test_a_match_of_a_point_outside_the_common_region_does_not_count() -> None:
    xy0, xy1 = points((199, 50), (10, 10)), points((20, 10), (30, 10))
    score = matching_score(xy0, xy1, np.array([[0, 1], [1, 0]]), shift(10, 0), SIZE, SIZE)
    assert score == pytest.approx((1 / 1 + 1 / 2) / 2)


def test_matching_score_without_matches_or_points_is_0() -> None:
    none = np.empty((0, 2), np.int32)
    assert matching_score(points((5, 5)), points((5, 5)), none, np.eye(3), SIZE, SIZE) == 0.0
    assert matching_score(points(), points(), none, np.eye(3), SIZE, SIZE) == 0.0


def unit(*angles: float) -> np.ndarray:
    radians = np.radians(angles)
    return np.stack([np.cos(radians), np.sin(radians)], axis=1)


def test_nearest_neighbour_ap_of_a_case_worked_by_hand() -> None:
    xy0, xy1 = points((10, 10), (50, 50), (90, 90)), points((10, 10), (50, 50), (90, 90))
    # Points of image 0 at angles 0, 40, 100; of image 1 at 1, 95, 42. Nearest in image 1: 0 -> 0 (1
    # degree, right), 1 -> 2 (2 degrees, wrong), 2 -> 1 (5 degrees, wrong); one of three recalled at
    # precision 1. The other way: 0 -> 0 right, 1 -> 2 wrong, 2 -> 1 wrong: the same.
    ap = nearest_neighbour_ap(xy0, xy1, unit(0, 40, 100), unit(1, 95, 42), np.eye(3), SIZE, SIZE)
    assert ap == pytest.approx(1 / 3)


def test_nearest_neighbour_ap_falls_when_wrong_matches_are_the_more_similar_ones() -> None:
    xy0 = xy1 = points((10, 10), (50, 50))
    # 0 -> 0 (10 degrees, right); 1 -> 0 (9 degrees, wrong): precision 1/2 where the one correct of
    # two is recalled. The other way: 0 -> 1 (9 degrees, wrong), 1 -> 1 (91 degrees, right).
    ap = nearest_neighbour_ap(xy0, xy1, unit(0, 19), unit(10, 110), np.eye(3), SIZE, SIZE)
    assert ap == pytest.approx((1 / 4 + 1 / 4) / 2)


def test_recall_is_of_the_points_that_have_a_counterpart() -> None:
    # The second point of image 0 has no counterpart: it costs precision only below the first.
    xy0, xy1 = points((10, 10), (150, 50)), points((10, 10))
    ap = nearest_neighbour_ap(xy0, xy1, unit(0, 80), unit(0), np.eye(3), SIZE, SIZE)
    assert ap == 1.0


def test_nearest_neighbour_ap_without_points_is_0() -> None:
    empty = np.zeros((0, 2))
    assert nearest_neighbour_ap(points(), points(), empty, empty, np.eye(3), SIZE, SIZE) == 0.0
    assert nearest_neighbour_ap(points((9, 9)), points(), unit(0), empty, np.eye(3), SIZE, SIZE) == 0.0


# --- average precision and corners ---------------------------------------------------------


def test_average_precision_of_a_case_worked_by_hand() -> None:
    # right, wrong, right, wrong, with 3 to find: 1/3 · 1 + 1/3 · 2/3
    scores, correct = np.array([0.9, 0.8, 0.7, 0.6]), np.array([True, False, True, False])
    assert average_precision(scores, correct, 3) == pytest.approx(1 / 3 + 2 / 9)


def test_average_precision_of_everything_found_first_is_1() -> None:
    scores, correct = np.array([3.0, 2.0, 1.0]), np.array([True, True, False])
    assert average_precision(scores, correct, 2) == 1.0


def test_average_precision_does_not_depend_on_the_order_of_equal_scores() -> None:
    # One step: recall 1 at precision 1/2.
    for correct in ([True, False], [False, True]):
        assert average_precision(np.array([1.0, 1.0]), np.array(correct), 1) == pytest.approx(0.5)


def test_average_precision_without_anything_to_find_or_found_is_0() -> None:
    assert average_precision(np.array([1.0]), np.array([False]), 0) == 0.0
    assert average_precision(np.array([]), np.array([], bool), 5) == 0.0


@given(st.integers(0, 2**32 - 1))
@settings(max_examples=50, deadline=None)
def test_average_precision_is_the_slow_definition(seed: int) -> None:
    rng = np.random.default_rng(seed)
    scores, correct = rng.integers(0, 8, 30) / 8, rng.random(30) < 0.4
    positives = int(correct.sum()) + int(rng.integers(1, 4))
    area, recall_before = 0.0, 0.0
    for threshold in sorted(set(scores.tolist()), reverse=True):
        kept = [right for score, right in zip(scores, correct, strict=True) if score >= threshold]
        recall = sum(kept) / positives
        area += (recall - recall_before) * sum(kept) / len(kept)
        recall_before = recall
    assert average_precision(scores, correct, positives) == pytest.approx(area)


def test_a_corner_is_claimed_once_and_by_the_best_detection() -> None:
    correct, errors = claim_corners(points((10, 13), (10, 10)), points((10, 10)))
    np.testing.assert_array_equal(correct, [True, False])
    np.testing.assert_array_equal(errors, [3.0, np.nan])


def test_a_detection_takes_the_next_corner_when_the_nearest_is_claimed() -> None:
    correct, errors = claim_corners(points((10, 10), (11, 10)), points((10, 10), (14, 10)))
    np.testing.assert_array_equal(correct, [True, True])
    np.testing.assert_array_equal(errors, [0.0, 3.0])


def test_a_detection_is_correct_up_to_epsilon_and_not_beyond() -> None:
    correct, _ = claim_corners(points((4, 0), (50, 4.01)), points((0, 0), (50, 0)), epsilon=4.0)
    np.testing.assert_array_equal(correct, [True, False])


def test_without_corners_every_detection_is_wrong() -> None:
    correct, errors = claim_corners(points((1, 1), (2, 2)), points())
    assert not correct.any() and np.isnan(errors).all()
    assert len(claim_corners(points(), points((1, 1)))[0]) == 0


# --- homographies --------------------------------------------------------------------------


def test_homography_error_is_the_mean_distance_of_the_corners() -> None:
    assert homography_error(np.eye(3), np.eye(3), SIZE) == 0.0
    assert homography_error(shift(3, 4), np.eye(3), SIZE) == pytest.approx(5.0)
    # Twice as wide: the two right corners, at x = 199, are 199 px off, the left ones right.
    assert homography_error(np.diag([2.0, 1, 1]), np.eye(3), SIZE) == pytest.approx(199 / 2)


def test_no_estimate_is_an_infinite_error() -> None:
    assert homography_error(np.full((3, 3), np.nan), np.eye(3), SIZE) == np.inf
    at_infinity = np.array([[1.0, 0, 0], [0, 1, 0], [1 / 199, 0, -1]])
    assert homography_error(at_infinity, np.eye(3), SIZE) == np.inf


def test_share_within_counts_failures_as_wrong() -> None:
    errors = np.array([0.5, 1.0, 3.0, np.inf])
    assert [share_within(errors, t) for t in (1, 3, 5)] == [0.5, 0.75, 0.75]


def test_area_under_the_error_curve_of_a_case_worked_by_hand() -> None:
    # Errors 1 and 3 of 4 pairs, up to 5: a rise to 1/4 at 1, to 1/2 at 3, then level.
    area = 1 * 0.25 / 2 + 2 * (0.25 + 0.5) / 2 + 2 * 0.5
    assert area_under_curve(np.array([1.0, 3.0, np.inf, 7.0]), 5.0) == pytest.approx(area / 5)


def test_area_under_the_error_curve_is_1_for_no_error_and_0_for_failures() -> None:
    assert area_under_curve(np.zeros(4), 3.0) == pytest.approx(1.0)
    assert area_under_curve(np.full(4, np.inf), 3.0) == 0.0


def test_pairwise_distances_are_euclidean() -> None:
    rng = np.random.default_rng(0)
    a, b = rng.uniform(0, 9, (4, 2)).astype(np.float32), rng.uniform(0, 9, (3, 2))
    slow = [[np.linalg.norm(p - q) for q in b] for p in a]
    np.testing.assert_allclose(pairwise_distances(a, b), slow, rtol=1e-12)
