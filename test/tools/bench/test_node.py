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
    times = ("before_ms_p50", "overhead_ms_p50", "floor_ms_p50", "extraction_ms_p50")
    assert all(latency[name] > 0 for name in times)
    # nearly all of a message is descriptors; x, y, score and id take 16 bytes a keypoint
    assert latency["keypoints"] > 100
    assert 256 * latency["keypoints"] < latency["bytes"] < (256 + 32) * latency["keypoints"] + 500
    assert report["message_building_ms"]["uint8"] > 0

    overload = report["overload"]
    assert overload["sent"] > overload["received"] > 0
    assert overload["age_ms_p50"] > 0 and overload["rss_mb_end"] > 0

    cameras = report["cameras"]
    assert len(cameras["received"]) == len(CAMERAS)
    assert all(count >= 1 for count in cameras["received"])
    assert cameras["images"] == cameras["batches"]  # on a CPU they take turns
    assert "4 cameras, 3 s: " in capsys.readouterr().out
