"""superpoint_training/evaluation/maps.py, with the real COLMAP."""

import cv2
import numpy as np
import pytest

from space_scenes import K, render
from superpoint_training.evaluation.benchmark import PairProtocol
from superpoint_training.evaluation.detectors import classic_detector, superpoint_detector
from superpoint_training.evaluation.maps import OWN, MapResult, evaluate_maps, summarise_maps
from superpoint_training.evaluation.report import Evaluation, tables

COUNT = 6
STEP = np.array([0.25, 0.05, 0.1])
"""Metres from picture to picture."""


@pytest.fixture
def scene(tmp_path):
    """Pictures along a line; the camera is known, and where it was."""
    for number in range(COUNT):
        cv2.imwrite(str(tmp_path / f"{number}.png"), render(np.eye(3), number * STEP - (0.6, 0, 0)))
    pose = np.eye(4)
    pose[:3, 3] = -STEP
    numbers = " ".join(str(value) for value in [*K.ravel(), *K.ravel(), *pose.ravel()])
    lines = [f"{number}.png {number + 1}.png 0 0 {numbers}\n" for number in range(COUNT - 1)]
    (tmp_path / "pairs_with_gt.txt").write_text("".join(lines))
    return tmp_path


def test_a_map_of_known_cameras_has_every_picture_with_ours_and_with_colmaps_keypoints(scene):
    pytest.importorskip("pycolmap", reason="needs pycolmap")
    detectors, done = [classic_detector("sift"), classic_detector("fast")], []
    found = evaluate_maps(detectors, scene, PairProtocol(keypoints=600).settings, advance=lambda: done.append(1))
    assert [each.detector for each in found] == ["SIFT", OWN]  # FAST has no descriptors
    assert len(done) == 2
    for each in found:
        assert (each.pictures, each.registered) == (COUNT, COUNT)
        assert each.points > 100 and 2 <= each.track <= COUNT and 0 < each.error < 1.5
        assert each.rotation < 0.5 and each.translation < 5


def test_adjusted_keypoints_make_a_map_of_less_error_and_better_poses(scene):
    pytest.importorskip("pycolmap", reason="needs pycolmap")
    detectors, settings = [superpoint_detector(None, "cpu")], PairProtocol(keypoints=600, subpixel=True).settings
    plain, adjusted = (evaluate_maps(detectors, scene, settings, refine)[0] for refine in (False, True))
    assert plain.registered == adjusted.registered == COUNT
    assert adjusted.error < 0.3 * plain.error
    assert adjusted.rotation < 0.5 * plain.rotation
    assert adjusted.translation < 0.7 * plain.translation
    assert adjusted.track > 0.9 * plain.track


def test_too_few_pictures_make_no_map(tmp_path):
    pytest.importorskip("pycolmap", reason="needs pycolmap")
    cv2.imwrite(str(tmp_path / "one.png"), np.zeros((32, 32), np.uint8))
    with pytest.raises(ValueError, match="1 pictures; a map needs 3 at least"):
        evaluate_maps([], tmp_path, PairProtocol().settings)


def test_pictures_without_a_keypoint_make_no_map_and_unreadable_ones_are_left_out(tmp_path):
    pytest.importorskip("pycolmap", reason="needs pycolmap")
    for number in range(3):
        cv2.imwrite(str(tmp_path / f"{number}.png"), np.full((64, 80), 90, np.uint8))
    (tmp_path / "broken.png").write_text("no picture")
    skipped, into, settings = [], [], PairProtocol().settings
    found = evaluate_maps([classic_detector("sift")], tmp_path, settings, True, skip=skipped.append, into=into)
    assert found is into and [(each.pictures, each.registered) for each in found] == [(3, 0), (3, 0)]
    assert len(skipped) == 1 and "broken.png: 10 bytes are not a readable picture" in str(skipped[0])
    (tmp_path / "0.png").write_text("no picture")
    with pytest.raises(ValueError, match="2 pictures that can be read; a map needs 3 at least"):
        evaluate_maps([], tmp_path, settings, skip=skipped.append)


def test_the_report_shows_maps_and_those_that_failed():
    maps = [MapResult("ours", 11, 11, 2998, 5.351, 0.768, 0.0618), MapResult(OWN, 11, 0, 0, np.nan, np.nan)]
    text = tables(Evaluation({"detectors": {}}, maps=maps))
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in text.splitlines() if line.startswith("|")]
    assert "maps: 11 pictures" in text
    assert rows[2] == ["ours", "11", "2998", "5.35", "0.77", "0.062", "–"]
    assert rows[3] == [OWN, "0", "0", "–", "–", "–", "–"]
    assert summarise_maps(maps)["ours"]["registered"] == 11
