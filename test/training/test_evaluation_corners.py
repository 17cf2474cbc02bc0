"""The corner benchmark: a perfect detector scores 1, one that is off or blind does not."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

from superpoint_ros import Features
from superpoint_ros.network.heatmap import DetectionSettings
from superpoint_training.evaluation import corners
from superpoint_training.evaluation.corners import CornerProtocol, evaluate_corners, passes
from superpoint_training.evaluation.detectors import classic_detector
from superpoint_training.shapes import SHAPES, draw_shape

PROTOCOL = CornerProtocol(pictures=2)


class Scripted:
    """A detector that answers as it is told, picture by picture."""

    described = False
    matched_nms = 4

    def __init__(self, name: str, answer: Callable[[np.ndarray], np.ndarray]) -> None:
        self.name = name
        self.protocol: dict[str, Any] = {}
        self._answer = answer

    def __call__(self, image: np.ndarray, settings: DetectionSettings) -> Features:
        xy = np.asarray(self._answer(image), np.float32).reshape(-1, 2)
        scores = np.linspace(1, 0.5, len(xy), dtype=np.float32)
        return Features(xy, scores, np.zeros((len(xy), 0), np.float32), image.shape)


def truth(protocol: CornerProtocol) -> Iterator[np.ndarray]:
    """The corners of the benchmark's pictures, in its order, clean and noisy."""
    for index, kind in enumerate(SHAPES):
        for number in range(protocol.pictures):
            rng = np.random.default_rng([protocol.seed, index, number])
            _, found = draw_shape(rng, kind, protocol.size)
            yield found
            yield found


def test_a_perfect_detector_has_map_1_and_no_error() -> None:
    answers = truth(PROTOCOL)
    figures = evaluate_corners([Scripted("oracle", lambda _: next(answers))], PROTOCOL)["oracle"]
    for condition in ("clean", "noise"):
        assert figures[condition]["map"] == pytest.approx(1.0)
        assert figures[condition]["ap_all"] == pytest.approx(1.0)
        assert figures[condition]["localisation_error"] == 0.0


def test_a_detector_that_is_3_pixels_off_is_right_within_4_and_wrong_within_2() -> None:
    def off(protocol: CornerProtocol) -> dict[str, Any]:
        answers = truth(protocol)
        detector = Scripted("off", lambda _: next(answers) + np.array([3.0, 0.0]))
        return evaluate_corners([detector], protocol)["off"]["clean"]

    loose, strict = off(PROTOCOL), off(CornerProtocol(pictures=2, epsilon=2.0))
    assert loose["map"] > 0.9 and 2.0 < loose["localisation_error"] <= 3.0
    assert strict["map"] < 0.1


def test_a_blind_detector_has_map_0_and_no_error_to_speak_of() -> None:
    figures = evaluate_corners([Scripted("blind", lambda _: np.zeros((0, 2)))], PROTOCOL)["blind"]
    assert figures["clean"]["map"] == 0.0
    assert np.isnan(figures["clean"]["localisation_error"])


def test_shapes_without_corners_count_in_the_single_curve_only() -> None:
    def answer(image: np.ndarray) -> np.ndarray:
        corners_of_picture = next(answers)
        return corners_of_picture if len(corners_of_picture) else np.array([[50.0, 50.0]])

    answers = truth(PROTOCOL)
    figures = evaluate_corners([Scripted("eager", answer)], PROTOCOL)["eager"]["clean"]
    assert set(figures["ap"]) == set(SHAPES) - {"ellipses", "noise"}
    assert figures["map"] == pytest.approx(1.0)
    assert figures["ap_all"] < 0.999


def test_the_same_pictures_are_drawn_for_every_run_and_the_noise_is_on_the_same_scene() -> None:
    drawn = [list(corners._pictures(PROTOCOL)) for _ in range(2)]
    for (kind, condition, image, found), other in zip(*drawn, strict=True):
        assert (kind, condition) == other[:2]
        np.testing.assert_array_equal(image, other[2])
        np.testing.assert_array_equal(found, other[3])
    clean, noisy = drawn[0][0], drawn[0][1]
    assert (clean[1], noisy[1]) == ("clean", "noise")
    np.testing.assert_array_equal(clean[3], noisy[3])
    assert np.abs(clean[2].astype(int) - noisy[2]).mean() > 5


def test_harris_is_good_on_clean_shapes_and_worse_with_noise() -> None:
    figures = evaluate_corners([classic_detector("harris")], CornerProtocol(pictures=5))["Harris"]
    assert figures["clean"]["map"] > 0.75
    assert figures["noise"]["map"] < figures["clean"]["map"] - 0.2
    assert figures["clean"]["localisation_error"] < 1.5


def test_progress_is_reported_as_often_as_announced() -> None:
    count = 0

    def advance() -> None:
        nonlocal count
        count += 1

    detectors = [
        Scripted("a", lambda _: np.zeros((0, 2))),
        Scripted("b", lambda _: np.zeros((0, 2))),
    ]
    evaluate_corners(detectors, PROTOCOL, advance)
    assert count == passes(PROTOCOL, 2)


@pytest.mark.parametrize("field", ["pictures", "size", "epsilon", "nms_radius", "seed", "noise"])
def test_the_protocol_names_what_it_was(field: str) -> None:
    assert field in PROTOCOL.describe()


def test_every_strength_of_noise_has_its_figures_from_the_same_scenes() -> None:
    weak = CornerProtocol(pictures=2, noise=(0.0, 1.0))
    strong = CornerProtocol(pictures=2, noise=(2.0, 0.0, 0.5, 1.0))
    detector = classic_detector("shi-tomasi")
    few, many = (evaluate_corners([detector], protocol)["Shi-Tomasi"] for protocol in (weak, strong))
    assert list(many) == ["clean", "noise 0.5", "noise", "noise 2"]
    assert many["clean"] == few["clean"] and many["noise"] == few["noise"]
    assert many["clean"]["map"] > many["noise"]["map"] > many["noise 2"]["map"]
    with pytest.raises(ValueError, match="strengths of at least 0"):
        CornerProtocol(noise=(-1.0,))
