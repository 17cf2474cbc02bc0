"""superpoint_ros/features/band.py"""

import numpy as np
import pytest

from superpoint_ros.features.band import Side, match_in_band


def side(rng, count, dimension=8, height=400):
    descriptors = rng.normal(size=(count, dimension)).astype(np.float32)
    descriptors /= np.linalg.norm(descriptors, axis=1, keepdims=True)
    return Side(descriptors, rng.uniform((0, 0), (500, height), (count, 2)), rng.uniform(1, 4, count))


def slowly(left, right, max_disparity, ratio, min_similarity):
    """By the definition: for each keypoint all others that may be the same point, the most similar first."""

    def nearest(one, other, i, sign):
        may = [
            (float(one.descriptors[i] @ other.descriptors[j]), -j)
            for j in range(len(other.places))
            if abs(one.places[i, 1] - other.places[j, 1]) <= max(one.slack[i], other.slack[j])
            and 0 < sign * (one.places[i, 0] - other.places[j, 0]) <= max_disparity
        ]
        return sorted(may, reverse=True)

    found = []
    for i in range(len(left.places)):
        there = nearest(left, right, i, 1)
        if not there or -nearest(right, left, -there[0][1], -1)[0][1] != i:
            continue
        distances = [np.sqrt(2 - 2 * similarity) for similarity, _ in there[:2]]
        distinct = ratio is None or len(there) == 1 or distances[0] < ratio * distances[1]
        if distinct and (min_similarity is None or there[0][0] >= min_similarity):
            found.append((i, -there[0][1]))
    return np.array(found).reshape(-1, 2)


@pytest.mark.parametrize(("ratio", "min_similarity"), [(None, None), (0.8, None), (None, 0.5), (0.9, 0.3)])
def test_matches_are_the_mutual_nearest_neighbours_within_the_band(ratio, min_similarity):
    rng = np.random.default_rng(4)
    left, right = side(rng, 300), side(rng, 350)
    expected = slowly(left, right, 120, ratio, min_similarity)
    assert len(expected) > 20
    np.testing.assert_array_equal(match_in_band(left, right, 120, ratio, min_similarity), expected)


def test_a_lone_candidate_passes_any_ratio():
    one = Side(np.eye(1, 4, dtype=np.float32), np.array([[50.0, 10.0]]), np.ones(1))
    other = Side(np.eye(1, 4, dtype=np.float32), np.array([[40.0, 10.0]]), np.ones(1))
    np.testing.assert_array_equal(match_in_band(one, other, 100, ratio=0.5), [[0, 0]])


def test_keypoints_that_cannot_be_rectified_match_nothing():
    rng = np.random.default_rng(5)
    left = side(rng, 40)
    right = Side(left.descriptors, left.places - [5, 0], left.slack)
    left.places[7, 1] = np.nan
    found = match_in_band(left, right, 100)
    np.testing.assert_array_equal(found, [[i, i] for i in range(40) if i != 7])
    nothing = Side(left.descriptors[:0], left.places[:0], left.slack[:0])
    for pair in ((nothing, right), (left, nothing)):
        assert match_in_band(*pair, 100).shape == (0, 2)
