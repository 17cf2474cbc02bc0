from pathlib import Path

import numpy as np
import pytest
from matplotlib.figure import Figure

from superpoint_training.evaluation import plots
from superpoint_training.evaluation.benchmark import PairResult
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
