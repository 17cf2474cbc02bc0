"""The weights that come with the package keep what the evaluation found (docs/model_card.md), on pairs made here, with
sub-pixel keypoints as the node has them."""

from __future__ import annotations

import pytest

from superpoint_ros.network.checkpoint import DEFAULT_WEIGHTS
from superpoint_training.evaluation.benchmark import PairProtocol, evaluate_pairs, summarise
from superpoint_training.evaluation.detectors import SuperPointDetector, superpoint_detector
from superpoint_training.evaluation.warps import KINDS, rotation_pairs, warped_pairs

SIZE = 320
PROTOCOL = PairProtocol(size=SIZE, keypoints=500, subpixel=True)
ANGLES = (45, 90, 135, 180)


@pytest.fixture(scope="module")
def detector() -> SuperPointDetector:
    return superpoint_detector(DEFAULT_WEIGHTS, device="cpu")


def test_homographies_between_warped_photographs_are_found(photographs, detector) -> None:
    """Measured 0.86, 0.96 and 0.96 within 1, 3 and 5 px, matching score 0.50, repeatability 0.62."""
    figures = summarise(evaluate_pairs([detector], warped_pairs(photographs, 28, tuple(KINDS), SIZE, seed=0), PROTOCOL))
    homography = figures["homography"]
    assert homography["1"] >= 0.75 and homography["3"] >= 0.92 and homography["5"] >= 0.95
    assert figures["matching_score"] > 0.48 and figures["repeatability_nms4"] > 0.58


def test_every_angle_is_matched(photographs, detector) -> None:
    """Measured: 0.04 to 0.57 px (without sub-pixel keypoints to 0.83)."""
    results = evaluate_pairs([detector], rotation_pairs(photographs, ANGLES, SIZE), PROTOCOL)
    assert len(results) == len(photographs) * len(ANGLES)
    assert {result.pair: result.corner_error for result in results if not result.corner_error < 0.8} == {}
