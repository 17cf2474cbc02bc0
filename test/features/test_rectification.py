"""superpoint_ros/features/rectification.py"""

from types import SimpleNamespace

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from superpoint_ros.features.rectification import Uncalibrated, calibration, rectify

K = np.array([[420.0, 0, 330], [0, 415, 236], [0, 0, 1]])
R = cv2.Rodrigues(np.array([0.02, -0.03, 0.01]))[0]
P = np.array([[380.0, 0, 322, -38], [0, 380, 241, 0], [0, 0, 1, 0]])
LENSES = {
    "plumb_bob": [-0.28, 0.07, 1e-3, -5e-4, 0.0],
    "rational_polynomial": [0.5, -0.1, 1e-3, 2e-4, 0.01, 0.8, -0.05, 0.02],
    "equidistant": [-0.03, 0.004, -0.002, 0.0005],
}


def info(model="plumb_bob", d=None, binning=(0, 0), roi=(0, 0, 0, 0), **fields):
    """A sensor_msgs/CameraInfo of a 640×480 sensor; roi is x_offset, y_offset, width, height."""
    x, y, width, height = roi
    values = {
        "width": 640,
        "height": 480,
        "distortion_model": model,
        "k": K.ravel(),
        "r": R.ravel(),
        "p": P.ravel(),
        "d": LENSES[model] if d is None else d,
        "binning_x": binning[0],
        "binning_y": binning[1],
        "roi": SimpleNamespace(x_offset=x, y_offset=y, width=width, height=height),
    }
    return SimpleNamespace(**{**values, **fields})


def lens(model, pixel):
    """The raw pixel of a rectified one: the formulas of the OpenCV manual, one point at a time."""
    ray = R.T @ np.linalg.inv(P[:, :3]) @ [*pixel, 1]
    x, y = ray[:2] / ray[2]
    d, r = LENSES[model], np.hypot(x, y)
    if model == "equidistant":
        angle = np.arctan(r)
        scale = angle * (1 + sum(c * angle ** (2 * i) for i, c in enumerate(d, start=1))) / r
        x, y = x * scale, y * scale
    else:
        k1, k2, p1, p2, k3, k4, k5, k6 = [*d, 0, 0, 0][:8]
        radial = (1 + k1 * r**2 + k2 * r**4 + k3 * r**6) / (1 + k4 * r**2 + k5 * r**4 + k6 * r**6)
        x, y = (
            x * radial + 2 * p1 * x * y + p2 * (r**2 + 2 * x**2),
            y * radial + p1 * (r**2 + 2 * y**2) + 2 * p2 * x * y,
        )
    return (K @ [x, y, 1])[:2]


@pytest.mark.parametrize("model", LENSES)
def test_rectified_pixels_are_those_that_the_lens_shows_at_the_keypoints(model):
    expected = np.random.default_rng(0).uniform((20, 20), (620, 460), (50, 2))
    raw = np.array([lens(model, pixel) for pixel in expected], np.float32)
    np.testing.assert_allclose(rectify(calibration(info(model)), raw), expected, atol=0.02)


@pytest.mark.parametrize("model", LENSES)
def test_binning_and_region_count_sensor_pixels_around_pixel_centres(model):
    """A binned pixel's centre is the middle of its block of sensor pixels."""
    full, part = calibration(info(model)), calibration(info(model, binning=(2, 4), roi=(80, 40, 480, 400)))
    assert part.size == (100, 240)
    block = np.array([[80 + 2 * 50 + dx, 40 + 4 * 30 + dy] for dx in range(2) for dy in range(4)])
    centre = rectify(full, block.mean(axis=0, keepdims=True).astype(np.float32))[0]
    found = rectify(part, np.array([[50, 30]], np.float32))[0]
    np.testing.assert_allclose((found + 0.5) * [2, 4] - 0.5 + [80, 40], centre, atol=0.01)


def test_a_perfect_lens_changes_nothing():
    same = info(d=[], r=np.zeros(9), p=np.zeros(12), distortion_model="")
    xy = np.random.default_rng(1).uniform(0, 400, (20, 2)).astype(np.float32)
    np.testing.assert_allclose(rectify(calibration(same), xy), xy, atol=1e-3)


def test_pixels_that_no_ray_reaches_become_nan_and_the_others_stay():
    """Barrel distortion this strong folds back: the lens shows nothing beyond some radius."""
    camera = calibration(info(d=[-0.5, 0, 0, 0, 0], r=np.eye(3).ravel()))
    found = rectify(camera, np.array([[330, 236], [5000, 4000]], np.float32))
    assert np.isfinite(found[0]).all() and np.isnan(found[1]).all()


@given(
    st.lists(st.floats(allow_nan=True, allow_infinity=True), min_size=30, max_size=30),
    st.lists(st.floats(), max_size=14),
    st.sampled_from([*LENSES, "", "none"]),
)
def test_random_calibrations_rectify_or_are_refused_and_nothing_else(values, d, model):
    try:
        camera = calibration(info(d=d, distortion_model=model, k=values[:9], r=values[9:18], p=values[18:]))
    except Uncalibrated:
        return
    with np.errstate(all="ignore"):
        assert rectify(camera, np.array([[5, 5], [600, 400]], np.float32)).shape == (2, 2)


def test_no_keypoints_give_no_pixels():
    assert rectify(calibration(info()), np.empty((0, 2), np.float32)).shape == (0, 2)


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"k": np.zeros(9)}, "not calibrated: K of its CameraInfo is zero"),
        ({"k": -K.ravel()}, "focal lengths or values that cannot be"),
        ({"p": np.full(12, np.nan)}, "focal lengths or values that cannot be"),
        ({"p": np.diag([380.0, 0, 1, 0])[:3].ravel()}, "P of its CameraInfo has no inverse"),
        ({"r": np.diag([1.0, 1, 0]).ravel()}, "R of its CameraInfo has no inverse"),
        ({"k": [420.0, 0, 330, 0, 415, 236, 0, 0, 0]}, "K of its CameraInfo has no inverse"),
        ({"distortion_model": "double_sphere"}, "'double_sphere' is unknown; expected one of plumb_bob"),
        ({"d": [0.1, 0.2]}, "'plumb_bob' has 2 coefficients, expected 4 or 5"),
        ({"d": [0.1] * 8}, "'plumb_bob' has 8 coefficients, expected 4 or 5"),
        ({"d": [0.1] * 5, "distortion_model": "none"}, "distortion model 'none' is unknown"),
        ({"p": [380, 0, 322, 0, 380, 0, 322, 0, 0, 0, 0, 0]}, "P of its CameraInfo has no inverse"),
        ({"r": np.diag([1.0, 0, 1]).ravel()}, "R of its CameraInfo has no inverse"),
    ],
)
def test_an_uncalibrated_camera_is_refused_with_a_sentence(changes, sentence):
    with pytest.raises(Uncalibrated, match=sentence):
        calibration(info(**changes))


FIVE, FOUR = LENSES["plumb_bob"][:4] + [0.02], LENSES["equidistant"]


@pytest.mark.parametrize(
    ("model", "d", "same", "as_d"),
    [
        ("plumb_bob", FIVE + [0] * 3, "plumb_bob", FIVE),
        ("plumb_bob", FIVE + [0] * 9, "plumb_bob", FIVE),
        ("plumb_bob", [0] * 12, "plumb_bob", []),
        ("equidistant", FOUR + [0], "equidistant", FOUR),
        ("rational_polynomial", FIVE, "plumb_bob", FIVE),
        ("rational_polynomial", LENSES["rational_polynomial"] + [0] * 5, "rational_polynomial", None),
        ("none", [0] * 5, "plumb_bob", []),
        ("None", [], "plumb_bob", []),
        ("Inverse Brown Conrady", [0] * 5, "plumb_bob", []),
        ("Plumb Bob", FIVE, "plumb_bob", FIVE),
        ("rational-polynomial", None, "rational_polynomial", None),
        ("KANNALA_BRANDT4", FOUR, "equidistant", FOUR),
        ("fisheye", FOUR, "equidistant", FOUR),
    ],
)
def test_padding_and_spelling_change_nothing(model, d, same, as_d):
    d = LENSES[same] if d is None else d
    xy = np.random.default_rng(2).uniform(100, 400, (20, 2)).astype(np.float32)
    found = calibration(info(d=d, distortion_model=model))
    assert found.model in (same, model)
    np.testing.assert_array_equal(rectify(found, xy), rectify(calibration(info(same, d=as_d)), xy))


def test_p_says_where_a_camera_of_a_pair_is():
    camera = calibration(info(p=np.array([200.0, 0, 320, -24, 0, 200, 240, 5, 0, 0, 1, 0])))
    assert (camera.shift, camera.drop) == (-24, 5)
