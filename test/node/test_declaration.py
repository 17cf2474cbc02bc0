"""superpoint_ros/node/declaration.py: the table of parameters on a node, against real rclpy."""

import pytest

pytest.importorskip("rclpy", reason="needs ROS 2 (rclpy)")

from rclpy.parameter import Parameter

from superpoint_ros.frontend.parameters import TABLE, Parameters


def test_every_parameter_is_described_on_the_running_node(robot):
    node = robot.add_node()
    for descriptor in node.describe_parameters(list(TABLE)):
        assert len(descriptor.description) > 10
        row = TABLE[descriptor.name]
        ranges = [*descriptor.floating_point_range, *descriptor.integer_range]
        assert [(r.from_value, r.to_value) for r in ranges] == (
            [row.metadata["limits"]] if row.metadata["limits"] else []
        )
        for choice in row.metadata["choices"]:
            assert choice in descriptor.additional_constraints


@pytest.mark.parametrize(
    ("name", "value", "sentence"),
    [
        ("max_keypoint", 5, "'max_keypoint' is unknown .did you mean 'max_keypoints'"),
        ("max_keypoints", 0, "'max_keypoints'.*1 to 65536"),
        ("detection_threshold", 1.5, "'detection_threshold'.*0.0 to 0.999"),
        ("nms_radius", "four", "'nms_radius'.*STRING.*INTEGER"),
        ("engine", "tensorflow", "'engine' must be one of auto, torch.*got 'tensorflow'"),
        ("resize", 8, "'resize' must be 0 or at least 16"),
        ("intensity_range", [5.0], "'intensity_range' must be .low, high."),
        (
            "intensity_range",
            [5.0, 1.0],
            "'intensity_range' must be .low, high. with low below high",
        ),
        ("cameras", ["left", "left"], "'cameras' must hold different names"),
        ("cameras", ["left", ""], "'cameras' must hold different names"),
        ("cameras", ["1st"], "'cameras' must hold different names"),
        ("synchronise", "exact", "'synchronise' must be none for a single camera"),
        ("image_topics", ["/a", "/b"], "'image_topics' must hold one entry for each of the 1"),
    ],
)
def test_a_node_does_not_start_with(robot, name, value, sentence):
    with pytest.raises(ValueError, match=sentence):
        robot.add_node(**{name: value})


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("max_keypoints", 0),
        ("descriptor_type", "int4"),
        ("intensity_range", [2.0, 1.0]),
        ("resize", 3),
    ],
)
def test_a_running_node_refuses_and_keeps_its_value(robot, name, value):
    node = robot.add_node()
    result = node.set_parameters([Parameter(name, value=value)])[0]
    assert not result.successful
    assert name in result.reason
    assert node.parameters == Parameters()
