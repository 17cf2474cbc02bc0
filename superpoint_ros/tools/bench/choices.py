"""What a robot chooses between: weights by engine, beside the SIFT and ORB that one knows; whole extractions."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from importlib.util import find_spec

import cv2
import numpy as np
from numpy.typing import NDArray

from superpoint_ros.features.extractor import Extractor
from superpoint_ros.features.image import resize_image
from superpoint_ros.network.engines.parity import built_in_picture
from superpoint_ros.tools.bench.measure import elapsed_at_rest

CLASSIC_KEYPOINTS = 1000
"""Asked of OpenCV's detectors; of a network as many as `Extractor` has by default."""

Extract = Callable[[NDArray[np.uint8]], int]
"""A picture, (H, W) grey, to the number of keypoints found and described."""


@dataclass(frozen=True)
class Choice:
    """Of one way to get features; milliseconds.

    wall, cpu         medians over the rounds: of the clock, and of all threads' processor time
    ratio, cpu_ratio  medians of the first choice's time over this one's
    keypoints         found
    """

    name: str
    wall: float
    cpu: float
    ratio: float
    cpu_ratio: float
    keypoints: int


def networks(weights: Sequence[str], device: str, engines: Sequence[str]) -> dict[str, Extract]:
    """An extractor for each of some weights on each engine. Raises as `Extractor` does."""
    extractors = {f"{one} {engine}": Extractor(one, device, engine) for one in weights for engine in engines}
    return {name: _counting(extractor) for name, extractor in extractors.items()}


def classics() -> dict[str, Extract]:
    """OpenCV's SIFT and ORB."""
    found = {"SIFT": cv2.SIFT.create(CLASSIC_KEYPOINTS), "ORB": cv2.ORB.create(CLASSIC_KEYPOINTS)}
    return {f"{name} {CLASSIC_KEYPOINTS}": _detecting(detector) for name, detector in found.items()}


def compare(choices: Mapping[str, Extract], picture: NDArray[np.uint8], rounds: int) -> list[Choice]:
    """Run all in turns, so that what else the machine does slows all alike."""
    counts = {name: extract(picture) for name, extract in choices.items()}  # also warms up
    turns = [[elapsed_at_rest(partial(one, picture)) for one in choices.values()] for _ in range(rounds)]
    times = np.array(turns)
    wall, cpu = np.median(times, axis=0).T * 1e3
    ratio, cpu_ratio = np.median(times[:, :1] / times, axis=0).T
    rows = zip(choices, wall.tolist(), cpu.tolist(), ratio.tolist(), cpu_ratio.tolist(), strict=True)
    return [Choice(*row, counts[row[0]]) for row in rows]


def picture(size: tuple[int, int]) -> tuple[NDArray[np.uint8], str]:
    """A picture of (height, width) and what it shows: a photograph of scikit-image where that is installed."""
    if find_spec("skimage") is None:
        return built_in_picture(size), "rectangles and noise"
    from skimage import data

    photograph = cv2.cvtColor(np.asarray(data.astronaut()), cv2.COLOR_RGB2GRAY)
    height = min(len(photograph), round(photograph.shape[1] * size[0] / size[1]))
    return resize_image(np.asarray(photograph[:height], np.uint8), size), "scikit-image's astronaut"


def _counting(extractor: Extractor) -> Extract:
    return lambda picture: len(extractor(picture))


def _detecting(detector: cv2.Feature2D) -> Extract:
    return lambda picture: len(detector.detectAndCompute(picture, None)[0])
