"""How well corners are detected on Synthetic Shapes, clean and with noise: MagicPoint's benchmark.

DeTone, Malisiewicz, Rabinovich, "Toward Geometric Deep SLAM", 2017 (arXiv 1707.07410), section 4.1
and table 1.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from superpoint_ros.features.extractor import Features
from superpoint_ros.network.heatmap import DetectionSettings
from superpoint_training.augmentation import add_noise
from superpoint_training.evaluation.detectors import Detector
from superpoint_training.evaluation.metrics import average_precision, claim_corners
from superpoint_training.shapes import SHAPES, draw_shape

NOISE = (0.0, 1.0)
"""How strong the noise of `augmentation.add_noise` is, in the two conditions that are always there."""


@dataclass(frozen=True)
class CornerProtocol:
    """How corners are evaluated.

    pictures      drawn of each shape
    size          (height, width) of a picture
    epsilon       pixels: a detection this far from a corner still counts as correct
    nms_radius    pixels, of every detector
    seed          of the pictures; the noisy ones are the clean ones with noise
    noise         strengths, each a condition; 0 is called clean, and 1 noise
    """

    pictures: int = 100
    size: tuple[int, int] = (120, 160)
    epsilon: float = 4.0
    nms_radius: int = 4
    seed: int = 0
    noise: tuple[float, ...] = NOISE

    def __post_init__(self) -> None:
        if not self.noise or min(self.noise) < 0:
            raise ValueError(f"noise must be one or more strengths of at least 0, got {self.noise}")

    @property
    def conditions(self) -> dict[str, float]:
        """Name -> strength."""
        names = {0.0: "clean", 1.0: "noise"}
        return {names.get(strength, f"noise {strength:g}"): strength for strength in sorted(set(self.noise))}

    def settings(self) -> DetectionSettings:
        """Everything a detector has, up to the picture's edge, as the curve is over the score."""
        return DetectionSettings(self.size[0] * self.size[1], 0.0, self.nms_radius, border=0)

    def describe(self) -> dict[str, object]:
        """The protocol for the report."""
        return {
            **asdict(self),
            "noise": {name: f"augmentation.add_noise, strength {at:g}" for name, at in self.conditions.items()},
            "strengths": list(self.conditions.values()),
            "detection_threshold": 0.0,
            "border": 0,
        }


@dataclass
class _Tally:
    """One detector on some pictures: the detections' scores, which are right, errors in pixels."""

    scores: list[NDArray[np.float32]] = field(default_factory=list)
    correct: list[NDArray[np.bool_]] = field(default_factory=list)
    errors: list[NDArray[np.float64]] = field(default_factory=list)
    corners: int = 0

    def add(self, found: Features, corners: NDArray[np.float32], epsilon: float) -> None:
        correct, errors = claim_corners(found.xy, corners, epsilon)
        self.scores.append(found.scores)
        self.correct.append(correct)
        # As many as there are corners: a threshold that means the same for scores of every kind.
        strongest = errors[: len(corners)]
        self.errors.append(strongest[np.isfinite(strongest)])
        self.corners += len(corners)


def passes(protocol: CornerProtocol, detectors: int) -> int:
    """How often `evaluate_corners` calls `advance`."""
    return protocol.pictures * len(SHAPES) * len(protocol.conditions) * detectors


def evaluate_corners(
    detectors: Sequence[Detector],
    protocol: CornerProtocol,
    advance: Callable[[], object] = lambda: None,
) -> dict[str, dict[str, dict[str, Any]]]:
    """Average precision and localisation error of detectors, per shape, clean and with noise.

    advance  called after every picture and detector, `passes` times

    Returns detector name -> condition -> {
        "map":                 mean of the average precision over the shapes that have corners,
        "ap_all":              average precision over all pictures in one curve, those without
                               corners included,
        "localisation_error":  pixels, mean over the shapes that have corners,
        "ap", "localisation":  both per shape,
    }. The localisation error is that of the correct ones among the strongest n detections of a
    picture with n corners.
    """
    settings = protocol.settings()
    tallies: dict[tuple[str, str, str], _Tally] = {}
    for kind, condition, image, corners in _pictures(protocol):
        for detector in detectors:
            found = detector(image, settings)
            tally = tallies.setdefault((detector.name, condition, kind), _Tally())
            tally.add(found, corners, protocol.epsilon)
            advance()
    return {
        detector.name: {
            condition: _summary({kind: tallies[detector.name, condition, kind] for kind in SHAPES})
            for condition in protocol.conditions
        }
        for detector in detectors
    }


def _pictures(
    protocol: CornerProtocol,
) -> Iterator[tuple[str, str, NDArray[np.uint8], NDArray[np.float32]]]:
    """Shape, condition, picture and corners, each scene drawn from a seed of its own."""
    for index, kind in enumerate(SHAPES):
        for number in range(protocol.pictures):
            rng = np.random.default_rng([protocol.seed, index, number])
            image, corners = draw_shape(rng, kind, protocol.size)
            for condition, strength in protocol.conditions.items():
                # each strength from the same draws: what differs is how strong it is
                yield kind, condition, add_noise(copy.deepcopy(rng), image, strength), corners


def _summary(tallies: dict[str, _Tally]) -> dict[str, Any]:
    cornered = {kind: tally for kind, tally in tallies.items() if tally.corners}
    ap = {kind: _average_precision([tally]) for kind, tally in cornered.items()}
    localisation = {kind: _mean(tally.errors) for kind, tally in cornered.items()}
    return {
        "map": float(np.mean(list(ap.values()))) if ap else 0.0,
        "ap_all": _average_precision(tallies.values()),
        "localisation_error": _mean([np.array(list(localisation.values()))]),
        "ap": ap,
        "localisation": localisation,
    }


def _average_precision(tallies: Iterable[_Tally]) -> float:
    tallies = list(tallies)
    scores = np.concatenate([scores for tally in tallies for scores in tally.scores])
    correct = np.concatenate([correct for tally in tallies for correct in tally.correct])
    return average_precision(scores, correct, sum(tally.corners for tally in tallies))


def _mean(errors: Sequence[NDArray[np.float64]]) -> float:
    """The mean of what is finite, NaN where nothing is."""
    every = np.concatenate(errors) if len(errors) else np.zeros(0)
    every = every[np.isfinite(every)]
    return float(every.mean()) if len(every) else np.nan
