"""superpoint_ros/node/statistics.py"""

import math

from superpoint_ros.node.statistics import ERROR, OK, WARN, Statistics, assess, diagnostic_values


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


def test_the_worst_condition_sets_level_and_sentence():
    now = [0.0]
    statistics = Statistics(clock=lambda: now[0])
    fresh = statistics.snapshot()
    now[0] = 7.0
    silent = statistics.snapshot()
    assert assess("active", ["/image"], fresh, 0, 0) == (OK, "extracting features")
    assert assess("active", ["/image"], silent, 0, 0) == (WARN, "no image on /image for 7 s")
    assert assess("active", ["/image"], fresh, 3, 0)[0] == WARN
    assert assess("active", ["/image"], silent, 3, 1)[0] == ERROR
    assert assess("inactive", ["/image"], silent, 0, 0) == (OK, "node is inactive")


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
