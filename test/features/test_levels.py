from __future__ import annotations

import cv2
import numpy as np
import pytest

from superpoint_ros.features import levels as module
from superpoint_ros.features.extractor import Features
from superpoint_ros.features.levels import RADIUS, levels_for, levels_of

PICTURE = cv2.GaussianBlur(np.random.default_rng(0).integers(0, 256, (121, 203), dtype=np.uint8), (0, 0), 2)


def level_of(levels, number):
    (x, y), (width, height) = levels.corners[number].astype(int), levels.extents[number].astype(int)
    return levels.pixels[y : y + height, x : x + width]


def features(scales, size=PICTURE.shape):
    count = len(scales)
    parts = np.zeros((count, 2), np.float32), np.ones(count, np.float32), np.zeros((count, 4), np.float32)
    return Features(*parts, size, scales=np.array(scales, np.float32))


def test_each_level_is_the_mean_of_four_pixels_of_the_one_before():
    levels = levels_of(PICTURE)
    assert levels.size == (121, 203) and levels.extents.tolist() == [[203, 121], [101, 60], [50, 30]]
    half = np.zeros((60, 101))
    for y in range(60):
        for x in range(101):
            half[y, x] = PICTURE[2 * y : 2 * y + 2, 2 * x : 2 * x + 2].mean()
    smooth = cv2.GaussianBlur(half, (5, 5), 0.8)
    np.testing.assert_allclose(level_of(levels, 1), smooth, atol=1.1)
    np.testing.assert_array_equal(level_of(levels, 0), cv2.GaussianBlur(PICTURE, (5, 5), 0.8))


def test_no_level_is_smaller_than_patches_can_be_compared_in():
    assert len(levels_of(PICTURE, coarsest=9).extents) == 3
    assert len(levels_of(PICTURE[:20, :20]).extents) == 1
    assert levels_of(PICTURE, finest=5, coarsest=5).finest == 2


def test_features_need_the_levels_of_their_scales():
    for scales, finest, count in [([1], 0, 1), ([1, 2.9], 0, 2), ([2.5], 1, 1), ([0.5], 0, 1), ([], 0, 1)]:
        found = levels_for(features(scales), PICTURE)
        assert (found.finest, len(found.extents)) == (finest, count)


def test_a_panorama_begins_with_a_half(monkeypatch):
    monkeypatch.setattr(module, "LARGEST", 150)
    levels = levels_of(PICTURE, coarsest=0)
    assert (levels.finest, levels.extents.tolist()) == (1, [[101, 60]])


def test_the_level_of_a_scale_is_the_coarsest_that_is_no_coarser():
    levels = levels_of(PICTURE, 0, 2)
    assert levels.level(np.array([0.3, 1, 1.9, 2, 3.9, 4, 50])).tolist() == [0, 0, 0, 1, 1, 2, 2]
    assert levels_of(PICTURE, 1, 2).level(np.array([1, 2])).tolist() == [1, 1]


def test_a_patch_must_see_nothing_that_is_masked():
    mask = np.ones(PICTURE.shape, bool)
    mask[50, 80] = False
    levels = levels_of(PICTURE, mask=mask)
    rows, columns = np.mgrid[20:100, 20:180].reshape(2, -1)
    places = np.stack([columns, rows], axis=1).astype(np.float32)
    fits = levels.fits(np.zeros(len(places), int), places, np.float32(RADIUS))
    expected = [not (abs(x - 80) <= RADIUS and abs(y - 50) <= RADIUS) for x, y in places]
    np.testing.assert_array_equal(fits, expected)


def test_a_mask_or_picture_of_another_size_is_refused_with_both():
    with pytest.raises(ValueError, match=r"^mask has shape \(9, 9\), its image \(121, 203\)$"):
        levels_of(PICTURE, mask=np.ones((9, 9), bool))
    with pytest.raises(ValueError, match=r"^the picture's size is \(121, 203\), that of its features \(240, 320\)$"):
        levels_for(features([1], (240, 320)), PICTURE)
