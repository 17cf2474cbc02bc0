"""launch/*.launch.py, run by launch itself."""

import contextlib
import os
import re
import runpy
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest

pytest.importorskip("rclpy", reason="needs ROS 2 (rclpy)")
launch_pytest = pytest.importorskip("launch_pytest", reason="needs ROS 2's launch_pytest")
pytest.importorskip("launch_ros", reason="needs ROS 2's launch_ros")

from launch import LaunchDescription
from launch.actions import IncludeLaunchDescription, SetEnvironmentVariable
from launch.launch_description_sources import PythonLaunchDescriptionSource

from installation import program
from robot import Robot, image_message, photograph, shifted

LAUNCH = Path(__file__).parents[2] / "launch"
QUICK_START = LAUNCH.parent / "docs" / "quick_start.md"
DOMAIN = 1 + (os.getpid() + 50) % 100
OK = 0


def included(name, **arguments):
    return IncludeLaunchDescription(
        PythonLaunchDescriptionSource(str(LAUNCH / name)), launch_arguments=arguments.items()
    )


@pytest.fixture(scope="module")
def parameter_file(tmp_path_factory):
    path = tmp_path_factory.mktemp("launch") / "mine.yaml"
    path.write_text("/**:\n  ros__parameters:\n    max_keypoints: 33\n    device: cpu\n")
    return path


@pytest.mark.parametrize("place", ["checkout", "installation"])
@pytest.mark.parametrize("name", ["superpoint", "rig", "replay"])
def test_the_arguments_are_described_and_those_that_the_quick_start_lists(name, place):
    pytest.importorskip("ros2launch", reason="needs ROS 2's ros2launch")
    installed = ("superpoint_ros", f"{name}.launch.py")
    file = [LAUNCH / f"{name}.launch.py"] if place == "checkout" else installed
    command = [program("ros2"), "launch", *file, "--show-args"]
    shown = subprocess.run(command, capture_output=True, text=True, check=True, timeout=300).stdout
    (row,) = (line for line in QUICK_START.read_text().splitlines() if line.startswith(f"| `{name}.launch.py`"))
    assert re.findall("^    '(.+)':$", shown, re.MULTILINE) == re.findall("`([a-z_]+)`", row)
    assert "no description given" not in shown


@launch_pytest.fixture
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
            included("superpoint.launch.py", **arguments),
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


@launch_pytest.fixture
def two_robots(parameter_file):
    robots = [
        included(
            "superpoint.launch.py", namespace=name, image_topic="camera/image_raw", params_file=str(parameter_file)
        )
        for name in ("robot1", "robot2")
    ]
    domain = SetEnvironmentVariable("ROS_DOMAIN_ID", str(DOMAIN))
    return LaunchDescription([domain, *robots, launch_pytest.actions.ReadyToTest()])


@pytest.mark.launch(fixture=two_robots)
def test_two_robots_in_two_namespaces_see_each_their_own_camera():
    robots = {
        name: Robot(DOMAIN, topic=f"/{name}/camera/image_raw", node=f"/{name}/superpoint")
        for name in ("robot1", "robot2")
    }
    try:
        for robot in robots.values():
            robot.wake()
        for shift, robot in ((8, robots["robot1"]), (-16, robots["robot2"])):
            robot.show(image_message(photograph(), stamp=1))
            found = robot.show(image_message(shifted(photograph(), shift, 0), stamp=2))
            assert found.matrix[2] == pytest.approx(shift, abs=0.5)
        for robot in robots.values():  # `wake` has stamp 0
            assert [message.header.stamp.sec for message in robot.homographies if message.header.stamp.sec] == [1, 2]
    finally:
        for robot in robots.values():
            robot.close()


@launch_pytest.fixture
def rig(parameter_file):
    arguments = {"cameras": "[left, right]", "image_topics": "[/cam0/image, /cam1/image]", "synchronise": "exact"}
    return LaunchDescription(
        [
            SetEnvironmentVariable("ROS_DOMAIN_ID", str(DOMAIN)),
            included("rig.launch.py", params_file=str(parameter_file), **arguments),
            launch_pytest.actions.ReadyToTest(),
        ]
    )


@pytest.mark.launch(fixture=rig)
def test_the_launched_rig_answers_sets_of_frames_with_the_same_stamp():
    pytest.importorskip("message_filters", reason="needs ROS 2's message_filters")
    robot = Robot(DOMAIN, topic="/cam0/image", node="/superpoint/left")
    other = Robot(DOMAIN, topic="/cam1/image", node="/superpoint/right")
    both = (robot, other)
    try:
        for each in both:
            each.spin_until(each.camera.get_subscription_count, "the node", seconds=300)
        for stamp in range(1, 60):  # until all endpoints have found each other
            for each in both:
                each.camera.publish(image_message(photograph(), stamp=stamp))
                each.executor.spin_once(timeout_sec=0.3)
            if robot.homographies and other.homographies:
                break
        for each in both:
            each.spin_until(lambda each=each: each.homographies, "a homography")
        robot.camera.publish(image_message(photograph(), stamp=70))
        for each in both:
            each.camera.publish(image_message(photograph(), stamp=71))
        for each in both:
            each.spin_until(lambda each=each: each.homographies[-1].header.stamp.sec == 71, "the set of both frames")
        assert 70 not in [message.header.stamp.sec for message in robot.homographies]
    finally:
        robot.close()
        other.close()


@pytest.mark.parametrize(
    ("argument", "sentence"),
    [
        ("cameras:=[left", "argument 'cameras' must be a list of names, as in [left, right], got '[left'"),
        ("sync_slop:=short", "argument 'sync_slop' must be a number of seconds, got 'short'"),
        ("params_file:=/no/such.yaml", "argument 'params_file': /no/such.yaml: No such file or directory"),
        (f"params_file:={__file__}", f"argument 'params_file': {__file__} is no YAML file"),
        ("cameras:=[1st]", "'cameras' must hold different names"),
        (
            "mask_topics:=[/a]",
            "argument 'mask_topics' must hold one entry for each of the 2 cameras ['left', 'right'], got ['/a']",
        ),
    ],
)
def test_an_argument_of_the_rig_that_cannot_be_fails_with_a_sentence(argument, sentence, tmp_path):
    status, output = launch("rig.launch.py", tmp_path, argument)
    assert status == 1 and sentence in output


def launch(name, folder, *arguments):
    """Run a launch file to its end; returns its exit status and its output."""
    pytest.importorskip("ros2launch", reason="needs ROS 2's ros2launch")
    command = [program("ros2"), "launch", LAUNCH / name, *arguments]
    environment = {**os.environ, "ROS_DOMAIN_ID": str(DOMAIN), "ROS_LOG_DIR": str(folder)}
    output = folder / "output.txt"
    with output.open("wb") as file:
        process = subprocess.Popen(command, stdout=file, stderr=subprocess.STDOUT, env=environment)
        try:
            process.wait(timeout=300)
        finally:
            if process.poll() is None:
                process.send_signal(signal.SIGINT)  # SIGTERM would orphan what it launched
                process.wait(timeout=300)
    return process.returncode, output.read_text()


@pytest.mark.parametrize("name", ["superpoint.launch.py", "rig.launch.py"])
def test_a_node_that_cannot_start_is_the_exit_status(name, tmp_path):
    parameters = tmp_path / "wrong.yaml"
    parameters.write_text("superpoint:\n  ros__parameters:\n    max_keypoint: 33\n")
    status, output = launch(name, tmp_path, f"params_file:={parameters}")
    assert status == 1
    assert "did you mean 'max_keypoints'?" in output and "superpoint_node ended with status 1." in output


def test_a_node_that_fails_is_started_again_if_that_is_asked_for(tmp_path):
    pytest.importorskip("ros2launch", reason="needs ROS 2's ros2launch")
    parameters, output = tmp_path / "wrong.yaml", tmp_path / "output.txt"
    parameters.write_text("superpoint:\n  ros__parameters:\n    max_keypoint: 33\n")
    command = [program("ros2"), "launch", LAUNCH / "superpoint.launch.py"]
    environment = {**os.environ, "ROS_DOMAIN_ID": str(DOMAIN), "ROS_LOG_DIR": str(tmp_path)}
    with output.open("wb") as file:
        process = subprocess.Popen(
            [*command, f"params_file:={parameters}", "respawn:=true"],
            stdout=file,
            stderr=subprocess.STDOUT,
            env=environment,
        )
        try:
            end = time.monotonic() + 300
            while output.read_text().count("did you mean 'max_keypoints'?") < 2 and time.monotonic() < end:
                with contextlib.suppress(subprocess.TimeoutExpired):
                    process.wait(timeout=0.5)
            assert process.poll() is None
        finally:
            process.send_signal(signal.SIGINT)
            process.wait(timeout=300)
    assert output.read_text().count("did you mean 'max_keypoints'?") >= 2
    assert process.returncode == 0, output.read_text()


@pytest.mark.parametrize(
    ("text", "arguments", "told"),
    [
        (
            None,
            [],
            "Rig: cameras ['left', 'right'] (default), synchronise approximate (default), sync_slop 0.01 (default).",
        ),
        (
            "cameras: [a, b]\n    synchronise: none",
            [],
            "Rig: cameras ['a', 'b'] (params_file), synchronise none (params_file), sync_slop 0.01 (default).",
        ),
        (
            "cameras: ['']\n    sync_slop: 0.5",
            ["cameras:=[c, d]", "synchronise:=none"],
            "Rig: cameras ['c', 'd'] (argument), synchronise none (argument), sync_slop 0.5 (params_file).",
        ),
        (
            "sync_slop: 0.5\nmapper:\n  ros__parameters:\n    cameras: [a, b]",
            ["sync_slop:=0"],
            "Rig: cameras ['left', 'right'] (default), synchronise approximate (default), sync_slop 0.0 (argument).",
        ),
    ],
)
def test_a_rig_is_as_the_arguments_say_else_as_the_file_says(text, arguments, told, tmp_path):
    """The unknown name ends the node at once, after launch has told what it is given."""
    if text is not None:
        parameters = tmp_path / "mine.yaml"
        parameters.write_text(f"/**:\n  ros__parameters:\n    {text}\nsuperpoint: {{ros__parameters: {{end: 1}}}}\n")
        arguments = [*arguments, f"params_file:={parameters}"]
    else:
        arguments = ["device:=none"]
    status, output = launch("rig.launch.py", tmp_path, *arguments)
    assert status == 1 and told in output


@launch_pytest.fixture
def rig_of_a_file(tmp_path_factory):
    path = tmp_path_factory.mktemp("launch") / "rig.yaml"
    path.write_text(
        "/**:\n  ros__parameters: {cameras: [a, b], synchronise: none, mask_files: [], device: cpu, match_ratio: 1, "
        "rectify: true, use_mask_topic: true}\n"
    )
    domain = SetEnvironmentVariable("ROS_DOMAIN_ID", str(DOMAIN))
    arguments = {
        "params_file": str(path),
        "node_name": "eyes",
        "camera_info_topics": "[/calib/a, '']",
        "mask_topics": "[/masks/a, /masks/b]",
    }
    return LaunchDescription([domain, included("rig.launch.py", **arguments), launch_pytest.actions.ReadyToTest()])


@pytest.mark.launch(fixture=rig_of_a_file)
def test_a_params_file_of_a_rig_counts():
    robot = Robot(DOMAIN, topic="/a/image", node="/eyes/a")
    try:
        robot.spin_until(robot.camera.get_subscription_count, "the node")
        topics = ("/calib/a", "/b/camera_info", "/masks/a", "/masks/b")
        robot.spin_until(lambda: [robot.client.count_subscribers(topic) for topic in topics] == [1] * 4, str(topics))
        assert robot.client.count_publishers("/eyes/b/features") == 1
    finally:
        robot.close()


@launch_pytest.fixture
def renamed(tmp_path_factory):
    path = tmp_path_factory.mktemp("launch") / "one.yaml"
    path.write_text("/**:\n  ros__parameters: {device: cpu, rectify: true, use_mask_topic: true}\n")
    arguments = {
        "params_file": str(path),
        "namespace": "front",
        "node_name": "eyes",
        "camera_info_topic": "/calib/info",
        "mask_topic": "own_vehicle",
    }
    domain = SetEnvironmentVariable("ROS_DOMAIN_ID", str(DOMAIN))
    description = [domain, included("superpoint.launch.py", **arguments), launch_pytest.actions.ReadyToTest()]
    return LaunchDescription(description)


@pytest.mark.launch(fixture=renamed)
def test_node_calibration_and_masks_have_the_names_that_are_given():
    robot = Robot(DOMAIN, topic="/front/image", node="/front/eyes")
    try:
        robot.spin_until(robot.camera.get_subscription_count, "the node")
        topics = ("/calib/info", "/front/own_vehicle")
        robot.spin_until(lambda: [robot.client.count_subscribers(topic) for topic in topics] == [1, 1], str(topics))
    finally:
        robot.close()


PLAYER = """
import sys
sys.path.insert(0, {folder!r})
from robot import Robot, image_message, photograph, shifted
robot = Robot({domain})
robot.spin_until(robot.camera.get_subscription_count, "the node")
# The node may not have found this camera yet, and best effort loses what is sent before.
robot.show_until_heard()
for stamp in range(1, 6):
    robot.show(image_message(shifted(photograph(), 8 * stamp, 0), stamp))
print("played", sys.argv[1])
robot.close()
"""


def replay(arguments, folder):
    """Run replay.launch.py to its end; returns its exit status and its output."""
    return launch("replay.launch.py", folder, *(f"{name}:={value}" for name, value in arguments.items()))


def test_a_replay_records_what_the_node_publishes_and_ends_with_the_bag(tmp_path, parameter_file):
    from superpoint_ros.bags.reader import BagReader

    player, bag = tmp_path / "player.py", tmp_path / "features"
    player.write_text(PLAYER.format(folder=str(Path(__file__).parent), domain=DOMAIN))
    arguments = {
        "bag": "some_bag",
        "output": str(bag),
        "params_file": str(parameter_file),
        "player": f"{sys.executable} {player}",
    }
    status, output = replay(arguments, tmp_path)
    assert status == 0 and "played some_bag" in output
    with BagReader(bag) as reader:
        counts = Counter(message.topic.name for message in reader.messages())
    assert counts == {"/superpoint/features": 5, "/superpoint/matches": 4, "/superpoint/homography": 5}


@pytest.mark.parametrize(
    ("distribution", "option"), [("humble", []), ("jazzy", ["--topics"]), ("lyrical", ["--topics"])]
)
def test_ros2_bag_is_told_the_topics_as_each_distribution_wants_them(monkeypatch, distribution, option):
    module = runpy.run_path(LAUNCH / "replay.launch.py")
    monkeypatch.setitem(module["record_command"].__globals__, "find_spec", lambda name: name == "ros2bag")
    monkeypatch.setenv("ROS_DISTRO", distribution)
    command = module["record_command"]("out", ["/a", "/b"])
    assert command == ["ros2", "bag", "record", "--use-sim-time", "--output", "out", *option, "/a", "/b"]


def test_a_replay_needs_no_other_player_and_keeps_the_stamps_of_the_bag(tmp_path, parameter_file):
    from rclpy.serialization import serialize_message

    from superpoint_ros.bags.reader import BagReader
    from superpoint_ros.bags.writer import BagWriter, offered_qos

    stamps = [100, 102, 104, 106]  # far enough apart for a busy machine: the newest frame would win
    with BagWriter(tmp_path / "drive") as writer:
        writer.add_topic("/front/image_raw", "sensor_msgs/msg/Image", offered_qos(False, 5))
        for index, stamp in enumerate(stamps):
            message = image_message(shifted(photograph(), 8 * index, 0), stamp)
            writer.write("/front/image_raw", stamp * 10**9, serialize_message(message))
    arguments = {
        "bag": str(tmp_path / "drive"),
        "image_topic": "/front/image_raw",
        "output": str(tmp_path / "features"),
        "namespace": "front",
        "params_file": str(parameter_file),
    }
    status, output = replay(arguments, tmp_path)
    assert status == 0 and "The bag has been played." in output
    with BagReader(tmp_path / "features") as reader:
        messages = list(reader.messages())
        found = [(message.topic.name, reader.decode(message)) for message in messages]
    assert sorted({message.time for message in messages}) == [stamp * 10**9 for stamp in stamps]
    homographies = [message for topic, message in found if topic == "/front/superpoint/homography"]
    assert [message.header.stamp.sec for message in homographies] == stamps
    assert [round(float(message.matrix[2])) for message in homographies[1:]] == [8, 8, 8]
    assert Counter(topic for topic, _ in found)["/front/superpoint/features"] == 4


@pytest.mark.parametrize(
    ("topic", "sentence"),
    [
        (
            "/front/image",
            "there are no messages of sensor_msgs/msg/Image on /front/image; there are images on "
            "/cam/image_raw/compressed",
        ),
        ("/cam/image_raw", "image_transport is raw, see params_file"),
        ("/cam/image_raw/compressed", "image_transport is raw, see params_file"),
        ("/odom", "there are no messages of sensor_msgs/msg/Image on /odom"),
    ],
)
def test_a_replay_of_a_topic_that_is_not_in_the_bag_says_which_are(tmp_path, parameter_file, topic, sentence):
    from superpoint_ros.bags.writer import BagWriter, offered_qos

    with BagWriter(tmp_path / "drive") as writer:
        writer.add_topic("/cam/image_raw/compressed", "sensor_msgs/msg/CompressedImage", offered_qos(False, 5))
        writer.add_topic("/odom", "std_msgs/msg/Header", offered_qos(False, 5))
    arguments = {
        "bag": str(tmp_path / "drive"),
        "image_topic": topic,
        "output": str(tmp_path / "features"),
        "params_file": str(parameter_file),
    }
    status, output = replay(arguments, tmp_path)
    assert status == 1 and sentence in output and not (tmp_path / "features").exists()


@pytest.mark.parametrize(
    ("pushed", "namespace", "node"),
    [
        (None, "", "/eye"),
        (None, "front", "/front/eye"),
        ("/robot", "", "/robot/eye"),
        ("/robot", "front", "/robot/front/eye"),
        ("/robot", "/front", "/front/eye"),
    ],
)
def test_the_nodes_name_has_the_namespace_that_an_including_file_has_pushed(pushed, namespace, node):
    from launch import LaunchContext

    from superpoint_ros.node.launch_arguments import node_in

    context = LaunchContext()
    if pushed:
        context.launch_configurations["ros_namespace"] = pushed
    assert node_in({"namespace": namespace, "node_name": "eye"}, context) == node


@pytest.mark.parametrize("distribution, counts", [("humble", "own"), ("jazzy", "all")])
def test_of_two_sections_the_one_counts_that_the_node_takes(tmp_path, monkeypatch, distribution, counts):
    from superpoint_ros.node.launch_arguments import parameters_in

    monkeypatch.setenv("ROS_DISTRO", distribution)
    path = tmp_path / "mine.yaml"
    path.write_text("/front/eye: {ros__parameters: {device: own}}\n/**: {ros__parameters: {device: all}}\n")
    assert parameters_in(str(path), "/front/eye") == {"device": counts}


@pytest.mark.parametrize("topic", ["cam/image_raw", "/cam/image_raw/compressed"])
@pytest.mark.parametrize("section", ["/**/superpoint", "/front/*", "front: {superpoint"])
def test_a_replay_of_compressed_images_goes_by_the_parameters_of_its_own_node(tmp_path, topic, section):
    from superpoint_ros.bags.writer import BagWriter, offered_qos

    check_topic = runpy.run_path(LAUNCH / "replay.launch.py")["check_topic"]
    with BagWriter(tmp_path / "drive") as writer:
        for name in ("/cam/image_raw/compressed", "/front/cam/image_raw/compressed"):
            writer.add_topic(name, "sensor_msgs/msg/CompressedImage", offered_qos(False, 5))
    parameters = tmp_path / "mine.yaml"
    given = {"bag": str(tmp_path / "drive"), "image_topic": topic, "params_file": str(parameters)}
    parameters.write_text(
        f"{section}: {{ros__parameters: {{image_transport: compressed}}}}{'}' if '{' in section else ''}\n"
        "driver: {ros__parameters: {image_transport: raw}}\n"
    )
    check_topic(given, "/front/superpoint")
    with pytest.raises(ValueError, match="no messages of sensor_msgs/msg/Image on /"):
        check_topic(given, "/back/other")


@pytest.mark.parametrize("replayed", ["nothing", "a text"])
def test_a_replay_of_what_is_no_bag_says_so_and_ends(tmp_path, parameter_file, replayed):
    if replayed == "a text":
        (tmp_path / replayed).write_text("this is no bag")
    arguments = {
        "bag": str(tmp_path / replayed),
        "output": str(tmp_path / "features"),
        "params_file": str(parameter_file),
    }
    status, output = replay(arguments, tmp_path)
    assert status == 1
    assert re.search(rf"Error: {re.escape(str(tmp_path / replayed))}: \w+", output)
    assert "The player ended with status 1." in output and "The bag has been played." not in output


def test_a_replay_whose_node_cannot_start_says_so_and_ends(tmp_path):
    parameters = tmp_path / "wrong.yaml"
    parameters.write_text("superpoint:\n  ros__parameters:\n    max_keypoint: 33\n")
    arguments = {"bag": "a_bag", "output": str(tmp_path / "features"), "params_file": str(parameters)}
    status, output = replay(arguments, tmp_path)
    assert status == 1
    assert "did you mean 'max_keypoints'?" in output and "The node ended by itself." in output
