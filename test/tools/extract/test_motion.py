"""superpoint_ros/tools/extract/motion.py"""

from __future__ import annotations

from dataclasses import fields

import cv2
import numpy as np
import pytest

from superpoint_ros.features import levels
from superpoint_ros.frontend.parameters import Parameters
from superpoint_ros.frontend.tracker import Tracker
from superpoint_ros.tools.extract import motion
from superpoint_ros.tools.extract.input import Camera, Picture
from superpoint_ros.tools.extract.motion import Motions
from superpoint_ros.tools.extract.task import Frame

CAMERA = Camera("", "/camera/image_raw")
DEADLINE = 120


@pytest.fixture
def frames(extractor, photograph):
    mask = np.ones(photograph.shape, bool)
    mask[:, :40] = False
    shift = np.array([[1, 0, 2.4], [0, 1, -1.7]])
    result = []
    for number in range(4):
        pixels = cv2.warpAffine(photograph, number * shift + (1 - number) * np.eye(2, 3), photograph.shape[::-1])
        found = extractor(pixels)
        result.append(Frame(CAMERA, number, found=found, stamp=number, seen=Picture(None, pixels, mask, None)))
    return result


@pytest.mark.parametrize("threads", [1, 4])
def test_motions_are_those_of_a_tracker_that_sees_two_frames_and_levels_are_made_once(frames, monkeypatch, threads):
    values, expected = Parameters(), []
    for before, now in zip([None, *frames], frames, strict=False):
        tracker = Tracker()
        for frame in (before, now):
            if frame is not None:
                seen = levels.levels_for(frame.found, frame.seen.pixels, frame.seen.mask)
                how = {"levels": seen, "positions": True}
                last = tracker.advance(frame.stamp, frame.found, **values.tracking(), **how)
        expected.append(last)
    made, levels_of = [], levels.levels_of
    monkeypatch.setattr(levels, "levels_of", lambda *given: made.append(1) or levels_of(*given))
    monkeypatch.setattr(motion.torch, "get_num_threads", lambda: threads + 1)
    with Motions([CAMERA], values) as motions:
        found = [each.result(DEADLINE) for each in [motions.of(frame) for frame in frames]]
    assert len(made) == len(frames)
    for one, other in zip(found, expected, strict=True):
        for field in fields(one):
            if field.name != "homography":
                np.testing.assert_array_equal(getattr(one, field.name), getattr(other, field.name))
        np.testing.assert_array_equal(one.homography.matrix, other.homography.matrix)
    assert all(each.homography.refined for each in found[1:])
