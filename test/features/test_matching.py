from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from superpoint_ros.features import matching
from superpoint_ros.features.device_matching import NearestOnDevice
from superpoint_ros.features.extractor import Features
from superpoint_ros.features.matching import match, match_similarity

BOTH_PLACES = pytest.mark.parametrize(
    "nearest", [None, NearestOnDevice(torch.device("cpu"))], ids=["numpy", "as on a GPU"]
)


def features(descriptors):
    count = len(descriptors)
    zeros = np.zeros((count, 2), np.float32), np.ones(count, np.float32)
    return Features(*zeros, np.asarray(descriptors, np.float32), (240, 320))


def random_features(count, dim=16, seed=0):
    descriptors = np.random.default_rng(seed).normal(size=(count, dim))
    return features(descriptors / np.linalg.norm(descriptors, axis=1, keepdims=True))


def disturbed(f, amount, seed=1):
    """The same descriptors in another order, a little changed."""
    rng = np.random.default_rng(seed)
    descriptors = f.descriptors[rng.permutation(len(f))]
    descriptors = descriptors + rng.normal(size=descriptors.shape) * amount
    return features(descriptors / np.linalg.norm(descriptors, axis=1, keepdims=True))


def slow_match(f0, f1, ratio=None, min_similarity=None):
    """By loops over all pairs and Euclidean distances."""
    d0, d1 = f0.descriptors.astype(np.float64), f1.descriptors.astype(np.float64)
    distance = np.array([[np.linalg.norm(a - b) for b in d1] for a in d0])
    result = []
    for i in range(len(d0)):
        j = min(range(len(d1)), key=lambda j: distance[i, j])
        if i != min(range(len(d0)), key=lambda i: distance[i, j]):
            continue
        if min_similarity is not None and d0[i] @ d1[j] < min_similarity:
            continue
        others = [distance[i, k] for k in range(len(d1)) if k != j]
        if ratio is not None and others and distance[i, j] >= ratio * min(others):
            continue
        result.append([i, j])
    return np.array(result, np.int32).reshape(-1, 2)


@BOTH_PLACES
@pytest.mark.parametrize("ratio", [None, 0.7, 0.95, 1.0])
@pytest.mark.parametrize("min_similarity", [None, -1.0, 0.6, 0.9])
@given(counts=st.tuples(st.integers(1, 20), st.integers(1, 20)), seed=st.integers(0, 999))
def test_matches_equal_mutual_nearest_neighbours_found_by_loops(nearest, ratio, min_similarity, counts, seed):
    f0, f1 = random_features(counts[0], 8, seed), random_features(counts[1], 8, seed + 1000)
    options = {"ratio": ratio, "min_similarity": min_similarity}
    np.testing.assert_array_equal(match(f0, f1, **options, nearest=nearest), slow_match(f0, f1, **options))


@BOTH_PLACES
@pytest.mark.parametrize("block", [1, 100, 170, 10**6])
@pytest.mark.parametrize("ratio", [None, 0.95])
def test_matches_in_blocks_equal_those_in_one_piece(monkeypatch, nearest, block, ratio):
    f0, f1 = random_features(90, 8), random_features(70, 8, 1)
    f0 = features(np.concatenate([f0.descriptors, f0.descriptors[:20]]))  # equal ones, in other blocks
    expected = slow_match(f0, f1, ratio)
    monkeypatch.setattr(matching, "BLOCK", block)
    np.testing.assert_array_equal(match(f0, f1, ratio, nearest=nearest), expected)


@BOTH_PLACES
def test_no_block_of_similarities_is_larger_than_allowed(monkeypatch, nearest):
    sizes = []
    f0, f1 = random_features(90, 8), random_features(70, 8, 1)
    monkeypatch.setattr(matching, "BLOCK", 10 * 70 + 1)
    product = matching._product
    monkeypatch.setattr(matching, "_product", lambda a, b: sizes.append(len(a) * len(b)) or product(a, b))
    multiply = torch.Tensor.__matmul__
    monkeypatch.setattr(torch.Tensor, "__matmul__", lambda a, b: sizes.append(len(a) * b.shape[1]) or multiply(a, b))
    match(f0, f1, nearest=nearest)
    assert sizes == [700] * 9


def read_only(array):
    array.flags.writeable = False
    return array


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize(
    "change", [read_only, np.asfortranarray, lambda a: a[::-1][::-1], lambda a: a.astype(np.float64)]
)
def test_descriptors_may_lie_in_memory_as_they_like(change):
    f0, f1 = random_features(30), random_features(40, seed=1)
    expected = match(f0, f1)
    changed = replace(f0, descriptors=change(f0.descriptors.copy()))
    np.testing.assert_array_equal(match(changed, f1), expected)
    np.testing.assert_array_equal(match(f1, changed)[:, ::-1], expected[expected[:, 1].argsort()])


def test_disturbed_copies_find_their_originals():
    f0 = random_features(300, 64)
    f1 = disturbed(f0, 0.03)
    matches = match(f0, f1)
    assert len(matches) == 300
    np.testing.assert_array_equal(matches[:, 1].argsort(), np.random.default_rng(1).permutation(300))
    assert len(match(f0, f1, ratio=0.8, min_similarity=0.9)) == 300


def test_matches_are_int32_rows_ascending_in_the_first_and_unique_in_both():
    matches = match(random_features(80), random_features(120, seed=1))
    assert matches.dtype == np.int32
    assert len(matches) > 10
    assert (np.diff(matches[:, 0]) > 0).all()
    assert len(set(matches[:, 1])) == len(matches)


def test_matching_backwards_gives_the_same_pairs():
    f0, f1 = random_features(80), random_features(120, seed=1)
    backwards = match(f1, f0)[:, ::-1]
    np.testing.assert_array_equal(match(f0, f1), backwards[backwards[:, 0].argsort()])


@BOTH_PLACES
def test_of_equal_descriptors_the_first_rows_are_matched(nearest):
    f = features([[1, 0], [1, 0], [0, 1]])
    assert match(f, f, nearest=nearest).tolist() == [[0, 0], [2, 2]]


@BOTH_PLACES
def test_of_many_equal_descriptors_each_row_is_matched_once(nearest):
    f = random_features(40)
    f0 = features(np.repeat(f.descriptors, 3, axis=0))
    f1 = features(np.tile(f.descriptors, (2, 1)))
    assert match(f0, f1, nearest=nearest).tolist() == [[3 * row, row] for row in range(40)]


@BOTH_PLACES
def test_the_ratio_drops_what_is_ambiguous(nearest):
    f0 = features([[1, 0], [0, 1]])
    f1 = features([[1, 0], [np.cos(0.01), np.sin(0.01)], [0, 1]])
    assert match(f0, f1, nearest=nearest).tolist() == [[0, 0], [1, 2]]
    twins = features([[np.cos(0.02), -np.sin(0.02)], [0, 1]])
    assert match(twins, f1, ratio=0.6, nearest=nearest).tolist() == [[1, 2]]
    assert match(features([[1, 0]]), features([[1, 0], [1, 0]]), ratio=1.0, nearest=nearest).tolist() == []


@BOTH_PLACES
def test_a_single_candidate_passes_any_ratio(nearest):
    assert match(features([[1, 0]]), features([[0, 1]]), ratio=0.1, nearest=nearest).tolist() == [[0, 0]]


@pytest.mark.parametrize("counts", [(0, 5), (5, 0), (0, 0)])
def test_no_features_give_no_matches(counts):
    f0, f1 = (features(np.zeros((count, 16))) for count in counts)
    for options in ({}, {"ratio": 0.8}, {"min_similarity": 0.5}):
        matches = match(f0, f1, **options)
        assert matches.shape == (0, 2)
        assert matches.dtype == np.int32
    assert match_similarity(f0, f1, match(f0, f1)).shape == (0,)


def test_descriptors_of_different_lengths_are_refused_with_both():
    with pytest.raises(ValueError, match="descriptors of length 16 and 64 can't be matched"):
        match(random_features(5, 16), random_features(5, 64))
    with pytest.raises(ValueError, match="descriptors of length 16 and 64 can't be matched"):
        match(random_features(0, 16), random_features(0, 64))


@pytest.mark.parametrize("name, values", [("ratio", (0, -1, 1.1, np.nan)), ("min_similarity", (-1.1, 2, np.nan))])
def test_an_option_out_of_range_is_refused_with_what_was_given(name, values):
    for value in values:
        with pytest.raises(ValueError, match=f"^{name} must .* got {value!r}$"):
            match(random_features(3), random_features(3), **{name: value})


def test_similarity_is_the_cosine_of_each_match():
    f0, f1 = random_features(30), random_features(40, seed=1)
    matches = match(f0, f1)
    similarity = match_similarity(f0, f1, matches)
    assert similarity.dtype == np.float32
    expected = [f0.descriptors[i] @ f1.descriptors[j] for i, j in matches]
    np.testing.assert_allclose(similarity, expected, rtol=1e-5)
    assert match_similarity(f0, f0, match(f0, f0)).max() <= 1
