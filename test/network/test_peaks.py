"""The CPU's versions and the GPU's give the same keypoints; both are run here, on the CPU."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import slow
from superpoint_ros.network.dense_peaks import (
    flat_dense,
    strongest_dense,
    strongest_in_rounds,
    suppress_dense,
    unique_keys,
)
from superpoint_ros.network.descriptors import sample_descriptors
from superpoint_ros.network.heatmap import DetectionSettings, flat, heatmap_from_logits, strongest_each, suppress
from superpoint_ros.network.peaks import cells_of, heatmap_of, sample, strongest_peaks


def random_maps(levels, shape=(2, 40, 56)):
    random = torch.rand(shape, generator=torch.Generator().manual_seed(0))
    return random if levels is None else (random * levels).floor() / levels


@pytest.mark.parametrize("radius", [0, 1, 4, 7])
@pytest.mark.parametrize("levels", [None, 2, 40])
def test_rounds_over_whole_maps_suppress_as_sorting_does(radius, levels):
    scores = random_maps(levels)
    kept = suppress_dense(scores, radius)
    assert torch.equal(kept, suppress(scores, radius))
    np.testing.assert_array_equal(kept[0].numpy(), slow.suppress(scores[0].numpy(), radius))


@pytest.mark.parametrize("side", [255, 257])
def test_more_candidates_than_sixteen_bits_count_are_suppressed_alike(side):
    scores = random_maps(None, (1, side, side)) + 0.1
    assert torch.equal(suppress_dense(scores, 4), suppress(scores, 4))


@pytest.mark.parametrize("border", [0, 5])
@pytest.mark.parametrize("max_keypoints", [7, 5000])
def test_both_choose_the_same_keypoints(border, max_keypoints):
    scores, sizes = random_maps(30), torch.tensor([[40, 56], [33, 41]])
    settings = DetectionSettings(max_keypoints, 0.3, 3, border)
    xy, strengths = strongest_dense(scores, sizes, *settings.choice)
    other_xy, other_strengths = strongest_each(scores, sizes, *settings.choice)
    assert torch.equal(strengths, other_strengths)
    assert torch.equal(xy[strengths > 0], other_xy[strengths > 0])


CHAIN = torch.arange(64, 0, -1).float()[None, None] / 64
"""Each pixel suppresses its right neighbour, if it is not suppressed itself: a round settles two."""


def test_rounds_that_do_not_suffice_are_reported_for_the_picture_that_needs_more():
    scores = torch.cat([CHAIN, (CHAIN > 0.99).float()])
    sizes, choice = torch.tensor([[1, 64]] * 2), (0.0, 1, 0, 64)
    for rounds, unfinished in ((8, [True, False]), (31, [True, False]), (32, [False, False])):
        _, strengths, reported = strongest_in_rounds(scores, sizes, *choice, rounds)
        assert reported.tolist() == unfinished
        assert (strengths > 0).sum(dim=1).tolist() == [rounds, 1]


def test_more_rounds_are_gone_through_until_all_is_decided():
    xy, scores = strongest_dense(CHAIN, torch.tensor([[1, 64]]), 0.0, 1, 0, 64)
    assert xy[0, :32, 0].tolist() == list(range(0, 64, 2))
    assert scores[0, :32].tolist() == CHAIN[0, 0, ::2].tolist()
    assert not scores[0, 32:].any()
    assert suppress_dense(CHAIN, 1)[0, 0].nonzero()[:, 0].tolist() == list(range(0, 64, 2))


def test_keys_sort_as_the_scores_do_and_of_equals_the_first_pixel_first():
    tiny = torch.finfo(torch.float32).tiny
    scores = torch.tensor([0.5, 0.0, 0.5, tiny, 1.0, 0.5 + 2**-24, tiny / 4, 0.5]).reshape(1, 2, 4)
    keys = unique_keys(scores).flatten()
    assert keys.argsort(descending=True, stable=True).tolist() == [4, 5, 0, 2, 7, 3, 6, 1]
    assert keys[1] == 0
    assert len(set(keys.tolist())) == 8


def test_both_find_the_same_blank_areas():
    image = torch.zeros((2, 40, 56), dtype=torch.uint8)
    image[0, 10, 20], image[1, 30:, 30:] = 9, 255
    assert torch.equal(flat(image), flat_dense(image))


def slowly(heatmap, threshold, radius, border, limit):
    """The definition of `strongest_peaks`."""
    kept = slow.suppress(np.where(heatmap > threshold, heatmap, 0), radius)
    height, width = heatmap.shape
    y, x = np.nonzero(kept)
    inside = (y >= border) & (x >= border) & (y < height - border) & (x < width - border)
    y, x = y[inside], x[inside]
    order = np.argsort(-kept[y, x], kind="stable")[:limit]
    return np.stack([x, y], axis=1)[order], kept[y, x][order]


@pytest.mark.parametrize("limit", [1, 7, 40, 5000])
@pytest.mark.parametrize("border", [0, 6])
@pytest.mark.parametrize("radius", [0, 4])
@pytest.mark.parametrize("levels", [None, 3, 40])
def test_the_strongest_keypoints_are_those_of_suppression_among_all_pixels(limit, border, radius, levels):
    heatmap = random_maps(levels, (1, 60, 72))[0].numpy()
    heatmap[:, :3] += 1  # many strong ones that the border takes away
    xy, scores = strongest_peaks(heatmap, 0.2, radius, border, limit)
    expected_xy, expected_scores = slowly(heatmap, 0.2, radius, border, limit)
    np.testing.assert_array_equal(xy, expected_xy)
    np.testing.assert_array_equal(scores, expected_scores)


@given(st.integers(0, 2**32 - 1), st.integers(2, 12), st.integers(1, 3), st.integers(1, 30), st.booleans())
def test_equal_pixels_are_told_apart_by_their_place_alone(seed, levels, radius, limit, smooth):
    heatmap = np.random.default_rng(seed).integers(0, levels, (14, 19)).astype(np.float32) / levels
    if smooth:  # plateaus, and chains of pixels that suppress one another
        heatmap = cv2.blur(heatmap, (3, 3))
    for found, expected in zip(
        strongest_peaks(heatmap, 0.1, radius, 2, limit), slowly(heatmap, 0.1, radius, 2, limit), strict=True
    ):
        np.testing.assert_array_equal(found, expected)


def test_a_heatmap_without_peaks_has_no_keypoints():
    for heatmap in (np.zeros((16, 24), np.float32), np.full((16, 24), 0.004, np.float32)):
        xy, scores = strongest_peaks(heatmap, 0.005, 4, 4, 10)
        assert xy.shape == (0, 2) and scores.shape == (0,)


def test_the_heatmap_and_samples_of_one_picture_equal_those_of_a_batch():
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn((1, 65, 5, 7), generator=generator) * 4
    np.testing.assert_allclose(heatmap_of(logits[0].numpy()), heatmap_from_logits(logits)[0].numpy(), rtol=1e-5)
    dense = torch.nn.functional.normalize(torch.randn((1, 16, 5, 7), generator=generator), dim=1)
    xy = torch.rand((1, 50, 2), generator=generator) * torch.tensor([56.0, 40.0]) - 0.5
    xy[0, :4] = torch.tensor([[0.0, 0.0], [55.0, 39.0], [55.0, 0.0], [3.5, 35.5]])
    lengths = np.random.default_rng(0).uniform(0.1, 9, (5, 7, 1)).astype(np.float32)
    found = sample(cells_of(dense[0].numpy()) * lengths, xy[0].numpy())
    np.testing.assert_allclose(found, sample_descriptors(dense, xy)[0].numpy(), atol=1e-5)
    for row, (x, y) in zip(found, xy[0].tolist(), strict=True):
        np.testing.assert_allclose(row, slow.bilinear(dense[0].numpy(), x, y), atol=1e-5)


@pytest.mark.parametrize("cells", [(2, 2), (2, 9), (9, 2)])
def test_the_smallest_pictures_are_sampled_alike(cells):
    dense = torch.nn.functional.normalize(
        torch.randn((1, 8, *cells), generator=torch.Generator().manual_seed(1)), dim=1
    )
    y, x = np.mgrid[0 : 8 * cells[0], 0 : 8 * cells[1]].reshape(2, -1).astype(np.float32)
    xy = np.stack([x, y], axis=1)
    expected = sample_descriptors(dense, torch.from_numpy(xy)[None])[0].numpy()
    np.testing.assert_allclose(sample(cells_of(dense[0].numpy()), xy), expected, atol=1e-5)


def test_nothing_is_sampled_where_there_are_no_keypoints():
    assert sample(np.ones((3, 4, 16), np.float32), np.empty((0, 2), np.float32)).shape == (0, 16)
