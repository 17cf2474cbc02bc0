"""superpoint_ros/frontend/rate.py"""

import numpy as np
import pytest

from superpoint_ros.frontend.rate import RateLimit


def passed(times, rate):
    limit = RateLimit()
    return [now for now in times if limit.allows(now, rate)]


@pytest.mark.parametrize(("camera", "rate"), [(30, 20), (30, 10), (30, 7), (30, 29.5), (60, 1)])
def test_of_a_faster_camera_as_many_frames_pass_as_were_asked_for(camera, rate):
    times = 100 + np.arange(20 * camera) / camera
    assert len(passed(times, rate)) == pytest.approx(20 * rate, abs=1)


def test_a_camera_at_the_limit_loses_hardly_a_frame_to_jitter():
    jitter = np.random.default_rng(0).uniform(-0.005, 0.005, 600)
    assert len(passed(np.arange(600) / 30 + jitter, 30)) >= 597


def test_all_frames_pass_without_a_limit_and_of_a_slower_camera():
    times = np.arange(50) / 10
    assert len(passed(times, 0)) == len(passed(times, 15)) == 50


def test_a_pause_is_not_made_up_for():
    times = [0.0, 10.0, 10.1, 10.2, 10.3]
    assert passed(times, 1) == [0.0, 10.0]


def test_a_clock_that_jumps_back_begins_anew():
    assert passed([50.0, 50.2, 3.0, 3.2, 4.1], 1) == [50.0, 3.0, 4.1]
