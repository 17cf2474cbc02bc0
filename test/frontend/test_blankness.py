"""superpoint_ros/frontend/blankness.py"""

import numpy as np
import pytest

from superpoint_ros.frontend.blankness import likely_reason

NOISE = np.random.default_rng(0).integers(0, 4, (48, 64))


@pytest.mark.parametrize(
    ("picture", "sentence"),
    [
        (np.zeros((48, 64)), "the image is black: no light, a lens cap, or of 16-bit and float images see"),
        (np.full((48, 64), 255), "the image is white: overexposed, or of 16-bit"),
        (np.full((48, 64), 29), "the image is 29 everywhere"),
        (27 + NOISE, "the image is nearly uniform, 27 to 30 of 255: no light, nothing in view, or of 16-bit"),
        (NOISE * 60, "nothing in it scores above detection_threshold, 0.005"),
    ],
    ids=["black", "white", "one value", "range", "threshold"],
)
def test_the_reason_is_the_most_likely_one(picture, sentence):
    assert likely_reason(picture.astype(np.uint8), None, 0.005).startswith(sentence)


def test_only_what_the_mask_allows_counts():
    picture = (NOISE * 60).astype(np.uint8)
    mask = np.zeros(picture.shape, bool)
    assert likely_reason(picture, mask, 0.005) == "the mask allows none anywhere"
    mask[:8], picture[:8] = True, 0
    assert likely_reason(picture, mask, 0.005).startswith("where the mask allows them the image is black")
