"""superpoint_ros/node/camera.py: several cameras of one node, against real rclpy and DDS."""

import itertools
import threading
import time

import numpy as np
import pytest

pytest.importorskip("rclpy", reason="needs ROS 2 (rclpy)")

from rclpy.parameter import Parameter

from robot import DEADLINE, image_message, photograph, shifted
from superpoint_ros.node.mailbox import Frame

OK, NO_REFERENCE = 0, 1


class Rig:
    """A publisher and a list of homographies for each camera of a running node."""

    def __init__(self, robot, topics, **parameters):
        from sensor_msgs.msg import Image

        from superpoint_ros.msg import HomographyStamped

        self.robot = robot
        self.node = robot.add_node(**parameters)
        self.homographies = {name: [] for name in topics}
        self.publishers = {}
        for name, topic in topics.items():
            self.publishers[name] = robot.client.create_publisher(Image, topic, 10)
            robot.client.create_subscription(
                HomographyStamped,
                f"/superpoint/{name}/homography",
                self.homographies[name].append,
                10,
            )
        assert self.node.start()
        robot.spin_until(
            lambda: (
                all(p.get_subscription_count() == 1 for p in self.publishers.values())
                and all(
                    camera.outputs.publishers["homography"].get_subscription_count() == 1
                    for camera in self.node.cameras.values()
                )
            ),
            "cameras, node and listeners to find each other",
        )

    def show(self, name, message):
        self.publishers[name].publish(message)

    def await_counts(self, **counts):
        self.robot.spin_until(
            lambda: all(len(self.homographies[name]) >= n for name, n in counts.items()),
            f"{counts} homographies",
        )


@pytest.fixture
def rig(robot):
    topics = {"left": "/left/image", "right": "/right/image"}
    return Rig(robot, topics, cameras=["left", "right"])


def test_each_camera_has_topics_reference_and_diagnostics_of_its_own(robot, rig):
    left, right = photograph(), photograph((200, 264))
    for stamp in (1, 2):
        rig.show("left", image_message(shifted(left, 8 * stamp, 0), stamp, frame_id="l"))
        rig.show("right", image_message(shifted(right, 0, -8 * stamp), 10 * stamp, frame_id="r"))
        rig.await_counts(left=stamp, right=stamp)
    one, other = rig.homographies["left"][1], rig.homographies["right"][1]
    assert (one.status, other.status) == (OK, OK)
    assert one.matrix[2] == pytest.approx(8, abs=0.5)
    assert other.matrix[5] == pytest.approx(-8, abs=0.5)
    assert (one.header.frame_id, one.header.stamp.sec, one.reference_stamp.sec) == ("l", 2, 1)
    assert (other.header.frame_id, other.header.stamp.sec, other.reference_stamp.sec) == (
        "r",
        20,
        10,
    )
    robot.spin_until(lambda: robot.diagnostics and robot.values()["frames_out"] == "2", "diagnostics")
    names = [status.name for status in robot.diagnostics[-1].status]
    assert names == ["/superpoint: left/features", "/superpoint: right/features"]


def test_topics_and_frames_are_given_by_parameter(robot):
    topics = {"left": "/bus/cam0", "right": "/bus/cam1"}
    rig = Rig(
        robot,
        topics,
        cameras=["left", "right"],
        image_topics=list(topics.values()),
        frame_ids=["left_optical", ""],
    )
    for name in topics:
        rig.show(name, image_message(photograph(), frame_id="as sent"))
    rig.await_counts(left=1, right=1)
    assert rig.homographies["left"][0].header.frame_id == "left_optical"
    assert rig.homographies["right"][0].header.frame_id == "as sent"
    assert rig.homographies["left"][0].header.stamp.sec == 1


@pytest.fixture
def in_batches(monkeypatch):
    """As on a GPU: a batch takes less time than its images one by one."""
    from superpoint_ros.features.extractor import Extractor

    monkeypatch.setattr(Extractor, "batches", True)


def test_a_camera_that_floods_the_node_does_not_starve_the_other(robot, in_batches, rig, monkeypatch):
    extract, begun, go_on = rig.node._extractor.batch, threading.Event(), threading.Semaphore(0)
    batches = []

    def slow(pictures, masks):
        begun.set()
        batches.append(len(pictures))
        assert go_on.acquire(timeout=300)
        return extract(pictures, masks)

    monkeypatch.setattr(rig.node._extractor, "batch", slow)
    picture = photograph((64, 64))
    arrived = lambda name: rig.node.cameras[name].statistics.snapshot().frames_in  # noqa: E731
    rig.show("left", image_message(picture, stamp=1))
    robot.spin_until(begun.is_set, "the first frame to be in work")
    for turn in range(2, 5):
        for sent in range(20):  # one in work, twenty more of the left camera, one of the right
            rig.show("left", image_message(picture, stamp=turn))
            before = 1 + 20 * (turn - 2) + sent
            robot.spin_until(lambda n=before: arrived("left") > n, "the left frame to arrive")
        rig.show("right", image_message(picture, stamp=turn))
        robot.spin_until(lambda n=turn: arrived("right") == n - 1, "the right frame to arrive")
        go_on.release()
        robot.spin_until(lambda n=turn: len(batches) == n, "the next batch")
    go_on.release()
    rig.await_counts(left=4, right=3)
    assert [message.header.stamp.sec for message in rig.homographies["right"]] == [2, 3, 4]
    assert batches == [1, 2, 2, 2]


def test_fresh_frames_of_four_cameras_go_through_the_network_in_one_batch(robot, in_batches, monkeypatch):
    from superpoint_ros.msg import Features

    names = ["front", "left", "rear", "right"]
    rig = Rig(robot, {name: f"/{name}/image" for name in names}, cameras=names)
    features = {name: [] for name in names}
    for name in names:
        robot.client.create_subscription(Features, f"/superpoint/{name}/features", features[name].append, 10)
    cameras = rig.node.cameras
    robot.spin_until(
        lambda: all(camera.outputs.publishers["features"].get_subscription_count() for camera in cameras.values()),
        "listeners and node to find each other",
    )
    extract, begun, go_on = rig.node._extractor.batch, threading.Event(), threading.Event()
    batches, events = [], []

    def slow(pictures, masks):
        begun.set()
        batches.append(len(pictures))
        assert go_on.wait(300)
        return extract(pictures, masks)

    def noting(event, function):
        return lambda *arguments, **options: events.append(event) or function(*arguments, **options)

    monkeypatch.setattr(rig.node._extractor, "batch", slow)
    for camera in cameras.values():
        monkeypatch.setattr(camera.tracker, "advance", noting("match", camera.tracker.advance))
        monkeypatch.setattr(camera.outputs, "publish_features", noting("send", camera.outputs.publish_features))
    pictures = {name: shifted(photograph(), 24 * index, 0) for index, name in enumerate(names)}
    rig.show("front", image_message(pictures["front"], stamp=1))
    robot.spin_until(begun.is_set, "the first frame to be in work")
    for name in names:
        rig.show(name, image_message(pictures[name], stamp=2))
    robot.spin_until(
        lambda: [camera.statistics.snapshot().frames_in for camera in cameras.values()] == [2, 1, 1, 1],
        "all frames to arrive",
    )
    go_on.set()
    rig.await_counts(front=2, left=1, rear=1, right=1)
    assert batches == [1, 4]
    assert events == ["send", "match", *["send"] * 4, *["match"] * 4]
    robot.spin_until(lambda: all(messages for messages in features.values()), "the features")
    for name in names:
        message, (alone,) = features[name][-1], extract([pictures[name]], None)
        assert message.header.stamp.sec == 2
        np.testing.assert_allclose(np.stack([message.x, message.y], axis=1), alone.xy, atol=1e-3)


def test_on_a_cpu_each_camera_is_published_before_the_next_is_extracted(robot, rig, monkeypatch):
    extract, begun, go_on = rig.node._extractor.batch, threading.Event(), threading.Event()
    events = []

    def noting(pictures, masks):
        begun.set()
        events.append(("extract", len(pictures)))
        assert go_on.wait(300)
        return extract(pictures, masks)

    def sending(name, send):
        return lambda *arguments, **options: events.append(("send", name)) or send(*arguments, **options)

    monkeypatch.setattr(rig.node._extractor, "batch", noting)
    for name, camera in rig.node.cameras.items():
        monkeypatch.setattr(camera.outputs, "publish_motion", sending(name, camera.outputs.publish_motion))
    rig.show("left", image_message(photograph(), stamp=1))
    robot.spin_until(begun.is_set, "the first frame to be in work")
    arrived = lambda: [c.statistics.snapshot().frames_in for c in rig.node.cameras.values()]  # noqa: E731
    for stamp in (2, 3):
        rig.show("left", image_message(photograph(), stamp=stamp))
        robot.spin_until(lambda n=stamp: arrived()[0] == n, "the left frame")
    rig.show("right", image_message(photograph(), stamp=3))
    robot.spin_until(lambda: arrived() == [3, 1], "the right frame")
    go_on.set()
    rig.await_counts(left=2, right=1)
    one = ("extract", 1)
    assert events == [one, ("send", "left"), one, ("send", "right"), one, ("send", "left")]
    assert [message.header.stamp.sec for message in rig.homographies["left"]] == [1, 3]


def test_a_bad_camera_and_one_that_breaks_the_batch_cost_the_other_nothing(robot, rig, monkeypatch):
    extract = rig.node._extractor.batch

    def out_of_memory(pictures, masks):
        if any(picture.shape == (64, 64) for picture in pictures):
            raise RuntimeError("out of memory")
        return extract(pictures, masks)

    monkeypatch.setattr(rig.node._extractor, "batch", out_of_memory)
    rig.node.rig._pipeline.process(
        [
            Frame("left", image_message(photograph((64, 64))), 0.0),
            Frame("right", image_message(photograph()), 0.0),
        ],
        rig.node.parameters,
    )
    rig.await_counts(right=1)
    assert rig.node.cameras["left"].faults.count("failed") == 1
    assert rig.node.cameras["right"].faults.count("failed") == 0

    with monkeypatch.context() as patched:
        patched.setattr(rig.node.cameras["left"].inputs, "decode", lambda *_: [][1])
        rig.show("left", image_message(photograph()))
        robot.spin_until(lambda: rig.node.cameras["left"].faults.count("failed") == 2, "the failure to be counted")
    broken = image_message(photograph())
    broken.encoding = "bgr9"
    rig.show("left", broken)
    rig.show("right", image_message(photograph(), stamp=2))
    rig.await_counts(right=2)
    robot.spin_until(lambda: rig.node.cameras["left"].faults.count("bad") == 1, "the bad image to be counted")
    assert rig.homographies["right"][1].status == OK


def test_a_matching_that_fails_costs_no_features(robot, rig, monkeypatch):
    from superpoint_ros.msg import Features

    features, camera = [], rig.node.cameras["left"]
    robot.client.create_subscription(Features, "/superpoint/left/features", features.append, 10)
    robot.spin_until(lambda: camera.outputs.publishers["features"].get_subscription_count(), "a listener")
    rig.node.set_parameters([Parameter("tracks", value=True)])
    advance = camera.tracker.advance

    def failing(stamp, *arguments, **options):
        if stamp == 2 * 10**9:
            raise MemoryError("no room")
        return advance(stamp, *arguments, **options)

    monkeypatch.setattr(camera.tracker, "advance", failing)
    for stamp in (1, 2, 3):
        rig.show("left", image_message(shifted(photograph(), 4 * stamp, 0), stamp))
        robot.spin_until(lambda n=stamp: len(features) == n, "the features")
    rig.await_counts(left=2)
    assert [len(message.track_ids) > 0 for message in features] == [True, False, True]
    assert [message.reference_stamp.sec for message in rig.homographies["left"]] == [0, 1]
    assert set(features[0].track_ids) & set(features[2].track_ids)
    assert camera.faults.count("failed") == 1


def test_what_cannot_go_out_any_more_when_the_process_ends_is_no_fault(robot, rig, monkeypatch, capfd):
    cameras = dict(rig.node.cameras)
    show = cameras["left"].outputs.show

    def ended(*arguments):
        robot.context.handle.shutdown()  # what a signal does, whatever the worker is about
        show(*arguments)

    monkeypatch.setattr(cameras["left"].outputs, "show", ended)
    frames = [Frame(name, image_message(photograph()), 0.0) for name in ("left", "right")]
    rig.node.rig._pipeline.process(frames, rig.node.parameters)
    assert not robot.context.ok()
    faults = [each.faults.count(kind) for each in cameras.values() for kind in ("incomplete", "failed")]
    assert faults == [0, 0, 0, 0]
    assert "context is invalid)" not in capfd.readouterr().err


def test_matches_and_homographies_are_refined_while_it_is_on(robot, rig):
    from superpoint_ros.msg import FeatureMatches

    matches, camera = [], rig.node.cameras["left"]
    robot.client.create_subscription(FeatureMatches, "/superpoint/left/matches", matches.append, 10)
    robot.spin_until(lambda: camera.outputs.publishers["matches"].get_subscription_count(), "a listener")
    picture = photograph((200, 264))
    for stamp in (1, 2, 3):
        if stamp == 3:
            rig.node.set_parameters([Parameter("refine", value=False), Parameter("subpixel", value=False)])
        rig.show("left", image_message(shifted(picture, 3 * stamp, stamp), stamp))
        rig.await_counts(left=stamp)
    robot.spin_until(lambda: len(matches) == 2, "the matches")
    _, refined, plain = rig.homographies["left"]
    assert (refined.status, refined.refined, plain.status, plain.refined) == (OK, True, OK, False)
    assert refined.rmse < 0.1
    assert (np.array(matches[0].x) % 1 > 0).mean() > 0.5
    assert (np.array(matches[1].x) % 1 == 0).all()


def test_other_cameras_take_effect_with_the_next_configure(robot, rig):
    from rclpy.parameter import Parameter

    rig.node.trigger_deactivate()
    rig.node.trigger_cleanup()
    changes = [Parameter("cameras", value=["front"]), Parameter("lazy", value=False)]
    assert all(result.successful for result in rig.node.set_parameters(changes))
    assert rig.node.start()
    robot.spin_until(
        lambda: (
            robot.client.count_subscribers("/front/image") == 1
            and robot.client.count_publishers("/superpoint/left/features") == 0
        ),
        "the new topics",
    )
    assert robot.client.count_publishers("/superpoint/front/features") == 1


def test_a_topic_name_that_is_not_allowed_fails_configure_and_leaves_the_node_alive(robot):
    from rclpy.parameter import Parameter

    node = robot.add_node(image_topics=["bad topic"])
    assert node.start() is False
    assert node.set_parameters([Parameter("image_topics", value=[""])])[0].successful
    assert node.start()


def test_a_synchronised_rig_publishes_sets_and_counts_what_has_no_partner(robot):
    pytest.importorskip("message_filters", reason="needs ROS 2's message_filters")
    topics = {"left": "/left/image", "right": "/right/image"}
    rig = Rig(robot, topics, cameras=["left", "right"], synchronise="exact")
    for stamp in (1, 2):  # the right camera misses a frame
        rig.show("left", image_message(photograph(), stamp))
    robot.spin_until(lambda: rig.node.cameras["left"].statistics.snapshot().frames_in == 2, "both left frames")
    rig.show("right", image_message(photograph(), stamp=2))
    rig.await_counts(left=1, right=1)
    broken = image_message(photograph(), stamp=-2)
    rig.show("left", broken)
    rig.show("left", image_message(photograph(), stamp=3))
    rig.show("right", image_message(photograph(), stamp=3))
    rig.await_counts(left=2, right=2)
    for name in topics:
        assert [message.header.stamp.sec for message in rig.homographies[name]] == [2, 3]
    statuses = robot.diagnostics[-1].status if robot.diagnostics else []
    assert not any("no set" in status.message for status in statuses)
    counts = {name: rig.node.cameras[name].faults.count("unmatched") for name in topics}
    assert counts == {"left": 1, "right": 0}
    assert rig.node.cameras["left"].faults.count("bad") == 1


def test_a_camera_without_which_there_are_no_sets_is_named_in_log_and_diagnostics(robot, monkeypatch):
    pytest.importorskip("message_filters", reason="needs ROS 2's message_filters")
    from rclpy.impl.rcutils_logger import RcutilsLogger

    from superpoint_ros.node import rig as rigs

    monkeypatch.setattr(rigs, "SILENCE", 0.5)
    said = []
    monkeypatch.setattr(RcutilsLogger, "warning", lambda self, sentence, **_: said.append(sentence))
    topics = {"left": "/left/image", "right": "/right/image"}
    rig = Rig(robot, topics, cameras=["left", "right"], synchronise="exact")
    end = time.monotonic() + DEADLINE
    for stamp in itertools.count(1):
        assert time.monotonic() < end
        rig.show("left", image_message(photograph((64, 64)), stamp))
        robot.spin_until(lambda n=stamp: rig.node.cameras["left"].statistics.snapshot().frames_in >= n, "the frame")
        if said and any("camera right" in s.message for d in robot.diagnostics for s in d.status):
            break
    assert [sentence.split(":")[1].split(" for ")[0] for sentence in said] == [" camera right has sent no image"]


def test_without_message_filters_a_synchronised_rig_says_so_in_configure(robot, monkeypatch):
    import sys

    monkeypatch.setitem(sys.modules, "message_filters", None)
    node = robot.add_node(cameras=["left", "right"], synchronise="approximate")
    said = []
    monkeypatch.setattr(node.get_logger(), "error", said.append)
    assert node.start() is False
    assert "message_filters is not installed" in said[0]


def test_a_camera_may_have_a_size_and_a_number_of_keypoints_of_its_own(robot, in_batches):
    from superpoint_ros.msg import Features

    topics = {"left": "/left/image", "right": "/right/image"}
    rig = Rig(robot, topics, cameras=["left", "right"], max_keypoints=40, **{"left.max_keypoints": 7})
    features = {name: [] for name in topics}
    for name in topics:
        robot.client.create_subscription(Features, f"/superpoint/{name}/features", features[name].append, 10)
    outputs = [camera.outputs.publishers["features"] for camera in rig.node.cameras.values()]
    robot.spin_until(lambda: all(each.get_subscription_count() for each in outputs), "the listeners")

    def counts(stamp):
        for name in topics:
            rig.show(name, image_message(photograph(), stamp))
        rig.await_counts(left=stamp, right=stamp)
        robot.spin_until(lambda: all(len(each) == stamp for each in features.values()), "features")
        return [len(features[name][-1].x) for name in topics]

    def put(**values):
        proposals = [Parameter(name.replace("__", "."), value=value) for name, value in values.items()]
        return rig.node.set_parameters(proposals)[0]

    assert counts(1) == [7, 40]
    assert put(left__max_keypoints=9).successful and put(right__resize=160).successful
    assert counts(2) == [9, 40]
    assert max(features["right"][-1].scale) == 2 and max(features["left"][-1].scale) == 1
    assert put(max_keypoints=50).successful
    assert counts(3) == [9, 50]
    refused = put(left__resize=3)
    assert not refused.successful and "'left.resize' must be 0 or at least 16" in refused.reason
    assert not rig.node.has_parameter("left.resize")
    assert put(left__max_keypoints=None).successful and not rig.node.has_parameter("left.max_keypoints")
    assert counts(4) == [50, 50]


def test_a_range_of_values_of_its_own_is_that_camera_s_alone(robot):
    topics = {"left": "/left/image", "right": "/right/image"}
    rig = Rig(robot, topics, cameras=["left", "right"], **{"left.intensity_range": [0, 4000]})
    deep = photograph().astype(np.uint16) * 4
    seen = {}
    for name in topics:
        own = rig.node.parameters.of(name)
        seen[name] = rig.node.cameras[name].inputs.decode(image_message(deep, encoding="mono16"), own)[0]
    np.testing.assert_allclose(seen["left"], photograph() * (4 * 255 / 4000), atol=1)
    assert int(seen["right"].max()) > 2 * int(seen["left"].max())


def test_a_rate_skips_frames_and_counts_them_apart_and_each_camera_may_have_its_own(robot):
    topics = {"left": "/left/image", "right": "/right/image"}
    rig = Rig(robot, topics, cameras=["left", "right"], rate=0.001, **{"right.rate": 0})
    arrived = lambda name: rig.node.cameras[name].statistics.snapshot().frames_in  # noqa: E731
    for stamp in (1, 2, 3):
        for name in topics:
            rig.show(name, image_message(photograph(), stamp))
            robot.spin_until(lambda name=name, n=stamp: arrived(name) == n, "the frame to arrive")
        rig.await_counts(right=stamp)
    robot.await_diagnostics(frames_in="3", frames_out="1", frames_skipped="2", frames_dropped="0", frames_lost="0")
    assert [message.header.stamp.sec for message in rig.homographies["left"]] == [1]
    assert rig.node.set_parameters([Parameter("rate", value=0)])[0].successful
    rig.show("left", image_message(photograph(), stamp=4))
    rig.await_counts(left=2)
