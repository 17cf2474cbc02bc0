"""superpoint_ros/features/adjustment.py, on views of a made-up picture that are known exactly."""

from itertools import combinations

import numpy as np
import pytest
from aligned_scenes import HEIGHT, SIZE, WIDTH, as_picture, motion, seen

from superpoint_ros.features.adjustment import (
    KEYPOINT,
    LEAST_DEVIATION,
    ROUNDS,
    TRUST,
    Alignments,
    adjust_keypoints,
    moves_of,
    points_of,
)
from superpoint_ros.features.extractor import Features
from superpoint_ros.features.fit import project
from superpoint_ros.features.levels import levels_for

VIEWS = [
    np.eye(3),
    motion(12, shift=(6, -4)),
    motion(-20, 1.25, (-3.4, 5)),
    motion(5, 0.8, (4, 9), (3e-4, 2e-4)),
    motion(35, 1.1, (-8, 2.5)),
]
COUNT = 200


def features(xy, size=SIZE, scale=1.0):
    parts = np.asarray(xy, np.float32), np.ones(len(xy), np.float32), np.zeros((len(xy), 4), np.float32)
    return Features(*parts, size, scales=np.full(len(xy), scale, np.float32))


def scene(views=VIEWS, sizes=None, scales=None, deviation=0.4):
    """Features with errors of the same points in each view, the views' levels, and matches of every two views."""
    sizes, scales = sizes or [SIZE] * len(views), scales or [1.0] * len(views)
    rng = np.random.default_rng(0)
    places = rng.uniform((120, 90), (WIDTH - 120, HEIGHT - 90), (COUNT, 2))
    found, levels = [], []
    for number, (matrix, size, scale) in enumerate(zip(views, sizes, scales, strict=True)):
        off = rng.normal(size=places.shape) * deviation * scale
        found.append(features(project(matrix, places) + off, size, scale))
        levels.append(levels_for(found[-1], as_picture(seen(matrix, size), 1, number)))
    return found, levels, {pair: in_order() for pair in combinations(range(len(views)), 2)}


def in_order(count=COUNT):
    return np.stack([np.arange(count)] * 2, axis=1).astype(np.int32)


def disagreements(found, matches, views=VIEWS):
    """Pixels of each second picture between its keypoints and where the first picture's are there."""
    apart = []
    for (i, j), rows in matches.items():
        there = project(views[j] @ np.linalg.inv(views[i]), found[i].xy[rows[:, 0]].astype(float))
        apart.append(np.linalg.norm(there - found[j].xy[rows[:, 1]], axis=1))
    return np.concatenate(apart)


def test_keypoints_of_a_point_agree_to_a_tenth_of_a_pixel():
    found, levels, matches = scene()
    moved, kept = adjust_keypoints(found, matches, levels.__getitem__)
    assert np.median(disagreements(found, matches)) > 0.6
    assert np.median(disagreements(moved, kept)) < 0.08
    assert np.quantile(disagreements(moved, kept), 0.95) < 0.25
    assert sum(map(len, kept.values())) > 0.8 * sum(map(len, matches.values()))
    for before, after in zip(found, moved, strict=True):
        assert after.xy.dtype == np.float32
        assert np.linalg.norm(after.xy - before.xy, axis=1).max() <= 2
        np.testing.assert_array_equal(after.descriptors, before.descriptors)


def test_a_points_keypoints_stay_about_where_they_were_together():
    found, levels, matches = scene()
    moved, _ = adjust_keypoints(found, matches, levels.__getitem__)
    together = np.mean([after.xy - before.xy for before, after in zip(found, moved, strict=True)], axis=0)
    assert np.median(np.linalg.norm(together, axis=1)) < 0.1


def test_pictures_of_other_sizes_and_scales_agree_by_their_own_pixels():
    views = [np.eye(3), np.diag([2.0, 2.0, 1.0]), motion(10, 1.1)]
    sizes, scales = [SIZE, (2 * HEIGHT, 2 * WIDTH), SIZE], [1.0, 2.0, 1.0]
    found, levels, matches = scene(views, sizes, scales)
    moved, kept = adjust_keypoints(found, matches, levels.__getitem__)
    assert np.median(disagreements(moved, kept, views)) < 0.2 * np.median(disagreements(found, matches, views))
    assert sum(map(len, kept.values())) > 0.8 * sum(map(len, matches.values()))


def test_matches_that_the_pictures_refute_are_left_out():
    found, levels, matches = scene()
    wrong = np.random.default_rng(1).permutation(60).astype(np.int32)
    matches[0, 3][:60, 1] = wrong
    _, kept = adjust_keypoints(found, matches, levels.__getitem__)
    true = kept[0, 3][:, 0] == kept[0, 3][:, 1]
    assert true.all() and len(true) > 0.6 * (COUNT - 60)


def test_what_is_further_than_two_pixels_off_is_no_part_of_the_point_and_stays():
    found, levels, matches = scene(deviation=0.1)
    found[2].xy[:20] += np.float32(3.5)
    moved, kept = adjust_keypoints(found, matches, levels.__getitem__)
    np.testing.assert_array_equal(moved[2].xy[:20], found[2].xy[:20])
    for pair, rows in kept.items():
        assert not (rows[:, pair.index(2)] < 20).any() if 2 in pair else (rows[:, 0] < 20).any()


def test_a_picture_in_which_nothing_can_be_aligned_keeps_its_matches_and_its_keypoints():
    found, levels, matches = scene()
    levels[1] = levels_for(found[1], as_picture(np.full(SIZE, 128.0), 1))
    moved, kept = adjust_keypoints(found, matches, levels.__getitem__)
    np.testing.assert_array_equal(moved[1].xy, found[1].xy)
    for pair in (pair for pair in matches if 1 in pair):
        np.testing.assert_array_equal(kept[pair], matches[pair])


def test_two_pictures_that_a_third_connects_lose_what_cannot_be_aligned():
    found, levels, matches = scene(VIEWS[:3])
    matches[0, 2] = np.stack([np.arange(20), np.arange(20) + 20], axis=1).astype(np.int32)
    _, kept = adjust_keypoints(found, matches, levels.__getitem__)
    assert len(kept[0, 1]) > 100 and len(kept[1, 2]) > 100
    assert len(kept[0, 2]) == 0


def test_a_mask_keeps_what_it_covers_from_being_moved():
    found, levels, matches = scene()
    mask = np.ones(SIZE, bool)
    mask[:, : WIDTH // 2] = False
    levels[0] = levels_for(found[0], as_picture(seen(VIEWS[0]), 1), mask)
    moved, _ = adjust_keypoints(found, matches, levels.__getitem__)
    covered = found[0].xy[:, 0] < WIDTH / 2
    still = (moved[0].xy == found[0].xy).all(axis=1)
    assert still[covered].all() and not still[~covered].all()


def test_the_same_pictures_give_the_same_keypoints():
    found, levels, matches = scene(VIEWS[:3])
    once, twice = (adjust_keypoints(found, matches, levels.__getitem__) for _ in range(2))
    for one, other in zip(once[0], twice[0], strict=True):
        np.testing.assert_array_equal(one.xy, other.xy)
    for pair in matches:
        np.testing.assert_array_equal(once[1][pair], twice[1][pair])


@pytest.mark.filterwarnings("error")
def test_no_pictures_no_keypoints_and_no_matches_are_no_trouble():
    assert adjust_keypoints([], {}, [].__getitem__) == ([], {})
    found, levels, _ = scene(VIEWS[:2])
    empty = features(np.empty((0, 2)))
    none = np.empty((0, 2), np.int32)
    matches = {(0, 1): none, (0, 2): none, (1, 2): in_order(2)}
    moved, kept = adjust_keypoints([found[0], empty, found[1]], matches, levels.__getitem__)
    for before, after in zip([found[0], empty, found[1]], moved, strict=True):
        np.testing.assert_array_equal(after.xy, before.xy)
    assert [len(rows) for rows in kept.values()] == [0, 0, 2]


# Its parts


def alignments(first, second, deviations, rng=None):
    rng, count = rng or np.random.default_rng(0), len(first)
    warps = np.eye(2) + 0.2 * rng.normal(size=(count, 2, 2))
    columns = warps, rng.normal(size=(count, 2)), deviations
    return Alignments(
        np.array(first, np.int64), np.array(second, np.int64), *(np.array(c, np.float32) for c in columns)
    )


def test_a_point_has_one_keypoint_of_a_picture_and_the_surest_alignments_decide_which():
    # 0 and 1 are of picture 0, both aligned with 2 of picture 1, which is aligned with 3 of picture 2.
    pictures = np.array([0, 0, 1, 2])
    for deviations, alone in (([0.2, 0.1, 0.3], 0), ([0.1, 0.2, 0.3], 1)):
        points = points_of(alignments([0, 1, 2], [2, 2, 3], deviations), pictures)
        together = np.delete(points, alone)
        assert len(set(together)) == 1 and points[alone] == alone


def test_points_are_those_of_merging_sets_one_alignment_after_another():
    rng = np.random.default_rng(2)
    pictures = np.sort(rng.integers(0, 8, 120))
    first, second = rng.integers(0, 120, (2, 300))
    aligned = alignments(first, second, rng.uniform(0.01, 0.2, 300))
    sets = [{row} for row in range(120)]
    for number in np.argsort(aligned.deviations, kind="stable"):
        a, b = (next(each for each in sets if row in each) for row in (first[number], second[number]))
        if a is not b and not {pictures[row] for row in a} & {pictures[row] for row in b}:
            sets = [each for each in sets if each is not a and each is not b] + [a | b]
    points = points_of(aligned, pictures)
    assert {frozenset(np.flatnonzero(points == point).tolist()) for point in set(points)} == set(map(frozenset, sets))


def test_moves_are_those_of_least_squares_weighed_anew():
    rng = np.random.default_rng(3)
    count, edges = 12, 40
    first, second = rng.integers(0, count, (2, edges))
    first, second = first[first != second], second[first != second]
    aligned = alignments(first, second, rng.uniform(0.01, 0.2, len(first)), rng)
    scales = rng.uniform(1, 3, count).astype(np.float32)
    deviations = np.sqrt(aligned.deviations**2 + (LEAST_DEVIATION * scales[second]) ** 2).astype(float)
    weights = 1 / deviations**2
    for _ in range(ROUNDS):
        rows, values = [], []
        for number, (one, other) in enumerate(zip(first, second, strict=True)):
            row = np.zeros((2, count, 2))
            row[:, other] += np.eye(2)
            row[:, one] -= aligned.warps[number]
            rows.append(np.sqrt(weights[number]) * row.reshape(2, -1))
            values.append(np.sqrt(weights[number]) * aligned.steps[number])
        rows.append(np.diag(np.repeat(1 / (KEYPOINT * scales), 2)))
        values.append(np.zeros(2 * count))
        expected = np.linalg.lstsq(np.concatenate(rows), np.concatenate(values), rcond=None)[0].reshape(count, 2)
        there = np.einsum("eij,ej->ei", aligned.warps, expected[first])
        off = np.linalg.norm(expected[second] - there - aligned.steps, axis=1) / deviations
        weights = 1 / deviations**2 / (1 + (off / TRUST) ** 2)
    np.testing.assert_allclose(moves_of(aligned, scales), expected, atol=0.02)
