"""The node as a process of its own, as `ros2 run` starts it."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("rclpy", reason="needs ROS 2 (rclpy)")

from robot import image_message, photograph, shifted
from superpoint_ros.interrupts import INTERRUPTED

OK, NO_REFERENCE = 0, 1


@pytest.fixture
def start_node(ros_domain, tmp_path):
    """Start the node with arguments; returns the process and the file its output goes to."""
    processes = []

    def start(*arguments, program=("-m", "superpoint_ros.node")):
        output = tmp_path / f"node{len(processes)}.txt"
        environment = {
            **os.environ,
            "ROS_DOMAIN_ID": str(ros_domain),
            "RCUTILS_LOGGING_USE_STDOUT": "1",
        }
        with output.open("wb") as file:
            process = subprocess.Popen(
                [sys.executable, *program, "--ros-args", *arguments],
                stdout=file,
                stderr=subprocess.STDOUT,
                env=environment,
            )
        processes.append(process)
        return process, output

    yield start
    for process in processes:
        if process.poll() is None:
            process.kill()
            process.wait()


def test_a_publisher_that_dies_mid_stream_and_comes_back_is_served_again(robot, start_node):
    process, _ = start_node("-r", "image:=/image")
    robot.wake()
    picture = photograph()
    robot.show(image_message(picture, stamp=1))
    assert robot.show(image_message(shifted(picture, 8, 0), stamp=2)).status == OK

    robot.client.destroy_publisher(robot.camera)
    robot.spin_until(lambda: robot.client.count_publishers("/image") == 0, "the publisher to be gone")
    robot.camera = robot.client.create_publisher(type(image_message(picture)), "/image", 1)
    after = robot.show_until_answered(image_message(picture, stamp=3))
    assert (after.status, after.reference_stamp.sec) == (OK, 2)
    assert process.poll() is None


@pytest.mark.skipif(not os.path.exists("/proc/self/maps"), reason="needs Linux's /proc")
def test_a_features_message_of_a_megabyte_fits_into_the_nodes_shared_memory(robot, start_node):
    from rclpy.utilities import get_rmw_implementation_identifier

    if "fastrtps" not in get_rmw_implementation_identifier():
        pytest.skip("needs Fast DDS")
    process, _ = start_node()
    robot.wake()
    maps = [line.split() for line in Path(f"/proc/{process.pid}/maps").read_text().splitlines()]
    spans = [line[0].split("-") for line in maps if "/dev/shm/fast" in line[-1]]
    assert max(int(end, 16) - int(begin, 16) for begin, end in spans) >= 4 * 2**20


@pytest.mark.parametrize("stop", [signal.SIGINT, signal.SIGTERM])
def test_the_node_ends_cleanly_on(robot, start_node, stop):
    process, output = start_node()
    robot.wake()
    process.send_signal(stop)
    assert process.wait(timeout=300) == 0, output.read_text()
    assert "Traceback" not in output.read_text()


ENDED_MEANWHILE = """
import os, signal, sys, time
import rclpy
from superpoint_ros.node import __main__, superpoint_node
from superpoint_ros.node.superpoint_node import SuperPointNode

def end(*_):
    os.kill(os.getpid(), signal.{stop})
    while rclpy.ok():
        time.sleep(0.01)

def through(node):
    for transition in (node.trigger_configure, node.trigger_activate, node.trigger_deactivate):
        transition()
    sys.exit("not ended")

{place} = end
SuperPointNode.start = through
sys.exit(__main__.main())
"""


@pytest.mark.parametrize("stop", ["SIGINT", "SIGTERM"])
@pytest.mark.parametrize("place", ["superpoint_node.warm_up", "SuperPointNode._topics"])
def test_a_signal_during_a_transition_ends_the_node_without_an_error(start_node, place, stop):
    process, output = start_node(program=("-c", ENDED_MEANWHILE.format(place=place, stop=stop)))
    assert process.wait(timeout=300) == 0, output.read_text()
    assert not any(word in output.read_text() for word in ("ERROR", "Traceback", "not ended"))


HANGING = """
import sys, time
from superpoint_ros.node.__main__ import main
from superpoint_ros.node.superpoint_node import SuperPointNode

def destroy_node(node):
    print("waiting", flush=True)
    time.sleep(300)

SuperPointNode.destroy_node = destroy_node
sys.exit(main())
"""


def test_a_second_interrupt_does_not_wait_for_the_frames_in_work(robot, start_node):
    process, output = start_node(program=("-c", HANGING))
    robot.spin_until(robot.camera.get_subscription_count, "the node to listen")
    process.send_signal(signal.SIGINT)
    robot.spin_until(lambda: "waiting" in output.read_text(), "the node to end")
    process.send_signal(signal.SIGINT)
    assert process.wait(timeout=300) == INTERRUPTED
    assert "Traceback" not in output.read_text()


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["-p", "max_keypoints:=0"], "'max_keypoints'"),
        (["-p", "max_keypoint:=5"], "did you mean 'max_keypoints'"),
        (["-p", "weights:=/no/such/file.pth"], "/no/such/file.pth: no such weights file"),
    ],
)
def test_a_node_that_cannot_start_says_why_and_exits_with_1(start_node, arguments, sentence):
    process, output = start_node(*arguments)
    assert process.wait(timeout=300) == 1
    assert sentence in output.read_text()
    assert "Traceback" not in output.read_text()


LOST = """
import sys
from superpoint_ros.features.extractor import Extractor
from superpoint_ros.network.engines.devices import DeviceLost
from superpoint_ros.node.__main__ import main

def lost(self, pictures, masks):
    raise DeviceLost("GPU cuda:0 answers no more after an error: CUDA error: an illegal memory access")

Extractor.__call__ = lambda self, image, extract=Extractor.batch: extract(self, [image])[0]
Extractor.batch = lost
sys.exit(main())
"""


def test_a_gpu_that_answers_no_more_ends_the_process_with_a_sentence_and_1(robot, start_node):
    process, output = start_node(program=("-c", LOST))
    robot.spin_until(robot.camera.get_subscription_count, "the node to listen")
    robot.spin_until(
        lambda: robot.camera.publish(image_message(photograph())) or process.poll() is not None, "the process to end"
    )
    assert process.returncode == 1
    said = output.read_text()
    assert said.count("The node ends: GPU cuda:0 answers no more after an error: CUDA error: an illegal memory") == 1
    assert "Traceback" not in said


def test_without_autostart_a_lifecycle_manager_brings_the_node_up(robot, start_node):
    from lifecycle_msgs.msg import Transition
    from lifecycle_msgs.srv import ChangeState

    start_node("-p", "autostart:=false")
    client = robot.client.create_client(ChangeState, "/superpoint/change_state")
    robot.spin_until(client.service_is_ready, "the lifecycle service")
    assert robot.camera.get_subscription_count() == 0
    for transition in (Transition.TRANSITION_CONFIGURE, Transition.TRANSITION_ACTIVATE):
        future = client.call_async(ChangeState.Request(transition=Transition(id=transition)))
        robot.spin_until(future.done, "the transition")
        assert future.result().success
    robot.wake()
    assert robot.show(image_message(photograph())).status == NO_REFERENCE


def test_remapping_namespace_and_qos_overrides_apply(robot, start_node):
    from rclpy.qos import ReliabilityPolicy

    start_node(
        *("-r", "__ns:=/front", "-r", "image:=/front/camera/image_raw"),
        *("-p", "qos_overrides./front/camera/image_raw.subscription.reliability:=reliable", "-p", "lazy:=false"),
    )
    topic = "/front/camera/image_raw"
    robot.spin_until(lambda: robot.client.count_subscribers(topic) == 1, "the remapped subscription")
    (endpoint,) = robot.client.get_subscriptions_info_by_topic(topic)
    assert endpoint.qos_profile.reliability == ReliabilityPolicy.RELIABLE
    assert robot.client.count_publishers("/front/superpoint/features") == 1
