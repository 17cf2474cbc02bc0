"""What the descriptor types of Features.msg cost in matches, on real photographs.

Each photograph against itself under a known homography, with another brightness and noise. The
descriptors go through the message's encoding and back; a match is correct within 3 px of the truth.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import cv2
import numpy as np
from numpy.typing import NDArray

from superpoint_ros.features.extractor import Features
from superpoint_ros.features.homography import project
from superpoint_ros.features.matching import match
from superpoint_ros.frontend.messages import DESCRIPTOR_TYPES, decode_descriptors, encode_descriptors

SIZE = (240, 320)
NAMES = ("astronaut", "camera", "cat", "coffee", "rocket", "brick")
"""Photographs that lie in scikit-image's wheel."""

WARPS_EACH = 3


@dataclass(frozen=True)
class Quality:
    """Of one descriptor type: bytes of a keypoint's descriptor, correct matches and all matches."""

    size: int
    correct: int
    matches: int


def photographs() -> list[NDArray[np.uint8]]:
    """Grey, 320×240. Raises ImportError without scikit-image."""
    from skimage import data

    pictures = [np.asarray(getattr(data, name)()) for name in NAMES]
    greys = [cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY) if picture.ndim == 3 else picture for picture in pictures]
    return [np.asarray(cv2.resize(grey, SIZE[::-1], interpolation=cv2.INTER_AREA), np.uint8) for grey in greys]


def compare_types(
    extract: Callable[[NDArray[np.uint8]], Features], pictures: Sequence[NDArray[np.uint8]]
) -> dict[str, Quality]:
    """Match every pair with descriptors of each type, the same in both images."""
    random = np.random.default_rng(0)
    sums = {kind: np.zeros(2, np.int64) for kind in DESCRIPTOR_TYPES}
    sizes = {}
    for picture in pictures:
        reference = extract(picture)
        for _ in range(WARPS_EACH):
            truth = _random_homography(random, picture.shape)
            current = extract(_seen_again(picture, truth, random))
            for kind in DESCRIPTOR_TYPES:
                pair = _through(reference, kind), _through(current, kind)
                matches = match(*pair)
                expected = project(truth, reference.xy[matches[:, 0]])
                error = np.linalg.norm(expected - current.xy[matches[:, 1]], axis=1)
                sums[kind] += (error <= 3).sum(), len(matches)
                sizes[kind] = encode_descriptors(reference.descriptors[:1], kind).nbytes
    return {kind: Quality(sizes[kind], *map(int, found)) for kind, found in sums.items()}


def _through(features: Features, kind: str) -> Features:
    """As a subscriber gets them."""
    data = encode_descriptors(features.descriptors, kind)
    decoded = decode_descriptors(data, features.descriptors.shape[1], DESCRIPTOR_TYPES[kind])
    return replace(features, descriptors=decoded)


def _random_homography(random: np.random.Generator, size: tuple[int, ...]) -> NDArray[np.float64]:
    height, width = size
    angle, zoom = random.uniform(-0.4, 0.4), random.uniform(0.8, 1.25)
    cos, sin = zoom * np.cos(angle), zoom * np.sin(angle)
    centre = np.array([[1, 0, -width / 2], [0, 1, -height / 2], [0, 0, 1]])
    turn = np.array([[cos, -sin, random.uniform(-20, 20)], [sin, cos, random.uniform(-20, 20)], [0, 0, 1.0]])
    turn[2, :2] = random.uniform(-4e-4, 4e-4, 2)
    return np.asarray(np.linalg.inv(centre) @ turn @ centre)


def _seen_again(
    picture: NDArray[np.uint8], matrix: NDArray[np.float64], random: np.random.Generator
) -> NDArray[np.uint8]:
    warped = cv2.warpPerspective(picture, matrix, picture.shape[::-1]).astype(np.float32)
    bright = warped * random.uniform(0.7, 1.3) + random.uniform(-20, 20)
    return np.clip(bright + random.normal(0, 4, picture.shape), 0, 255).astype(np.uint8)
