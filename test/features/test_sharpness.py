"""superpoint_ros/features/sharpness.py"""

import cv2
import numpy as np
import pytest
from numpy.lib.stride_tricks import sliding_window_view

from superpoint_ros.features.levels import levels_of
from superpoint_ros.features.sharpness import softened

SIDE = 15


def scene(blur, seed=0):
    values = np.random.default_rng(seed).normal(128, 60, (200, 260))
    return np.clip(cv2.GaussianBlur(values, (0, 0), np.hypot(1.0, blur)) * 2 - 128, 0, 255).astype(np.uint8)


def patches_of(levels, middles):
    windows = sliding_window_view(levels.pixels, (SIDE, SIDE))
    return windows[middles[:, 1] - SIDE // 2, middles[:, 0] - SIDE // 2].astype(np.float32)


def steps(pixels):
    """From pixel to pixel, for the contrast."""
    return np.sqrt(np.mean(np.square(np.diff(pixels.astype(float))))) / pixels.std()


MIDDLES = np.random.default_rng(1).integers(20, 180, (40, 2))


@pytest.mark.parametrize("blur", [0.7, 1.4, 2.0])
def test_a_picture_becomes_as_soft_as_the_patches_that_are_looked_for(blur):
    blurred, sharp = levels_of(scene(blur), 0, 0), levels_of(scene(0), 0, 0)
    found = softened(sharp, patches_of(blurred, MIDDLES), MIDDLES)
    sharpest, expected, after = (steps(each.pixels) for each in (sharp, blurred, found))
    assert after == pytest.approx(expected, rel=0.15) and sharpest > 1.1 * expected


@pytest.mark.parametrize("gain", [0.4, 1.0])
def test_a_picture_as_soft_or_softer_stays_as_it_is(gain):
    picture = levels_of(scene(1.0), 0, 0)
    dimmed = patches_of(picture, MIDDLES) * gain + 20
    assert softened(picture, dimmed, MIDDLES) is picture
    assert softened(picture, patches_of(levels_of(scene(0), 0, 0), MIDDLES), MIDDLES) is picture


def test_patches_without_room_or_texture_change_nothing():
    picture = levels_of(scene(0), 0, 0)
    corners = np.array([[3, 3], [259, 199]])
    assert softened(picture, np.zeros((2, SIDE, SIDE), np.float32), corners) is picture
    flat = levels_of(np.full((200, 260), 90, np.uint8), 0, 0)
    assert softened(flat, np.full((40, SIDE, SIDE), 90, np.float32), MIDDLES) is flat
