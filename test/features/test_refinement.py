"""superpoint_ros/features/refinement.py, on a made-up picture and views of it that are known exactly."""

from __future__ import annotations

from dataclasses import replace

import cv2
import numpy as np
import pytest
from aligned_scenes import HEIGHT, SIZE, WIDTH, as_picture, motion, seen

from superpoint_ros.features.extractor import Features
from superpoint_ros.features.fit import project
from superpoint_ros.features.homography import corner_error, estimate_homography
from superpoint_ros.features.levels import levels_of
from superpoint_ros.features.refinement import refine_matches


def features(xy, size=SIZE, scale=1.0):
    count = len(xy)
    parts = np.asarray(xy, np.float32), np.ones(count, np.float32), np.zeros((count, 4), np.float32)
    return Features(*parts, size, scales=np.full(count, scale, np.float32))


def in_order(count):
    return np.stack([np.arange(count)] * 2, axis=1).astype(np.int32)


def view(matrix, size=SIZE, deviation=0.4, scale=1.0, seed=0):
    """Features of the reference and of a view, with errors, and the true places in the view."""
    rng = np.random.default_rng(seed)
    first = np.rint(rng.uniform((20, 20), (WIDTH - 21, HEIGHT - 21), (300, 2)))
    true = project(matrix, first)
    inside = ((true > 12) & (true < np.array(size[::-1]) - 13)).all(axis=1)
    first, true = first[inside], true[inside]
    found = true + rng.normal(size=true.shape) * deviation * scale
    return features(first), features(found, size, scale), true


def errors_of(positions, true):
    return np.linalg.norm(positions - true, axis=1)


MOTIONS = {
    "a shift": motion(shift=(5.3, -2.7)),
    "a turn": motion(30),
    "half a turn": motion(170),
    "zoom in": motion(zoom=1.4),
    "zoom out": motion(zoom=0.6),
    "perspective": motion(10, 1.0, (4, 4), (5e-4, -3e-4)),
}


@pytest.mark.parametrize("matrix", MOTIONS.values(), ids=MOTIONS)
def test_matches_are_refined_to_a_tenth_of_a_pixel(matrix):
    f0, f1, true = view(matrix)
    positions, refined = refine_matches(
        f0, f1, in_order(len(f0)), (as_picture(seen(np.eye(3)), 2), as_picture(seen(matrix), 2, 1))
    )
    assert positions.dtype == np.float32 and positions.shape == (len(f0), 2)
    assert refined.mean() > 0.8
    assert np.median(errors_of(positions, true)[refined]) < 0.1
    assert np.quantile(errors_of(positions, true)[refined], 0.95) < 0.3
    np.testing.assert_array_equal(positions[~refined], f1.xy[~refined])


CHANGES = {
    "darker": lambda values: values * 0.5,
    "brighter": lambda values: values * 0.7 + 70,
    "light from the side": lambda values: values * np.linspace(0.5, 1.1, WIDTH),
    "blurred": lambda values: cv2.GaussianBlur(values, (0, 0), 2),
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
@pytest.mark.parametrize("first", [True, False], ids=["the first", "the second"])
def test_one_picture_may_be(change, first):
    matrix = motion(8, 1.05, (3, 2))
    f0, f1, true = view(matrix)
    a, b = seen(np.eye(3)), seen(matrix)
    pictures = (change(a), b) if first else (a, change(b))
    positions, refined = refine_matches(
        f0, f1, in_order(len(f0)), (as_picture(pictures[0], 1), as_picture(pictures[1], 1, 1))
    )
    assert refined.mean() > 0.7
    assert np.median(errors_of(positions, true)[refined]) < 0.15


def test_alignment_ends_where_a_search_over_all_shifts_does():
    matrix = motion(shift=(3.37, 1.81))
    f0, f1, _ = view(matrix)
    a, b = as_picture(seen(np.eye(3)), 1), as_picture(seen(matrix), 1, 1)
    positions, refined = refine_matches(f0, f1, in_order(len(f0)), (a, b))
    smooth_a, smooth_b = (cv2.GaussianBlur(picture, (5, 5), 0.8).astype(np.float32) for picture in (a, b))
    along = np.arange(-6, 7)
    weights = np.exp(-(along[:, None] ** 2 + along**2) / (2 * 3.6**2)).astype(np.float32)
    for row in np.flatnonzero(refined)[:10]:
        patch = cv2.getRectSubPix(smooth_a, (13, 13), tuple(map(float, f0.xy[row])))
        best, place = -np.inf, None
        for x in np.arange(-1.5, 1.51, 0.05):
            for y in np.arange(-1.5, 1.51, 0.05):
                at = (float(f1.xy[row, 0] + x), float(f1.xy[row, 1] + y))
                other = cv2.getRectSubPix(smooth_b, (13, 13), at)
                one, two = (p - (p * weights).sum() / weights.sum() for p in (patch, other))
                alike = (weights * one * two).sum() / np.sqrt((weights * one**2).sum() * (weights * two**2).sum())
                best, place = max((best, place), (alike, at))
        assert np.abs(positions[row] - place).max() < 0.1


def test_wrong_matches_are_left_alone():
    f0, f1, _ = view(motion(shift=(4, 4)))
    elsewhere = np.random.default_rng(5).uniform((20, 20), (WIDTH - 21, HEIGHT - 21), f1.xy.shape)
    wrong = replace(f1, xy=elsewhere.astype(np.float32))
    pictures = as_picture(seen(np.eye(3))), as_picture(seen(motion(shift=(4, 4))))
    positions, refined = refine_matches(f0, wrong, in_order(len(f0)), pictures)
    assert refined.mean() < 0.02
    np.testing.assert_array_equal(positions[~refined], wrong.xy[~refined])


def test_nothing_moves_by_more_than_two_pixels():
    f0, f1, true = view(motion(), deviation=3.0)
    picture = as_picture(seen(np.eye(3)))
    positions, refined = refine_matches(f0, f1, in_order(len(f0)), (picture, picture))
    assert 0.2 < refined.mean() < 0.9
    assert np.abs(positions - f1.xy).max() <= 2.001


def test_what_has_no_texture_is_left_alone():
    f0, f1, _ = view(motion())
    flat, edge = np.full(SIZE, 100.0), np.repeat(np.where(np.arange(WIDTH) < 240, 50.0, 200.0)[None], HEIGHT, axis=0)
    for values in (flat, edge):
        _, refined = refine_matches(f0, f1, in_order(len(f0)), (as_picture(values, 2), as_picture(values, 2, 1)))
        assert refined.mean() < 0.02


def test_points_at_the_border_are_left_alone():
    corners = np.array([[0, 0], [WIDTH - 1, 0], [WIDTH - 1, HEIGHT - 1], [3, HEIGHT - 4], [WIDTH / 2, 2]])
    picture = as_picture(seen(np.eye(3)))
    positions, refined = refine_matches(features(corners), features(corners), in_order(5), (picture, picture))
    assert not refined.any()
    np.testing.assert_array_equal(positions, corners.astype(np.float32))


@pytest.mark.parametrize("scale", [2.0, 3.0])
def test_keypoints_of_a_coarse_level_are_refined_by_that_level(scale):
    # The second picture is that much larger, and its keypoints that much less exact.
    larger = np.diag([scale, scale, 1.0])
    size = (int(HEIGHT * scale), int(WIDTH * scale))
    f0, f1, true = view(larger, size, scale=scale)
    pictures = as_picture(seen(np.eye(3)), 1), as_picture(seen(larger, size), 1, 1)
    positions, refined = refine_matches(f0, f1, in_order(len(f0)), pictures)
    assert refined.mean() > 0.8
    assert np.median(errors_of(positions, true)[refined]) < 0.1 * scale


def test_what_is_masked_in_either_picture_is_left_alone():
    # A bonnet: it stays while the road moves.
    f0, f1, true = view(motion(shift=(4.3, 2.2)))
    pictures = [as_picture(seen(motion(shift=shift)), 1) for shift in ((0, 0), (4.3, 2.2))]
    mask = np.ones(SIZE, bool)
    mask[300:] = False
    for picture in pictures:
        picture[300:] = as_picture(seen(np.eye(3)))[300:]
    levels = [levels_of(picture, mask=mask) for picture in pictures]
    for given in (tuple(levels), (levels[0], pictures[1]), (pictures[0], levels[1])):
        positions, refined = refine_matches(f0, f1, in_order(len(f0)), given)
        assert refined.mean() > 0.5
        assert not refined[f0.xy[:, 1] > 300].any()
        assert np.quantile(errors_of(positions, true)[refined], 0.99) < 0.3


def test_a_limit_refines_some_all_over_the_list():
    f0, f1, _ = view(motion())
    picture = as_picture(seen(np.eye(3)))
    positions, refined = refine_matches(f0, f1, in_order(len(f0)), (picture, picture), limit=50)
    assert 30 < refined.sum() <= 50
    assert refined[-30:].any()
    np.testing.assert_array_equal(positions[~refined], f1.xy[~refined])


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("count", [0, 1, 2, 3, 5])
def test_a_few_matches_are_no_trouble(count):
    f0, f1, true = view(motion(shift=(2.5, 1)))
    pictures = as_picture(seen(np.eye(3))), as_picture(seen(motion(shift=(2.5, 1))))
    positions, refined = refine_matches(f0, f1, in_order(count), pictures)
    assert positions.shape == (count, 2) and refined.shape == (count,)
    assert (errors_of(positions, true[:count])[refined] < 0.3).all()


@pytest.mark.filterwarnings("error")
def test_many_matches_of_one_point_are_no_trouble():
    f0 = features(np.full((40, 2), 100.0))
    picture = as_picture(seen(np.eye(3)))
    positions, _ = refine_matches(f0, f0, in_order(40), (picture, picture))
    assert np.isfinite(positions).all()


def test_colour_and_levels_of_a_picture_do_as_well():
    f0, f1, _ = view(motion(shift=(2.5, 1)))
    pictures = as_picture(seen(np.eye(3))), as_picture(seen(motion(shift=(2.5, 1))))
    expected, _ = refine_matches(f0, f1, in_order(len(f0)), pictures)
    colour = tuple(cv2.cvtColor(picture, cv2.COLOR_GRAY2BGR) for picture in pictures)
    np.testing.assert_array_equal(refine_matches(f0, f1, in_order(len(f0)), colour)[0], expected)
    levels = tuple(levels_of(picture, coarsest=0) for picture in pictures)
    np.testing.assert_array_equal(refine_matches(f0, f1, in_order(len(f0)), levels)[0], expected)


def test_a_picture_of_another_size_is_refused_with_both():
    f0, f1, _ = view(motion())
    picture = as_picture(seen(np.eye(3)))
    with pytest.raises(ValueError, match=r"^the picture's size is \(360, 240\), that of its features \(360, 480\)$"):
        refine_matches(f0, f1, in_order(len(f0)), (picture, picture[:, :240]))


# Of a homography


@pytest.mark.parametrize("matrix", MOTIONS.values(), ids=MOTIONS)
def test_a_homography_is_refined_to_a_few_hundredths_of_a_pixel(matrix):
    f0, f1, _ = view(matrix)
    pictures = as_picture(seen(np.eye(3)), 2), as_picture(seen(matrix), 2, 1)
    before = estimate_homography(f0, f1, in_order(len(f0)))
    after = estimate_homography(f0, f1, in_order(len(f0)), images=pictures)
    assert not before.refined and after.refined
    assert corner_error(after.matrix, matrix, SIZE) < 0.08
    assert corner_error(after.matrix, matrix, SIZE) < corner_error(before.matrix, matrix, SIZE)
    assert after.rmse < 0.15 < before.rmse
    assert after.inliers.all()


def test_a_homography_whose_pictures_do_not_agree_stays_what_it_was():
    f0, f1, _ = view(motion(shift=(3, 1)))
    picture, other = as_picture(seen(np.eye(3))), as_picture(seen(motion(90)))
    before = estimate_homography(f0, f1, in_order(len(f0)))
    after = estimate_homography(f0, f1, in_order(len(f0)), images=(picture, other))
    assert not after.refined
    np.testing.assert_array_equal(after.matrix, before.matrix)
    np.testing.assert_array_equal(after.inliers, before.inliers)
    assert after.rmse == before.rmse


def test_a_homography_is_not_refined_by_one_corner_of_the_picture():
    # Only there is texture: nearer than the keypoints there, and far off in the other corners.
    matrix = motion(shift=(3, 1))
    f0, f1, _ = view(matrix)
    pictures = [as_picture(seen(one), 1, seed) for seed, one in enumerate((np.eye(3), matrix))]
    for picture in pictures:
        picture[90:], picture[:, 120:] = 100, 100
    after = estimate_homography(f0, f1, in_order(len(f0)), images=tuple(pictures))
    assert not after.refined


def test_a_homography_of_photographs_is_refined(extractor, photograph):
    matrix = np.array([[0.98, -0.05, 12.0], [0.06, 1.01, -7.0], [4e-5, 2e-5, 1]])
    warped = cv2.warpPerspective(photograph, matrix, photograph.shape[::-1], borderMode=cv2.BORDER_REFLECT)
    f0, f1 = extractor.batch([photograph, warped])
    from superpoint_ros.features.matching import match

    found = estimate_homography(f0, f1, match(f0, f1), images=(photograph, warped))
    assert found.refined
    assert corner_error(found.matrix, matrix, f0.size) < 0.1
