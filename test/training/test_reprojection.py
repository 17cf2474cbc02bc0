"""The reprojection loss on heatmaps whose peaks lie where the test says."""

import numpy as np
import pytest
import torch

from superpoint_ros.network.heatmap import heatmap_from_logits
from superpoint_training.homography import warp_points
from superpoint_training.labels import cell_targets
from superpoint_training.reprojection import peak_positions, reprojection_loss, strongest_valid

SIZE = (96, 128)
EVERYWHERE = torch.ones(1, 2, SIZE[0] // 8, SIZE[1] // 8, dtype=torch.bool)
POINTS = np.array([[28.3, 32.6], [60.0, 25.5], [100.2, 30.9], [30.7, 70.1], [83.4, 60.2]])


def logits_of(points: np.ndarray) -> torch.Tensor:
    """Cell logits whose heatmap is a Gaussian of 0.7 px around each point."""
    targets = cell_targets(points, SIZE, np.random.default_rng(0), sigma=0.7)
    return torch.from_numpy(targets).clamp_min(1e-7).log()[None]


def some_homography() -> np.ndarray:
    turn, centre = np.radians(25), np.array([63.5, 47.5])
    matrix = np.eye(3)
    matrix[:2, :2] = 1.1 * np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]])
    matrix[:2, 2] = centre - matrix[:2, :2] @ centre
    matrix[2, :2] = [4e-4, -3e-4]
    return matrix


def as_batch(matrix: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(matrix)[None].float()


def mean(loss: object) -> float:
    return float(loss.total.detach() / loss.count)  # type: ignore[attr-defined]


def test_peaks_at_the_same_place_of_the_scene_cost_next_to_nothing() -> None:
    homography = some_homography()
    loss = reprojection_loss(
        logits_of(POINTS), logits_of(warp_points(POINTS, homography)), as_batch(homography), EVERYWHERE
    )
    assert int(loss.count) == len(POINTS)
    assert mean(loss) < 0.05


def test_the_loss_is_the_distance_in_pixels() -> None:
    moved = POINTS + [0.6, -0.8]
    loss = reprojection_loss(logits_of(POINTS), logits_of(moved), torch.eye(3)[None], EVERYWHERE)
    assert int(loss.count) == len(POINTS)
    assert mean(loss) == pytest.approx(1.0, abs=0.02)


def test_both_directions_count_the_same() -> None:
    homography = some_homography()
    first, second = logits_of(POINTS), logits_of(warp_points(POINTS, homography) + 0.5)
    there = reprojection_loss(first, second, as_batch(homography), EVERYWHERE)
    back = reprojection_loss(second, first, as_batch(np.linalg.inv(homography)), EVERYWHERE)
    assert mean(there) == pytest.approx(mean(back), rel=1e-4)


def test_following_the_gradient_brings_the_peaks_together() -> None:
    first, second = logits_of(POINTS), logits_of(POINTS + [0.9, 0.4]).requires_grad_()
    before = None
    for _ in range(20):
        loss = reprojection_loss(first, second, torch.eye(3)[None], EVERYWHERE)
        before = mean(loss) if before is None else before
        (gradient,) = torch.autograd.grad(loss.total, second)
        second = (second - gradient).detach().requires_grad_()
    assert before is not None
    assert mean(loss) < 0.5 * before


def test_far_lone_and_invalid_keypoints_do_not_count() -> None:
    lone = np.concatenate([POINTS[1:], [[50.0, 85.0]]])
    loss = reprojection_loss(logits_of(POINTS), logits_of(lone), torch.eye(3)[None], EVERYWHERE)
    assert int(loss.count) == len(POINTS) - 1
    valid = EVERYWHERE.clone()
    valid[0, 1, int(POINTS[4, 1]) // 8, int(POINTS[4, 0]) // 8] = False
    loss = reprojection_loss(logits_of(POINTS), logits_of(lone), torch.eye(3)[None], valid)
    assert int(loss.count) == len(POINTS) - 2


def test_each_picture_of_a_batch_has_its_own_homography() -> None:
    homography = some_homography()
    first = torch.cat([logits_of(POINTS), logits_of(POINTS)])
    second = torch.cat([logits_of(POINTS), logits_of(warp_points(POINTS, homography))])
    homographies = torch.cat([torch.eye(3)[None], as_batch(homography)])
    loss = reprojection_loss(first, second, homographies, EVERYWHERE.expand(2, -1, -1, -1))
    assert int(loss.count) == 2 * len(POINTS)
    assert mean(loss) < 0.05


def test_without_a_keypoint_there_is_no_loss_and_no_gradient() -> None:
    empty = logits_of(np.empty((0, 2))).requires_grad_()
    loss = reprojection_loss(empty, logits_of(POINTS), torch.eye(3)[None], EVERYWHERE)
    loss.total.backward()
    assert int(loss.count) == 0 and float(loss.total.detach()) == 0
    assert empty.grad is not None and torch.isfinite(empty.grad).all() and not empty.grad.any()


def test_a_peak_beside_the_edge_has_a_position_inside() -> None:
    heatmap = torch.zeros(1, 16, 16)
    heatmap[0, 0, 15] = 1.0
    heatmap[0, 1, 15] = 1.0
    assert torch.allclose(peak_positions(heatmap, torch.tensor([[[15, 0]]])), torch.tensor([[[15.0, 0.5]]]))


def test_a_peak_in_an_invalid_cell_leaves_no_shoulder_in_the_next() -> None:
    """It lies on the last column of its cell, so that the next cell's first column is its slope."""
    points = np.array([[39.2, 36.0], [84.0, 60.0]])
    valid = EVERYWHERE.clone()
    valid[:, :, :, 4] = False  # columns 32 to 39
    heatmaps = heatmap_from_logits(logits_of(points))
    masks = valid[:, 0].repeat_interleave(8, 1).repeat_interleave(8, 2)
    assert (heatmaps * masks)[0, 30:42, 40].max() > 0.01  # the slope alone would be a peak
    peaks, scores = strongest_valid(heatmaps, masks)
    assert peaks[scores > 0].tolist() == [[84, 60]]
    loss = reprojection_loss(logits_of(points), logits_of(points), torch.eye(3)[None], valid)
    assert int(loss.count) == 1


def test_a_keypoint_lies_where_the_deployed_refinement_puts_it() -> None:
    moved = POINTS + [0.3, -0.4]
    loss = reprojection_loss(logits_of(POINTS), logits_of(moved), torch.eye(3)[None], EVERYWHERE, place="parabola")
    assert mean(loss) == pytest.approx(0.5, abs=0.01)
    logits = logits_of(moved).requires_grad_()
    loss = reprojection_loss(logits_of(POINTS), logits, torch.eye(3)[None], EVERYWHERE, place="parabola")
    (gradient,) = torch.autograd.grad(loss.total, logits)
    assert gradient.isfinite().all() and gradient.abs().sum() > 0


def test_pairs_further_apart_than_the_radius_are_not_the_same() -> None:
    moved = POINTS + [2.0, 0.0]
    counts = [
        int(reprojection_loss(logits_of(POINTS), logits_of(moved), torch.eye(3)[None], EVERYWHERE, near).count)
        for near in (3.0, 1.5)
    ]
    assert counts == [len(POINTS), 0]


def test_by_score_a_sure_pair_counts_more_than_a_faint_one() -> None:
    """One pair is exact and sure, the other 1 px off and faint."""
    points = np.array([[30.0, 36.0], [84.0, 60.0]])
    first, second = logits_of(points), logits_of(points + [[0, 0], [1.0, 0]])
    for logits in (first, second):
        logits[:, 64, 7, 10] = 3  # most of the cell of the second pair is the dustbin's
    plain, weighted = (
        mean(reprojection_loss(first, second, torch.eye(3)[None], EVERYWHERE, by_score=chosen))
        for chosen in (False, True)
    )
    assert plain == pytest.approx(0.5, abs=0.05)
    assert weighted < 0.7 * plain
