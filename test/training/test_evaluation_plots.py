from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from matplotlib.figure import Figure

from superpoint_training.evaluation import plots
from superpoint_training.evaluation.benchmark import PairProtocol, PairResult, evaluate_pairs
from superpoint_training.evaluation.detectors import classic_detector
from superpoint_training.evaluation.pairs import Pair, Views
from superpoint_training.evaluation.report import Evaluation

LONG = "superpoint_ros_3@9ef1029b, scales 1.4 1 0.7 0.5 0.35, in a map of superpoint_ros_fast_2@4aafd181"


def _result(detector: str, error: float) -> PairResult:
    return PairResult("a 1-2", "viewpoint", detector, np.eye(3), {}, (9, 9), corner_error=error)


def test_long_names_leave_the_curves_their_room(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    drawn: dict[str, Figure] = {}
    monkeypatch.setattr(plots, "_save", lambda figure, path: drawn.setdefault(path.stem, figure))
    results = [_result(LONG, 0.5), _result("SIFT", 2.0)]
    protocol = {"detectors": {LONG: {"weights_id": "superpoint_ros_3@9ef1029b"}, "SIFT": {}}}
    plots.write_plots(Evaluation(protocol, {"hpatches": results, "warped": results}), tmp_path)
    assert set(drawn) == {"homography", "kinds"}
    for figure in drawn.values():
        figure.draw_without_rendering()
        widths = [axes.get_position().width * figure.get_figwidth() for axes in figure.axes]
        assert len(widths) == 2 and min(widths) > 3.4, widths
        legend = figure.axes[-1].get_legend()
        assert legend is not None and [text.get_text() for text in legend.get_texts()] == [LONG, "SIFT"]
        assert legend.get_window_extent().x1 <= figure.bbox.x1


def test_names_with_dollars_and_underscores_are_drawn_and_in_the_legend(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    save, drawn = plots._save, dict[str, Figure]()
    monkeypatch.setattr(plots, "_save", lambda figure, path: drawn.setdefault(path.stem, figure) and save(figure, path))
    names = ["US$100_vs_$200", "_hidden", "$\\alpha_{$", "no\udcfftext"]
    results = [_result(name, error) for name, error in zip(names, range(4), strict=True)]
    corners = {name: {at: {"map": 0.5, "ap": {"$a_$": 0.5}} for at in ("clean", "noise 0.5", "$_n$")} for name in names}
    protocol = {"detectors": dict.fromkeys(names, {}), "shapes": {"strengths": [0, 0.5, 1]}}
    rotation = [replace(result, kind="90") for result in results]
    measured = {"$set_$": results, "rotation": rotation}
    plots.write_plots(Evaluation(protocol, measured, corners), tmp_path)
    assert set(drawn) == {"homography", "kinds", "rotation", "shapes", "noise"}
    for figure in drawn.values():
        legend = figure.axes[-1].get_legend()
        assert legend is not None and len(legend.get_texts()) == 4
        assert legend.get_texts()[0].get_text() == r"US\$100_vs_\$200"  # matplotlib takes the backslashes away


def test_a_sheet_of_failures_shows_names_of_files_as_they_are(tmp_path: Path) -> None:
    picture = np.random.default_rng(0).integers(0, 256, (48, 64), np.uint8)
    pair = Pair("US$100_vs_$200.jpg _{", "g", "k", "a", "b", lambda: Views(picture, picture, np.eye(3)))
    detector = classic_detector("sift")
    results = evaluate_pairs([detector], [pair], PairProtocol())
    assert plots.write_failures(detector, [pair], results, PairProtocol(), tmp_path / "sheet.png").is_file()


def test_a_files_name_has_no_odd_letters_and_is_not_too_long() -> None:
    assert plots.file_stem("worst_a/b: $1 \udcff.pt@12") == "worst_a_b_1_.pt@12"
    assert len(plots.file_stem("é" * 300).encode()) == 200
