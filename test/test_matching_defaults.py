"""docs/matching_defaults.py"""

import importlib
from pathlib import Path

import numpy as np
import pytest

from superpoint_training.evaluation.pose import PosePair

ROOT = Path(__file__).parents[1]


@pytest.fixture
def script(monkeypatch):
    pytest.importorskip("skimage", reason="needs scikit-image, whose photographs are rendered")
    monkeypatch.syspath_prepend(ROOT)
    return importlib.import_module("docs.matching_defaults")


def test_a_match_is_as_wrong_as_it_is_far_from_its_epipolar_line(script):
    camera = np.array([[400.0, 0, 320], [0, 400, 240], [0, 0, 1]])
    pose = np.eye(4)
    pose[0, 3] = -1.0  # to the right: lines are rows
    pair = PosePair("pair", "group", (Path("a"), Path("b")), (camera, camera), pose)
    before = np.array([[100.0, 50.0], [300.0, 200.0]])
    errors = script.epipolar(pair)(before, before + [[-30, 0], [-8, 4]])
    np.testing.assert_allclose(errors, [0, 4 / np.sqrt(2)])  # Sampson's shares an error out between both


def test_a_pair_of_the_flight_is_measured_and_told_in_a_row(script, extractor, monkeypatch):
    monkeypatch.setattr(script, "SIZE", (120, 160))
    monkeypatch.setattr(script, "RENDERED", range(1))
    pairs = list(script.rendered())
    assert len(pairs) == 2
    figures = [script.measure(pair, *map(extractor, pair.pictures), 1.0, 0.6) for pair in pairs]
    for found, right, error, fine in figures:
        assert 0.8 * found < right <= found and error < 1 and fine
    assert script.row("1, 0.6", pairs, figures).startswith("| 1, 0.6 | ")
