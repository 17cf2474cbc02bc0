"""superpoint_ros/features/stereo.py"""

from dataclasses import replace
from importlib.util import find_spec

import cv2
import numpy as np
import pytest

from space_scenes import SIZE, K, depth, render, yawed
from superpoint_ros.features.extractor import Features
from superpoint_ros.features.rectification import Calibration, Uncalibrated, of_rectified, rectify
from superpoint_ros.features.stereo import StereoMatches, match_stereo, points, stereo_rig

BASELINE = 0.12


def camera(shift=0.0, p=K, size=SIZE, drop=0.0, **lens):
    values = {"model": "plumb_bob", "k": p, "d": np.zeros(0), "r": np.eye(3), "binning": (1, 1), "offset": (0, 0)}
    return Calibration(**{**values, **lens}, p=p, size=size, shift=shift, drop=drop)


def rig(**lens):
    return stereo_rig(camera(**lens), camera(-K[0, 0] * BASELINE, **lens))


@pytest.fixture(scope="module")
def scene(extractor):
    """Two rendered pictures, their features, and the true depths of the left one's keypoints."""
    pictures = render(np.eye(3), np.zeros(3)), render(np.eye(3), np.array([BASELINE, 0, 0]))
    left, right = extractor.batch(list(pictures))
    return pictures, left, right, depth(np.eye(3), np.zeros(3), left.xy)


@pytest.fixture(scope="module")
def motorcycle(extractor):
    """scikit-image's stereo pair (Middlebury 2014), its features, and the true disparities (H, W)."""
    if find_spec("skimage") is None:
        pytest.skip("scikit-image, whose stereo pair is used, is not installed")
    from skimage import data

    *pictures, disparity = data.stereo_motorcycle()
    pictures = [cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY) for picture in pictures]
    return pictures, *extractor.batch(pictures), disparity


def motorcycle_rig():
    """Of its calib.txt: focal length, principal points of both cameras, baseline."""
    p = np.array([[994.978, 0, 311.193], [0, 994.978, 254.877], [0, 0, 1]])
    moved = p + [[0, 0, 31.086], [0, 0, 0], [0, 0, 0]]
    shift = -994.978 * 0.193001
    return stereo_rig(camera(p=p, size=(500, 741)), camera(shift, p=moved, size=(500, 741)))


def errors_on(motorcycle, found):
    """Of the disparities of matches, pixels, where the truth is known."""
    _, left, _, disparity = motorcycle
    here = left.xy[found.matches[:, 0]]
    truth = disparity[tuple(np.rint(here).astype(int).T[::-1])]
    errors = np.abs(here[:, 0] - found.right_xy[:, 0] - truth)
    return errors[np.isfinite(errors)]


@pytest.mark.parametrize("calibrated", [True, False])
def test_disparities_of_a_real_pair_are_right(motorcycle, calibrated):
    pictures, left, right, _ = motorcycle
    found = match_stereo(left, right, motorcycle_rig() if calibrated else None, images=tuple(pictures))
    errors = errors_on(motorcycle, found)
    assert len(errors) > 300
    assert np.median(errors) <= 0.5
    assert (errors <= 2).mean() >= 0.95


def test_depths_of_a_real_pair_are_as_exact_as_their_covariances_say(motorcycle):
    pictures, left, right, disparity = motorcycle
    pair = motorcycle_rig()
    found = match_stereo(left, right, pair, images=tuple(pictures))
    seen = points(pair, found)
    truth = disparity[tuple(np.rint(left.xy[seen.rows]).astype(int).T[::-1])]
    expected = 994.978 * pair.baseline / (truth + 31.086)
    off = (seen.xyz[:, 2] - expected) / np.sqrt(seen.covariance[:, 2, 2])
    assert 0.5 < 1.4826 * np.nanmedian(np.abs(off)) < 2


def test_points_of_a_rendered_pair_are_where_they_are(scene):
    pictures, left, right, expected = scene
    found = match_stereo(left, right, rig(), images=pictures)
    seen = points(rig(), found)
    z = expected[seen.rows]
    assert len(z) > 100
    disparity = K[0, 0] * BASELINE
    assert np.nanmedian(np.abs(disparity / seen.xyz[:, 2] - disparity / z)) < 0.1
    pixels = seen.xyz @ K.T
    np.testing.assert_allclose(pixels[:, :2] / pixels[:, 2:], left.xy[seen.rows], atol=1e-3)


def test_points_and_their_covariances_are_those_of_disturbed_pictures(scene):
    """The obvious way: disturb both pixels of one match many times, and look at the points."""
    pair, rng, pixel, deviation = rig(), np.random.default_rng(0), 1 / K[0, 0], 0.2
    x, y, z, count = 0.3, -0.2, 4.0, 100_000
    left = [x, y] + rng.normal(0, deviation * pixel / np.sqrt(2), (count, 2))
    right = x - BASELINE / z + rng.normal(0, deviation * pixel / np.sqrt(2), count)
    depths = BASELINE / (left[:, 0] - right)
    disturbed = np.column_stack([left * depths[:, None], depths])
    one = np.array([BASELINE / z])
    match = StereoMatches(
        np.zeros((1, 2), np.int32), np.ones(1), np.zeros((1, 2)), np.array([[x, y]]), one, one * 0 + deviation * pixel
    )
    seen = points(pair, match)
    np.testing.assert_allclose(seen.xyz[0], [x * z, y * z, z])
    np.testing.assert_allclose(seen.covariance[0], np.cov(disturbed.T), rtol=0.05, atol=1e-6)


def test_what_is_too_far_away_for_its_disparity_to_be_told_from_none_has_no_point():
    """Two lenses may leave 1e-17 of a disparity of 0, and its covariance is beyond float32."""
    pixel = 1 / K[0, 0]
    disparity = np.array([20, 0.05, 1e-15, 0.3]) * pixel
    sight = np.array([[0.3, -0.2], [0, 0], [0, 0], [0.1, 0.1]])
    rows, deviation = np.int32([[2, 0], [3, 1], [5, 2], [9, 3]]), np.full(4, 0.1 * pixel)
    found = StereoMatches(rows, np.ones(4, np.float32), np.zeros((4, 2), np.float32), sight, disparity, deviation)
    seen = points(rig(), found)
    np.testing.assert_array_equal(seen.rows, [2, 9])
    np.testing.assert_allclose(seen.xyz[:, 2], BASELINE / disparity[[0, 3]])
    assert np.isfinite(seen.covariance.astype(np.float32)).all()


def test_lenses_and_mounting_are_undone_before_rows_are_compared(scene, extractor):
    """The raw pictures have no common rows: a lens bends them, and the cameras are turned."""
    pictures = scene[0]
    turns = [cv2.Rodrigues(np.array(axis))[0] for axis in ([0.03, 0.02, -0.03], [-0.02, 0.01, 0.04])]
    lens = np.array([-0.2, 0.05, 0.001, -0.001])
    shifts = 0.0, -K[0, 0] * BASELINE
    cameras = [camera(shift, r=turn, d=lens) for shift, turn in zip(shifts, turns, strict=True)]
    grid = np.stack(np.meshgrid(np.arange(320), np.arange(240)), axis=-1).reshape(-1, 2).astype(np.float32)
    raw = []
    for each, picture in zip(cameras, pictures, strict=True):
        places = rectify(each, grid).reshape(240, 320, 2)
        raw.append(cv2.remap(picture, places, None, cv2.INTER_CUBIC))
    left, right = extractor.batch(raw)
    found = match_stereo(left, right, stereo_rig(*cameras), images=tuple(raw))
    rows = left.xy[found.matches[:, 0], 1] - found.right_xy[:, 1]
    assert len(found.matches) > 100 and np.median(np.abs(rows)) > 5
    seen = points(stereo_rig(*cameras), found)
    pixels = seen.xyz @ K.T
    truth = depth(np.eye(3), np.zeros(3), pixels[:, :2] / pixels[:, 2:])
    off = K[0, 0] * BASELINE * (1 / seen.xyz[:, 2] - 1 / truth)
    assert np.nanmedian(np.abs(off)) < 0.15


def test_of_rectified_images_the_lens_is_not_undone_again():
    bent = camera(r=yawed(0.1), d=np.array([-0.3, 0.1, 0, 0]))
    xy = np.random.default_rng(0).uniform(0, 200, (20, 2)).astype(np.float32)
    assert np.abs(rectify(bent, xy) - xy).max() > 5
    np.testing.assert_allclose(rectify(of_rectified(bent), xy), xy, atol=1e-3)


def test_the_tolerance_grows_with_the_scale_of_keypoints():
    descriptors = np.eye(2, 8, dtype=np.float32)
    left = Features(np.float32([[100, 50], [100, 150]]), np.float32([1, 1]), descriptors, SIZE)
    right = replace(left, xy=np.float32([[90, 55], [90, 155]]))
    assert len(match_stereo(left, right, rig(), tolerance=2).matches) == 0
    coarse = replace(left, scales=np.float32([1, 3]))
    np.testing.assert_array_equal(match_stereo(coarse, right, rig(), tolerance=2).matches, [[1, 1]])


def test_a_disparity_is_above_0_and_within_the_maximum():
    descriptors = np.eye(3, 8, dtype=np.float32)
    left = Features(np.float32([[100, 50], [100, 100], [100, 150]]), np.ones(3, np.float32), descriptors, SIZE)
    right = replace(left, xy=np.float32([[101, 50], [80, 100], [60, 150]]))
    np.testing.assert_array_equal(match_stereo(left, right, rig(), max_disparity=30).matches, [[1, 1]])


def test_without_a_calibration_few_matches_prove_nothing():
    rng = np.random.default_rng(1)
    descriptors = np.eye(12, dtype=np.float32)
    left = Features(rng.uniform(0, 200, (12, 2)).astype(np.float32), np.ones(12, np.float32), descriptors, SIZE)
    assert len(match_stereo(left, replace(left, xy=left.xy - [5, 0]), None).matches) == 0


def test_calibrations_that_are_not_of_one_pair_are_refused():
    with pytest.raises(Uncalibrated, match="no baseline"):
        stereo_rig(camera(), camera())
    with pytest.raises(Uncalibrated, match=r"0\.12 m to the left of the left one"):
        stereo_rig(camera(-K[0, 0] * BASELINE), camera())
    with pytest.raises(Uncalibrated, match=r"the right camera is 0\.12 m below the left one, and P\[3\] 0 m beside it"):
        stereo_rig(camera(), camera(drop=-K[1, 1] * BASELINE))
