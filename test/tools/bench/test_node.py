"""`bench --node` at small size: the real node in its own process, over DDS."""

from __future__ import annotations

import pytest

pytest.importorskip("rclpy", reason="ROS 2 is not installed")
pytest.importorskip("superpoint_ros.msg", reason="the messages are not built")

from superpoint_ros.tools.bench.node import CAMERAS, Plan, measure_node


@pytest.mark.timeout(400)
def test_the_node_is_measured_alone_overloaded_and_with_four_cameras(capsys):
    plan = Plan("cpu", "auto", seconds=6, size=(120, 160), frames=3, kinds=("uint8",))
    report = measure_node(plan)

    [latency] = report["latency"]
    assert latency["descriptor_type"] == "uint8"
    assert 0 < latency["before_ms_p50"] < latency["overhead_ms_p50"]
    assert 0 < latency["floor_ms_p50"] < 1000
    assert latency["extraction_ms_p50"] > 1
    # nearly all of a message is descriptors; x, y, score and id take 16 bytes a keypoint
    assert latency["keypoints"] > 100
    assert 256 * latency["keypoints"] < latency["bytes"] < (256 + 32) * latency["keypoints"] + 500
    assert 0 < report["message_building_ms"]["uint8"] < 100

    overload = report["overload"]
    assert overload["sent"] > 2 * overload["received"] > 10
    # what queues grows old: 30 frames are sent while six are extracted
    assert overload["age_ms_p50"] < 4 * overload["extraction_ms_p50"] + 50
    assert overload["rss_mb_end"] < overload["rss_mb_start"] * 1.05 + 5

    cameras = report["cameras"]
    assert len(cameras["received"]) == len(CAMERAS)
    assert all(count >= 3 for count in cameras["received"])
    assert cameras["images_a_batch"] > len(CAMERAS) / 2
    assert cameras["images"] <= cameras["batches"] * len(CAMERAS)
    assert "4 cameras, 3 s: " in capsys.readouterr().out
