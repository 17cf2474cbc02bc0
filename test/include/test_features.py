"""include/superpoint_ros/features.hpp, compiled as a subscriber would, run on messages that rclpy has serialised."""

import os
import re
import shutil
import subprocess
import sys
from array import array
from pathlib import Path

import numpy as np
import pytest

from installation import prefix
from superpoint_ros import decode_descriptors
from superpoint_ros.frontend.messages import DESCRIPTOR_TYPES, encode_descriptors

HERE = Path(__file__).parent
CURE = HERE.parents[1] / "cmake" / "drop_missing_include_dirs.cmake"
SCALES = [1.0, 0.714, 1.43, 2.0, 2.857, 8.0]
OCTAVES = [0, 0, 1, 1, 2, 3]
"""Of levels twice as coarse each, the nearest; 0.714 is of an enlarged image."""


@pytest.fixture(scope="session")
def read_features(tmp_path_factory):
    """The program read_features.cpp, built by CMake against the installed package."""
    if not (shutil.which(os.environ.get("CXX", "c++")) and shutil.which("cmake")):
        pytest.skip("needs a C++ compiler and CMake")
    build = tmp_path_factory.mktemp("read_features")
    prefixes = os.pathsep.join([str(prefix()), os.environ.get("AMENT_PREFIX_PATH", "")]).rstrip(os.pathsep)
    environment = {**os.environ, "AMENT_PREFIX_PATH": prefixes, "CMAKE_PREFIX_PATH": prefixes}
    configure = ["cmake", "-S", HERE, "-B", build, f"-DPython3_EXECUTABLE={sys.executable}"]
    configure += [f"-DCMAKE_PROJECT_INCLUDE={CURE}"]
    configured = subprocess.run(configure, env=environment, capture_output=True, text=True, timeout=300)
    if "no OpenCV here" in configured.stderr:
        pytest.skip("needs OpenCV's C++ headers (Debian, Ubuntu: apt install libopencv-core-dev)")
    assert configured.returncode == 0, configured.stderr
    built = subprocess.run(["cmake", "--build", build], env=environment, capture_output=True, text=True, timeout=600)
    assert built.returncode == 0, built.stdout + built.stderr
    libraries = os.pathsep.join([f"{each}/lib" for each in prefixes.split(os.pathsep)])
    environment["LD_LIBRARY_PATH"] = os.pathsep.join([libraries, os.environ.get("LD_LIBRARY_PATH", "")])

    def read(message, folder, scale_factor=2.0):
        """Keypoints (N, 7), descriptors (N, D) and the exit status's sentence, or None."""
        from rclpy.serialization import serialize_message

        (folder / "message").write_bytes(serialize_message(message))
        command = [build / "read_features", folder / "message", folder / "descriptors", str(scale_factor)]
        ended = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)
        if ended.returncode == 2:
            return None, None, ended.stderr.strip()
        assert ended.returncode == 0, ended.stderr
        *lines, shape = ended.stdout.splitlines()
        rows, columns = map(int, re.fullmatch(r"(\d+) x (\d+), type 5", shape).groups())
        keypoints = np.array([line.split() for line in lines], np.float64).reshape(-1, 7)
        return keypoints, np.fromfile(folder / "descriptors", np.float32).reshape(rows, columns), None

    return read


def a_message(kind="float32", dim=256, **changes):
    """Six keypoints with tracks and rectified positions; `changes` takes the place of fields."""
    from superpoint_ros.msg import Features

    rng = np.random.default_rng(5)
    n = len(SCALES)
    descriptors = rng.normal(size=(n, dim)).astype(np.float32)
    descriptors /= np.linalg.norm(descriptors, axis=1, keepdims=True)
    fields = {
        "height": 480,
        "width": 640,
        "x": array("f", rng.uniform(0, 639, n)),
        "y": array("f", rng.uniform(0, 479, n)),
        "scores": array("f", np.linspace(0.9, 0.1, n)),
        "scale": array("f", SCALES),
        "descriptor_dim": dim,
        "descriptor_type": DESCRIPTOR_TYPES[kind],
        "descriptors": array("B", encode_descriptors(descriptors, kind).tobytes()),
        "track_ids": array("i", range(7, 7 + n)),
        "weights_id": "some",
        "rectified_x": array("f", [float("nan"), *rng.uniform(-5, 645, n - 1)]),
        "rectified_y": array("f", [float("nan"), *rng.uniform(-5, 485, n - 1)]),
    }
    return Features(**{**fields, **changes})


@pytest.mark.parametrize("descriptor_type", DESCRIPTOR_TYPES)
def test_descriptors_of_every_type_are_those_of_python(read_features, tmp_path, descriptor_type):
    message = a_message(descriptor_type)
    _, descriptors, error = read_features(message, tmp_path)
    assert error is None
    expected = decode_descriptors(message.descriptors, message.descriptor_dim, message.descriptor_type)
    np.testing.assert_allclose(descriptors, expected, atol=2e-7)
    np.testing.assert_allclose(np.linalg.norm(descriptors, axis=1), 1, atol=1e-6)


def test_keypoints_have_position_size_octave_score_and_track(read_features, tmp_path):
    message = a_message()
    keypoints, _, _ = read_features(message, tmp_path)
    x, y, size, angle, response, octave, track = keypoints[: len(SCALES)].T
    for found, sent in ((x, message.x), (y, message.y), (response, message.scores), (track, message.track_ids)):
        np.testing.assert_array_equal(np.asarray(found, np.float32), np.asarray(sent, np.float32))
    np.testing.assert_allclose(size, 8 * np.array(SCALES), rtol=1e-6)
    assert octave.tolist() == OCTAVES and set(angle) == {-1}
    rectified = keypoints[len(SCALES) :]
    sent = np.stack([message.rectified_x, message.rectified_y], axis=1)
    np.testing.assert_array_equal(rectified[:, :2].astype(np.float32), sent.astype(np.float32))
    np.testing.assert_array_equal(rectified[:, 2:], keypoints[: len(SCALES), 2:])


def test_octaves_are_those_of_the_readers_own_pyramid(read_features, tmp_path):
    keypoints, _, _ = read_features(a_message(), tmp_path, scale_factor=1.2)
    expected = np.rint(np.log(SCALES) / np.log(1.2)).clip(0)
    np.testing.assert_array_equal(keypoints[: len(SCALES), 5], expected)


def test_without_tracks_the_class_is_none(read_features, tmp_path):
    keypoints, _, _ = read_features(a_message(track_ids=array("i")), tmp_path)
    assert set(keypoints[:, 6]) == {-1}


def test_an_image_without_keypoints_has_no_rows(read_features, tmp_path):
    from superpoint_ros.msg import Features

    keypoints, descriptors, error = read_features(Features(descriptor_dim=256), tmp_path)
    assert (keypoints.shape, descriptors.shape, error) == ((0, 7), (0, 256), None)


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"y": array("f", [1.0])}, "Features.y has 1 values, expected 6"),
        ({"scores": array("f")}, "Features.scores has 0 values, expected 6"),
        ({"scale": array("f", [1.0] * 7)}, "Features.scale has 7 values, expected 6"),
        ({"track_ids": array("i", [1, 2])}, "Features.track_ids has 2 values, expected 6"),
        ({"rectified_y": array("f")}, "Features.rectified_y has 0 values, expected 6"),
        ({"scale": array("f", [1, 1, 0, 1, 1, 1])}, "Features.scale[2] is 0.000000, expected a finite value above 0"),
        ({"scale": array("f", [float("nan")] * 6)}, "Features.scale[0] is nan, expected a finite value above 0"),
        ({"descriptor_type": 3}, "Features.descriptor_type is 3, expected FLOAT32 (0), FLOAT16 (1) or UINT8 (2)"),
        ({"descriptor_type": 1}, "Features.descriptors has 6144 bytes, expected 6 x 256 x 2"),
        ({"descriptors": array("B", bytes(6143))}, "Features.descriptors has 6143 bytes, expected 6 x 256 x 4"),
        ({"descriptors": array("B")}, "Features.descriptors has 0 bytes, expected 6 x 256 x 4"),
        ({"descriptor_dim": 0, "descriptors": array("B")}, "Features.descriptor_dim is 0 for 6 keypoints"),
        ({"descriptor_dim": 2**32 - 1}, "Features.descriptor_dim is 4294967295, too many for a cv::Mat"),
        ({"descriptor_dim": 2**31 - 1}, "Features.descriptors has 6144 bytes, expected 6 x 2147483647 x 4"),
    ],
)
def test_a_message_whose_arrays_do_not_fit_is_refused_with_a_sentence(read_features, tmp_path, changes, sentence):
    assert read_features(a_message(**changes), tmp_path) == (None, None, sentence)
