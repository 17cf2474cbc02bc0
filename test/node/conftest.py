"""Each test has a ROS domain of its own."""

import fcntl
import itertools
import os
import tempfile

import pytest

from robot import Robot

DOMAINS = itertools.count(os.getpid())


@pytest.fixture
def ros_domain():
    """A ROS_DOMAIN_ID of this test's own, on a machine where others may run these tests, too."""
    for number in itertools.islice(DOMAINS, 100):
        domain = 1 + number % 100
        with open(os.path.join(tempfile.gettempdir(), f"superpoint_ros_domain_{domain}"), "w") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                continue
            yield domain
            return
    pytest.fail("all 100 ROS domains of these tests are in use")


@pytest.fixture
def robot(ros_domain):
    pytest.importorskip("rclpy", reason="needs ROS 2 (rclpy)")
    robot = Robot(ros_domain)
    yield robot
    robot.close()
