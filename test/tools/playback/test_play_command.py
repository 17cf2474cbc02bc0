"""`superpoint play` in a process of its own, heard over real DDS."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from contextlib import contextmanager

import pytest
from click.testing import CliRunner

rclpy = pytest.importorskip("rclpy", reason="needs ROS 2 (rclpy)")

from rclpy.qos import QoSProfile, ReliabilityPolicy
from rosgraph_msgs.msg import Clock
from sensor_msgs.msg import Image
from std_msgs.msg import Header

from bag_samples import SECOND, image_bytes, message_bytes, write_mcap
from superpoint_ros.bags.content import IMAGE
from superpoint_ros.bags.definitions import typestore
from superpoint_ros.bags.writer import BagWriter, offered_qos
from superpoint_ros.tools.playback.play_command import play_command
from superpoint_ros.tools.session import ros_session, wait_until

TOPIC, OTHER = "/camera/image_raw", "/words"
HEADER = "std_msgs/msg/Header"
COUNT, PERIOD = 16, SECOND // 10


@pytest.fixture
def bag(tmp_path):
    """Ten images a second, best effort as cameras offer them, and headers in between."""
    import numpy as np

    store = typestore()
    with BagWriter(tmp_path / "drive") as writer:
        writer.add_topic(TOPIC, IMAGE, offered_qos(reliable=False, depth=7))
        writer.add_topic(OTHER, HEADER, offered_qos(reliable=True, depth=9))
        for number in range(COUNT):
            at = 5 * SECOND + number * PERIOD
            writer.write(TOPIC, at, image_bytes(at, np.full((8, 8), number, np.uint8)))
            stamp = store.types["builtin_interfaces/msg/Time"](number, 0)
            writer.write(OTHER, at + 1, bytes(store.serialize_cdr(store.types[HEADER](stamp, "word"), HEADER)))
    return tmp_path / "drive"


class Listener:
    """Hears topics of types."""

    def __init__(self, ros, **topics):
        self.heard = {name: [] for name in topics}
        for name, (topic, kind) in topics.items():
            ros.create_subscription(
                kind,
                topic,
                lambda message, name=name: self.heard[name].append(message),
                QoSProfile(depth=100, reliability=ReliabilityPolicy.BEST_EFFORT),
            )

    def count(self, name):
        return len(self.heard[name])


@contextmanager
def playing(domain, *arguments):
    environment = {**os.environ, "ROS_DOMAIN_ID": str(domain), "ROS_AUTOMATIC_DISCOVERY_RANGE": "LOCALHOST"}
    command = [sys.executable, "-m", "superpoint_ros.tools.cli", "play", *map(str, arguments), "--wait", "300"]
    process = subprocess.Popen(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, bufsize=1
    )
    try:
        yield process
    finally:
        if process.poll() is None:
            process.kill()
        process.communicate()


@pytest.fixture
def ros(ros_domain):
    with ros_session("test_play", ros_domain) as node:
        yield node


def test_nothing_is_lost_at_the_recorded_rate_and_at_twice_that(ros, ros_domain, bag):
    for rate in (1, 2):
        listener = Listener(ros, images=(TOPIC, Image), words=(OTHER, Header))
        with playing(ros_domain, bag, "--rate", rate) as process:
            said, _ = process.communicate(timeout=300)
        assert process.returncode == 0, said
        assert f"{2 * COUNT} messages were played" in said
        wait_until(lambda heard=listener: heard.count("words") >= COUNT, 300, "words")
        assert [message.stamp.sec for message in listener.heard["words"]] == list(range(COUNT))
        assert [message.data[0] for message in listener.heard["images"]] == list(range(COUNT))


def test_topics_are_chosen_and_renamed_and_the_clock_is_the_bags(ros, ros_domain, bag):
    listener = Listener(ros, images=("/front", Image), words=(OTHER, Header), clock=("/clock", Clock))
    with playing(
        ros_domain, bag, "--topic", TOPIC, "--remap", f"{TOPIC}:=/front", "--clock", "--rate", 2, "--start", 0.3
    ) as process:
        wait_until(lambda: listener.count("images") > 2, 300, "images")
        (offered,) = ros.get_publishers_info_by_topic("/front")
        said, _ = process.communicate(timeout=300)
    assert process.returncode == 0, said
    assert offered.qos_profile.reliability == ReliabilityPolicy.BEST_EFFORT
    assert [message.data[0] for message in listener.heard["images"]] == list(range(3, COUNT))
    assert not listener.heard["words"]
    times = [message.clock.sec * SECOND + message.clock.nanosec for message in listener.heard["clock"]]
    assert times == sorted(times)
    assert 5 * SECOND + 3 * PERIOD <= times[0] and times[-1] <= 5 * SECOND + (COUNT - 1) * PERIOD
    assert len(times) > 20


@pytest.mark.parametrize("end", [signal.SIGINT, signal.SIGTERM])
def test_a_loop_goes_on_until_it_is_interrupted(ros, ros_domain, bag, end):
    listener = Listener(ros, words=(OTHER, Header))
    with playing(ros_domain, bag, "--topic", OTHER, "--loop", "--rate", 10) as process:
        wait_until(lambda: listener.count("words") > 2 * COUNT, 300, "third round")
        process.send_signal(end)
        said, _ = process.communicate(timeout=300)
    assert process.returncode == 0, said
    numbers = [message.stamp.sec for message in listener.heard["words"]][: 2 * COUNT]
    assert numbers == [*range(COUNT), *range(COUNT)]


def test_two_signals_end_a_loop_quietly(ros, ros_domain, bag):
    listener = Listener(ros, words=(OTHER, Header))
    with playing(ros_domain, bag, "--topic", OTHER, "--loop", "--rate", 10) as process:
        wait_until(lambda: listener.count("words") > COUNT, 300, "second round")
        process.send_signal(signal.SIGINT)
        process.send_signal(signal.SIGTERM)
        said, _ = process.communicate(timeout=300)
    assert process.returncode in (0, 130), said
    assert "Traceback" not in said and "Exception ignored" not in said


def test_a_damaged_bag_is_played_as_far_as_it_goes(ros, ros_domain, bag):
    (file,) = bag.glob("*.mcap")
    file.write_bytes(file.read_bytes()[:1800])
    listener = Listener(ros, words=(OTHER, Header))
    with playing(ros_domain, bag, "--rate", 10) as process:
        said, _ = process.communicate(timeout=300)
    assert process.returncode == 1
    assert "cut off at byte 1800" in said and "Playing" in said
    assert 0 < listener.count("words") < COUNT


def test_what_cannot_be_played_gets_a_sentence(bag, make_bag, monkeypatch):
    def say(*arguments):
        result = CliRunner().invoke(play_command, list(map(str, arguments)))
        assert result.exit_code in (1, 2)
        return result.output

    assert "there is no topic /front, only /camera/image_raw, /words" in say(bag, "--topic", "front")
    assert "--remap needs OLD:=NEW" in say(bag, "--remap", "a=b")
    assert "no such bag" in say(bag / "nowhere")
    odd = make_bag("odd", {"/odd": "superpoint_ros/msg/Features"}, [("/odd", 1, message_bytes(IMAGE, 1))])
    monkeypatch.setattr("superpoint_ros.tools.playback.player.importlib.import_module", missing)
    assert "it has no topic that can be played" in say(odd)
    assert "messages of type superpoint_ros/msg/Features cannot be published" in say(odd, "--topic", "/odd")
    foreign = bag / "foreign.mcap"
    write_mcap(foreign, [("/state", 1, b"{}" * 20)], encodings={"/state": "json"})
    assert "no topic that can be played; it holds /state (sensor_msgs/msg/Image, encoded as json)" in say(foreign)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert "playing needs ROS 2's rclpy" in say(bag)


def missing(name):
    raise ImportError(name)
