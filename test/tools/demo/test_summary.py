from __future__ import annotations

import json

import numpy as np
import pytest

from superpoint_ros.features.homography import HomographyStatus
from superpoint_ros.tools.demo.motion import chained_views, movement
from superpoint_ros.tools.demo.results import FrameResult
from superpoint_ros.tools.demo.summary import (
    Timing,
    faults,
    headline,
    judge_frame,
    summarise,
    table,
    write_summary,
)

SIZE = (240, 320)
KEYS = [
    "frames_sent",
    "features_received",
    "homographies_received",
    "homographies_ok",
    "median_corner_error_px",
    "p95_corner_error_px",
    "median_keypoints",
    "latency_ms_p50",
    "latency_ms_p95",
    "dropped",
    "device",
    "weights_id",
]


def shift(x, y=0.0):
    return np.array([[1, 0, x], [0, 1, y], [0, 0, 1.0]])


def result(stamp, matrix=None, status=HomographyStatus.OK, keypoints=100):
    return FrameResult(
        stamp,
        features=True,
        size=SIZE,
        xy=np.zeros((keypoints, 2), np.float32),
        status=status,
        reference=stamp - 1,
        matrix=np.full((3, 3), np.nan) if matrix is None else matrix,
        weights_id="tiny@0",
    )


def run(count=20, bad=1, error=0.0, sent=None):
    """Frames that move by 5 px each, the first `bad` without homography, the others off by so much."""
    stamps = range(count)
    truth = {stamp: shift(5 * stamp) for stamp in stamps}
    times = {stamp: stamp * 10**8 for stamp in stamps}
    timing = Timing(sent or count, times, {stamp: at + (stamp + 1) * 10**6 for stamp, at in times.items()})
    results = [
        result(stamp, status=HomographyStatus.DEGENERATE) if stamp < bad else result(stamp, shift(5 + error))
        for stamp in stamps
    ]
    figures = [judge_frame(each, timing, truth) for each in results]
    return figures, timing, truth


def test_the_corner_error_is_the_mean_distance_of_the_four_corners():
    timing = Timing(2, {}, {})
    truth = {0: np.eye(3), 1: shift(5)}
    turned = np.array([[0, -1, 319.0], [1, 0, 0], [0, 0, 1]])
    frame = judge_frame(result(1, turned), timing, truth)
    mapped = {(0, 0): (319, 0), (319, 0): (319, 319), (319, 239): (80, 319), (0, 239): (80, 0)}
    distances = [np.hypot(x + 5 - u, y - v) for (x, y), (u, v) in mapped.items()]
    assert frame.corner_error_px == pytest.approx(np.mean(distances))


def test_a_homography_over_several_frames_is_compared_with_their_composed_motion():
    truth = {0: np.eye(3), 7: shift(35)}
    over = FrameResult(7, True, SIZE, status=HomographyStatus.OK, reference=0, matrix=shift(35, 1))
    assert judge_frame(over, Timing(2, {}, {}), truth).corner_error_px == pytest.approx(1)


def test_without_truth_or_homography_there_is_no_corner_error():
    timing = Timing(2, {}, {})
    assert np.isnan(judge_frame(result(1, shift(1)), timing, None).corner_error_px)
    assert np.isnan(judge_frame(result(1, shift(1)), timing, {1: shift(1)}).corner_error_px)
    lost = result(1, status=HomographyStatus.TOO_FEW_MATCHES)
    assert np.isnan(judge_frame(lost, timing, {0: np.eye(3), 1: np.eye(3)}).corner_error_px)


def test_the_summary_counts_and_takes_percentiles():
    figures, timing, _ = run(count=20, bad=2, error=0.5, sent=25)
    summary = summarise(figures, timing, "cpu")
    assert (summary.frames_sent, summary.features_received, summary.dropped) == (25, 20, 5)
    assert (summary.homographies_received, summary.homographies_ok) == (20, 18)
    assert summary.median_corner_error_px == pytest.approx(0.5)
    assert summary.p95_corner_error_px == pytest.approx(0.5)
    assert summary.latency_ms_p50 == pytest.approx(np.percentile(np.arange(1, 21), 50))
    assert summary.latency_ms_p95 == pytest.approx(np.percentile(np.arange(1, 21), 95), abs=1e-3)
    assert (summary.median_keypoints, summary.device, summary.weights_id) == (100, "cpu", "tiny@0")


@pytest.mark.parametrize(
    ("count", "bad", "error", "words"),
    [
        (20, 1, 0.09, []),
        (20, 2, 0.09, ["18 of 19 homographies are OK (95%); 95% must be"]),
        (20, 1, 0.11, ["the median corner error is 0.11 px; at most 0.1 px is allowed"]),
        (20, 2, 0.11, ["18 of 19", "0.11 px"]),
        (20, 20, 0.0, ["0 of 19 homographies are OK"]),
        (0, 0, 0.0, ["no features came back", "no homographies came back"]),
    ],
)
def test_the_run_fails_below_95_per_cent_or_above_a_tenth_of_a_pixel(count, bad, error, words):
    figures, timing, _ = run(count, bad, error, sent=20)
    found = faults(summarise(figures, timing, "cpu"), with_truth=True)
    assert len(found) == len(words)
    for fault, part in zip(found, words, strict=True):
        assert part in fault


def test_a_bag_without_truth_is_judged_by_its_homographies_alone():
    figures, timing, _ = run(20, 1)
    unknown = [judge_frame(result(f.stamp, f.estimate, f.status), timing, None) for f in figures]
    summary = summarise(unknown, timing, "cpu")
    assert summary.median_corner_error_px is None and summary.p95_corner_error_px is None
    assert faults(summary, with_truth=False) == []
    assert faults(summary, with_truth=True) != []


@pytest.mark.parametrize(("count", "bad", "passes"), [(2, 1, True), (6, 1, True), (10, 1, True), (10, 2, False)])
@pytest.mark.parametrize("with_truth", [True, False])
def test_the_first_frame_of_a_short_run_is_let_off(count, bad, passes, with_truth):
    figures, timing, _ = run(count, bad)
    assert (faults(summarise(figures, timing, "cpu"), with_truth) == []) == passes


def test_the_summary_file_has_the_promised_keys_and_is_strict_json(tmp_path):
    figures, timing, _ = run(0, sent=3)
    write_summary(tmp_path / "summary.json", summarise(figures, timing, "cpu"))
    text = (tmp_path / "summary.json").read_text()
    content = json.loads(text, parse_constant=lambda name: pytest.fail(f"{name} is not JSON"))
    assert list(content) == KEYS
    assert content["dropped"] == 3 and content["latency_ms_p50"] is None


def test_the_table_says_what_became_of_frames_without_features():
    figures, timing, _ = run(20, 1, 0.25, sent=23)
    summary = summarise(figures, timing, "cpu")
    text = table(summary, {"frames_dropped": "2", "frames_bad": "1", "frames_failed": "0"})
    assert "3 (2 replaced by a newer one in the node, 1 unreadable)" in text
    assert "0.25 px" in text and "19 of 19 to a frame before (100.0%)" in text and "failed" not in text
    assert "19 of 19 homographies OK, median corner error 0.25 px" in headline(summary)


def test_movement_of_pure_motions():
    middle = shift(-159.5, -119.5)
    angle, zoom = np.radians(3), 1.02
    turn = np.array([[np.cos(angle), -np.sin(angle), 0], [np.sin(angle), np.cos(angle), 0], [0, 0, 1]])
    matrix = shift(4, -2) @ np.linalg.inv(middle) @ (np.diag([zoom, zoom, 1]) @ turn) @ middle
    found = movement(matrix, SIZE)
    assert (found.right, found.down) == (pytest.approx(4), pytest.approx(-2))
    assert found.turn == pytest.approx(3) and found.zoom == pytest.approx(2)
    assert np.isnan(movement(np.full((3, 3), np.nan), SIZE).zoom)


def test_perfect_homographies_chain_to_the_truth_and_errors_add_up():
    figures, _, truth = run(30, 1, 0.0)
    for stamp, matrix in chained_views(figures, truth).items():
        np.testing.assert_allclose(matrix, truth[stamp], atol=1e-9)
    figures, _, truth = run(30, 1, 0.1)
    views = chained_views(figures, truth, window=10)
    assert views[25][0, 2] - truth[25][0, 2] == pytest.approx(1.0)
    assert views[3][0, 2] - truth[3][0, 2] == pytest.approx(0.3)
    assert 0 not in views, "the first frame has no homography to chain"
