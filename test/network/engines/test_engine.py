from __future__ import annotations

import numpy as np
import pytest

from superpoint_ros.network.engines.engine import pad_to_cells


def noise(height, width):
    return np.random.default_rng(0).integers(0, 256, (height, width), np.uint8)


@pytest.mark.parametrize("height, width", [(16, 17), (17, 24), (23, 31)])
def test_padding_repeats_the_last_row_and_column(height, width):
    picture = noise(height, width)
    padded = pad_to_cells(picture)
    assert padded.shape == (24 if height > 16 else 16, 24 if width <= 24 else 32)
    for y in range(padded.shape[0]):
        for x in range(padded.shape[1]):
            assert padded[y, x] == picture[min(y, height - 1), min(x, width - 1)]


def test_a_picture_of_whole_cells_is_not_copied():
    picture = noise(24, 32)
    assert pad_to_cells(picture) is picture
