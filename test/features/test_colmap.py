"""superpoint_ros/features/colmap.py"""

import sys

import cv2
import numpy as np
import pytest

from superpoint_ros.features.colmap import CORNER, Database, camera_model
from superpoint_ros.features.rectification import Calibration

K = np.array([[420.0, 0, 330], [0, 415, 236], [0, 0, 1]])
LENSES = {
    "plumb_bob": [-0.28, 0.07, 1e-3, -5e-4, 0.0],
    "rational_polynomial": [0.5, -0.1, 1e-3, 2e-4, 0.01, 0.8, -0.05, 0.02],
    "equidistant": [-0.03, 0.004, -0.002, 0.0005],
}


def camera(model, d, binning=(1, 1), offset=(0, 0)):
    size = (480 // binning[1], 640 // binning[0])
    return Calibration(model, K, np.array(d, float), np.eye(3), K, binning, offset, size)


@pytest.mark.parametrize("model", LENSES)
@pytest.mark.parametrize(("binning", "offset"), [((1, 1), (0, 0)), ((2, 2), (40, 20))])
def test_colmap_projects_as_opencv_does(model, binning, offset):
    colmap = pytest.importorskip("pycolmap", reason="needs pycolmap")
    ours = camera(model, LENSES[model], binning, offset)
    name, parameters = camera_model(ours, ours.size)
    theirs = colmap.Camera(model=name, width=ours.size[1], height=ours.size[0], params=parameters)
    rays = np.column_stack([np.random.default_rng(0).uniform(-0.4, 0.4, (50, 2)), np.ones(50)])
    project = cv2.fisheye.projectPoints if model == "equidistant" else cv2.projectPoints
    full = project(rays[:, None], np.zeros(3), np.zeros(3), K, ours.d)[0].reshape(-1, 2)
    seen = (full - offset + 0.5) / binning - 0.5
    found = np.array([theirs.img_from_cam(ray) for ray in rays])
    np.testing.assert_allclose(found.reshape(-1, 2) - CORNER, seen, atol=1e-4)


def test_a_lens_is_guessed_where_there_is_no_calibration_and_refused_where_there_is_no_model():
    assert camera_model(None, (480, 640)) == ("SIMPLE_RADIAL", [768.0, 320.0, 240.0, 0.0])
    with pytest.raises(ValueError, match="no lens model with thin prisms"):
        camera_model(camera("rational_polynomial", [0.1] * 12), (480, 640))


def test_a_database_is_never_overwritten(tmp_path):
    pytest.importorskip("pycolmap", reason="needs pycolmap")
    with Database(tmp_path / "new"):
        pass
    with pytest.raises(FileExistsError, match="database.db: exists already"):
        Database(tmp_path / "new")


def test_without_pycolmap_it_says_how_to_get_it(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "pycolmap", None)
    with pytest.raises(RuntimeError, match="pip install pycolmap"):
        Database(tmp_path)
