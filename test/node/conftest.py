"""Each test has a ROS domain of its own."""

import itertools
import os

import pytest

from robot import Robot

DOMAINS = itertools.count(os.getpid())


@pytest.fixture
def ros_domain():
    """A ROS_DOMAIN_ID of this test's own."""
    return 1 + next(DOMAINS) % 100


@pytest.fixture
def robot(ros_domain):
    pytest.importorskip("rclpy", reason="needs ROS 2 (rclpy)")
    robot = Robot(ros_domain)
    yield robot
    robot.close()
