from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from superpoint_ros.features.pyramid import PRESETS, check_scales, level_sizes, share_out


@pytest.mark.parametrize(
    ("scales", "expected"),
    [
        ("matching", PRESETS["matching"]),
        (" video ", PRESETS["video"]),
        ("single", (1.0,)),
        ("1.0, 0.7", (1.0, 0.7)),
        ("1.4,1,0.5", (1.4, 1.0, 0.5)),
        ("[1.0, 0.5]", (1.0, 0.5)),
        (1, (1.0,)),
        ([1, 0.5], (1.0, 0.5)),
        (np.array([1, 0.25], np.float32), (1.0, 0.25)),
    ],
)
def test_scales_are_a_name_a_text_or_numbers(scales, expected):
    assert check_scales(scales) == expected


@pytest.mark.parametrize(
    "scales",
    [
        "", "videos", "1.0; 0.5", (), None, (0.5, 1.0), (1.0, 1.0), (1.0, 0.01), (5.0, 1.0), (1.0, float("nan")),
        (float("inf"),), ("a",), [[1.0], [0.5]], tuple(1 - 0.1 * i for i in range(9)),
    ],
)  # fmt: skip
def test_other_scales_are_refused_by_what_was_given(scales):
    with pytest.raises(ValueError, match=r"^scales must be single, video, matching, zoom, or 1 to 8 numbers .* got "):
        check_scales(scales)


def test_levels_are_rounded_and_the_tiny_ones_left_out():
    assert level_sizes((480, 640), (1.4, 1.0, 0.7, 0.35)) == [(672, 896), (480, 640), (336, 448), (168, 224)]
    assert level_sizes((45, 33), (1.0, 0.5, 0.47, 0.25)) == [(45, 33), (22, 16), (21, 16)]
    assert level_sizes((16, 16), (1.0, 0.5)) == [(16, 16)]


def test_an_image_too_small_for_the_first_level_is_refused():
    with pytest.raises(ValueError, match="goes through the network at 20×40 has 10×20 pixels at scale 0.5"):
        level_sizes((40, 20), (0.5, 0.25))


def slow_shares(found, sizes, limit):
    """One place after the other to the level that has the fewest for its pixels, half a keypoint counted on top."""
    kept = [0] * len(found)
    for _ in range(min(limit, sum(found))):
        open_levels = [level for level in range(len(found)) if kept[level] < found[level]]
        best = min(open_levels, key=lambda level: (kept[level] + 0.5) / (sizes[level][0] * sizes[level][1]))
        kept[best] += 1
    return kept


@given(
    st.lists(st.tuples(st.integers(0, 40), st.integers(16, 90), st.integers(16, 90)), min_size=1, max_size=5),
    st.integers(1, 150),
)
def test_shares_are_those_of_giving_place_by_place(levels, limit):
    found, sizes = [level[0] for level in levels], [level[1:] for level in levels]
    assert share_out(found, sizes, limit) == slow_shares(found, sizes, limit)


def test_a_level_gets_in_proportion_to_its_pixels_and_what_is_left_of_others():
    sizes = level_sizes((480, 640), (1.0, 0.5))
    assert share_out([5000, 5000], sizes, 1000) == [800, 200]
    assert share_out([500, 5000], sizes, 1000) == [500, 500]
    assert share_out([5000, 50], sizes, 1000) == [950, 50]
    assert share_out([30, 20], sizes, 1000) == [30, 20]
    assert share_out([0, 0], sizes, 1000) == [0, 0]
