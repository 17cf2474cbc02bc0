"""config/superpoint.rviz and config/foxglove_layout.json show topics that the node publishes."""

import json
import re
from pathlib import Path

import pytest
import yaml

pytest.importorskip("rclpy", reason="needs ROS 2 (rclpy)")

from superpoint_ros.node.outputs import Outputs

CONFIG = Path(__file__).parents[2] / "config"


@pytest.mark.parametrize("name", ["superpoint.rviz", "foxglove_layout.json"])
def test_every_topic_of_a_view_is_published_or_the_image(name):
    text = (CONFIG / name).read_text()
    shown = set(re.findall(r"/superpoint/([\w/]+)", text))
    assert shown and shown <= Outputs.TYPES.keys()
    assert re.search(r'[: "]/image\b', text)


def test_the_rviz_types_are_those_of_the_topics():
    displays = yaml.safe_load((CONFIG / "superpoint.rviz").read_text())["Visualization Manager"]["Displays"]
    types = {display["Topic"]["Value"]: display["Class"].partition("/")[2] for display in displays}
    assert types.pop("/image") == "Camera"
    for topic, kind in types.items():
        assert Outputs.TYPES[topic.removeprefix("/superpoint/")].__name__ == kind


def test_every_panel_of_the_foxglove_layout_is_laid_out():
    layout = json.loads((CONFIG / "foxglove_layout.json").read_text())

    def panels(node):
        return {node} if isinstance(node, str) else panels(node["first"]) | panels(node["second"])

    assert panels(layout["layout"]) == layout["configById"].keys()
    # an empty name, unlike none, makes the panel wait for a calibration that never comes
    assert "calibrationTopic" not in layout["configById"]["Image!keypoints"]["imageMode"]
