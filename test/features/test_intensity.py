"""superpoint_ros/features/intensity.py"""

import math

import numpy as np
import pytest

from superpoint_ros.features.intensity import AUTOMATIC, FixedRange, FoundRange, scale_of


def thermal(low=7000, high=7600, seed=0, shape=(120, 160)):
    """A picture of counts between low and high, as a radiometric camera gives it."""
    return np.random.default_rng(seed).integers(low, high, shape).astype(np.uint16)


@pytest.mark.parametrize("dtype", [np.uint16, np.int16, np.int32, np.float32, np.float64])
def test_a_fixed_range_maps_its_ends_to_black_and_white_and_clips(dtype):
    samples = np.array([[0 if dtype == np.uint16 else -5, 0, 40, 100, 1000]]).astype(dtype)
    np.testing.assert_array_equal(FixedRange(0, 100)(samples), [[0, 0, 102, 255, 255]])


def test_sixteen_bits_by_table_are_what_the_formula_gives():
    samples = np.arange(65536, dtype=np.uint16).reshape(256, 256)
    expected = np.rint(((samples - 7000.25) / 611 * 255).clip(0, 255))
    assert np.abs(FixedRange(7000.25, 7611.25)(samples) - expected).max() <= 1


def test_the_range_that_is_found_shows_the_picture_and_clips_what_few_pixels_have():
    samples = thermal()
    samples[0, :20] = 60000
    grey = FoundRange()(samples)
    assert np.percentile(grey, 99) - np.percentile(grey, 1) > 180
    assert grey[0, 0] == 255


def test_float_pictures_are_shown_whatever_their_unit_and_numbers_that_are_none_are_left_out():
    for unit in (1e-3, 1.0, 1e4):
        samples = (thermal().astype(np.float32) - 7000) * np.float32(unit)
        samples[:5] = np.nan
        samples[5:9] = np.inf
        grey = FoundRange()(samples)
        assert np.percentile(grey[9:], 99) - np.percentile(grey[9:], 1) > 180
        assert not grey[:5].any() and (grey[5:9] == 255).all()


def test_frames_that_fit_share_one_range_exactly():
    found = FoundRange()
    ranges = {found.follow(thermal(7000 + 8 * i, 7600 + 8 * i, seed=i)) for i in range(6)}
    assert len(ranges) == 1


def test_a_drift_is_followed_in_small_steps():
    found, ends = FoundRange(), []
    for i in range(200):
        ends.append(found.follow(thermal(7000 + 20 * i, 7600 + 20 * i, seed=i)))
    steps = np.abs(np.diff(np.array(ends), axis=0))
    assert steps.max() < 0.1 * 720, "of a span of 720 counts, so that frames match"
    low, high = ends[-1]
    assert low < 7000 + 20 * 199 + 150 and high > 7600 + 20 * 199 - 150


def test_a_scene_of_other_values_is_shown_at_once():
    found = FoundRange()
    found(thermal())
    grey = found(thermal(30000, 40000))
    assert np.percentile(grey, 99) - np.percentile(grey, 1) > 180


def test_a_scene_of_less_contrast_is_shown_with_more_after_a_while():
    found = FoundRange()
    found(thermal(0, 60000))
    spans = [np.ptp(found(thermal(7000, 7600, seed=i))) for i in range(60)]
    assert spans[0] < 10 and spans[-1] > 120
    assert np.diff(spans).max() < 40


@pytest.mark.parametrize(("dtype", "low", "high", "value"), [("f4", 0.5, 8, 1e6), ("u2", 7000, 7600, 65535)])
def test_a_frame_of_which_a_part_is_far_outside_does_not_blind_the_next_ones(dtype, low, high, value):
    random, found = np.random.default_rng(1), FoundRange()
    frames = [random.uniform(low, high, (120, 160)).astype(dtype) for _ in range(4)]
    frames[1][:4] = value  # 3 % of it
    spans = [np.percentile(grey, 98) - np.percentile(grey, 6) for grey in map(found, frames)]
    assert min(spans) > 170


def test_what_stays_far_outside_is_shown_after_a_while_and_what_was_there_again_once_it_is_gone():
    random, found = np.random.default_rng(1), FoundRange()
    frames = [random.uniform(0.5, 8, (120, 160)).astype("f4") for _ in range(80)]
    for frame in frames[1:20]:
        frame[:4] = 1e6
    spans = [np.ptp(found(frame)[4:]) for frame in frames]
    assert spans[3] > 170 and spans[19] < 10, "the farther values have their place"
    assert spans[20 + 45] > 120


def test_the_largest_float_stands_for_no_measurement():
    samples = np.random.default_rng(1).uniform(0.5, 8, (120, 160)).astype("f4")
    samples[:20] = np.finfo("f4").max
    grey = FoundRange()(samples)
    assert np.ptp(grey[20:]) > 180 and (grey[:20] == 255).all()


def test_an_object_that_comes_and_goes_is_given_its_place_in_steps():
    random, found, ends, last = np.random.default_rng(1), FoundRange(), [], 0.0
    for number in range(60):
        frame = random.integers(7000, 7600, (120, 160)).astype(np.uint16)
        if number and number % 6:
            frame[:10] = random.integers(8500, 9000, (10, 160))
        ends.append(found.follow(frame))
        last = float(np.ptp(FixedRange(*ends[-1])(frame)[:10])) if number % 6 else last
    assert last > 20 and np.abs(np.diff(np.array(ends), axis=0)).max() < 250


@pytest.mark.parametrize("value", [0, 7300, 65535])
def test_a_black_frame_or_a_closed_shutter_changes_nothing(value):
    found = FoundRange()
    before = found.follow(thermal())
    assert np.ptp(found(np.full((120, 160), value, np.uint16))) == 0
    assert found.follow(thermal(seed=1)) == before


def test_a_first_frame_of_one_value_decides_nothing():
    found = FoundRange()
    assert np.ptp(found(np.zeros((120, 160), np.uint16))) == 0
    assert math.isnan(found.low)
    assert np.ptp(found(thermal())) > 180


def test_noise_of_a_few_counts_is_not_made_a_picture():
    assert np.ptp(FoundRange()(thermal(7000, 7004))) <= 16


def test_a_few_bright_points_on_black_are_shown():
    samples = np.zeros((120, 160), np.uint16)
    samples[60, 80] = 3000
    assert np.ptp(FoundRange()(samples)) > 180


def test_another_kind_of_samples_begins_anew():
    found = FoundRange()
    found(thermal())
    assert np.ptp(found(np.linspace(0, 1, 19200, dtype=np.float32).reshape(120, 160))) > 180


@pytest.mark.parametrize("samples", [np.full((16, 16), np.nan, np.float32), np.zeros((0, 16), np.uint16)])
def test_a_picture_without_numbers_is_black(samples):
    assert not FoundRange()(samples).any()


def test_a_range_that_is_set_is_fixed_and_the_automatic_one_is_the_cameras():
    found = FoundRange()
    assert scale_of((10.0, 20.0), found) == FixedRange(10.0, 20.0)
    assert scale_of(AUTOMATIC, found) is found
    assert isinstance(scale_of(AUTOMATIC), FoundRange)
