"""Whether an engine finds what another finds, on a picture that needs no file."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from superpoint_ros.network.engines.engine import Extraction, Masks
from superpoint_ros.network.heatmap import DetectionSettings

SETTINGS = DetectionSettings(max_keypoints=512)


class Engine(Protocol):
    """What runs the network: `TorchEngine`, `CpuEngine` and their like."""

    @property
    def name(self) -> str: ...

    @property
    def precision(self) -> str: ...

    @property
    def device(self) -> torch.device: ...

    def __call__(
        self,
        pictures: Sequence[NDArray[np.uint8]],
        sizes: Sequence[tuple[int, int]],
        settings: DetectionSettings,
        masks: Masks = None,
    ) -> list[Extraction]: ...


@dataclass(frozen=True)
class Parity:
    """How far two extractions agree.

    same    part of the keypoints of either, that the other has too; 1 if neither has any
    cosine  mean cosine similarity of the descriptors of those keypoints; 1 if there are none
    """

    same: float
    cosine: float

    def holds(self, same: float, cosine: float) -> bool:
        """Whether both are at least this; NaN is not."""
        return self.same >= same and self.cosine >= cosine


def compare(reference: Extraction, found: Extraction, radius: float) -> Parity:
    """Compare two extractions of one picture; keypoints agree within `radius` pixels (Chebyshev)."""
    if not len(reference.xy) or not len(found.xy):
        return Parity(float(len(reference.xy) == len(found.xy)), 1.0)
    distance = np.abs(reference.xy[:, None] - found.xy[None]).max(axis=2)
    nearest = distance.argmin(axis=1)
    met = distance[np.arange(len(nearest)), nearest] <= radius
    backward = distance.min(axis=0) <= radius
    same = (met.sum() + backward.sum()) / (len(met) + len(backward))
    if not met.any():
        return Parity(float(same), 1.0)
    pairs = reference.descriptors[met], found.descriptors[nearest[met]]
    return Parity(float(same), float(np.einsum("nd,nd->n", *pairs).mean()))


def check(engine: Engine, reference: Engine, radius: float) -> Parity:
    """Compare two engines on the built-in picture."""
    return compare(built_in_extraction(reference), built_in_extraction(engine), radius)


def built_in_extraction(engine: Engine) -> Extraction:
    """What an engine finds in the built-in picture."""
    picture = built_in_picture()
    [found] = engine([picture], [(picture.shape[0], picture.shape[1])], SETTINGS)
    return found


def built_in_picture(size: tuple[int, int] = (120, 160), seed: int = 0) -> NDArray[np.uint8]:
    """A picture full of corners: overlapping rectangles of random grey, and some noise.

    (height, width) uint8, always the same for the same arguments.
    """
    random = np.random.default_rng(seed)
    height, width = size
    picture = np.full(size, 128.0)
    for _ in range(height * width // 320):
        y, x = random.integers(0, height), random.integers(0, width)
        picture[y : y + random.integers(4, 40), x : x + random.integers(4, 40)] = random.integers(0, 256)
    picture += random.normal(0, 3, size)
    return np.clip(picture, 0, 255).astype(np.uint8)
