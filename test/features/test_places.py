"""superpoint_ros/features/places.py"""

import numpy as np

from superpoint_ros.features.extractor import Features
from superpoint_ros.features.places import MINIMUM_VOTES, SIMILARITY, VOTERS, neighbours, same_places


def picture(descriptors):
    count = len(descriptors)
    return Features(np.zeros((count, 2), np.float32), np.ones(count, np.float32), descriptors, (10, 10))


def unit(rng, count, dimension=32):
    found = rng.normal(size=(count, dimension)).astype(np.float32)
    return found / np.linalg.norm(found, axis=1, keepdims=True)


def votes(pictures, i, j, neighbours_of_i):
    """By the definition, one voter at a time."""
    count = 0
    for own in pictures[i].descriptors[:VOTERS]:
        best = max(
            (float(own @ other), -k)
            for k, each in enumerate(pictures)
            if k not in neighbours_of_i
            for other in each.descriptors[:VOTERS]
        )
        count += best[0] >= SIMILARITY and -best[1] == j
    return count


def test_pictures_of_one_place_find_each_other_across_time_and_cameras():
    rng = np.random.default_rng(0)
    place = unit(rng, 40)
    again = place + 0.05 * rng.normal(size=place.shape).astype(np.float32)
    again /= np.linalg.norm(again, axis=1, keepdims=True)
    pictures = [picture(unit(rng, 40)) for _ in range(12)]
    pictures[1], pictures[8], pictures[9] = picture(place), picture(again), picture(place[:20])
    found = same_places(pictures, [0] * 9 + [1] * 3, 3)
    assert found == [(1, 8), (1, 9)]  # 8 and 9 find the original in 1
    for i, j in found:
        near = {k for k in range(9) if abs(k - i) <= 3} if i < 9 else set()
        assert votes(pictures, i, j, near) >= MINIMUM_VOTES or votes(pictures, j, i, {j}) >= MINIMUM_VOTES


def test_neighbours_are_left_out_and_empty_pictures_vote_for_nothing():
    rng = np.random.default_rng(1)
    same = picture(unit(rng, 30))
    assert same_places([same, same, picture(unit(rng, 0)), same], [0, 0, 0, 0], 1) == [(0, 3), (1, 3)]
    assert same_places([same, same], [0, 0], 1) == []
    assert same_places([], [], 3) == []


def test_neighbours_are_pictures_of_one_sequence_within_the_window():
    sequences = [0, 1, 0, 1, 0, 0]
    expected = [(0, 2), (0, 4), (1, 3), (2, 4), (2, 5), (4, 5)]
    assert neighbours(sequences, 2) == expected
