from __future__ import annotations

import json

import cv2
import numpy as np
import pytest

pytest.importorskip("skimage", reason="scikit-image, whose photographs are used, is not installed")

from superpoint_ros.bags.content import BagError, header_stamp
from superpoint_ros.bags.reader import BagReader
from superpoint_ros.features.homography import image_corners, project
from superpoint_ros.tools.demo.recording import CAMERA_RATE, SIZE, read_truth, write_sequence
from superpoint_ros.tools.demo.sequence import LAP, motion, photograph, view
from superpoint_ros.tools.demo.wall import wall


def test_the_true_motion_carries_one_frame_into_another():
    first, second = (cv2.GaussianBlur(photograph(i, SIZE), (0, 0), 1.5) for i in (40, 44))
    true = motion(view(40, SIZE), view(44, SIZE))

    def difference(matrix: np.ndarray) -> float:
        carried = cv2.warpPerspective(first, matrix, SIZE[::-1], flags=cv2.INTER_LINEAR)
        inside = cv2.warpPerspective(np.ones(SIZE, np.uint8), matrix, SIZE[::-1]) > 0
        # brightness drifts: compare up to a gain
        gain = second[inside].mean() / carried[inside].mean()
        return float(np.abs(carried[inside] * gain - second[inside]).mean())

    shifted = np.array([[1, 0, 1.0], [0, 1, 0], [0, 0, 1]]) @ true
    assert difference(true) < 3
    assert difference(true) < difference(shifted) < difference(np.eye(3))


def test_motions_compose_and_come_back():
    a, b, c = (view(index, SIZE) for index in (3, 20, 50))
    np.testing.assert_allclose(motion(b, c) @ motion(a, b) / (motion(b, c) @ motion(a, b))[2, 2],
                               motion(a, c), atol=1e-9)  # fmt: skip
    np.testing.assert_allclose(motion(a, a), np.eye(3), atol=1e-12)


def test_the_camera_never_looks_past_the_wall_nor_leaps():
    height, width = wall().shape[:2]
    corners = image_corners(SIZE)
    for index in range(LAP):
        seen = project(np.linalg.inv(view(index, SIZE)), corners)
        assert (seen > 0).all() and (seen < (width - 1, height - 1)).all()
        step = project(motion(view(index, SIZE), view(index + 1, SIZE)), corners) - corners
        assert 2 < np.linalg.norm(step, axis=1).mean() < 32


def test_every_kind_of_motion_occurs():
    motions = [motion(view(i, SIZE), view(i + 1, SIZE)) for i in range(LAP)]
    turns = np.degrees([np.arctan2(m[1, 0], m[0, 0]) for m in motions])
    scales = [np.sqrt(np.linalg.det(m[:2, :2])) for m in motions]
    perspectives = [np.abs(m[2, :2]).max() for m in motions]
    assert turns.min() < -0.5 and turns.max() > 0.5
    assert min(scales) < 0.99 and max(scales) > 1.01
    assert max(perspectives) > 2e-5


def test_frames_are_reproducible_noisy_and_drift_in_brightness():
    frame = photograph(10, (60, 80))
    assert frame.shape == (60, 80, 3) and frame.dtype == np.uint8
    np.testing.assert_array_equal(frame, photograph(10, (60, 80)))
    noise = photograph(LAP, (60, 80)).astype(int) - photograph(0, (60, 80))
    assert 0.5 < np.abs(noise).mean() < 40, "one lap later: the same view, other noise and exposure"
    levels = [photograph(index, (24, 32)).mean() for index in range(0, LAP, 5)]
    assert max(levels) > 1.3 * min(levels)


def test_the_sequence_is_a_bag_at_camera_rate_with_its_truth(tmp_path):
    write_sequence(tmp_path / "bag", tmp_path / "truth.json", range(5, 9), (48, 64))
    truth = read_truth(tmp_path / "truth.json")
    with BagReader(tmp_path / "bag") as bag:
        topic = bag.image_topic(None)
        assert (topic.name, topic.count) == ("/camera/image_raw", 4)
        messages = list(bag.messages())
        images = [bag.decode(message) for message in messages]
    stamps = [header_stamp(message.data) for message in messages]
    assert stamps == list(truth) == [message.time for message in messages]
    np.testing.assert_allclose(np.diff(stamps), 1e9 / CAMERA_RATE, atol=1)
    for index, image, matrix in zip(range(5, 9), images, truth.values(), strict=True):
        assert (image.height, image.width, image.step, image.encoding) == (48, 64, 192, "bgr8")
        np.testing.assert_array_equal(image.data.reshape(48, 64, 3), photograph(index, (48, 64)))
        np.testing.assert_array_equal(matrix, view(index, (48, 64)))


@pytest.mark.parametrize("text", ["", "[]", '{"frames": [{"stamp": 1}]}', json.dumps({"a": 1})])
def test_a_file_that_is_no_truth_says_so(tmp_path, text):
    (tmp_path / "truth.json").write_text(text)
    with pytest.raises(BagError, match="not a file of true motion"):
        read_truth(tmp_path / "truth.json")
