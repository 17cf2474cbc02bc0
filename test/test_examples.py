"""examples/: what the subscriber in Python says of messages over DDS; the one in C++ is built by CI (rclcpp)."""

import os
import runpy
import subprocess
import sys
from array import array
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from superpoint_ros.frontend.messages import encode_descriptors

EXAMPLE = Path(__file__).parents[1] / "examples" / "subscriber.py"


def a_message(count, track_ids=()):
    """Keypoints with descriptors that only those of the same row match."""
    from superpoint_ros.msg import Features

    descriptors = np.eye(count, 16, dtype=np.float32)
    values = array("f", np.linspace(1, 0.5, count))
    message = Features(x=values, y=values, scores=values, scale=array("f", [2.0] * count), weights_id="some")
    message.descriptor_dim = 16
    message.descriptors = array("B", encode_descriptors(descriptors, "float32").tobytes())
    message.track_ids = array("i", track_ids)
    return message


def test_the_subscriber_in_python_counts_keypoints_and_their_matches_with_the_message_before(ros_domain, tmp_path):
    pytest.importorskip("rclpy", reason="needs ROS 2 (rclpy)")
    from robot import Robot

    robot, output = Robot(ros_domain), tmp_path / "output"
    environment = {**os.environ, "ROS_DOMAIN_ID": str(ros_domain), "RCUTILS_LOGGING_USE_STDOUT": "1"}
    command = [sys.executable, EXAMPLE, "--ros-args", "-r", "features:=/superpoint/features"]
    with output.open("wb") as file:
        subscriber = subprocess.Popen(command, stdout=file, stderr=subprocess.STDOUT, env=environment)
    try:
        publisher = robot.client.create_publisher(type(a_message(1)), "/superpoint/features", 5)

        def published_until(count, said):
            # Again and again: best effort loses what is sent before the subscriber has found the publisher.
            publisher.publish(a_message(count))
            return said in output.read_text()

        for count, said in (
            (5, "5 keypoints, 0 matches"),
            (3, "3 keypoints, 3 matches"),
            (0, "0 keypoints, 0 matches"),
        ):
            robot.spin_until(partial(published_until, count, said), said)
    finally:
        robot.close()
        subscriber.terminate()
        assert subscriber.wait(timeout=300) == 0, output.read_text()


def test_keypoints_in_python_are_those_of_the_header_for_cpp():
    pytest.importorskip("rclpy", reason="needs ROS 2 (rclpy)")
    keypoints = runpy.run_path(str(EXAMPLE))["keypoints"]
    message = a_message(2, track_ids=[7, 8])
    message.scale = array("f", [0.714, 2.857])
    found = [(k.size, k.octave, k.class_id, k.angle) for k in keypoints(message)]
    assert found == [(pytest.approx(8 * 0.714), 0, 7, -1), (pytest.approx(8 * 2.857), 2, 8, -1)]
    assert [k.class_id for k in keypoints(a_message(2))] == [-1, -1]
