"""Run detectors over pairs: the same matcher, estimator and metrics for every one of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from superpoint_ros.features.extractor import Features
from superpoint_ros.features.homography import estimate_homography
from superpoint_ros.features.image import Resize
from superpoint_ros.features.matching import match
from superpoint_ros.network.heatmap import DetectionSettings
from superpoint_training.evaluation.detectors import CrossedDetectors, Detector
from superpoint_training.evaluation.metrics import (
    area_under_curve,
    homography_error,
    matching_score,
    nearest_neighbour_ap,
    repeatability,
    share_within,
)
from superpoint_training.evaluation.pairs import Pair, Views

CORRECT = (1.0, 3.0, 5.0)
"""Pixels: mean corner error up to which a homography counts as correct, in the paper's table."""


@dataclass(frozen=True)
class PairProtocol:
    """How pairs are evaluated.

    size                     longer side of every picture or (height, width), pixels; None: as they are
    keypoints                at most, per picture
    detection_threshold      of networks; other detectors have their own
    border                   pixels in which nothing is detected
    subpixel                 networks refine keypoints within the pixel
    repeatability_keypoints  k: the strongest in the region both pictures see
    repeatability_nms        suppression radii for repeatability, pixels, the same for every
                             detector
    epsilon                  pixels: keypoints this far apart still correspond
    inlier_threshold         pixels, of the homography's robust estimation
    refine                   homographies and matches are refined by the pictures, those of every detector
    """

    size: Resize = 640
    keypoints: int = 1000
    detection_threshold: float = 0.005
    border: int = 4
    subpixel: bool = False
    repeatability_keypoints: int = 300
    repeatability_nms: tuple[int, ...] = (4, 8)
    epsilon: float = 3.0
    inlier_threshold: float = 3.0
    refine: bool = False

    def settings(self, nms_radius: int) -> DetectionSettings:
        """What a detector is asked for."""
        return DetectionSettings(self.keypoints, self.detection_threshold, nms_radius, self.border, self.subpixel)

    def describe(self) -> dict[str, object]:
        """The protocol for the report."""
        return {
            **asdict(self),
            "matcher": "mutual nearest neighbours, no ratio test (superpoint_ros.match)",
            "estimator": "USAC MAGSAC++ (superpoint_ros.estimate_homography); none: infinite error",
            "correct_homography": "mean distance of the four corners at most 1, 3, 5 px",
        }


@dataclass(frozen=True)
class PairResult:
    """What one detector made of one pair; what needs descriptors is NaN for a detector without.

    keypoints           of the reference and the current picture
    matches, inliers    of the mutual nearest neighbours
    corner_error        pixels, infinite where no homography was found
    repeatability       by suppression radius
    localisation_error  pixels, by suppression radius
    """

    pair: str
    kind: str
    detector: str
    homography: NDArray[np.float64]
    changes: dict[str, float]
    keypoints: tuple[int, int]
    matches: int = 0
    inliers: int = 0
    corner_error: float = np.nan
    matching_score: float = np.nan
    nn_map: float = np.nan
    repeatability: dict[int, float] = field(default_factory=dict)
    localisation_error: dict[int, float] = field(default_factory=dict)


def evaluate_pairs(
    detectors: Sequence[Detector],
    pairs: Sequence[Pair],
    protocol: PairProtocol,
    advance: Callable[[], object] = lambda: None,
    skip: Callable[[Pair, ValueError], object] | None = None,
    into: list[PairResult] | None = None,
) -> list[PairResult]:
    """Evaluate every detector on every pair.

    advance  called after every pair
    skip     called for a pair whose pictures cannot be read, which is then left out; without it the
             error is raised
    into     what is returned, filled pair by pair: what it holds stays, even if a later pair raises
    """
    results = [] if into is None else into
    cache = _FeatureCache()
    for pair in pairs:
        try:
            views = pair.load()
        except ValueError as error:
            if skip is None:
                raise
            skip(pair, error)
        else:
            cache.enter(pair.group)
            results += [_evaluate(detector, pair, views, protocol, cache) for detector in detectors]
        advance()
    return results


def summarise(results: Sequence[PairResult]) -> dict[str, object]:
    """The means over pairs; {} of no pairs. Figures that no pair has are left out."""
    if not results:
        return {}
    summary: dict[str, object] = {
        "pairs": len(results),
        "keypoints": float(np.mean([result.keypoints for result in results])),
    }
    errors = np.array([result.corner_error for result in results])
    if not np.isnan(errors).any():
        summary |= {
            "matches": float(np.mean([result.matches for result in results])),
            "inliers": float(np.mean([result.inliers for result in results])),
            "homography": {f"{t:g}": share_within(errors, t) for t in CORRECT},
            "auc": {f"{t:g}": area_under_curve(errors, t) for t in CORRECT},
            "matching_score": float(np.mean([result.matching_score for result in results])),
            "nn_map": float(np.mean([result.nn_map for result in results])),
        }
    for radius in results[0].repeatability:
        found = [result.localisation_error[radius] for result in results]
        found = [error for error in found if np.isfinite(error)]
        summary[f"repeatability_nms{radius}"] = float(np.mean([result.repeatability[radius] for result in results]))
        summary[f"localisation_error_nms{radius}"] = float(np.mean(found)) if found else np.nan
    return summary


class _FeatureCache:
    """Features of the pictures of one group of pairs, as these share pictures."""

    def __init__(self) -> None:
        self._group: str | None = None
        self._features: dict[tuple[str, str, DetectionSettings], Features] = {}

    def enter(self, group: str) -> None:
        if group != self._group:
            self._group = group
            self._features.clear()

    def extract(
        self,
        detector: Detector,
        picture: str,
        image: NDArray[np.uint8],
        settings: DetectionSettings,
    ) -> Features:
        key = (detector.name, picture, settings)
        if key not in self._features:
            self._features[key] = detector(image, settings)
        return self._features[key]


def _evaluate(detector: Detector, pair: Pair, views: Views, protocol: PairProtocol, cache: _FeatureCache) -> PairResult:
    first, second = detector, detector
    if isinstance(detector, CrossedDetectors):
        first, second = detector.of_map, detector.of_robot

    def extract(radius: int) -> tuple[Features, Features]:
        settings = protocol.settings(radius)
        return (
            cache.extract(first, pair.reference, views.reference, settings),
            cache.extract(second, pair.current, views.current, settings),
        )

    truth = views.homography
    repeated, localisation = {}, {}
    for radius in protocol.repeatability_nms:
        f0, f1 = extract(radius)
        found = repeatability(
            f0.xy,
            f1.xy,
            truth,
            f0.size,
            f1.size,
            protocol.repeatability_keypoints,
            protocol.epsilon,
        )
        repeated[radius], localisation[radius] = found.value, found.localisation_error
    f0, f1 = extract(detector.matched_nms)
    result = PairResult(
        pair=pair.name,
        kind=pair.kind,
        detector=detector.name,
        homography=truth,
        changes=views.changes,
        keypoints=(len(f0), len(f1)),
        repeatability=repeated,
        localisation_error=localisation,
    )
    if not detector.described:
        return result
    matches = match(f0, f1)
    images = (views.reference, views.current) if protocol.refine else None
    estimate = estimate_homography(f0, f1, matches, protocol.inlier_threshold, images)
    geometry = (truth, f0.size, f1.size, protocol.epsilon)
    return replace(
        result,
        matches=len(matches),
        inliers=int(estimate.inliers.sum()),
        corner_error=homography_error(estimate.matrix, truth, f0.size),
        matching_score=matching_score(f0.xy, f1.xy, matches, *geometry),
        nn_map=nearest_neighbour_ap(f0.xy, f1.xy, f0.descriptors, f1.descriptors, *geometry),
    )
