"""superpoint_ros/node/health.py"""

import math
from dataclasses import replace

import pytest

from superpoint_ros.node.health import ERROR, IDLE, OK, WARN, assess
from superpoint_ros.node.statistics import Period

FINE = Period(frames_in=30, frames_out=30, dropped=0, latency=0.01, age=0.03)
NONE = Period(0, 0, 0, math.nan, math.nan)


def test_a_node_that_keeps_up_is_ok():
    assert assess("active", "/image", FINE, 0.1, {"bad": 0, "failed": 0, "unmatched": 3}) == (OK, "extracting features")
    short = replace(FINE, lost=2, empty=3, motionless_s=4.0)
    assert assess("active", "/image", short, 0.1, {})[0] == OK


def test_without_keypoints_that_is_said_and_not_that_there_is_no_homography():
    period = Period(30, 30, 0, 0.01, 0.03, empty=30, motionless_s=9.0)
    assert assess("active", "/image", period, 0.1, {}, ["no keypoints"]) == (WARN, "no keypoints")


@pytest.mark.parametrize("state", ["inactive", "unconfigured", "disabled"])
def test_a_node_that_need_not_work_is_ok(state):
    assert assess(state, "/image", NONE, 99.0, {}) == (OK, f"node is {state}")


def test_a_camera_that_sleeps_is_ok_unless_the_node_was_set_up_wrongly():
    assert assess(IDLE, "/image", NONE, 99.0, {}) == (OK, IDLE)
    assert assess(IDLE, "/image", NONE, 99.0, {}, ["runs on the CPU"]) == (WARN, f"runs on the CPU; {IDLE}")


@pytest.mark.parametrize(
    ("period", "silence", "faults", "level", "sentence"),
    [
        (NONE, 7.0, {}, WARN, "no image on /image for 7 s"),
        (FINE, 0.1, {"bad": 3}, WARN, "bad images in the last second: 3"),
        (FINE, 0.1, {"incomplete": 2}, ERROR, "frames of which errors cost a part in the last second: 2"),
        (FINE, 0.1, {"failed": 2}, ERROR, "frames lost to errors in the last second: 2"),
        (Period(30, 30, 0, 0.01, 2.5), 0.1, {}, WARN, "features are stale: 2.5 s old when published"),
        (
            Period(30, 30, 0, 0.01, 1e9),
            0.1,
            {},
            WARN,
            "stamps are 1000000000 s before the node's clock: is use_sim_time right?",
        ),
        (
            Period(30, 7, 23, 0.14, 0.2),
            0.1,
            {},
            WARN,
            "overloaded: 23 of 30 images were dropped in the last second, since one takes 140 ms",
        ),
        (
            Period(30, 0, 29, math.nan, math.nan),
            0.1,
            {},
            WARN,
            "overloaded: 29 of 30 images were dropped in the last second",
        ),
        (
            Period(10, 10, 0, 0.01, 0.03, lost=20),
            0.1,
            {},
            WARN,
            "the middleware lost 20 of 30 images in the last second, on the way to this node",
        ),
        (
            Period(30, 30, 0, 0.01, 0.03, empty=3, motionless_s=7.2),
            0.1,
            {},
            WARN,
            "no homography for 7 s: ~/homography says why by its status",
        ),
    ],
)
def test_level_and_sentence(period, silence, faults, level, sentence):
    assert assess("active", "/image", period, silence, faults) == (level, sentence)


def test_every_reason_is_said_the_worst_first():
    level, sentence = assess("active", "/image", NONE, 8.0, {"failed": 1}, ["it runs on the CPU"])
    assert level == ERROR
    assert sentence == ("frames lost to errors in the last second: 1; no image on /image for 8 s; it runs on the CPU")


def test_the_limits_are_parameters():
    slow = Period(30, 7, 23, 0.14, 2.5)
    assert assess("active", "/image", slow, 0.1, {}, max_age=3.0, overload_drops=0.9)[0] == OK
