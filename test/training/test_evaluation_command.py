"""Pairs through detectors to a report, and the command around it."""

from __future__ import annotations

import csv
import json
import os
import re
import sys
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from click.testing import CliRunner, Result

from superpoint_ros import Features
from superpoint_ros.network.checkpoint import Checkpoint, save_checkpoint
from superpoint_ros.network.heatmap import DetectionSettings
from superpoint_ros.network.superpoint import Architecture, SuperPoint
from superpoint_training.evaluation import run as running
from superpoint_training.evaluation.benchmark import (
    PairProtocol,
    PairResult,
    evaluate_pairs,
    summarise,
)
from superpoint_training.evaluation.command import evaluate
from superpoint_training.evaluation.detectors import CLASSIC, CrossedDetectors, classic_detector, superpoint_detector
from superpoint_training.evaluation.pairs import Pair, Views, hpatches_pairs
from superpoint_training.evaluation.report import Evaluation, tables, write_report
from superpoint_training.evaluation.request import Request
from superpoint_training.evaluation.run import _protocol, _sets
from superpoint_training.evaluation.warps import KINDS, camera_homography, render, rotation_pairs


@pytest.fixture(scope="module")
def photographs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    data = pytest.importorskip("skimage.data")
    directory = tmp_path_factory.mktemp("photographs")
    for name in ("camera", "coffee"):
        picture = getattr(data, name)()
        picture = cv2.resize(picture, (320, 240), interpolation=cv2.INTER_AREA)
        cv2.imwrite(str(directory / f"{name}.png"), picture)
    return directory


@pytest.fixture(scope="module")
def sequences(photographs: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two real-looking sequences in HPatches layout, made from a photograph."""
    directory = tmp_path_factory.mktemp("hpatches")
    image = cv2.imread(str(photographs / "camera.png"), cv2.IMREAD_GRAYSCALE)
    for folder, motion in (("v_turned", {"rotation": 20, "tilt": 20}), ("i_dark", {})):
        (directory / folder).mkdir()
        cv2.imwrite(str(directory / folder / "1.png"), image)
        homography = camera_homography((240, 320), **motion)
        current = render(image, homography) if motion else image // 2
        cv2.imwrite(str(directory / folder / "2.png"), current)
        np.savetxt(directory / folder / "H_1_2", homography)
    return directory


class Points:
    """A detector whose keypoints are given: points of the first picture, and where they move to."""

    described = True
    matched_nms = 0

    def __init__(self, name: str, xy: np.ndarray, homography: np.ndarray, error: float) -> None:
        self.name = name
        self.protocol: dict[str, Any] = {}
        self.calls = 0
        mapped = np.column_stack([xy, np.ones(len(xy))]) @ homography.T
        self._answers = {0: xy, 1: mapped[:, :2] / mapped[:, 2:] + np.array([error, 0])}

    def __call__(self, image: np.ndarray, settings: DetectionSettings) -> Features:
        self.calls += 1
        xy = self._answers[int(image[0, 0])]
        scores = np.linspace(1, 0.5, len(xy))
        return Features(xy.astype(np.float32), scores, np.eye(len(xy), dtype=np.float32), image.shape)


def marked_pair(homography: np.ndarray) -> Pair:
    """Two pictures that only say which is which."""
    views = Views(np.zeros((100, 120), np.uint8), np.ones((100, 120), np.uint8), homography)
    return Pair("pair", "group", "kind", "a", "b", lambda: views)


# --- benchmark -----------------------------------------------------------------------------


def test_a_perfect_detector_is_measured_as_perfect() -> None:
    homography = camera_homography((100, 120), rotation=5, tilt=5)
    xy = np.random.default_rng(0).uniform((25, 20), (95, 80), (60, 2))
    detector = Points("oracle", xy, homography, error=0.0)
    (result,) = evaluate_pairs([detector], [marked_pair(homography)], PairProtocol(size=120))
    assert result.corner_error < 0.01
    assert result.matches == result.inliers == 60
    assert result.matching_score == result.nn_map == result.repeatability[4] == 1.0
    assert result.localisation_error[4] == pytest.approx(0, abs=1e-4)


def test_a_constant_error_of_2_pixels_is_measured_as_such() -> None:
    homography = camera_homography((100, 120), rotation=5)
    xy = np.random.default_rng(0).uniform((25, 20), (95, 80), (60, 2))
    detector = Points("shifted", xy, homography, error=2.0)
    (result,) = evaluate_pairs([detector], [marked_pair(homography)], PairProtocol(size=120))
    assert result.corner_error == pytest.approx(2.0, abs=0.05)
    summary = summarise([result])
    assert summary["homography"] == {"1": 0.0, "3": 1.0, "5": 1.0}
    strict = PairProtocol(size=120, epsilon=1.0)
    (missed,) = evaluate_pairs([detector], [marked_pair(homography)], strict)
    assert missed.matching_score == missed.nn_map == 0.0


def test_features_of_a_picture_are_computed_once_in_a_group(sequences: Path) -> None:
    xy = np.random.default_rng(0).uniform((20, 20), (100, 80), (30, 2))
    detector = Points("counted", xy, np.eye(3), error=0.0)
    evaluate_pairs([detector], [marked_pair(np.eye(3))] * 3, PairProtocol(repeatability_nms=()))
    assert detector.calls == 2


def test_a_map_of_other_weights_has_the_first_picture_and_the_robots_have_the_second() -> None:
    homography = camera_homography((100, 120), rotation=5)
    xy = np.random.default_rng(0).uniform((25, 20), (95, 80), (60, 2))
    of_map, robot = Points("map", xy, homography, error=7.0), Points("robot", xy, homography, error=2.0)
    crossed = CrossedDetectors(of_map, robot)
    assert crossed.name == "robot in a map of map"
    (result,) = evaluate_pairs([crossed], [marked_pair(homography)], PairProtocol(size=120, repeatability_nms=()))
    assert result.corner_error == pytest.approx(2.0, abs=0.05)
    assert (of_map.calls, robot.calls) == (1, 1)


def test_weights_are_looked_for_in_maps_of_others_where_descriptors_compare(tmp_path: Path, sequences: Path) -> None:
    for name, dim in (("alike", 256), ("shorter", 16)):
        model = SuperPoint(Architecture((4, 4, 8, 8), 8, dim)).eval()
        checkpoint = Checkpoint(model.architecture, model.state_dict(), {"name": name})
        save_checkpoint(tmp_path / f"{name}.safetensors", checkpoint)
    options = ("--map-weights", "default", "--baselines", "none", "--hpatches", sequences, "--size", 320)
    result = run("--weights", tmp_path / "alike.safetensors", *options, "--out", tmp_path / "report")
    assert result.exit_code == 0, result.output
    assert re.search(r"alike@\w+ in a map of superpoint_ros_3@", result.output)
    result = run("--weights", tmp_path / "shorter.safetensors", *options, "--out", tmp_path / "refused")
    assert result.exit_code != 0
    assert "descriptors of 16 and 256 numbers" in result.output and "cannot be matched in a map" in result.output


def test_sift_and_orb_are_right_on_easy_pairs(sequences: Path) -> None:
    detectors = [classic_detector(key) for key in ("sift", "orb")]
    for result in evaluate_pairs(detectors, hpatches_pairs(sequences, 320), PairProtocol(320)):
        assert result.corner_error < 3, result
        assert result.matching_score > 0.25
        assert 0.3 < result.repeatability[4] <= 1


def test_the_default_weights_are_right_on_easy_pairs(sequences: Path) -> None:
    detector = superpoint_detector(None, device="cpu")
    for result in evaluate_pairs([detector], hpatches_pairs(sequences, 320), PairProtocol(320)):
        assert result.corner_error < 5, result
        assert result.matching_score > 0.2 and result.repeatability[4] > 0.3


def test_sift_is_rotation_proof(photographs: Path) -> None:
    pairs = rotation_pairs([photographs / "camera.png"], [45, 90, 135, 180], 320)
    results = evaluate_pairs([classic_detector("sift")], pairs, PairProtocol(320))
    assert [result.kind for result in results] == ["45", "90", "135", "180"]
    assert max(result.corner_error for result in results) < 1


def test_the_mean_leaves_out_localisation_errors_that_do_not_exist() -> None:
    def result(corner_error: float, localisation: float) -> PairResult:
        return PairResult(
            "p",
            "k",
            "d",
            np.eye(3),
            {},
            (10, 20),
            3,
            2,
            corner_error,
            0.5,
            0.25,
            {4: 0.5},
            {4: localisation},
        )

    summary = summarise([result(0.5, 1.0), result(np.inf, np.nan)])
    assert summary["localisation_error_nms4"] == 1.0
    assert summary["homography"] == {"1": 0.5, "3": 0.5, "5": 0.5}
    assert summary["keypoints"] == 15.0
    assert summarise([]) == {}


# --- command -------------------------------------------------------------------------------


def run(*arguments: object) -> Result:
    return CliRunner().invoke(evaluate, [str(argument) for argument in arguments])


@pytest.fixture(scope="module")
def report(photographs: Path, sequences: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small network and all baselines on everything, once."""
    out = tmp_path_factory.mktemp("evaluation") / "new"
    torch.manual_seed(0)
    model = SuperPoint(Architecture((4, 4, 8, 8), 8, 16)).eval()
    checkpoint = Checkpoint(model.architecture, model.state_dict(), {"name": "tiny"})
    save_checkpoint(out.parent / "tiny.safetensors", checkpoint)
    broken = photographs / "broken.png"
    broken.write_text("no picture")
    result = run(
        *("--weights", out.parent / "tiny.safetensors", "--hpatches", sequences),
        *("--photos", photographs, "--pairs", 4, "--kinds", "blur,rotation"),
        *("--rotation", "0,90", "--rotation-photos", 3, "--shapes", 1, "--size", 160),
        *("--keypoints", 200, "--device", "cpu", "--out", out),
    )
    broken.unlink()
    assert result.exit_code == 0, result.output
    (out / "printed.txt").write_text(result.output)
    return out


def test_the_report_holds_every_detector_and_every_set(report: Path) -> None:
    document = json.loads((report / "report.json").read_text())
    names = list(document["protocol"]["detectors"])
    assert names[0].startswith("tiny@")
    assert names[1:] == [CLASSIC[key][0] for key in CLASSIC]
    assert list(document["results"]) == ["hpatches", "warped", "rotation", "shapes"]
    for which in document["results"]:
        assert list(document["results"][which]) == names
    assert list(document["results"]["hpatches"][names[0]]) == ["all", "illumination", "viewpoint"]
    assert list(document["results"]["rotation"]["SIFT"]) == ["all", "0", "90"]
    assert document["results"]["rotation"]["SIFT"]["0"]["homography"]["3"] == 1.0


def test_the_report_holds_the_whole_protocol(report: Path) -> None:
    protocol = json.loads((report / "report.json").read_text())["protocol"]
    network = next(iter(protocol["detectors"].values()))
    assert len(network["sha256"]) == 64 and network["weights_id"] and network["nms_for_matching"] == 4
    pairs = protocol["pairs"]
    assert (pairs["size"], pairs["keypoints"], pairs["repeatability_nms"]) == (160, 200, [4, 8])
    assert pairs["detection_threshold"] == 0.005 and pairs["inlier_threshold"] == 3.0
    assert "MAGSAC" in pairs["estimator"] and "mutual" in pairs["matcher"]
    assert protocol["seed"] == 0 and protocol["versions"]["opencv"] == cv2.__version__
    assert protocol["warped"]["kinds"]["rotation"]["motion"]["rotation"] == 180.0
    assert protocol["shapes"]["pictures"] == 1


def test_only_real_pairs_are_measured_at_every_radius(report: Path) -> None:
    document = json.loads((report / "report.json").read_text())
    sets = document["protocol"]["sets"]
    assert sets["hpatches"] == {"pairs": 2, "size": 160, "keypoints": 200, "repeatability_nms": [4, 8]}
    assert sets["warped"] == {"pairs": 4, "size": 160, "keypoints": 200, "repeatability_nms": [4]}
    assert "repeatability_nms8" in document["results"]["hpatches"]["Harris"]["all"]
    assert "repeatability_nms8" not in document["results"]["warped"]["Harris"]["all"]


def test_several_matching_radii_are_rows_of_one_report(report: Path, sequences: Path) -> None:
    out = report.parent / "radii"
    weights = report.parent / "tiny.safetensors"
    result = run(
        *("--weights", weights, "--baselines", "none", "--hpatches", sequences, "--size", 160),
        *("--match-nms", "4,2", "--nms", "4", "--device", "cpu", "--out", out),
    )
    assert result.exit_code == 0, result.output
    results = json.loads((out / "report.json").read_text())["results"]["hpatches"]
    four, two = results.values()
    assert [name.rpartition(", ")[2] for name in results] == ["NMS 4", "NMS 2"]
    assert two["all"]["keypoints"] > four["all"]["keypoints"]
    assert two["all"]["repeatability_nms4"] == four["all"]["repeatability_nms4"]


def test_scales_are_rows_beside_each_other_on_native_and_zoomed_pairs_and_poses(
    report: Path, sequences: Path, photographs: Path, tmp_path: Path
) -> None:
    numbers = [*np.diag([100.0, 100, 1]).ravel()] * 2 + [*np.eye(4).ravel()]
    pair = f"1.png 2.png 0 0 {' '.join(map(str, numbers))}"
    (sequences / "v_turned" / "pairs_with_gt.txt").write_text(pair)
    result = run(
        *("--weights", report.parent / "tiny.safetensors", "--hpatches", sequences, "--native", "--zoom", 2),
        *(
            "--scales",
            "single",
            "--scales",
            "1,0.5",
            "--pose",
            sequences / "v_turned",
            "--photos",
            photographs,
            "--refine",
        ),
        *(
            "--pairs",
            1,
            "--kinds",
            "viewpoint",
            "--rotation",
            "none",
            "--baselines",
            "sift",
            "--size",
            160,
            "--device",
            "cpu",
            "--out",
            tmp_path,
        ),
    )
    assert result.exit_code == 0, result.output
    document = json.loads((tmp_path / "report.json").read_text())
    names = list(document["protocol"]["detectors"])
    assert names[1:] == [f"{names[0]}, scales 1 0.5", "SIFT"]
    assert document["protocol"]["detectors"][names[1]]["scales"] == [1.0, 0.5]
    assert list(document["results"]) == ["hpatches", "hpatches native", "warped", "warped native", "zoom", "pose"]
    assert document["protocol"]["pairs"]["refine"] is True
    sets = document["protocol"]["sets"]
    assert [sets[name]["size"] for name in sets] == [160, None, 160, None, None]
    assert document["results"]["pose"]["SIFT"]["v_turned"]["pairs"] == 1
    assert "pose: AUC at 5 / 10 / 20 degrees, 1 pairs" in result.output
    assert len((tmp_path / "poses.csv").read_text().splitlines()) == 4
    row = next(csv.DictReader((tmp_path / "pairs.csv").open()))
    assert row["set"] == "hpatches"


def test_more_than_two_strengths_of_noise_are_a_curve(tmp_path: Path) -> None:
    request = ["--shapes", 1, "--noise", "0,0.5,1", "--weights", "default", "--baselines", "harris,random"]
    result = run(*request, "--device", "cpu", "--out", tmp_path)
    assert result.exit_code == 0, result.output
    figures = json.loads((tmp_path / "report.json").read_text())["results"]["shapes"]
    assert all(list(each) == ["clean", "noise 0.5", "noise"] for each in figures.values())
    assert figures["random"]["clean"]["map"] < 0.3 * figures["Harris"]["clean"]["map"]
    assert cv2.imread(str(tmp_path / "noise.png")) is not None


def write_hpatches(directory: Path, illumination: int, viewpoint: int) -> None:
    """Sequences of six pictures, of the size of stamps."""
    picture = np.random.default_rng(0).integers(0, 256, (36, 48), np.uint8)
    for name in [f"i_{k}" for k in range(illumination)] + [f"v_{k}" for k in range(viewpoint)]:
        (directory / name).mkdir(parents=True)
        for k in range(1, 7):
            cv2.imwrite(str(directory / name / f"{k}.png"), picture)
            if k > 1:
                np.savetxt(directory / name / f"H_1_{k}", np.eye(3))


def test_the_papers_protocol_wants_all_of_hpatches(tmp_path: Path) -> None:
    write_hpatches(tmp_path / "some", 57, 58)
    result = run("--hpatches", tmp_path / "some", "--preset", "paper", "--out", tmp_path / "out")
    assert result.exit_code == 1
    assert "57 sequences i_* and 59 v_* with five homographies each; found 57 and 58 of them" in result.output


def test_the_papers_protocol_has_two_sizes(tmp_path: Path) -> None:
    write_hpatches(tmp_path / "all", 57, 59)
    request = Request(weights=(), hpatches=tmp_path / "all", paper=True)
    sets = _sets(request, [])
    assert {name: len(pairs) for name, pairs in sets.items()} == {"hpatches 240×320": 580, "hpatches 480×640": 580}
    small, large = (_protocol(request, name) for name in sets)
    assert (small.keypoints, small.repeatability_keypoints, small.repeatability_nms) == (300, 300, (4, 8))
    assert (large.keypoints, large.repeatability_nms) == (1000, ())
    assert [pairs[0].load().reference.shape for pairs in sets.values()] == [(240, 320), (480, 640)]


def test_without_any_descriptors_there_is_no_rotation_sweep(photographs: Path, tmp_path: Path) -> None:
    model = SuperPoint(Architecture((4, 4, 8, 8), 8, 0)).eval()
    save_checkpoint(tmp_path / "m.safetensors", Checkpoint(model.architecture, model.state_dict()))
    result = run(
        *("--weights", tmp_path / "m.safetensors", "--baselines", "fast", "--photos", photographs),
        *("--pairs", 2, "--size", 96, "--device", "cpu", "--out", tmp_path / "out"),
    )
    assert result.exit_code == 0, result.output
    assert list(json.loads((tmp_path / "out/report.json").read_text())["results"]) == ["warped"]


def test_a_broken_photograph_is_skipped_and_named(report: Path) -> None:
    skipped = json.loads((report / "report.json").read_text())["skipped"]
    assert skipped and all("broken.png: 10 bytes are not a readable picture" in line for line in skipped)
    assert "skipped: warped" in (report / "printed.txt").read_text()


def test_every_pair_is_listed_with_its_homography(report: Path) -> None:
    with (report / "pairs.csv").open() as file:
        rows = list(csv.DictReader(file))
    detectors = 1 + len(CLASSIC)
    # 2 real pairs; of 4 warped ones two are of the broken photograph; 2 photographs at 2 angles,
    # which only the detectors with descriptors are run on: all but Harris, Shi-Tomasi, FAST and chance.
    assert len(rows) == (2 + 2) * detectors + 2 * 2 * (detectors - 4)
    turned = next(row for row in rows if row["set"] == "rotation" and row["kind"] == "90")
    matrix = np.array([float(turned[f"h{i}{j}"]) for i in range(3) for j in range(3)]).reshape(3, 3)
    np.testing.assert_allclose(matrix[:2, :2], [[0, -1], [1, 0]], atol=1e-6)
    assert {row["corner_error"] for row in rows if row["detector"] == "FAST"} == {"nan"}
    assert {row["repeatability_nms8"] for row in rows if row["set"] == "warped"} == {"nan"}


def test_the_printed_tables_are_the_written_ones(report: Path) -> None:
    printed = (report / "printed.txt").read_text()
    for line in (report / "report.md").read_text().splitlines():
        assert line in printed
    assert "### hpatches: 2 pairs" in printed
    assert "| worst" in printed and "mAP" in printed


def test_plots_are_written(report: Path) -> None:
    plots = {path.name for path in report.glob("*.png")}
    assert {"homography.png", "kinds.png", "rotation.png", "shapes.png"} <= plots
    assert len([name for name in plots if name.startswith("worst_")]) == 3
    for path in report.glob("*.png"):
        assert cv2.imread(str(path)).std() > 5, path


def test_detectors_without_descriptors_have_no_matching_figures(report: Path) -> None:
    results = json.loads((report / "report.json").read_text())["results"]
    harris = results["hpatches"]["Harris"]["all"]
    assert "homography" not in harris and harris["repeatability_nms4"] > 0.3
    assert "Harris" not in tables_of(report, "by angle")


def tables_of(report: Path, title: str) -> str:
    parts = (report / "report.md").read_text().split("### ")
    return next(part for part in parts if title in part)


def test_the_help_names_every_baseline_and_kind() -> None:
    assert run("--help").exit_code == 0
    text = {parameter.name: getattr(parameter, "help", "") for parameter in evaluate.params}
    assert all(name in text["baselines"] for name in CLASSIC)
    assert all(name in text["kinds"] for name in KINDS)


def test_the_request_has_the_options_defaults(tmp_path: Path) -> None:
    request, protocol = Request(shapes=1), PairProtocol()
    defaults = {parameter.name: parameter.default for parameter in evaluate.params}
    assert defaults["pairs"] == request.pairs
    assert tuple(map(int, str(defaults["match_nms"]).split(","))) == request.match_nms
    assert defaults["rotation_photos"] == request.rotation_photos
    assert tuple(map(float, str(defaults["rotation"]).split(","))) == request.rotation
    assert tuple(map(int, str(defaults["nms"]).split(","))) == protocol.repeatability_nms
    assert defaults["size"] == protocol.size and defaults["keypoints"] == protocol.keypoints
    assert defaults["threshold"] == protocol.detection_threshold
    assert defaults["epsilon"] == protocol.epsilon
    assert defaults["inlier_threshold"] == protocol.inlier_threshold


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ((), "nothing to evaluate: give --hpatches DIR, --photos DIR, --pose DIR, --colmap DIR or --shapes N"),
        (("--shapes", 1, "--weights", "gone.pth"), "gone.pth: no such weights file"),
        (("--shapes", 1, "--baselines", "surf"), "unknown baseline 'surf'; expected some of sift,"),
        (("--shapes", 1, "--baselines", "orb,orb"), "ORB is given twice"),
        (("--shapes", 1, "--weights", "default", "--weights", "default"), "is given twice"),
        (("--shapes", 1, "--nms", "-1"), "nms_radius must be a whole number of at least 0"),
        (("--shapes", 1, "--match-nms", "none"), "--match-nms names no radius"),
        (("--shapes", 1, "--nms", "four"), "expected numbers with commas between them, got 'four'"),
        (("--shapes", 1, "--threshold", 2), "detection_threshold must be at least 0 and below 1"),
        (("--shapes", 1, "--keypoints", 0), "max_keypoints must be a whole number of at least 1"),
        (("--shapes", 1, "--scales", "0.5,1"), "scales must be single, video, matching, zoom, or 1 to 8 numbers"),
        (("--shapes", 1, "--scales", "single", "--scales", "1"), "is given twice"),
        (("--shapes", 1, "--preset", "paper"), "give --hpatches DIR as well"),
        (("--shapes", 1, "--native"), "give --hpatches DIR or --photos DIR as well"),
        (("--shapes", 1, "--device", "tpu"), "device must be auto, cpu, cuda"),
        (("--shapes", 1, "--rotation", "15,nan"), "--rotation takes finite numbers, got 15.0, nan"),
        (("--shapes", 1, "--noise", "inf"), "--noise takes finite numbers, got inf"),
        (("--shapes", 1, "--pose-threshold", "nan"), "--pose-threshold takes finite numbers, got nan"),
        (("--shapes", 1, "--epsilon", "nan"), "--epsilon takes finite numbers, got nan"),
        (("--shapes", 1, "--inlier-threshold", "inf"), "--inlier-threshold takes finite numbers, got inf"),
    ],
)
def test_bad_options_get_one_clear_sentence(arguments: tuple, sentence: str, tmp_path: Path) -> None:
    result = run(*arguments, "--out", tmp_path / "out")
    assert result.exit_code != 0
    assert sentence in result.output
    assert "Traceback" not in result.output


def test_bad_directories_get_one_clear_sentence(photographs: Path, tmp_path: Path) -> None:
    empty = tmp_path / "empty"
    empty.mkdir()
    (tmp_path / "list.txt").write_text("camera.png\nmoon.png\n")
    for arguments, sentence in (
        (("--hpatches", empty), "expected i_* or v_* (HPatches layout)"),
        (("--photos", empty), "no picture found"),
        (("--pose", empty), "no pair found; expected pairs_with_gt.txt"),
        (("--photos", photographs, "--list", tmp_path / "list.txt"), "1 of 2 pictures not in"),
        (("--photos", photographs, "--kinds", "sepia"), "unknown kind of pair 'sepia'"),
        (("--list", tmp_path / "list.txt", "--shapes", 1), "give --photos DIR as well"),
    ):
        result = run(*arguments, "--out", tmp_path / "out")
        assert result.exit_code == 1
        assert sentence in result.output


def test_a_sequence_of_which_no_pair_can_be_read_stops_the_evaluation(sequences: Path, tmp_path: Path) -> None:
    folder = tmp_path / "set/v_broken"
    folder.mkdir(parents=True)
    for name in ("1.png", "H_1_2"):
        (folder / name).write_bytes((sequences / "v_turned" / name).read_bytes())
    (folder / "2.png").write_text("no picture")
    arguments = ("--hpatches", tmp_path / "set", "--baselines", "none", "--size", 64)
    result = run(*arguments, "--out", tmp_path / "out")
    assert result.exit_code == 1
    assert "2.png: 10 bytes are not a readable picture" in result.output


def test_photographs_that_are_all_broken_stop_the_evaluation(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_text("no picture")
    result = run("--photos", tmp_path, "--baselines", "none", "--out", tmp_path / "out")
    assert result.exit_code == 1
    assert "no pair could be read; the first: warped, 0000 a.png viewpoint" in result.output


def test_an_evaluation_without_results_has_no_tables() -> None:
    assert tables(Evaluation({"detectors": {}})) == ""


# --- runs that end early -------------------------------------------------------------------


def pose_line(first: str, second: str) -> str:
    numbers = [*np.diag([100.0, 100, 1]).ravel()] * 2 + [*np.eye(4).ravel()]
    return f"{first} {second} 0 0 {' '.join(map(str, numbers))}\n"


@pytest.fixture
def poses(sequences: Path, tmp_path: Path) -> Path:
    """Two pairs of three pictures, the second one broken."""
    directory = tmp_path / "scene"
    directory.mkdir()
    for name in ("1.png", "2.png"):
        (directory / name).write_bytes((sequences / "v_turned" / name).read_bytes())
    (directory / "3.png").write_text("no picture")
    (directory / "pairs_with_gt.txt").write_text(pose_line("1.png", "2.png") + pose_line("1.png", "3.png"))
    return directory


@pytest.fixture
def short(sequences: Path, tmp_path: Path) -> tuple[object, ...]:
    """Options of a run of two pairs."""
    options = ("--weights", "default", "--baselines", "sift", "--hpatches", sequences, "--size", 64, "--device", "cpu")
    return (*options, "--out", tmp_path / "out")


def document(out: Path) -> dict[str, Any]:
    return json.loads((out / "report.json").read_text(encoding="utf-8"))


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (("--pose", "gone"), r"gone: 1 of 2 pictures that pairs_with_gt.txt names are not there: .*gone/b.png"),
        (("--pose", "bad"), r"bad/pairs_with_gt.txt, line 1: expected two names"),
        (("--pose", "binary"), r"binary/pairs_with_gt.txt: not a text file"),
        (("--pose", "singular"), r"singular/pairs_with_gt.txt, line 1: a camera matrix is singular"),
        (("--colmap", "gone"), r"gone: 1 pictures; a map needs 3 at least"),
        (("--colmap", "three"), r"three/pairs_with_gt.txt, line 1: expected two names"),
    ],
)
def test_inputs_of_later_parts_are_checked_before_the_first(
    options: tuple[str, str], sentence: str, short: tuple, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lists = {"gone": pose_line("a.png", "b.png"), "bad": "a b", "binary": b"\xff\xfe", "three": "a b"}
    lists["singular"] = pose_line("a.png", "a.png").replace("100.0", "0.0")
    for name, text in lists.items():
        (tmp_path / name).mkdir()
        (tmp_path / name / "pairs_with_gt.txt").write_bytes(text if isinstance(text, bytes) else text.encode())
        for picture in ("a.png", *(("b.png", "c.png") if name == "three" else ())):
            cv2.imwrite(str(tmp_path / name / picture), np.zeros((32, 32), np.uint8))
    monkeypatch.setattr(running, "describe", lambda *_: {"detectors": {}})  # pycolmap need not be there
    monkeypatch.setattr(running, "evaluate_pairs", lambda *_, **__: pytest.fail("pairs were measured first"))
    result = run(*short, options[0], tmp_path / options[1])
    assert result.exit_code == 1 and re.search(sentence, result.output), result.output


def test_an_absent_pycolmap_is_named_before_anything_runs(
    short: tuple, sequences: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "pycolmap", None)
    monkeypatch.setattr(running, "evaluate_pairs", lambda *_, **__: pytest.fail("pairs were measured first"))
    result = run(*short, "--colmap", sequences)
    assert result.exit_code == 1 and "pycolmap, which writes COLMAP's databases, is not installed" in result.output


def test_poses_of_detectors_without_descriptors_are_refused(poses: Path, short: tuple, tmp_path: Path) -> None:
    model = SuperPoint(Architecture((4, 4, 8, 8), 8, 0)).eval()
    save_checkpoint(tmp_path / "m.safetensors", Checkpoint(model.architecture, model.state_dict()))
    result = run("--weights", tmp_path / "m.safetensors", "--baselines", "fast", "--pose", poses, *short[-4:])
    assert result.exit_code == 1 and "--pose is of detectors with descriptors" in result.output


def test_a_pose_picture_that_cannot_be_read_costs_its_pairs(poses: Path, short: tuple, tmp_path: Path) -> None:
    result = run(*short, "--pose", poses)
    assert result.exit_code == 0, result.output
    found = document(tmp_path / "out")
    assert found["results"]["pose"]["SIFT"]["all"]["pairs"] == 1 and found["missing"] == []
    (skipped,) = found["skipped"]
    assert skipped.startswith("pose, scene 1.png 3.png: ") and "3.png: 10 bytes are not a readable picture" in skipped
    assert "1 pairs or pictures skipped, the first: pose, scene 1.png 3.png" in result.output


def test_a_broken_picture_of_a_sequence_costs_its_pairs(sequences: Path, short: tuple, tmp_path: Path) -> None:
    for folder in ("v_turned", "v_broken"):
        (tmp_path / "set" / folder).mkdir(parents=True)
        for path in (sequences / "v_turned").iterdir():
            (tmp_path / "set" / folder / path.name).write_bytes(path.read_bytes())
    (tmp_path / "set/v_broken/2.png").write_text("no picture")
    result = run(*short, "--hpatches", tmp_path / "set")
    assert result.exit_code == 0, result.output
    found = document(tmp_path / "out")
    assert found["results"]["hpatches"]["SIFT"]["all"]["pairs"] == 1
    assert [line.split(":")[0] for line in found["skipped"]] == ["hpatches, v_broken 1-2"]


def test_what_was_measured_is_written_when_a_later_part_fails(
    poses: Path, short: tuple, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    measure = running.evaluate_poses

    def fail(*arguments: Any) -> None:
        measure(*arguments)
        raise RuntimeError("the device is gone")

    monkeypatch.setattr(running, "evaluate_poses", fail)
    result = run(*short, "--pose", poses, "--shapes", 1)
    assert result.exit_code == 1
    report = tmp_path / "out" / "report.json"
    missing = ["the rest of pose", "shapes", "plots"]
    assert f"the device is gone; {report} holds what was measured; missing: {', '.join(missing)}" in result.output
    assert document(tmp_path / "out")["missing"] == missing
    assert list(document(tmp_path / "out")["results"]) == ["hpatches", "pose"]
    assert f"ended early: {', '.join(missing)}" in (tmp_path / "out/report.md").read_text(encoding="utf-8")
    assert len((tmp_path / "out/pairs.csv").read_text(encoding="utf-8").splitlines()) == 1 + 2 * 2


def test_ctrl_c_leaves_the_pairs_that_were_measured(
    short: tuple, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    measure = running.evaluate_pairs

    def interrupted(*arguments: Any) -> None:
        def advance() -> None:
            raise KeyboardInterrupt

        measure(*arguments[:3], advance, *arguments[4:])

    monkeypatch.setattr(running, "evaluate_pairs", interrupted)
    result = run(*short, "--shapes", 1)
    assert result.exit_code == 130
    assert "interrupted; " in result.output and "missing: the rest of hpatches, shapes, plots" in result.output
    assert document(tmp_path / "out")["results"]["hpatches"]["SIFT"]["all"]["pairs"] == 1


def test_what_was_measured_is_written_before_a_fault_of_the_program_is_raised(
    short: tuple, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any) -> None:
        assert document(tmp_path / "out")["missing"] == ["plots"]  # written already, should the process be killed
        raise IndexError("a fault")

    monkeypatch.setattr(running, "write_plots", fail)
    result = run(*short)
    assert isinstance(result.exception, IndexError)
    assert "missing: plots" in result.output and document(tmp_path / "out")["results"]["hpatches"]


def test_a_run_that_measured_nothing_leaves_an_older_report(
    short: tuple, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(*_: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(running, "evaluate_pairs", stop)
    (tmp_path / "out").mkdir()
    (tmp_path / "out/report.json").write_text("older")
    result = run(*short)
    assert result.exit_code == 130 and "interrupted; nothing was measured" in result.output
    assert (tmp_path / "out/report.json").read_text() == "older"


def test_a_full_disk_leaves_the_tables_on_the_terminal(short: tuple, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(running, "write_report", full)
    result = run(*short)
    assert result.exit_code == 1
    assert "### hpatches: 2 pairs" in result.output and "the report cannot be written" in result.output


def test_a_folder_that_cannot_be_written_to_is_named_before_anything_runs(
    short: tuple, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(dir: Path) -> None:
        raise PermissionError(13, "Permission denied", str(dir))

    monkeypatch.setattr("tempfile.TemporaryFile", refuse)
    monkeypatch.setattr(running, "evaluate_pairs", lambda *_, **__: pytest.fail("pairs were measured first"))
    result = run(*short)
    assert result.exit_code == 1 and "Permission denied" in result.output


def test_names_of_any_bytes_and_pictures_without_a_keypoint_get_their_report(tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    flat = cv2.imencode(".png", np.full((64, 80), 90, np.uint8))[1].tobytes()
    names = [b"US$100_vs_$200.png", b"caf\xe9.png", b"_a|b\n.png", "日本.png".encode()]
    for name in names:
        Path(os.fsdecode(os.fsencode(tmp_path / "photos") + b"/" + name)).write_bytes(flat)
    Path(os.fsdecode(os.fsencode(tmp_path / "photos") + b"/broken\xe9.png")).write_text("no picture")
    result = run(
        *("--photos", tmp_path / "photos", "--pairs", 5, "--zoom", 5, "--rotation", "90", "--size", 64),
        *("--native", "--device", "cpu", "--out", tmp_path / "out", "--refine"),
    )
    assert result.exit_code == 0, result.output
    found = document(tmp_path / "out")
    assert found["results"]["warped"]["SIFT"]["all"]["homography"] == {"1": 0.0, "3": 0.0, "5": 0.0}
    assert len(found["skipped"]) == 4 and "broken\udce9.png" in found["skipped"][0]
    assert len(list((tmp_path / "out").glob("worst_*.png"))) == 4
    with (tmp_path / "out/pairs.csv").open(encoding="utf-8", newline="") as file:
        assert any("日本.png" in row["pair"] for row in csv.DictReader(file))


def test_the_report_is_json_whatever_numbers_are_in_it(tmp_path: Path) -> None:
    protocol = {"detectors": {}, "numbers": [np.float32(0.5), np.int64(3), np.float64(np.inf), np.nan, np.bool_(True)]}
    write_report(Evaluation(protocol), tmp_path)
    assert document(tmp_path)["protocol"]["numbers"] == [0.5, 3, None, None, True]


def test_an_evaluation_without_detectors_is_refused(sequences: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no detector is named: give weights or baselines"):
        running.run_evaluation(Request(weights=(), baselines=(), hpatches=sequences), tmp_path)
