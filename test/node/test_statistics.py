"""superpoint_ros/node/statistics.py"""

import math

import pytest

from superpoint_ros.node.statistics import Period, Statistics, diagnostic_values


def test_counters_and_percentiles_are_those_of_the_frames():
    statistics = Statistics(clock=lambda: 0.0)
    for index in range(101):
        statistics.received()
        if index % 10 == 0:
            statistics.dropped()
        statistics.published(latency=index / 1000, age=2 * index / 1000, keypoints=index)
    snapshot = statistics.snapshot()
    assert (snapshot.frames_in, snapshot.frames_out, snapshot.frames_dropped) == (101, 101, 11)
    assert snapshot.latency_ms == (50.0, 95.0)
    assert snapshot.age_ms == (100.0, 190.0)
    assert snapshot.keypoints == 50


def test_percentiles_before_the_first_frame_are_nan():
    snapshot = Statistics().snapshot()
    assert math.isnan(snapshot.latency_ms[0]) and math.isnan(snapshot.age_ms[1])


def test_silence_is_measured_from_the_last_image():
    now = [10.0]
    statistics = Statistics(clock=lambda: now[0])
    now[0] = 14.0
    statistics.received()
    now[0] = 20.5
    assert statistics.snapshot().silence_s == 6.5


def test_silence_begins_when_the_node_begins_to_listen():
    now = [0.0]
    statistics = Statistics(clock=lambda: now[0])
    now[0] = 100.0
    statistics.listening()
    now[0] = 103.0
    assert statistics.snapshot().silence_s == 3.0


def test_a_period_holds_what_happened_since_the_last():
    now = [10.0]
    statistics = Statistics(clock=lambda: now[0])
    now[0] += 2
    for latency in (0.1, 0.2):
        statistics.received()
        statistics.published(latency, age=latency, keypoints=5)
    assert statistics.period() == Period(2, 2, 0, pytest.approx(0.15), pytest.approx(0.15), rates=(1.0, 1.0))
    now[0] += 0.5
    statistics.received()
    statistics.dropped()
    statistics.lost(3)
    statistics.published(0.4, age=3.0, keypoints=0)
    assert statistics.period() == Period(1, 1, 1, 0.4, 3.0, lost=3, empty=1, rates=(2.0, 2.0))
    empty = statistics.period()
    assert (empty.frames_in, empty.frames_out, empty.dropped) == (0, 0, 0)
    assert math.isnan(empty.latency) and math.isnan(empty.age)


def test_diagnostics_hold_what_a_monitor_needs():
    values = diagnostic_values(Statistics().snapshot(), {"bad": 2, "failed": 1}, {"device": "cpu", "weights_id": "w@1"})
    assert {
        "frames_in",
        "frames_out",
        "frames_dropped",
        "latency_ms_p50",
        "latency_ms_p95",
        "age_ms_p50",
    } <= set(values)
    assert (values["frames_bad"], values["frames_failed"], values["device"]) == ("2", "1", "cpu")


def test_homographies_fail_since_the_last_that_was_ok():
    now = [10.0]
    statistics = Statistics(clock=lambda: now[0])
    assert statistics.period().motionless_s == 0
    statistics.compared(False)
    now[0] = 13.0
    statistics.compared(False)
    assert statistics.period().motionless_s == 3.0
    statistics.compared(True)
    assert statistics.period().motionless_s == 0
    statistics.compared(False)
    statistics.listening()
    assert statistics.period().motionless_s == 0
