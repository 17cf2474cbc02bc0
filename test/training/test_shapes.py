import os
import time

import cv2
import numpy as np
import pytest

from superpoint_training.augmentation import Photometric, photometric
from superpoint_training.figures import Figure, render, visible_corners
from superpoint_training.homography import HomographyRange, sample_homography
from superpoint_training.labels import cell_targets
from superpoint_training.shapes import SHAPES, draw_shape

SIZE = (120, 160)
WITHOUT_CORNERS = ("ellipses", "noise")


def square(left: float, top: float, side: float, level: float = 200.0) -> Figure:
    corners = np.array([[0, 0], [1, 0], [1, 1], [0, 1]]) * side + (left, top)
    return Figure([(corners, level)], corners, [corners])


@pytest.mark.parametrize("kind", SHAPES)
def test_picture_and_corners_have_the_promised_form(kind: str) -> None:
    rng = np.random.default_rng(0)
    found = 0
    for _ in range(30):
        image, corners = draw_shape(rng, kind, SIZE)
        assert image.shape == SIZE and image.dtype == np.uint8
        assert corners.ndim == 2 and corners.shape[1] == 2 and corners.dtype == np.float32
        assert np.all(corners > -0.5) and np.all(corners < (159.5, 119.5))
        found += len(corners)
    assert (found == 0) == (kind in WITHOUT_CORNERS)


def test_same_seed_draws_the_same_picture() -> None:
    for kind in SHAPES:
        first, second = (draw_shape(np.random.default_rng(7), kind, SIZE) for _ in range(2))
        assert np.array_equal(first[0], second[0]) and np.array_equal(first[1], second[1])


def test_unknown_kind_is_refused_with_the_known_ones() -> None:
    with pytest.raises(ValueError, match="'hexagon'.*lines, triangle"):
        draw_shape(np.random.default_rng(0), "hexagon")


@pytest.mark.parametrize("kind", ["checkerboard", "cube", "quadrilateral", "triangle"])
def test_corners_lie_where_their_labels_say_also_after_warping(kind: str) -> None:
    """cornerSubPix, started at the label, must not move away from it."""
    rng = np.random.default_rng(1)
    limits = HomographyRange(rotation=180)
    distances = []
    while len(distances) < 120:
        homography = sample_homography(rng, SIZE, limits)
        image, corners = draw_shape(rng, kind, SIZE, homography)
        for corner in corners:
            others = np.hypot(*(corners - corner).T)
            inside = np.all((corner > 8) & (corner < (151, 111)))
            if inside and np.all(others[others > 0] > 12):
                refined = corner.reshape(1, 1, 2).copy()
                cv2.cornerSubPix(image, refined, (4, 4), (-1, -1), (3, 20, 0.01))
                distances.append(float(np.hypot(*(refined[0, 0] - corner))))
    assert np.median(distances) < 0.35
    assert np.mean(np.array(distances) < 1) > 0.95


def test_a_warped_scene_is_the_warped_picture_of_the_scene() -> None:
    """Moving vertices and moving pixels agree, and disagree once one of them is a pixel off."""
    homography = sample_homography(np.random.default_rng(3), SIZE, HomographyRange())
    shift = np.array([[1, 0, 1], [0, 1, 1], [0, 0, 1.0]])
    right, wrong = [], []
    for seed in range(20):
        plain, _ = draw_shape(np.random.default_rng(seed), "checkerboard", SIZE)
        warped, _ = draw_shape(np.random.default_rng(seed), "checkerboard", SIZE, homography)
        for matrix, differences in ((homography, right), (shift @ homography, wrong)):
            moved = cv2.warpPerspective(plain, matrix, SIZE[::-1])
            seen = cv2.warpPerspective(np.ones(SIZE, np.uint8), matrix, SIZE[::-1]) > 0
            differences.append(np.abs(moved.astype(float) - warped)[seen].mean())
    assert np.mean(right) < 0.5 * np.mean(wrong)


def test_hidden_corners_are_dropped_and_overlaps_make_t_junctions() -> None:
    below, above = square(20, 20, 40), square(50, 40, 40, 100.0)
    found = {tuple(corner) for corner in visible_corners([below, above], SIZE).tolist()}
    expected = {(20, 20), (60, 20), (20, 60)}  # (60, 60) is covered
    expected |= {(50, 40), (90, 40), (90, 80), (50, 80)}
    expected |= {(60, 40), (50, 60)}  # where the upper square's edges cross the lower one's
    assert found == expected


def test_a_junction_under_a_third_figure_is_not_labelled() -> None:
    covered = square(48, 50, 14, 50.0)
    found = {tuple(c) for c in visible_corners([square(20, 20, 40), covered, square(50, 40, 40)], SIZE)}
    assert (50, 60) not in found  # the lowest square's edge is hidden by the second there
    assert (60, 40) in found


def test_a_homography_may_put_figures_beyond_the_horizon() -> None:
    steep = np.array([[1, 0, 0], [0, 1, 0], [-0.012, 0, 1.0]])  # the horizon is the column x = 83
    for kind in SHAPES:
        for seed in range(10):
            image, corners = draw_shape(np.random.default_rng(seed), kind, SIZE, steep)
            assert image.shape == SIZE and np.isfinite(corners).all()


@pytest.mark.skipif("BENCH" not in os.environ, reason="a speed: part of `make bench`")
def test_at_least_250_pictures_a_second_on_one_core_with_everything_on() -> None:
    cv2.setNumThreads(1)
    rng = np.random.default_rng(0)
    limits, light = HomographyRange(rotation=180), Photometric()
    count = 330
    started = time.process_time()
    for index in range(count):
        homography = sample_homography(rng, SIZE, limits)
        image, corners = draw_shape(rng, SHAPES[index % len(SHAPES)], SIZE, homography)
        photometric(rng, image, light)
        cell_targets(corners, SIZE, rng)
    rate = count / (time.process_time() - started)
    print(f"{rate:.0f} synthetic pictures a second of one core")
    assert rate >= 250


def test_areas_are_drawn_as_large_as_they_are() -> None:
    """An edge drawn too far out moves every corner with it."""
    rng, offsets = np.random.default_rng(0), []
    for _ in range(50):
        (x, y), side = rng.uniform(10, 20, 2), rng.uniform(20, 40)
        area = np.array([[x, y], [x + side, y], [x + side, y + side], [x, y + side]])
        drawn = render([Figure([(area, 200.0)], area)], np.zeros((80, 80), np.uint8))
        offsets.append((np.sqrt(drawn.sum() / 200) - side) / 2)
    assert abs(np.mean(offsets)) < 0.1
