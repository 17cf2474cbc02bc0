"""What was built and installed works together; `colcon test` runs this, `make test` all the rest, too."""

import os
import subprocess

import numpy as np
import pytest

from installation import prefix
from robot import Robot, image_message, photograph, shifted
from superpoint_ros import decode_descriptors

OK = 0


def test_the_installed_node_turns_images_into_features_matches_and_homographies(ros_domain):
    environment = {**os.environ, "ROS_DOMAIN_ID": str(ros_domain)}
    command = [prefix() / "lib" / "superpoint_ros" / "superpoint_node", "--ros-args", "-p", "device:=cpu"]
    node = subprocess.Popen(command, env=environment)
    robot = Robot(ros_domain)
    try:
        robot.wake()
        picture = photograph()
        for stamp in (1, 2):
            found = robot.show(image_message(shifted(picture, 8 * stamp, 0), stamp))
        assert found.status == OK
        np.testing.assert_allclose(np.reshape(found.matrix, (3, 3)), [[1, 0, 8], [0, 1, 0], [0, 0, 1]], atol=0.2)
        features = robot.features[-1]
        descriptors = decode_descriptors(features.descriptors, features.descriptor_dim, features.descriptor_type)
        assert len(features.x) > 100 and descriptors.shape == (len(features.x), 256)
        robot.await_diagnostics(frames_bad="0", frames_failed="0")
    finally:
        robot.close()
        node.terminate()
        assert node.wait(timeout=300) == 0


@pytest.mark.parametrize("name", ["superpoint", "superpoint-train"])
def test_the_installed_command_line_runs(name):
    command = [prefix() / "lib" / "superpoint_ros" / name, "--help"]
    assert b"Usage" in subprocess.run(command, capture_output=True, check=True, timeout=300).stdout
