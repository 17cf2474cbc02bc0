"""superpoint_ros/frontend/masking.py"""

from types import SimpleNamespace

import cv2
import numpy as np
import pytest

from superpoint_ros.features.image import BadImage
from superpoint_ros.frontend.masking import Mask, read_mask


def image(array, encoding="mono8"):
    return SimpleNamespace(
        height=array.shape[0],
        width=array.shape[1],
        encoding=encoding,
        step=array.strides[0],
        is_bigendian=0,
        data=array.tobytes(),
    )


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


def test_the_smallest_number_is_not_zero_and_what_is_none_is():
    values = np.zeros((20, 20), np.float32)
    values[3:9], values[9:12] = 1e-3, np.nan
    mask = Mask()
    mask.update(image(values, "32FC1"))
    np.testing.assert_array_equal(mask.allowed((20, 20)), values > 0)


def test_masks_have_the_bound_of_pixels_that_images_have(tmp_path):
    path = tmp_path / "mask.png"
    cv2.imwrite(str(path), np.ones((40, 60), np.uint8))
    assert Mask(str(path), 2400).allowed((40, 60)).all()
    with pytest.raises(ValueError, match="max_image_pixels"):
        Mask(str(path), 2399)
    with pytest.raises(BadImage, match="max_image_pixels"):
        Mask("", 2399).update(image(np.ones((40, 60), np.uint8)))


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
