"""superpoint_ros/features/emptiness.py"""

import re

import numpy as np
import pytest

from superpoint_ros.features.emptiness import likely_reason

NOISE = np.random.default_rng(0)


def noise(low, high):
    return NOISE.integers(low, high, (60, 80)).astype(np.uint8)


@pytest.mark.parametrize(
    ("picture", "words"),
    [
        (noise(0, 4), "black"),
        (noise(250, 256), "white"),
        (np.full((60, 80), 90, np.uint8), "one value, 90 of 255"),
        (noise(100, 108), "flat, 100 to 107 of 255: .* intensity_range"),
        (noise(0, 256), "above detection_threshold"),
    ],
)
def test_the_reason_is_what_the_pixels_tell(picture, words):
    assert re.search(words, likely_reason(picture))


def test_a_few_hot_pixels_do_not_make_a_black_image_another():
    picture = noise(0, 4)
    picture[:2, :3] = 255
    assert "black" in likely_reason(picture)


def test_a_mask_that_allows_nothing_comes_first():
    assert "mask" in likely_reason(noise(0, 4), np.zeros((60, 80), bool))
    assert "black" in likely_reason(noise(0, 4), np.ones((60, 80), bool))


def test_only_what_the_mask_allows_counts():
    picture, mask = noise(0, 256), np.zeros((60, 80), bool)
    mask[:8], picture[:8] = True, 0
    assert likely_reason(picture, mask).startswith("where the mask allows them the image is black")
