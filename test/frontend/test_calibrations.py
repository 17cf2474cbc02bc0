"""superpoint_ros/frontend/calibrations.py"""

import threading
from types import SimpleNamespace

import numpy as np
import pytest

from superpoint_ros.features.rectification import Uncalibrated
from superpoint_ros.frontend import calibrations
from superpoint_ros.frontend.calibrations import KEPT, SURE, Calibrations


class Info(SimpleNamespace):
    """A CameraInfo that compares as those of Humble and Jazzy do: never equal to one that came later."""

    def __eq__(self, other):
        return all(a != b for a, b in zip(self.d, other.d, strict=True))


def info(stamp, x_offset=0, focal=200.0, model="plumb_bob"):
    """For images of 64×48; stamp in nanoseconds."""
    k = np.array([focal, 0, 32, 0, focal, 24, 0, 0, 1])
    roi = SimpleNamespace(x_offset=x_offset, y_offset=0, width=64, height=48)
    header = SimpleNamespace(stamp=SimpleNamespace(sec=stamp // 10**9, nanosec=stamp % 10**9))
    return Info(
        header=header, width=64, height=48, distortion_model=model, d=np.zeros(5), k=k, r=np.eye(3).ravel(),
        p=np.zeros(12), binning_x=0, binning_y=0, roi=roi,
    )  # fmt: skip


def test_before_the_first_there_is_none():
    assert Calibrations().of(7) is None


def test_a_new_calibration_counts_from_its_stamp_on():
    known = Calibrations()
    known.add(info(10, focal=200.0))
    known.add(info(20, focal=300.0))
    assert [known.of(stamp).k[0, 0] for stamp in (10, 19, 20, 99)] == [200, 200, 300, 300]


def test_each_image_has_the_region_of_interest_of_its_own_stamp():
    known = Calibrations()
    for index in range(3 * KEPT):
        known.add(info(index, x_offset=index))
        if index >= 5:  # images are late: newer regions are known
            assert known.of(index - 5).offset == (index - 5, 0)


def test_an_image_waits_for_its_calibration_while_each_has_one():
    known = Calibrations()
    for index in range(5):
        known.add(info(index, x_offset=index))
        assert known.of(index).offset == (index, 0)
    found = []
    image = threading.Thread(target=lambda: found.append(known.of(5, wait=30.0)))
    image.start()
    known.add(info(5, x_offset=5))
    image.join(300)
    assert found[0].offset == (5, 0)


def test_an_image_whose_calibration_is_lost_is_not_given_another():
    known = Calibrations()
    for index in range(5):
        known.add(info(index, x_offset=index))
        known.of(index)
    for _ in range(3):  # however many of its outputs want to know
        with pytest.raises(Uncalibrated, match="without its CameraInfo"):
            known.of(5)


def test_one_image_that_is_asked_about_often_does_not_show_that_each_has_a_calibration_of_its_own():
    known = Calibrations()
    known.add(info(0, x_offset=0))
    for _ in range(2 * SURE):
        known.of(0)
    known.add(info(1, x_offset=1))
    assert known.of(2, wait=30.0).offset == (1, 0)


def test_an_image_whose_calibration_is_lost_has_the_one_that_all_have():
    known = Calibrations()
    for index in range(5):
        known.add(info(index))
        known.of(index)
    assert known.of(5) is known.of(4)


def test_what_cannot_be_used_is_told_of_the_images_it_is_for():
    known = Calibrations()
    known.add(info(10))
    known.add(info(20, model="double_sphere"))
    assert known.of(10) is not None
    with pytest.raises(Uncalibrated, match="double_sphere"):
        known.of(20)


def test_a_calibration_that_stays_is_read_once(monkeypatch):
    read = []
    original = calibrations.calibration
    monkeypatch.setattr(calibrations, "calibration", lambda each: read.append(each) or original(each))
    known = Calibrations()
    for stamp in range(9):
        known.add(info(stamp))
    assert len(read) == 1
