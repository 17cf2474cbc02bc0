"""superpoint_training/evaluation/pose.py, on points of made-up scenes."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from weakref import ref

import cv2
import numpy as np
import pytest

from superpoint_ros import Features
from superpoint_training.evaluation import pose
from superpoint_training.evaluation.benchmark import PairProtocol
from superpoint_training.evaluation.detectors import classic_detector
from superpoint_training.evaluation.metrics import area_under_curve
from superpoint_training.evaluation.pose import (
    PoseResult,
    check_pictures,
    estimate_pose,
    evaluate_poses,
    pose_errors,
    pose_pairs,
    summarise_poses,
)

SIZE = (480, 640)
CAMERAS = tuple(np.array([[f, 0, 320], [0, f, 240], [0, 0, 1.0]]) for f in (500, 650))


def true_pose(angle=8.0):
    pose = np.eye(4)
    pose[:3, :3] = cv2.Rodrigues(np.radians([2.0, angle, -3.0]))[0]
    pose[:3, 3] = (0.8, 0.1, 0.3)
    return pose


def features(xy, scales=None):
    rows = np.eye(len(xy), dtype=np.float32)
    return Features(xy.astype(np.float32), np.ones(len(xy), np.float32), rows, SIZE, scales=scales)


def scene(count=120, seed=0):
    """What both cameras see of random points: (N, 2) and (N, 2)."""
    rng = np.random.default_rng(seed)
    points = np.column_stack([rng.uniform(-2, 2, count), rng.uniform(-1.5, 1.5, count), rng.uniform(4, 8, count)])
    pose = true_pose()
    seen = [points @ CAMERAS[0].T, (points @ pose[:3, :3].T + pose[:3, 3]) @ CAMERAS[1].T]
    return [each[:, :2] / each[:, 2:] for each in seen]


def all_matches(count):
    return np.column_stack([np.arange(count)] * 2).astype(np.int32)


def test_a_pose_is_found_among_wrong_matches_with_two_different_cameras():
    xy0, xy1 = scene()
    xy1[:40] = np.random.default_rng(1).uniform(0, 480, (40, 2))
    rotation, direction, inliers = estimate_pose(features(xy0), features(xy1), all_matches(120), CAMERAS, 1.0)
    assert max(pose_errors(rotation, direction, true_pose())) < 0.05
    assert inliers[40:].all() and inliers[:40].sum() < 8


def test_the_same_matches_give_the_same_pose():
    xy0, xy1 = (xy + np.random.default_rng(2).normal(0, 1, xy.shape) for xy in scene())
    first, second = (estimate_pose(features(xy0), features(xy1), all_matches(120), CAMERAS, 1.0) for _ in range(2))
    for one, other in zip(first, second, strict=True):
        np.testing.assert_array_equal(one, other)


def test_coarse_keypoints_count_as_much_as_they_are_exact():
    scales = np.repeat(np.float32([1, 3]), 60)
    aware, unaware = [], []
    for seed in range(12):
        rng = np.random.default_rng(seed)
        noisy = [xy + rng.normal(0, 0.4, xy.shape) * scales[:, None] for xy in scene(seed=seed)]
        for given, errors in ((scales, aware), (None, unaware)):
            f0, f1 = (features(xy, given) for xy in noisy)
            rotation, direction, _ = estimate_pose(f0, f1, all_matches(120), CAMERAS, 1.0)
            errors.append(max(pose_errors(rotation, direction, true_pose())))
    assert np.mean(aware) < 0.8 * np.mean(unaware)


def test_too_few_matches_give_no_pose():
    xy0, xy1 = scene(7)
    assert estimate_pose(features(xy0), features(xy1), all_matches(7), CAMERAS, 1.0) is None


def test_errors_are_the_angles_between_poses():
    rotation, direction = true_pose(18.0)[:3, :3], np.array([-0.8, -0.1, -0.3])
    turned = cv2.Rodrigues(rotation @ true_pose(8.0)[:3, :3].T)[0]
    angles = pose_errors(rotation, direction, true_pose(8.0))
    assert angles[0] == pytest.approx(np.degrees(np.linalg.norm(turned))) and angles[1] == pytest.approx(0, abs=1e-5)
    assert pose_errors(rotation, np.cross(direction, [0, 0, 1]), true_pose())[1] == pytest.approx(90)


def line(first, second, pose):
    numbers = [*CAMERAS[0].ravel(), *CAMERAS[1].ravel(), *pose.ravel()]
    return f"{first} {second} 0 0 " + " ".join(f"{number:.9g}" for number in numbers)


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    for number, folder in enumerate(("house", "road")):
        (tmp_path / folder).mkdir()
        for name in ("a.png", "b.png"):
            picture = np.random.default_rng(number).integers(0, 256, (60, 80), np.uint8)
            cv2.imwrite(str(tmp_path / folder / name), picture)
        (tmp_path / folder / "pairs_with_gt.txt").write_text(line("a.png", "b.png", true_pose()) + "\n\n")
    return tmp_path


def test_pairs_are_read_from_a_folder_or_from_all_of_its_folders(directory):
    one, both = pose_pairs(directory / "road"), pose_pairs(directory)
    assert [pair.group for pair in both] == ["house", "road"] and [pair.name for pair in one] == ["road a.png b.png"]
    np.testing.assert_allclose(both[1].pose, true_pose(), atol=1e-8)
    np.testing.assert_allclose(both[1].cameras[1], CAMERAS[1])
    assert both[1].paths == (directory / "road" / "a.png", directory / "road" / "b.png")


@pytest.mark.parametrize(
    "text", ["a.png b.png 0 0 1 2 3", line("a.png", "b.png", true_pose()) + " 1", line("a", "b", true_pose() * np.nan),
             line("a.png", "b.png", true_pose()).replace(" 0 0 ", " 1 0 ", 1), "a"]
)  # fmt: skip
def test_a_bad_line_is_named(directory, text):
    (directory / "road" / "pairs_with_gt.txt").write_text(f"{line('a.png', 'b.png', true_pose())}\n{text}\n")
    with pytest.raises(ValueError, match=r"road/pairs_with_gt.txt, line 2: expected two names, .* \(38 words\), got"):
        pose_pairs(directory)


def test_a_directory_without_pairs_is_named(tmp_path):
    with pytest.raises(ValueError, match=r"no pair found; expected pairs_with_gt.txt in it or in its folders"):
        pose_pairs(tmp_path)


class Seen:
    """A detector that sees the scene: of a folder's two pictures in turn."""

    name, described, matched_nms = "seen", True, 0

    def __init__(self):
        self.protocol, self.calls = {}, 0
        self.answers = [features(xy) for xy in scene()]

    def __call__(self, image, settings):
        self.calls += 1
        return self.answers[(self.calls - 1) % 2]


def test_every_picture_is_extracted_once_and_every_pair_measured(directory):
    detector, pairs = Seen(), pose_pairs(directory)
    results = evaluate_poses([detector], pairs * 2, PairProtocol().settings, 1.0)
    assert detector.calls == 4 and len(results) == 4
    assert all(result.error < 0.05 and result.matches == result.inliers == 120 for result in results)
    assert [result.group for result in results] == ["house", "road"] * 2


def test_features_are_kept_of_few_pictures_and_the_results_are_the_same(tmp_path, monkeypatch):
    for number in range(12):
        picture = np.random.default_rng(number).integers(0, 256, (60, 80), np.uint8)
        cv2.imwrite(str(tmp_path / f"{number}.png"), cv2.GaussianBlur(picture, (0, 0), 1.5))
    numbers = [*range(12), 0, 5, *range(12)]
    lines = [line(f"{a}.png", f"{b}.png", true_pose()) for a, b in pairwise(numbers) if a != b]
    (tmp_path / "pairs_with_gt.txt").write_text("\n".join(lines))
    given = []

    class Watched:
        name, described, matched_nms, protocol = "watched", True, 0, {}

        def __call__(self, image, settings):
            assert sum(each() is not None for each in given) <= pose.KEPT + 2
            found = classic_detector("sift")(image, settings)
            given.append(ref(found))
            return found

    results = []
    for kept in (64, 3):
        monkeypatch.setattr(pose, "KEPT", kept)
        results.append(evaluate_poses([Watched()], pose_pairs(tmp_path), PairProtocol().settings, 1.0))
    assert results[0] == results[1] and len(results[0]) == len(lines)


def test_pairs_of_an_unreadable_picture_are_left_out_and_what_was_measured_before_an_error_stays(directory):
    (directory / "road" / "b.png").write_text("no picture")
    skipped, measured = [], []
    found = evaluate_poses(
        [Seen()], pose_pairs(directory), PairProtocol().settings, 1.0,
        skip=lambda pair, error: skipped.append((pair.name, str(error))), into=measured,
    )  # fmt: skip
    assert found is measured and [result.group for result in measured] == ["house"]
    assert len(skipped) == 1 and skipped[0][0] == "road a.png b.png" and "not a readable picture" in skipped[0][1]
    measured.clear()
    with pytest.raises(ValueError, match="not a readable picture"):
        evaluate_poses([Seen()], pose_pairs(directory), PairProtocol().settings, 1.0, into=measured)
    assert [result.group for result in measured] == ["house"]


def test_a_picture_that_is_not_there_is_named(directory):
    pairs = pose_pairs(directory)
    check_pictures(directory, pairs)
    (directory / "road" / "b.png").unlink()
    with pytest.raises(ValueError, match=r"1 of 4 pictures that pairs_with_gt.txt names are not there: .*road/b.png"):
        check_pictures(directory, pairs)


def test_the_summary_takes_the_larger_angle_and_a_missing_pose_as_wrong():
    angles = [(1.0, 3.0), (4.0, 0.5), (180.0, 180.0)]
    results = [PoseResult("p", "g", "d", (10, 20), 9, 8, *pair) for pair in angles]
    summary = summarise_poses(results)
    assert summary["auc"] == {f"{t}": area_under_curve(np.array([3.0, 4.0, 180.0]), t) for t in (5, 10, 20)}
    assert summary["median"] == 4.0


def test_refined_matches_give_a_better_pose(tmp_path):
    """A wall seen twice; keypoints of the second picture are off by up to a pixel."""
    rng, camera = np.random.default_rng(0), CAMERAS[0]
    wall = cv2.GaussianBlur(rng.integers(0, 256, SIZE, np.uint8), (0, 0), 2.5)
    wall = cv2.normalize(wall, None, 0, 255, cv2.NORM_MINMAX)
    wall[:, 320:] = wall[:, 320:][:, ::-1]
    pose = np.eye(4)
    pose[:3, :3], pose[:3, 3] = cv2.Rodrigues(np.radians([1.0, 5.0, 2.0]))[0], (0.3, 0.05, 0.1)
    moved, xy0, xy1 = np.zeros(SIZE, np.uint8), [], []
    # two halves at different depths, or the points would lie on one plane
    for depth, half in ((4.0, slice(0, 320)), (6.0, slice(320, 640))):
        plane = camera @ (pose[:3, :3] + np.outer(pose[:3, 3], [0, 0, 1 / depth])) @ np.linalg.inv(camera)
        part = np.zeros(SIZE, np.uint8)
        part[:, half] = 255
        seen = cv2.warpPerspective(part, plane, SIZE[::-1]) > 128
        moved[seen] = cv2.warpPerspective(wall, plane, SIZE[::-1])[seen]
        points = rng.uniform((half.start + 30, 40), (half.stop - 60, 420), (150, 2))
        there = np.column_stack([points, np.ones(150)]) @ plane.T
        xy0.append(points)
        xy1.append(there[:, :2] / there[:, 2:])
    xy0, xy1 = np.concatenate(xy0), np.concatenate(xy1) + rng.uniform(-1, 1, (300, 2))
    inside = ((xy1 > 25) & (xy1 < np.array(SIZE[::-1]) - 25)).all(axis=1)
    answers = [features(xy0[inside]), features(xy1[inside])]
    for name, picture in (("a.png", wall), ("b.png", moved)):
        cv2.imwrite(str(tmp_path / name), picture)
    pair = line("a.png", "b.png", pose).split()
    pair[13:22] = [f"{value:.9g}" for value in camera.ravel()]
    (tmp_path / "pairs_with_gt.txt").write_text(" ".join(pair))
    errors = []
    for refine in (False, True):
        detector = Seen()
        detector.answers = answers
        [result] = evaluate_poses([detector], pose_pairs(tmp_path), PairProtocol().settings, 1.0, refine)
        errors.append(result.error)
    assert errors[1] < 0.5 * errors[0]
