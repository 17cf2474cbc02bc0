"""One picture at several sizes, for what is seen from near and from far: a network knows one scale.

Each size, a level, is extracted as a picture of its own; the levels share the keypoints that there may be.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from superpoint_ros.features.image import SMALLEST_SIDE

Size = tuple[int, int]

PRESETS = {
    "single": (1.0,),
    "video": (1.0, 0.5),
    "matching": (1.0, 0.7, 0.5, 0.35),
    "zoom": (1.4, 1.0, 0.7, 0.5, 0.35),
}
"""Scales by name: one, those for a camera's video, for pictures from anywhere, and for zooms up to 4; they take 1,
1.25, 1.86 and 3.8 times the time."""

MAXIMUM_LEVELS = 8
SMALLEST_SCALE, LARGEST_SCALE = 1 / 16, 4.0


def check_scales(scales: Any) -> tuple[float, ...]:
    """The scales of levels, of a name in `PRESETS`, a text as "1.0, 0.7", a number or numbers.

    Raises ValueError unless they are 1 to 8 numbers of 1/16 to 4, descending.
    """
    try:
        if isinstance(scales, str):
            given: Any = PRESETS.get(scales.strip()) or scales.strip(" []").split(",")
        else:
            given = np.atleast_1d(scales).tolist()
        values = tuple(float(value) for value in given)
    except (ValueError, TypeError):
        values = ()
    descending = all(one > other for one, other in zip(values, values[1:], strict=False))
    within = all(SMALLEST_SCALE <= value <= LARGEST_SCALE for value in values)
    if not (1 <= len(values) <= MAXIMUM_LEVELS and descending and within):
        raise ValueError(
            f"scales must be {', '.join(PRESETS)}, or 1 to {MAXIMUM_LEVELS} numbers of {SMALLEST_SCALE:g} to "
            f"{LARGEST_SCALE:g}, the largest first, as in 1.0, 0.7, 0.5; got {scales!r}"
        )
    return values


def level_sizes(size: Size, scales: Sequence[float]) -> list[Size]:
    """Height and width of each level of an input of `size` (height, width).

    Levels that are too small for the network are left out, but not the first: ValueError if that is.
    """
    sizes = [(max(1, round(size[0] * scale)), max(1, round(size[1] * scale))) for scale in scales]
    if min(sizes[0]) < SMALLEST_SIDE:
        raise ValueError(
            f"an image that goes through the network at {size[1]}×{size[0]} has {sizes[0][1]}×{sizes[0][0]} pixels at "
            f"scale {scales[0]:g}; both sides must have at least {SMALLEST_SIDE}"
        )
    return [level for level in sizes if min(level) >= SMALLEST_SIDE]


def share_out(found: Sequence[int], sizes: Sequence[Size], limit: int) -> list[int]:
    """How many of its strongest keypoints each level keeps: all together at most `limit`.

    found  how many each level has
    sizes  its height and width

    In proportion to its pixels; what a level cannot use goes to the others in the same proportion. Places
    are given one by one, as seats are in a parliament (Sainte-Laguë).
    """
    levels = np.repeat(np.arange(len(found)), found)
    ranks = np.concatenate([np.arange(count) for count in found])
    pixels = np.array([height * width for height, width in sizes], np.float64)
    first = np.argsort((ranks + 0.5) / pixels[levels], kind="stable")[:limit]
    return np.bincount(levels[first], minlength=len(found)).tolist()
