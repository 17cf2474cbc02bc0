"""A robot in a ROS domain of its own."""

import pytest

from robot import Robot


@pytest.fixture
def robot(ros_domain):
    pytest.importorskip("rclpy", reason="needs ROS 2 (rclpy)")
    robot = Robot(ros_domain)
    yield robot
    robot.close()
