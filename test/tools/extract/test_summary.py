"""superpoint_ros/tools/extract/summary.py: what is odd enough about a camera's images to be told."""

from types import SimpleNamespace

import numpy as np

from superpoint_ros.features.homography import HomographyStatus
from superpoint_ros.tools.extract.summary import Summary

PIXELS = np.random.default_rng(0).integers(0, 256, (20, 20), np.uint8)


def counted(statuses, period, keypoints=5, summary=None):
    """A Summary of images so many seconds apart."""
    summary = summary or Summary()
    for number, status in enumerate(statuses):
        stamp = SimpleNamespace(sec=int(number * period), nanosec=int(number * period % 1 * 1e9))
        picture = SimpleNamespace(pixels=PIXELS, mask=None, header=SimpleNamespace(stamp=stamp))
        summary.count(picture, range(keypoints), SimpleNamespace(homography=SimpleNamespace(status=status)))
    return summary


def test_homographies_that_fail_for_long_are_told_though_most_did_not():
    ok, failed = [HomographyStatus.OK] * 40, [HomographyStatus.DEGENERATE] * 12
    assert counted([*ok, *failed, *ok], 0.5).warnings() == ["12 homographies in a row failed, for 6 s"]
    assert counted([*ok, *failed, *ok], 0.1).warnings() == []
    many_then_long = counted([*failed[:10], *ok], 0.5, summary=counted([*ok, *failed, *failed, *ok], 0.05))
    assert many_then_long.warnings() == []
    many_then_long = counted([*failed, *ok], 0.5, summary=counted([*ok, *failed, *failed, *ok], 0.05))
    assert many_then_long.warnings() == ["12 homographies in a row failed, for 6 s"]
    assert counted([*ok, *failed[:9], *ok, *failed[:9], *ok], 1.0).warnings() == []


def test_homographies_of_which_most_failed_are_told_once():
    failed = [HomographyStatus.TOO_FEW_MATCHES] * 12
    assert counted(failed, 1.0).warnings() == ["12 of 12 homographies failed, mostly TOO_FEW_MATCHES"]


def test_images_without_keypoints_are_no_failure_of_homographies():
    (told,) = counted([HomographyStatus.TOO_FEW_MATCHES] * 12, 1.0, keypoints=0).warnings()
    assert told.startswith("12 of 12 images have no keypoints")
