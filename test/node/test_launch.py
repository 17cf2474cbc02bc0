"""launch/superpoint.launch.py, run by launch itself."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("rclpy", reason="needs ROS 2 (rclpy)")
launch_pytest = pytest.importorskip("launch_pytest", reason="needs ROS 2's launch_pytest")
pytest.importorskip("launch_ros", reason="needs ROS 2's launch_ros")

from launch.actions import IncludeLaunchDescription, SetEnvironmentVariable
from launch.launch_description_sources import PythonLaunchDescriptionSource

from launch import LaunchDescription
from robot import Robot, image_message, photograph, shifted

LAUNCH_FILE = Path(__file__).parents[2] / "launch" / "superpoint.launch.py"
DOMAIN = 1 + (os.getpid() + 50) % 100
OK = 0


@pytest.fixture(scope="module")
def parameter_file(tmp_path_factory):
    path = tmp_path_factory.mktemp("launch") / "mine.yaml"
    path.write_text("/**:\n  ros__parameters:\n    max_keypoints: 33\n    device: cpu\n")
    return path


@launch_pytest.fixture(scope="module")
def launched(parameter_file):
    arguments = {
        "image_topic": "/front/camera/image_raw",
        "namespace": "front",
        "params_file": str(parameter_file),
        "use_sim_time": "true",
    }
    return LaunchDescription(
        [
            SetEnvironmentVariable("ROS_DOMAIN_ID", str(DOMAIN)),
            IncludeLaunchDescription(
                PythonLaunchDescriptionSource(str(LAUNCH_FILE)), launch_arguments=arguments.items()
            ),
            launch_pytest.actions.ReadyToTest(),
        ]
    )


@pytest.mark.launch(fixture=launched)
def test_the_launched_node_serves_its_topic_with_the_given_arguments():
    from rcl_interfaces.srv import GetParameters

    robot = Robot(DOMAIN, topic="/front/camera/image_raw", node="/front/superpoint")
    try:
        robot.wake()
        picture = photograph()
        robot.show(image_message(picture, stamp=1))
        assert robot.show(image_message(shifted(picture, 8, 0), stamp=2)).status == OK
        robot.spin_until(lambda: len(robot.features[-1].x) == 33, "features with max_keypoints of the file")

        client = robot.client.create_client(GetParameters, "/front/superpoint/get_parameters")
        robot.spin_until(client.service_is_ready, "the parameter service")
        future = client.call_async(GetParameters.Request(names=["use_sim_time", "device"]))
        robot.spin_until(future.done, "parameters")
        use_sim_time, device = future.result().values
        assert (use_sim_time.bool_value, device.string_value) == (True, "cpu")
    finally:
        robot.close()


def test_every_argument_is_described():
    pytest.importorskip("ros2launch", reason="needs ROS 2's ros2launch")
    shown = subprocess.run(
        [Path(sys.executable).with_name("ros2"), "launch", LAUNCH_FILE, "--show-args"],
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    for name in ("image_topic", "namespace", "params_file", "use_sim_time", "device"):
        assert f"'{name}':\n" in shown
    assert "no description given" not in shown
