"""Images are taken in only while someone wants what comes of them (parameter `lazy`), against real rclpy and DDS."""

import pytest

pytest.importorskip("rclpy", reason="needs ROS 2 (rclpy)")

from rclpy.parameter import Parameter
from rclpy.qos import DurabilityPolicy, QoSProfile
from sensor_msgs.msg import Image

from robot import Robot, image_message, photograph, shifted
from superpoint_ros.msg import HomographyStamped
from superpoint_ros.node import qos
from superpoint_ros.node.outputs import Outputs

OK, NO_REFERENCE = 0, 1
IDLE = "idle, as nobody subscribes to what comes of the images"


@pytest.fixture
def robot(ros_domain):
    """With a listener to nothing of the node but the diagnostics."""
    robot = Robot(ros_domain, node="/elsewhere")
    yield robot
    robot.close()


def await_camera(robot, count, what):
    robot.spin_until(lambda: robot.camera.get_subscription_count() == count, what)


def await_message(robot, sentence, level=b"\x00", status=0):
    def told():
        found = robot.diagnostics and robot.diagnostics[-1].status
        return found and (found[status].message, found[status].level) == (sentence, level)

    robot.spin_until(told, f"diagnostics that say '{sentence}'")


def told(monkeypatch):
    from rclpy.impl.rcutils_logger import RcutilsLogger

    said = []
    monkeypatch.setattr(RcutilsLogger, "info", lambda self, sentence, **_: said.append(sentence))
    return said


def test_without_subscribers_no_image_is_subscribed_to_and_diagnostics_say_idle(robot):
    node = robot.add_node(use_mask_topic=True, rectify=True)
    assert node.start()
    node.cameras[""].statistics._last_image -= 100  # the silence is as long as one that is complained of
    await_message(robot, IDLE)
    assert robot.camera.get_subscription_count() == 0
    assert robot.client.count_subscribers("/mask") == robot.client.count_subscribers("/camera_info") == 1
    assert robot.values()["subscribers"] == "0"


def test_a_node_that_sleeps_on_the_cpu_in_cudas_place_says_so(robot, monkeypatch):
    import torch

    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert robot.add_node(device="cuda").start()
    await_message(robot, f"runs on the CPU though device is 'cuda': there is no CUDA GPU; {IDLE}", level=b"\x01")


@pytest.mark.parametrize("tells", [True, False], ids=["matched events", "polling"])
def test_a_subscriber_of_any_output_wakes_the_node_and_its_end_sends_it_to_sleep(robot, monkeypatch, tells):
    monkeypatch.setattr(qos, "TELLS_OF_MATCHES", tells and qos.TELLS_OF_MATCHES)
    said = told(monkeypatch)
    node = robot.add_node()
    assert node.start()
    for topic, message_class in Outputs.TYPES.items():
        subscription = robot.client.create_subscription(message_class, f"/superpoint/{topic}", lambda _: None, 1)
        await_camera(robot, 1, f"the node to be woken by {topic}")
        robot.client.destroy_subscription(subscription)
        await_camera(robot, 0, f"the node to sleep after {topic}")
    woken = [sentence for sentence in said if sentence == "Waiting for images on /image."]
    asleep = [sentence for sentence in said if sentence.startswith("Nobody subscribes to what comes of images on /ima")]
    assert (len(woken), len(asleep)) == (len(Outputs.TYPES), 1 + len(Outputs.TYPES))


def test_references_and_tracks_begin_anew_after_a_sleep(robot):
    from superpoint_ros.msg import Features

    node = robot.add_node(tracks=True)
    assert node.start()
    topics = ((HomographyStamped, "homography", robot.homographies), (Features, "features", robot.features))

    def listen():
        here = [robot.client.create_subscription(c, f"/superpoint/{t}", kept.append, 10) for c, t, kept in topics]
        publishers = [node.cameras[""].outputs.publishers[topic] for _, topic, _ in topics]
        robot.spin_until(lambda: all(p.get_subscription_count() for p in publishers), "the listeners")
        await_camera(robot, 1, "the node to wake")
        return here

    here = listen()
    robot.show(image_message(photograph(), stamp=1))
    assert robot.show(image_message(shifted(photograph(), 8, 0), stamp=2)).status == OK
    robot.spin_until(lambda: len(robot.features) == 2, "features")
    for each in here:
        robot.client.destroy_subscription(each)
    await_camera(robot, 0, "the node to sleep")
    listen()
    assert robot.show(image_message(shifted(photograph(), 16, 0), stamp=3)).status == NO_REFERENCE
    assert robot.show(image_message(shifted(photograph(), 24, 0), stamp=4)).status == OK
    robot.spin_until(lambda: len(robot.features) == 4, "features")
    before, after = ({*robot.features[i].track_ids, *robot.features[i + 1].track_ids} for i in (0, 2))
    assert not before & after
    robot.await_diagnostics(frames_in="4", frames_out="4")


def test_a_node_that_is_not_lazy_stays_warm_and_the_parameter_changes_live(robot):
    node = robot.add_node(lazy=False)
    assert node.start()
    await_camera(robot, 1, "the subscription")
    robot.camera.publish(image_message(photograph()))
    robot.await_diagnostics(frames_out="1")
    assert node.set_parameters([Parameter("lazy", value=True)])[0].successful
    await_camera(robot, 0, "the subscription to go")
    await_message(robot, IDLE)
    assert node.set_parameters([Parameter("lazy", value=False)])[0].successful
    await_camera(robot, 1, "the subscription to come back")


def test_what_is_wrong_with_a_topic_is_told_at_activation_all_the_same(robot, monkeypatch):
    from rclpy.impl.rcutils_logger import RcutilsLogger

    said = []
    monkeypatch.setattr(RcutilsLogger, "error", lambda self, sentence, **_: said.append(sentence))
    node = robot.add_node(**{"qos_overrides./image.subscription.reliability": "perfect"})
    assert node.start() is False
    assert said[0].startswith("The subscription to /image cannot be made: ")


def rig(robot, **parameters):
    node = robot.add_node(cameras=["left", "right"], **parameters)
    assert node.start()
    cameras = [robot.client.create_publisher(Image, f"/{name}/image", 1) for name in ("left", "right")]

    def counts(left, right):
        robot.spin_until(lambda: [c.get_subscription_count() for c in cameras] == [left, right], f"{left}, {right}")

    return counts


def test_each_camera_sleeps_by_itself(robot):
    counts = rig(robot)
    subscription = robot.client.create_subscription(HomographyStamped, "/superpoint/left/homography", print, 1)
    counts(1, 0)
    await_message(robot, IDLE, status=1)
    robot.client.destroy_subscription(subscription)
    counts(0, 0)


def test_a_synchronised_rig_sleeps_and_wakes_as_a_whole_and_counts_what_waited(robot):
    pytest.importorskip("message_filters", reason="needs ROS 2's message_filters")
    node_counts = rig(robot, synchronise="exact")
    (node,) = (node for node in robot.executor.get_nodes() if node.get_name() == "superpoint")
    left = robot.client.create_publisher(Image, "/left/image", 1)
    for _ in range(2):
        subscription = robot.client.create_subscription(HomographyStamped, "/superpoint/right/homography", print, 1)
        node_counts(1, 1)
        robot.spin_until(lambda: left.get_subscription_count() == 1, "the node")
        came = node.cameras["left"].statistics.snapshot().frames_in
        left.publish(image_message(photograph(), stamp=1 + came))  # waits for a partner
        robot.spin_until(lambda: node.cameras["left"].statistics.snapshot().frames_in > came, "the frame")  # noqa: B023
        robot.client.destroy_subscription(subscription)
        node_counts(0, 0)
        robot.spin_until(lambda: node.cameras["left"].faults.count("unmatched") == came + 1, "its count")  # noqa: B023
    assert node.rig.trouble() == ""


def test_a_late_subscriber_gets_the_present_keyframe(robot):
    from superpoint_ros.msg import FeatureMatches, Features

    node = robot.add_node(reference="keyframe", tracks=True)
    assert node.start()
    robot.client.create_subscription(HomographyStamped, "/superpoint/homography", robot.homographies.append, 10)
    robot.client.create_subscription(FeatureMatches, "/superpoint/matches", robot.matches.append, 10)
    outputs = node.cameras[""].outputs.publishers
    robot.spin_until(lambda: outputs["matches"].get_subscription_count() == 1, "the listener")
    robot.spin_until(lambda: outputs["homography"].get_subscription_count() == 1, "the listener")
    await_camera(robot, 1, "the node to wake")
    robot.show(image_message(photograph(), stamp=1))
    for stamp, shift in ((2, 8), (3, 16)):
        found = robot.show(image_message(shifted(photograph(), shift, 0), stamp))
        assert (found.status, found.reference_stamp.sec) == (OK, 1)

    def late():
        kept, profile = [], QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL)
        subscription = robot.client.create_subscription(Features, "/superpoint/keyframe", kept.append, profile)
        robot.spin_until(lambda: kept, "the keyframe")
        robot.client.destroy_subscription(subscription)
        return kept[-1]

    keyframe = late()
    robot.spin_until(lambda: len(robot.matches) == 2, "matches")
    inlier = [i for i, flag in enumerate(robot.matches[-1].inlier) if flag]
    steps = [robot.matches[-1].x[i] - keyframe.x[robot.matches[-1].reference[i]] for i in inlier]
    assert keyframe.header.stamp.sec == 1 and len(keyframe.track_ids) == len(keyframe.x)
    assert sorted(steps)[len(steps) // 2] == pytest.approx(16, abs=0.2)

    robot.show(image_message(photograph()[::-1], stamp=4))  # another scene, which the next one is compared with
    found = robot.show(image_message(shifted(photograph()[::-1], 8, 0), stamp=5))
    assert late().header.stamp.sec == found.reference_stamp.sec == 4


def test_a_bag_that_begins_anew_has_its_first_keyframe_published_again_with_its_new_tracks(robot):
    from superpoint_ros.msg import Features

    node, keyframes = robot.add_node(reference="keyframe", tracks=True), []
    assert node.start()
    robot.client.create_subscription(HomographyStamped, "/superpoint/homography", robot.homographies.append, 10)
    robot.client.create_subscription(Features, "/superpoint/keyframe", keyframes.append, 10)
    outputs = node.cameras[""].outputs.publishers
    for topic in ("homography", "keyframe"):
        robot.spin_until(lambda topic=topic: outputs[topic].get_subscription_count() == 1, "the listener")
    await_camera(robot, 1, "the node to wake")
    for count in (1, 2):
        assert robot.show(image_message(photograph(), stamp=1)).status == NO_REFERENCE
        robot.spin_until(lambda count=count: len(keyframes) == count, "the keyframe")
        node.rig.reset()
    assert not set(keyframes[0].track_ids) & set(keyframes[1].track_ids)
