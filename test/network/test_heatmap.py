from __future__ import annotations

import re
from unittest import mock

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

import slow
from superpoint_ros.network import heatmap as module
from superpoint_ros.network.dense_peaks import flat_dense, inside, strongest_dense
from superpoint_ros.network.heatmap import (
    DetectionSettings,
    detect,
    flat,
    heatmap_from_logits,
    refine,
)


def settings(**changes):
    """Everything is detected, unless a change says otherwise."""
    everything = {"max_keypoints": 10_000, "detection_threshold": 0.0, "nms_radius": 0, "border": 0}
    return DetectionSettings(**{**everything, **changes})


def detect_dense(heatmap, sizes, settings):
    """`detect` in the way of a GPU, which can be tried on the CPU."""
    with mock.patch.object(module, "strongest_each", strongest_dense):
        return detect(heatmap, sizes, settings)


BOTH_DETECT = pytest.mark.parametrize("detect", [detect, detect_dense], ids=["CPU", "as on a GPU"])


def flat_as_on_a_gpu(image, sizes=None):
    return flat_dense(image, inside(image, torch.tensor([image.shape[1:]]) if sizes is None else sizes))


BOTH_FLAT = pytest.mark.parametrize("flat", [flat, flat_as_on_a_gpu], ids=["CPU", "as on a GPU"])


def found(heatmap, sizes=None, detect=detect, **changes):
    """[(x, y, score), …] of the first picture, in the order detected."""
    heatmap = torch.as_tensor(heatmap, dtype=torch.float32)
    heatmap = heatmap if heatmap.ndim == 3 else heatmap[None]
    sizes = [heatmap.shape[1:]] * len(heatmap) if sizes is None else sizes
    detections = detect(heatmap, torch.tensor([tuple(size) for size in sizes]), settings(**changes))
    count = int(detections.count[0])
    assert (detections.scores[0, count:] == 0).all()
    xy, scores = detections.xy[0, :count].tolist(), detections.scores[0, :count].tolist()
    return [(x, y, score) for (x, y), score in zip(xy, scores, strict=True)]


def suppressed(heatmap, radius, detect):
    """A heatmap, (H, W), in which all pixels are 0 but those that are detected."""
    kept = np.zeros_like(heatmap)
    for x, y, score in found(heatmap, nms_radius=radius, detect=detect):
        kept[int(y), int(x)] = score
    return kept


def random_heatmap(height, width, seed, levels=None):
    scores = np.random.default_rng(seed).random((height, width), np.float32)
    return scores if levels is None else np.floor(scores * levels).astype(np.float32) / levels


# From logits


def test_the_heatmap_equals_softmax_and_depth_to_space_pixel_by_pixel():
    logits = torch.randn(2, 65, 3, 4, generator=torch.Generator().manual_seed(0)) * 3
    heatmap = heatmap_from_logits(logits)
    assert heatmap.shape == (2, 24, 32)
    for b in range(2):
        np.testing.assert_allclose(heatmap[b].numpy(), slow.heatmap(logits[b].numpy()), rtol=1e-5)


def test_a_full_dustbin_leaves_no_probability():
    logits = torch.zeros(1, 65, 2, 2)
    logits[:, 64] = 50
    assert heatmap_from_logits(logits).max() < 1e-20


def test_the_heatmap_of_half_precision_logits_is_float32():
    logits = torch.randn(1, 65, 2, 2)
    assert heatmap_from_logits(logits.half()).dtype == torch.float32


# Non-maximum suppression


@BOTH_DETECT
@pytest.mark.parametrize("radius", [0, 1, 2, 4, 7])
@pytest.mark.parametrize("levels", [None, 2, 5, 40], ids="levels={}".format)
def test_suppression_equals_greedy_suppression_on_random_heatmaps(detect, radius, levels):
    for seed in range(10):
        scores = random_heatmap(31, 45, seed, levels)
        np.testing.assert_array_equal(suppressed(scores, radius, detect), slow.suppress(scores, radius))


@BOTH_DETECT
@given(
    levels=hnp.arrays(np.uint8, st.tuples(st.integers(1, 14), st.integers(1, 14)), elements=st.integers(0, 4)),
    radius=st.integers(0, 5),
)
def test_suppression_equals_greedy_suppression_on_plateaus_and_ties(detect, levels, radius):
    scores = levels.astype(np.float32) / 4
    np.testing.assert_array_equal(suppressed(scores, radius, detect), slow.suppress(scores, radius))


RAMP = np.arange(1, 26 * 26 + 1, dtype=np.float32).reshape(26, 26)


@BOTH_DETECT
@pytest.mark.parametrize(
    "scores",
    [
        np.ones((26, 26), np.float32),
        RAMP,
        RAMP[::-1, ::-1].copy(),
        np.where(np.arange(26)[:, None] % 2, RAMP[:, ::-1], RAMP),
        np.zeros((26, 26), np.float32),
        np.full((26, 26), np.finfo(np.float32).tiny),
    ],
    ids=["one plateau", "rising", "falling", "serpentine", "empty", "smallest floats"],
)
def test_suppression_equals_greedy_suppression_where_chains_are_longest(detect, scores):
    np.testing.assert_array_equal(suppressed(scores, 3, detect), slow.suppress(scores, 3))


@BOTH_DETECT
def test_a_suppressed_pixel_does_not_suppress(detect):
    # A single max-pool would lose the third: the second, which beats it, is itself beaten.
    points = found([[0.9, 0.0, 0.8, 0.0, 0.7]], nms_radius=2, detect=detect)
    assert points == [(0, 0, pytest.approx(0.9)), (4, 0, pytest.approx(0.7))]


@BOTH_DETECT
def test_suppression_is_deterministic(detect):
    scores = random_heatmap(120, 160, 0, levels=9)
    assert all(found(scores, nms_radius=4, detect=detect) == found(scores, nms_radius=4, detect=detect) for _ in "123")


@BOTH_DETECT
def test_detected_keypoints_are_further_apart_than_the_radius(detect):
    points = found(random_heatmap(60, 80, 0), nms_radius=4, detect=detect)
    xy = np.array(points)[:, :2]
    distance = np.abs(xy[:, None] - xy[None]).max(axis=2) + np.eye(len(xy)) * 99
    assert len(xy) > 50
    assert distance.min() == 5


# Choosing


@BOTH_DETECT
def test_keypoints_come_in_descending_order_and_equal_ones_by_row_then_column(detect):
    scores = random_heatmap(20, 30, 0, levels=6)
    points = found(scores, detect=detect)
    pixels = [(x, y, scores[y, x]) for y in range(20) for x in range(30) if scores[y, x] > 0]
    assert points == sorted(pixels, key=lambda point: -point[2])


@BOTH_DETECT
@given(
    levels=hnp.arrays(np.uint8, (9, 11), elements=st.integers(0, 3)),
    max_keypoints=st.integers(1, 120),
)
def test_of_equal_keypoints_the_first_ones_are_kept(detect, levels, max_keypoints):
    scores = levels.astype(np.float32) / 4
    assert found(scores, max_keypoints=max_keypoints, detect=detect) == found(scores, detect=detect)[:max_keypoints]


@BOTH_DETECT
def test_fewer_pixels_than_max_keypoints_are_all_returned(detect):
    assert len(found(np.full((16, 16), 0.5), max_keypoints=1000, detect=detect)) == 256


@BOTH_DETECT
def test_a_score_must_be_above_the_threshold(detect):
    scores = np.zeros((16, 16), np.float32)
    scores[3, 4], scores[5, 6], scores[7, 8] = 0.25, 0.5, 0.75
    assert found(scores, detection_threshold=0.25, detect=detect) == [(8, 7, 0.75), (6, 5, 0.5)]
    assert found(scores, detection_threshold=0.75, detect=detect) == []


@BOTH_DETECT
@pytest.mark.parametrize("border", [0, 1, 4])
def test_the_border_is_empty_and_the_pixel_next_to_it_is_not(detect, border):
    points = found(np.full((20, 30), 0.5), border=border, detect=detect)
    assert {x for x, _, _ in points} == set(range(border, 30 - border))
    assert {y for _, y, _ in points} == set(range(border, 20 - border))


@BOTH_DETECT
def test_a_border_wider_than_the_picture_leaves_nothing(detect):
    assert found(np.full((20, 30), 0.5), border=10, detect=detect) == []


@BOTH_DETECT
def test_a_peak_in_the_border_suppresses_its_neighbours_before_it_is_dropped(detect):
    scores = np.zeros((16, 16), np.float32)
    scores[8, 3], scores[8, 5], scores[8, 8] = 0.9, 0.5, 0.4
    points = found(scores, border=4, nms_radius=4, detect=detect)
    assert points == [(8, 8, pytest.approx(0.4))]


@BOTH_DETECT
@given(height=st.integers(1, 24), width=st.integers(1, 24), nms_radius=st.integers(0, 4))
def test_padding_neither_detects_nor_suppresses(detect, height, width, nms_radius):
    scores = random_heatmap(24, 24, height * 25 + width)
    brighter = scores + 1
    brighter[:height, :width] = scores[:height, :width]
    points = found(brighter, [(height, width)], nms_radius=nms_radius, detect=detect)
    assert points == found(scores[:height, :width], nms_radius=nms_radius, detect=detect)


@BOTH_DETECT
def test_each_picture_of_a_batch_has_its_own_size_and_border(detect):
    sizes = torch.tensor([[16, 24], [10, 13]])
    detections = detect(torch.full((2, 16, 24), 0.5), sizes, settings(border=2))
    assert detections.count.tolist() == [12 * 20, 6 * 9]
    xy = detections.xy[1, : 6 * 9]
    assert xy.amax(dim=0).tolist() == [10, 7]


@BOTH_DETECT
def test_nothing_is_detected_in_an_empty_or_undefined_heatmap(detect):
    assert found(np.zeros((16, 16)), detect=detect) == []
    assert found(np.full((16, 16), np.nan), nms_radius=4, detect=detect) == []


@pytest.mark.parametrize(
    "name, value",
    [
        ("max_keypoints", 0),
        ("max_keypoints", 10.0),
        ("max_keypoints", True),
        ("nms_radius", -1),
        ("nms_radius", "4"),
        ("nms_radius", np.float64(4)),
        ("border", np.bool_(True)),
        ("border", -1),
        ("border", None),
        ("detection_threshold", -0.1),
        ("detection_threshold", 1.0),
        ("detection_threshold", float("nan")),
        ("detection_threshold", "low"),
    ],
)
def test_a_setting_out_of_range_is_refused_by_name_with_what_was_given(name, value):
    with pytest.raises(ValueError, match=f"^{name} must be .* got {re.escape(repr(value))}$"):
        DetectionSettings(**{name: value})


def test_settings_take_numpy_numbers_and_are_the_same_as_with_pythons():
    given = DetectionSettings(np.int64(500), np.float32(0.25), np.uint8(3), np.int32(0))
    assert given == DetectionSettings(500, 0.25, 3, 0)
    assert [type(value) for value in vars(given).values()] == [int, float, int, int, bool]


# Flat areas


@BOTH_FLAT
@given(
    levels=hnp.arrays(np.uint8, st.tuples(st.integers(1, 24), st.integers(1, 24)), elements=st.integers(0, 30)),
    value=st.sampled_from([0, 1, 128, 255]),
)
def test_flat_areas_equal_a_loop_over_neighbourhoods(flat, levels, value):
    image = np.where(levels == 0, 200, value).astype(np.uint8)
    np.testing.assert_array_equal(flat(torch.from_numpy(image)[None])[0].numpy(), slow.flat(image))


@BOTH_FLAT
@pytest.mark.parametrize("value", [0, 128, 255])
@pytest.mark.parametrize("padding", ["zeros", "edge"])
def test_flat_areas_do_not_depend_on_the_padding(flat, value, padding):
    image = np.full((18, 21), value, np.uint8)
    image[3, 3] = 77
    padded = np.zeros((32, 32), np.uint8)
    padded[:24, :24] = np.pad(image, ((0, 6), (0, 3)), mode="edge")
    if padding == "zeros":
        padded[18:], padded[:, 21:] = 0, 0
    result = flat(torch.from_numpy(padded)[None], torch.tensor([[18, 21]]))[0]
    np.testing.assert_array_equal(result[:18, :21].numpy(), slow.flat(image))


# Subpixel


def gaussian(x, y, sigma=1.3, shape=(24, 32)):
    rows, columns = np.mgrid[: shape[0], : shape[1]]
    scores = np.exp(-((columns - x) ** 2 + (rows - y) ** 2) / (2 * sigma**2))
    return torch.from_numpy(scores.astype(np.float32))[None]


@given(x=st.floats(4, 27), y=st.floats(4, 19), sigma=st.floats(0.8, 3))
def test_the_centre_of_a_gaussian_is_found_within_a_thousandth_of_a_pixel(x, y, sigma):
    points = found(gaussian(x, y, sigma), max_keypoints=1, nms_radius=4, subpixel=True)
    assert points[0][:2] == pytest.approx((x, y), abs=1e-3)


def test_without_subpixel_keypoints_are_whole_pixels():
    assert found(gaussian(10.4, 12.3), max_keypoints=1)[0][:2] == (10, 12)


def test_refinement_moves_by_at_most_half_a_pixel_and_never_on_a_plateau():
    heatmap = torch.from_numpy(random_heatmap(40, 40, 0))[None]
    rows, columns = torch.meshgrid(torch.arange(40), torch.arange(40), indexing="ij")
    xy = torch.stack([columns.flatten(), rows.flatten()], dim=-1)[None]
    size = torch.tensor([[40, 40]])
    moved = refine(heatmap, xy, size) - xy
    assert 0.3 < moved.abs().max() <= 0.5
    assert not refine(torch.full_like(heatmap, 0.3), xy, size).sub(xy).any()
    assert not refine(torch.zeros_like(heatmap), xy, size).sub(xy).any()


@BOTH_DETECT
@pytest.mark.parametrize(
    "centre, expected",
    [
        ((-0.4, 10.2), (0, 10.2)),
        ((31.4, 10.2), (31, 10.2)),
        ((15.3, -0.4), (15.3, 0)),
        ((15.3, 23.4), (15.3, 23)),
    ],
    ids=["left", "right", "top", "bottom"],
)
def test_a_keypoint_on_the_edge_is_not_refined_across_it(detect, centre, expected):
    points = found(gaussian(*centre), nms_radius=4, subpixel=True, detect=detect)
    assert points[0][:2] == pytest.approx(expected, abs=1e-3)


@BOTH_DETECT
def test_refinement_does_not_look_into_the_padding(detect):
    heatmap = gaussian(20.0, 10.0)
    alone = found(heatmap[:, :, :18], nms_radius=4, subpixel=True, detect=detect)
    padded = found(heatmap, [(24, 18)], nms_radius=4, subpixel=True, detect=detect)
    assert padded == pytest.approx(alone)
