"""OpenCV's detectors and networks answer alike: one matcher and one suppression serve all."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from superpoint_ros import Extractor, Features, match
from superpoint_ros.network.checkpoint import Checkpoint, save_checkpoint
from superpoint_ros.network.heatmap import DetectionSettings
from superpoint_ros.network.peaks import strongest_peaks
from superpoint_ros.network.superpoint import Architecture, SuperPoint
from superpoint_training.evaluation.detectors import (
    CLASSIC,
    HeatmapDetector,
    choose,
    classic_detector,
    network_detector,
    superpoint_detector,
)
from superpoint_training.evaluation.metrics import repeatability

SETTINGS = DetectionSettings(max_keypoints=200, detection_threshold=0.0, nms_radius=4, border=4)
DESCRIBED = ("sift", "sift-precise", "orb")


@pytest.fixture(scope="module")
def photograph() -> np.ndarray:
    data = pytest.importorskip("skimage.data")
    return np.asarray(cv2.resize(data.camera(), (200, 160), interpolation=cv2.INTER_AREA))


def greedy(xy: np.ndarray, scores: np.ndarray, radius: int) -> list[int]:
    """Suppression from its definition: best first, unless a kept one is near."""
    kept: list[int] = []
    pixels = np.rint(xy)
    for index in np.argsort(-scores, kind="stable"):
        if all(np.abs(pixels[index] - pixels[other]).max() > radius for other in kept):
            kept.append(int(index))
    return kept


@pytest.mark.parametrize("key", CLASSIC)
def test_features_are_what_the_package_promises(key: str, photograph: np.ndarray) -> None:
    detector = classic_detector(key)
    found = detector(photograph, SETTINGS)
    assert 20 < len(found) <= 200
    assert found.size == (160, 200)
    assert found.xy.dtype == found.scores.dtype == found.descriptors.dtype == np.float32
    assert (np.diff(found.scores) <= 0).all()
    assert (found.xy >= 3.5).all() and (found.xy < (195.5, 155.5)).all()
    distances = np.abs(np.rint(found.xy)[:, None] - np.rint(found.xy)[None]).max(axis=-1)
    np.fill_diagonal(distances, np.inf)
    assert distances.min() > 4
    assert detector.described == (key in DESCRIBED)
    if detector.described:
        lengths = np.linalg.norm(found.descriptors, axis=1)
        np.testing.assert_allclose(lengths, 1, atol=1e-5)


@pytest.mark.parametrize("key", [key for key in CLASSIC if key != "random"])
def test_a_blank_image_has_no_keypoints(key: str) -> None:
    detector = classic_detector(key)
    found = detector(np.full((100, 120), 90, np.uint8), SETTINGS)
    assert found.xy.shape == (0, 2)
    assert (found.descriptors.shape[1] > 0) == detector.described


@pytest.mark.parametrize("key", ["orb", "harris", "shi-tomasi", "fast"])
def test_a_corner_detector_finds_the_corners_of_a_square(key: str) -> None:
    image = np.full((160, 160), 60, np.uint8)
    image[50:111, 50:111] = 200
    # FAST keeps no corner whose neighbour scores the same, as on a perfectly sharp one.
    image = cv2.GaussianBlur(image, (0, 0), 1.0)
    found = classic_detector(key)(image, replace(SETTINGS, max_keypoints=8))
    corners = np.array([[50, 50], [110, 50], [110, 110], [50, 110]])
    nearest = np.linalg.norm(found.xy[:, None] - corners[None], axis=-1).min(axis=0)
    assert nearest.max() < 4


@pytest.mark.parametrize("radius", [1, 4, 8])
@pytest.mark.parametrize("border", [0, 10])
def test_suppression_of_points_is_the_definition_and_the_networks(radius: int, border: int) -> None:
    rng = np.random.default_rng(radius)
    size, count = (60, 80), 25
    pixels = rng.permutation(size[0] * size[1])[:600]
    xy = np.column_stack([pixels % size[1], pixels // size[1]]).astype(np.float32)
    scores = rng.permutation(600).astype(np.float32) + 1
    settings = DetectionSettings(count, 0.0, radius, border)
    found = choose(Features(xy, scores, np.zeros((600, 0), np.float32), size), settings)

    def inside(points: np.ndarray) -> np.ndarray:
        return ((points >= border) & (points < np.array(size[::-1]) - border)).all(axis=1)

    slow = xy[greedy(xy, scores, radius)]
    np.testing.assert_array_equal(found.xy, slow[inside(slow)][:count])
    heatmap = np.zeros(size, np.float32)
    heatmap[xy[:, 1].astype(int), xy[:, 0].astype(int)] = scores
    np.testing.assert_array_equal(found.xy, strongest_peaks(heatmap, 0.0, radius, border, count)[0])


def test_a_radius_of_0_keeps_the_detectors_own_choice() -> None:
    xy = np.array([[20, 20], [20, 20], [21, 20]], np.float32)
    found = Features(xy, np.array([1, 3, 2], np.float32), np.eye(3, dtype=np.float32), (40, 40))
    kept = choose(found, DetectionSettings(2, 0.0, 0, 4))
    np.testing.assert_array_equal(kept.scores, [3, 2])
    np.testing.assert_array_equal(kept.descriptors, np.eye(3)[[1, 2]])


def rows_of(features: Features, descriptors: np.ndarray) -> list[int]:
    """Which of OpenCV's ORB descriptors each feature has; features are sorted, OpenCV's are not."""
    signs = np.unpackbits(descriptors, axis=1) * 2.0 - 1
    return [int((signs == row * 16).all(axis=1).argmax()) for row in features.descriptors]


def test_matching_orb_is_mutual_nearest_by_hamming_distance(photograph: np.ndarray) -> None:
    turned = np.ascontiguousarray(np.rot90(photograph))
    _, first = cv2.ORB.create(200).detectAndCompute(photograph, None)
    _, second = cv2.ORB.create(200).detectAndCompute(turned, None)
    hamming = np.unpackbits(first[:, None] ^ second[None], axis=2).sum(axis=2, dtype=int)
    settings = replace(SETTINGS, nms_radius=0, border=0)
    f0, f1 = (classic_detector("orb")(image, settings) for image in (photograph, turned))
    distances = hamming[np.ix_(rows_of(f0, first), rows_of(f1, second))]
    np.testing.assert_array_equal(f0.descriptors @ f1.descriptors.T, 1 - distances / 128)
    pairs = match(f0, f1)
    for row, column in pairs:
        assert distances[row, column] == distances[row].min() == distances[:, column].min()
    assert len(pairs) > 50


def test_matching_sift_is_mutual_nearest_by_euclidean_distance(photograph: np.ndarray) -> None:
    turned = np.ascontiguousarray(np.rot90(photograph))
    settings = replace(SETTINGS, nms_radius=0)
    f0, f1 = (classic_detector("sift")(image, settings) for image in (photograph, turned))
    distances = np.linalg.norm(f0.descriptors[:, None] - f1.descriptors[None], axis=2)
    slow = [
        (row, column) for row, column in enumerate(distances.argmin(axis=1)) if distances[:, column].argmin() == row
    ]
    np.testing.assert_array_equal(match(f0, f1), slow)


@pytest.mark.skipif("sift-precise" not in CLASSIC, reason="OpenCV before 4.8 has no such option")
def test_precise_sift_is_not_shifted_and_plain_sift_is(photograph: np.ndarray) -> None:
    """Why there are two: turned by 180 degrees, a constant shift shows twice."""
    turned = np.ascontiguousarray(photograph[::-1, ::-1])
    settings = replace(SETTINGS, nms_radius=0)
    shift = {}
    for key in ("sift", "sift-precise"):
        f0, f1 = (classic_detector(key)(image, settings) for image in (photograph, turned))
        pairs = match(f0, f1)
        expected = np.array([199, 159]) - f0.xy[pairs[:, 0]]
        shift[key] = np.median(f1.xy[pairs[:, 1]] - expected, axis=0) / 2
    np.testing.assert_allclose(shift["sift"], [0.25, 0.25], atol=0.05)
    np.testing.assert_allclose(shift["sift-precise"], [0, 0], atol=0.05)


def test_an_unknown_baseline_is_refused() -> None:
    with pytest.raises(ValueError, match="unknown baseline 'surf'; expected some of sift, "):
        classic_detector("surf")


# --- networks ------------------------------------------------------------------------------


def test_weights_are_run_by_the_packages_extractor(photograph: np.ndarray) -> None:
    detector = superpoint_detector(None, device="cpu")
    expected = Extractor(device="cpu", max_keypoints=50, nms_radius=8)(photograph)
    found = detector(photograph, DetectionSettings(50, nms_radius=8))
    np.testing.assert_array_equal(found.xy, expected.xy)
    np.testing.assert_array_equal(found.descriptors, expected.descriptors)
    assert detector.name == Extractor(device="cpu").weights_id
    assert len(detector.protocol["sha256"]) == 64


def small_network(descriptor_dim: int) -> SuperPoint:
    torch.manual_seed(0)
    return SuperPoint(Architecture((4, 4, 8, 8), 8, descriptor_dim)).eval()


def test_magicpoint_weights_detect_without_descriptors(tmp_path: Path, photograph: np.ndarray) -> None:
    model = small_network(0)
    save_checkpoint(tmp_path / "magic.safetensors", Checkpoint(model.architecture, model.state_dict()))
    detector = superpoint_detector(tmp_path / "magic.safetensors", device="cpu")
    assert not detector.described
    found = detector(photograph, SETTINGS)
    assert found.descriptors.shape == (len(found), 0) and len(found) > 20


def test_a_heatmap_detector_finds_what_the_extractor_finds(tmp_path: Path, photograph: np.ndarray) -> None:
    model = small_network(16)
    save_checkpoint(tmp_path / "small.safetensors", Checkpoint(model.architecture, model.state_dict()))
    odd = photograph[:101, :155]  # not a multiple of 8
    settings = replace(SETTINGS, border=0)
    ours = HeatmapDetector("small", model, device="cpu")(odd, settings)
    product = superpoint_detector(tmp_path / "small.safetensors", device="cpu")(odd, settings)
    # Equal within rounding, which may swap neighbours in the order.
    assert set(map(tuple, ours.xy.tolist())) == set(map(tuple, product.xy.tolist()))
    np.testing.assert_allclose(ours.scores, product.scores, rtol=1e-4)


def test_a_bad_weights_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "bad.pth").write_bytes(b"no weights at all")
    with pytest.raises(ValueError, match="bad.pth"):
        superpoint_detector(tmp_path / "bad.pth")


def test_chance_finds_the_same_pixels_in_the_same_picture_and_others_in_another() -> None:
    detector = classic_detector("random")
    first, again, other = (detector(picture(seed), SETTINGS) for seed in (0, 0, 1))
    assert np.array_equal(first.xy, again.xy) and np.array_equal(first.scores, again.scores)
    assert not np.array_equal(first.xy, other.xy)
    assert not detector.described and len(first) == SETTINGS.max_keypoints


def test_chance_repeats_as_often_as_chance_does() -> None:
    """Of points drawn anew, those with one of 300 others within 3 px in 100,000 px: 1 - exp(-300 · 9 π / 100,000)."""
    detector = classic_detector("random")
    settings = DetectionSettings(300, 0.0, 0, border=0)
    first, second = (detector(picture(seed, (250, 400)), settings) for seed in (0, 1))
    found = repeatability(first.xy, second.xy, np.eye(3), (250, 400), (250, 400), 300, 3.0).value
    assert found == pytest.approx(1 - np.exp(-300 * 9 * np.pi / 100_000), abs=0.03)


def picture(seed: int, size: tuple[int, int] = (100, 120)) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 255, size, dtype=np.uint8)


@pytest.mark.parametrize("dim", [0, 16])
def test_a_network_in_memory_is_a_detector_without_any_file(dim: int) -> None:
    torch.manual_seed(0)
    model = SuperPoint(Architecture((4, 4, 8, 8), 16, dim))
    detector = network_detector(Checkpoint(model.architecture, model.state_dict(), {"name": "new"}), device="cpu")
    found = detector(picture(0), DetectionSettings(50, 0.0))
    assert detector.described == bool(dim)
    assert len(found) == 50 and found.descriptors.shape[1] == dim
