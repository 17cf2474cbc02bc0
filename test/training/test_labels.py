import numpy as np
import pytest

from superpoint_training.labels import cell_mask, cell_targets, uncrowded

SIZE = (32, 40)


def slow_targets(points: np.ndarray) -> np.ndarray:
    """For points in cells of their own."""
    targets = np.zeros((65, 4, 5))
    targets[64] = 1
    for x, y in np.rint(points).astype(int):
        if 0 <= x < 40 and 0 <= y < 32:
            targets[:, y // 8, x // 8] = 0
            targets[(y % 8) * 8 + x % 8, y // 8, x // 8] = 1
    return targets


def test_each_keypoint_is_its_cells_answer() -> None:
    points = np.array([[3.2, 4.4], [39.4, 0.0], [20.0, 31.4], [15.6, 8.0], [-0.6, 3.0], [40.0, 9.0]])
    found = cell_targets(points, SIZE, np.random.default_rng(0))
    assert np.array_equal(found, slow_targets(points))


def test_without_keypoints_every_cell_answers_with_the_dustbin() -> None:
    found = cell_targets(np.zeros((0, 2)), SIZE, np.random.default_rng(0))
    assert np.all(found[64] == 1) and np.all(found[:64] == 0)


def test_of_several_keypoints_in_a_cell_each_is_chosen_equally_often() -> None:
    points = np.array([[0.0, 0.0], [7.0, 0.0], [3.0, 5.0]])
    counts = np.zeros(65)
    for seed in range(600):
        column = cell_targets(points, SIZE, np.random.default_rng(seed))[:, 0, 0]
        assert column.sum() == 1
        counts += column
    assert np.flatnonzero(counts).tolist() == [0, 7, 43]
    assert counts[[0, 7, 43]].min() > 150


def test_soft_targets_are_a_gaussian_around_the_exact_position() -> None:
    point = np.array([[10.3, 12.8]])
    found = cell_targets(point, SIZE, np.random.default_rng(0), sigma=0.7)
    heatmap = found[:64].reshape(8, 8, 4, 5).transpose(2, 0, 3, 1).reshape(SIZE)
    y, x = np.mgrid[:32, :40]
    assert heatmap.sum() == pytest.approx(1, abs=1e-5)
    assert (heatmap * x).sum() == pytest.approx(10.3, abs=0.05)
    assert (heatmap * y).sum() == pytest.approx(12.8, abs=0.05)
    assert np.allclose(found.sum(axis=0), 1, atol=1e-6)


def test_soft_targets_of_a_keypoint_between_cells_are_shared_by_both() -> None:
    found = cell_targets(np.array([[7.5, 4.0]]), SIZE, np.random.default_rng(0), sigma=0.7)
    left, right = found[:64, 0, 0].sum(), found[:64, 0, 1].sum()
    assert left == pytest.approx(0.5, abs=0.01) and right == pytest.approx(0.5, abs=0.01)
    assert found[64, 0, 0] == pytest.approx(0.5, abs=0.01)


def test_crowded_soft_targets_stay_distributions() -> None:
    points = np.random.default_rng(0).uniform(0, (39, 31), (200, 2))
    found = cell_targets(points, SIZE, np.random.default_rng(0), sigma=0.7)
    assert found.min() >= 0 and np.allclose(found.sum(axis=0), 1, atol=1e-5)


def test_a_cell_is_valid_only_if_all_its_pixels_are() -> None:
    valid = np.ones(SIZE, bool)
    valid[15, 16] = False
    assert np.argwhere(~cell_mask(valid)).tolist() == [[1, 2]]


def slow_uncrowded(points: np.ndarray, scores: np.ndarray, radius: int) -> list[int]:
    kept: list[int] = []
    pixels = np.rint(points).astype(int)
    for index in np.argsort(-scores):
        if all(np.abs(pixels[index] - pixels[other]).max() > radius for other in kept):
            kept.append(int(index))
    return sorted(kept)


@pytest.mark.parametrize("radius", [1, 4])
def test_of_crowded_labels_the_strongest_stay(radius: int) -> None:
    rng = np.random.default_rng(radius)
    points, scores = rng.uniform(0, (39, 31), (80, 2)), rng.random(80)
    found = uncrowded(points, scores, SIZE, radius)
    assert found.tolist() == slow_uncrowded(points, scores, radius)
    assert 5 < len(found) < 80
    assert len(uncrowded(np.zeros((0, 2)), np.zeros(0), SIZE, radius)) == 0
