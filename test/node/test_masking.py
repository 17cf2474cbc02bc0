"""superpoint_ros/node/masking.py"""

from types import SimpleNamespace

import cv2
import numpy as np
import pytest

from superpoint_ros.features.decode import BadImage
from superpoint_ros.features.extractor import Features
from superpoint_ros.network.heatmap import DetectionSettings
from superpoint_ros.node.masking import Mask, extract, read_mask


def image(array, encoding="mono8"):
    return SimpleNamespace(
        height=array.shape[0],
        width=array.shape[1],
        encoding=encoding,
        step=array.strides[0],
        is_bigendian=0,
        data=array.tobytes(),
    )


class FakeExtractor:
    """Finds keypoints in a row, strongest first, as many as it is asked for."""

    settings = DetectionSettings(max_keypoints=10)

    def batch(self, pictures):
        count = self.settings.max_keypoints
        xy = np.stack([np.arange(count, dtype=np.float32), np.full(count, 2, np.float32)], axis=1)
        scores = np.linspace(1, 0.1, count, dtype=np.float32)
        return [Features(xy, scores, np.eye(count, 8, dtype=np.float32), p.shape) for p in pictures]


def test_keypoints_outside_the_mask_go_and_others_take_their_place():
    mask = np.zeros((20, 100), bool)
    mask[:, 5::2] = True
    found = extract(FakeExtractor(), [np.zeros((20, 100), np.uint8)] * 2, [mask, None])
    np.testing.assert_array_equal(found[0].xy[:, 0], np.arange(5, 25, 2))
    np.testing.assert_array_equal(found[1].xy[:, 0], np.arange(10))
    assert [len(one.descriptors) for one in found] == [len(one.scores) for one in found] == [10, 10]
    assert (np.diff(found[0].scores) < 0).all()
    assert FakeExtractor.settings.max_keypoints == 10


def test_real_keypoints_stay_where_the_mask_allows(extractor, photograph):
    mask = np.zeros(photograph.shape, bool)
    mask[100:, :200] = True
    (found,) = extract(extractor, [photograph], [mask])
    column, row = np.rint(found.xy).astype(int).T
    assert len(found) > 50 and mask[row, column].all()


def test_a_keypoint_must_pass_file_and_topic(tmp_path):
    fixed = np.zeros((40, 60), np.uint8)
    fixed[:20] = 1
    path = tmp_path / "mask.png"
    cv2.imwrite(str(path), fixed)
    mask = Mask(str(path))
    np.testing.assert_array_equal(mask.allowed((40, 60)), fixed > 0)
    left = np.zeros((40, 60), np.uint8)
    left[:, :30] = 255
    mask.update(image(left))
    np.testing.assert_array_equal(mask.allowed((40, 60)), (fixed > 0) & (left > 0))


@pytest.mark.parametrize(("encoding", "dtype"), [("mono8", np.uint8), ("16UC1", np.uint16), ("32FC1", np.float32)])
def test_one_is_not_zero_in_every_encoding(encoding, dtype):
    values = np.zeros((20, 20), dtype)
    values[3:9] = 1
    mask = Mask()
    mask.update(image(values, encoding))
    np.testing.assert_array_equal(mask.allowed((20, 20)), values > 0)


def test_a_mask_of_the_same_shape_is_scaled_and_one_of_another_refused():
    mask = Mask()
    half = np.zeros((24, 32), np.uint8)
    half[:12] = 1
    mask.update(image(half))
    allowed = mask.allowed((480, 640))
    assert allowed[:240].all() and not allowed[240:].any()
    with pytest.raises(BadImage, match="mask of 32×24 does not fit an image of 640×400"):
        mask.allowed((400, 640))


def test_without_a_mask_everything_is_allowed():
    assert Mask().allowed((480, 640)) is None


@pytest.mark.parametrize(("content", "sentence"), [(None, "not a readable picture"), (0, "is all black")])
def test_a_file_that_is_no_mask_is_refused_with_a_sentence(tmp_path, content, sentence):
    path = tmp_path / "mask.png"
    if content is not None:
        cv2.imwrite(str(path), np.full((20, 20), content, np.uint8))
    with pytest.raises(ValueError, match=sentence):
        read_mask(str(path))
