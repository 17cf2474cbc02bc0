"""superpoint_ros/node/qos.py and clock.py: starting up against real DDS, and saying what does not fit."""

import re
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

pytest.importorskip("rclpy", reason="needs ROS 2 (rclpy)")

from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy

from robot import Robot, image_message, photograph
from superpoint_ros.node import qos
from superpoint_ros.node.qos import endpoint_name, prepare_to_subscribe, subscribe

OK, NO_REFERENCE = 0, 1
BEST_EFFORT = QoSProfile(depth=1, reliability=ReliabilityPolicy.BEST_EFFORT)


@pytest.fixture
def said(monkeypatch):
    """Warnings of nodes that run in this process."""
    from rclpy.impl.rcutils_logger import RcutilsLogger

    sentences = []
    monkeypatch.setattr(RcutilsLogger, "warning", lambda self, sentence, **_: sentences.append(sentence))
    return sentences


def silent_for(camera, seconds):
    """As if the last image had come that long ago."""
    camera.statistics._last_image -= seconds


def test_a_publisher_that_cannot_serve_the_input_is_named_with_both_sides_settings(robot, said):
    from sensor_msgs.msg import Image

    node = robot.add_node(**{"qos_overrides./image.subscription.reliability": "reliable"})
    assert node.start()
    robot.client.destroy_publisher(robot.camera)
    robot.camera = robot.client.create_publisher(Image, "/image", BEST_EFFORT)
    expected = (
        "/image: /client offers best effort, volatile, but this node asks for reliable, volatile: no message comes "
        "from it. Change either, here by qos_overrides./image.subscription."
    )
    robot.spin_until(lambda: expected in said, "the node's warning beside the client's own")


def test_a_subscriber_that_cannot_be_served_is_named_with_both_sides_settings(robot, said):
    from superpoint_ros.msg import Features

    node = robot.add_node()
    assert node.start()
    latched = QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL)
    robot.client.create_subscription(Features, "/superpoint/features", lambda message: None, latched)
    expected = (
        "/superpoint/features: /client asks for reliable, transient local, but this node offers reliable, volatile: "
        "no message goes to it. Change either, here by qos_overrides./superpoint/features.publisher."
    )
    robot.spin_until(lambda: expected in said, "the node's warning beside the client's own")


@pytest.mark.parametrize(
    ("topic", "side"),
    [
        ("/image", "subscription"),
        ("/camera_info", "subscription"),
        ("/mask", "subscription"),
        ("/superpoint/features", "publisher"),
        ("/superpoint/matches", "publisher"),
        ("/superpoint/homography", "publisher"),
        ("/superpoint/keyframe", "publisher"),
        ("/superpoint/track_cloud", "publisher"),
        ("/superpoint/debug_image", "publisher"),
        ("/superpoint/annotations/keypoints", "publisher"),
        ("/superpoint/annotations/motion", "publisher"),
        ("/superpoint/markers", "publisher"),
        ("/diagnostics", "publisher"),
    ],
)
def test_the_qos_can_be_overridden_of(robot, topic, side):
    overrides = {
        f"qos_overrides.{topic}.{side}.durability": "transient_local",
        f"qos_overrides.{topic}.{side}.depth": 7,
    }
    node = robot.add_node(rectify=True, use_mask_topic=True, lazy=False, **overrides)
    assert node.start()
    list_endpoints = (
        node.get_subscriptions_info_by_topic if side == "subscription" else node.get_publishers_info_by_topic
    )
    (endpoint,) = [e for e in list_endpoints(topic) if e.node_name == "superpoint"]
    assert endpoint.qos_profile.durability == DurabilityPolicy.TRANSIENT_LOCAL
    assert node.get_parameter(f"qos_overrides.{topic}.{side}.depth").value == 7


def test_a_publisher_that_cannot_be_made_leaves_none_of_the_others(robot):
    node = robot.add_node(**{"qos_overrides./superpoint/homography.publisher.reliability": "perhaps"})
    assert node.start() is False
    assert not node.get_publishers_info_by_topic("/superpoint/features")


def test_messages_that_the_middleware_lost_are_counted(robot, monkeypatch):
    from rclpy.event_handler import SubscriptionEventCallbacks

    handlers = []
    original = SubscriptionEventCallbacks.__init__

    def noting(self, **events):
        handlers.append(events)
        original(self, **events)

    monkeypatch.setattr(SubscriptionEventCallbacks, "__init__", noting)
    node = robot.add_node(lazy=False)
    assert node.start()
    (on_lost,) = [events["message_lost"] for events in handlers if "message_lost" in events]
    for count in (3, 2**31 - 1, 4):
        on_lost(SimpleNamespace(total_count_change=count))
    robot.await_diagnostics(frames_lost="7")


@pytest.mark.parametrize(
    ("namespace", "name", "called"),
    [
        ("_NODE_NAMESPACE_UNKNOWN_", "_NODE_NAME_UNKNOWN_", "a node whose name is not known yet"),
        ("_CREATED_BY_BARE_DDS_APP_", "_CREATED_BY_BARE_DDS_APP_", "a program without ROS"),
        ("/front", "driver", "/front/driver"),
    ],
)
def test_no_placeholder_of_the_middleware_stands_for_a_name(namespace, name, called):
    assert endpoint_name(SimpleNamespace(node_namespace=namespace, node_name=name)) == called


def test_an_override_without_effect_is_warned_of_with_the_nearest(robot, said):
    node = robot.add_node(**{"qos_overrides./imag.subscription.depth": 3, "qos_overrides./image.subscription.depth": 2})
    assert node.start()
    assert [sentence for sentence in said if "qos_overrides" in sentence] == [
        "parameter 'qos_overrides./imag.subscription.depth' has no effect: no such topic or policy here "
        "(did you mean 'qos_overrides./image.subscription.depth'?)."
    ]


def test_an_override_that_is_not_allowed_fails_with_a_sentence(robot):
    node = robot.add_node(**{"qos_overrides./superpoint/features.publisher.reliability": "perfect"})
    assert node.start() is False


@pytest.mark.parametrize(("policy", "value"), [("history", "perfect"), ("durability", "7"), ("depth", "many")])
def test_an_override_of_a_subscription_that_is_made_later_fails_at_once(robot, policy, value):
    import rclpy
    from rclpy.parameter import Parameter

    overrides = [Parameter(f"qos_overrides./later.subscription.{policy}", value=value)]
    node = rclpy.create_node("late", context=robot.context, parameter_overrides=overrides)
    with pytest.raises(RuntimeError, match="The subscription to /later cannot be made: "):
        prepare_to_subscribe(node, "later", 1)
    node.destroy_node()


def test_a_subscription_has_the_depth_of_its_last_configuration_unless_that_is_overridden(robot):
    """rclpy's own parameters keep what they were declared with first."""
    import rclpy
    from rclpy.parameter import Parameter
    from sensor_msgs.msg import Image

    overrides = [Parameter("qos_overrides./told.subscription.depth", value=5)]
    node = rclpy.create_node("late", context=robot.context, parameter_overrides=overrides)
    for depth in (1, 10):
        for topic, expected in (("later", depth), ("told", 5)):
            assert prepare_to_subscribe(node, topic, depth) == f"/{topic}"
            subscription = subscribe(node, Image, topic, print, depth)
            assert node.get_parameter(f"qos_overrides./{topic}.subscription.depth").value == expected
            assert subscription.qos_profile.depth == expected
            node.destroy_subscription(subscription)
    node.destroy_node()


def test_no_private_name_of_rclpy_is_imported():
    """One that a distribution renames would keep the node from starting at all."""
    package = Path(qos.__file__).parent.parent
    private = re.compile(r"^\s*(from rclpy\S* import .*\b_\w|from rclpy\S*\._\w)", re.MULTILINE)
    assert [path.name for path in package.rglob("*.py") if private.search(path.read_text(encoding="utf-8"))] == []


def test_a_silent_topic_is_logged_with_its_publishers_once(robot, said):
    node = robot.add_node()
    assert node.start()
    robot.connect(node)
    silent_for(node.cameras[""], 6)
    robot.spin_until(lambda: said, "a warning")
    assert re.fullmatch(r"no image on /image for \d+ s; publishers: /client \(reliable, volatile\)", said[0])
    count = len(robot.diagnostics)
    robot.spin_until(lambda: len(robot.diagnostics) > count + 2, "three more reports")
    assert len(said) == 1
    assert robot.diagnostics[-1].status[0].message.startswith("no image on /image for")

    robot.show(image_message(photograph()))
    robot.spin_until(lambda: robot.diagnostics[-1].status[0].level == b"\x00", "better diagnostics")
    silent_for(node.cameras[""], 8)
    robot.spin_until(lambda: len(said) == 2, "a warning of the next silence")


def test_a_topic_that_nobody_publishes_is_logged_with_those_that_are(robot, said):
    node = robot.add_node(image_topics=["/camera/image_raw"], lazy=False)
    assert node.start()
    silent_for(node.cameras[""], 6)
    robot.spin_until(lambda: said, "a warning")
    assert said[0].endswith("; publishers: none; topics of that type: /image")


def test_a_topic_of_another_type_is_logged_as_such(robot, said):
    from sensor_msgs.msg import CameraInfo

    node = robot.add_node(image_topics=["/info"], lazy=False)
    assert node.start()
    other = Robot(robot.domain)  # one participant cannot have a topic with two types
    other.client.create_publisher(CameraInfo, "/info", 1)
    robot.spin_until(lambda: node.count_publishers("/info"), "the publisher")
    silent_for(node.cameras[""], 6)
    robot.spin_until(lambda: any("no image" in sentence for sentence in said), "a warning")
    other.close()
    assert "is a sensor_msgs/msg/CameraInfo, not a sensor_msgs/msg/Image" in said[-1]


def test_cuda_that_was_asked_for_and_is_not_there_is_in_the_diagnostics(robot, monkeypatch):
    import torch

    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    node = robot.add_node(device="cuda")
    assert node.start()
    robot.spin_until(lambda: robot.diagnostics and robot.diagnostics[-1].status[0].level == b"\x01", "a warning")
    assert robot.diagnostics[-1].status[0].message == ("runs on the CPU though device is 'cuda': there is no CUDA GPU")


# The clock


@pytest.fixture
def simulated(robot):
    """A node on simulated time, and a function that sets the time in seconds."""
    from rosgraph_msgs.msg import Clock

    node = robot.add_node(use_sim_time=True)
    assert node.start()
    publisher = robot.client.create_publisher(Clock, "/clock", 10)
    robot.connect(node)
    robot.spin_until(publisher.get_subscription_count, "the clock to be found")

    def set_time(seconds):
        message = Clock()
        message.clock.sec = seconds
        publisher.publish(message)
        robot.spin_until(lambda: node.get_clock().now().nanoseconds == seconds * 10**9, "the time")

    return node, set_time


def message_of(robot):
    return robot.diagnostics[-1].status[0].message if robot.diagnostics else ""


def test_a_clock_that_never_begins_is_in_the_diagnostics(robot, simulated):
    expected = "use_sim_time is true, but nothing is published on /clock"
    robot.spin_until(lambda: expected in message_of(robot), "the diagnostics")


def test_the_age_is_measured_with_the_simulated_clock(robot, simulated):
    node, set_time = simulated
    set_time(50)
    robot.show(image_message(photograph(), stamp=48))
    robot.spin_until(lambda: "features are stale: 2.0 s old" in message_of(robot), "the diagnostics")


def test_a_paused_clock_is_no_silence(robot, simulated, said):
    node, set_time = simulated
    set_time(10)
    count = len(robot.diagnostics)
    robot.spin_until(lambda: len(robot.diagnostics) > count + 1, "the pause to be seen")
    silent_for(node.cameras[""], 100)
    count = len(robot.diagnostics)
    robot.spin_until(lambda: len(robot.diagnostics) > count + 1, "more reports")
    assert message_of(robot) == "extracting features"
    assert said == []


def test_a_clock_that_jumps_back_drops_the_references(robot, simulated):
    node, set_time = simulated
    set_time(10)
    robot.show(image_message(photograph(), stamp=9))
    set_time(11)
    assert robot.show(image_message(photograph(), stamp=10)).status == OK
    set_time(5)
    assert robot.show(image_message(np.roll(photograph(), 1), stamp=10)).status == NO_REFERENCE
