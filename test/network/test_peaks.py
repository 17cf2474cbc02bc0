"""The CPU's versions and the GPU's give the same keypoints; both are run here, on the CPU."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import slow
from superpoint_ros.network.dense_peaks import flat_dense, room, strongest_dense, strongest_in_rounds
from superpoint_ros.network.descriptors import sample_descriptors
from superpoint_ros.network.heatmap import DetectionSettings, flat, heatmap_from_logits, strongest_each
from superpoint_ros.network.peaks import cells_of, heatmap_of, sample, strongest_peaks


def random_maps(levels, shape=(2, 40, 56)):
    random = torch.rand(shape, generator=torch.Generator().manual_seed(0))
    return random if levels is None else (random * levels).floor() / levels


@pytest.mark.parametrize("side", [255, 257])
def test_more_candidates_than_sixteen_bits_count_are_suppressed_alike(side):
    scores = random_maps(None, (1, side, side)) + 0.1
    sizes, choice = torch.tensor([[side, side]]), (0.0, 4, 0, 5000)
    (xy, strengths), (other_xy, others) = (
        strongest_dense(scores, sizes, *choice),
        strongest_each(scores, sizes, *choice),
    )
    assert torch.equal(strengths, others)
    assert torch.equal(xy[strengths > 0], other_xy[others > 0])


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
    for rounds, undecided in ((8, [(64 - 16) / 64, 0]), (31, [2 / 64, 0]), (32, [0, 0])):
        peaks = strongest_in_rounds(scores, None, 1, 64, rounds)
        assert peaks.undecided.tolist() == undecided
        assert (peaks.scores > 0).sum(dim=1).tolist() == [rounds, 1]
        assert peaks.unfinished(64) == (rounds < 32)


def test_what_is_undecided_does_not_matter_if_it_is_weaker_than_all_that_are_asked_for():
    eight = strongest_in_rounds(CHAIN, None, 1, 64, rounds=8)
    assert not eight.unfinished(8)
    assert eight.unfinished(9)
    assert eight.scores[0, :8].tolist() == CHAIN[0, 0, :16:2].tolist()


def test_an_undecided_pixel_as_strong_as_the_weakest_keypoint_may_come_before_it():
    # the second of the chain, in an earlier row, equals the last keypoint that is asked for
    scores = torch.zeros(1, 9, 9)
    scores[0, 0, :3] = torch.tensor([0.9, 0.8, 0.5])
    scores[0, 8, 8] = 0.5
    once = strongest_in_rounds(scores, None, 1, 2, rounds=1)
    assert once.scores.tolist() == [[pytest.approx(0.9), 0.5]]
    assert once.unfinished(2)
    xy, _ = strongest_dense(scores, torch.tensor([[9, 9]]), 0.0, 1, 0, 2)
    assert xy.tolist() == [[[0, 0], [2, 0]]]


def test_more_rounds_are_gone_through_until_all_is_decided():
    xy, scores = strongest_dense(CHAIN, torch.tensor([[1, 64]]), 0.0, 1, 0, 64)
    assert xy[0, :32, 0].tolist() == list(range(0, 64, 2))
    assert scores[0, :32].tolist() == CHAIN[0, 0, ::2].tolist()
    assert not scores[0, 32:].any()


@pytest.mark.parametrize("shape", [(1, 1), (5, 16), (16, 24), (17, 41)])
@pytest.mark.parametrize("radius", [0, 1, 4])
def test_there_are_never_more_keypoints_than_there_is_room(shape, radius):
    everything = strongest_in_rounds(torch.ones(1, *shape), None, radius, 10_000, rounds=50)
    assert everything.scores.shape[1] == room(shape, radius)
    assert (everything.scores > 0).all()  # on a plateau all are taken


def test_both_find_the_same_blank_areas():
    image = torch.zeros((2, 40, 56), dtype=torch.uint8)
    image[0, 10, 20], image[1, 30:, 30:] = 9, 255
    assert torch.equal(flat(image), flat_dense(image, torch.ones_like(image, dtype=torch.bool)))


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
