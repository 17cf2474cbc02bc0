"""superpoint_ros/node/inputs.py and calibration.py: calibration and masks of a running node, over real DDS."""

import threading

import cv2
import numpy as np
import pytest

pytest.importorskip("rclpy", reason="needs ROS 2 (rclpy)")

from rclpy.node import Node
from rclpy.qos import DurabilityPolicy, QoSProfile

from robot import image_message, photograph
from superpoint_ros.features.rectification import calibration, rectify
from superpoint_ros.node.names import camera_info_topic, compressed_topic

LATCHED = QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL)


def camera_info(width=320, height=240, **fields):
    from sensor_msgs.msg import CameraInfo

    values = {
        "distortion_model": "plumb_bob",
        "k": [200.0, 0.0, 160.0, 0.0, 200.0, 120.0, 0.0, 0.0, 1.0],
        "p": [190.0, 0.0, 160.0, 0.0, 0.0, 190.0, 120.0, 0.0, 0.0, 0.0, 1.0, 0.0],
        "r": [1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0],
        "d": [-0.2, 0.05, 0.0, 0.0, 0.0],
    }
    return CameraInfo(width=width, height=height, **{**values, **fields})


@pytest.fixture
def said(monkeypatch):
    """Warnings of nodes that run in this process."""
    from rclpy.impl.rcutils_logger import RcutilsLogger

    sentences = []
    monkeypatch.setattr(RcutilsLogger, "warning", lambda self, sentence, **_: sentences.append(sentence))
    return sentences


def start(robot, **parameters):
    """An active node that everyone is connected to; publishers of its camera_info and mask."""
    from sensor_msgs.msg import CameraInfo, Image

    node = robot.add_node(**parameters)
    assert node.start()
    info = robot.client.create_publisher(CameraInfo, "/camera_info", 1)
    mask = robot.client.create_publisher(Image, "/mask", LATCHED)
    robot.connect(node)
    robot.spin_until(
        lambda: (
            info.get_subscription_count() == int(parameters.get("rectify", False))
            and mask.get_subscription_count() == int(parameters.get("use_mask_topic", False))
        ),
        "all inputs to be found",
    )
    return node, info, mask


def known(robot, node, stamp=0):
    """Wait until the node has the CameraInfo of that stamp, in seconds."""
    calibrations = node.cameras[""].inputs._camera_info._calibrations
    robot.spin_until(lambda: stamp * 10**9 in calibrations._by_stamp, "the calibration")


def features_of(robot, message):
    count = len(robot.features)
    robot.show(message)
    robot.spin_until(lambda: len(robot.features) > count, "features")
    return robot.features[-1]


def test_keypoints_are_rectified_by_the_camera_info(robot):
    node, info, _ = start(robot, rectify=True)
    assert len(features_of(robot, image_message(photograph())).rectified_x) == 0
    info.publish(camera_info())
    known(robot, node)
    found = features_of(robot, image_message(photograph(), stamp=2))
    xy = np.stack([found.x, found.y], axis=1)
    expected = rectify(calibration(camera_info()), xy)
    np.testing.assert_allclose(np.stack([found.rectified_x, found.rectified_y], axis=1), expected)
    assert np.abs(expected - xy).max() > 3
    robot.await_diagnostics(calibration="plumb_bob")


def test_a_frame_in_work_keeps_its_calibration_while_the_node_stops(robot, monkeypatch):
    from superpoint_ros.node.mailbox import Mailbox

    node, info, _ = start(robot, rectify=True)
    info.publish(camera_info())
    known(robot, node)
    extract, close, begun, stopping = node._extractor.batch, Mailbox.close, threading.Event(), threading.Event()

    def slow(pictures, masks):
        begun.set()
        assert stopping.wait(120)
        return extract(pictures, masks)

    monkeypatch.setattr(node._extractor, "batch", slow)
    monkeypatch.setattr(Mailbox, "close", lambda self: (close(self), stopping.set())[0])
    count = len(robot.features)
    robot.camera.publish(image_message(photograph(), stamp=1))
    robot.spin_until(begun.is_set, "the frame to be in work")
    node.trigger_deactivate()
    robot.spin_until(lambda: len(robot.features) > count, "its features")
    assert len(robot.features[-1].rectified_x) == len(robot.features[-1].x) > 0


@pytest.mark.parametrize(
    ("fields", "sentence"),
    [
        (
            {"k": [0.0] * 9},
            "/image: camera is not calibrated: K of its CameraInfo is zero; keypoints are not rectified.",
        ),
        (
            {"width": 640},
            "/image: CameraInfo is for images of 640×240, but they are 320×240; keypoints are not rectified.",
        ),
    ],
)
def test_a_camera_that_cannot_be_rectified_is_said_so_once(robot, said, fields, sentence):
    node, info, _ = start(robot, rectify=True)
    for stamp in (1, 2, 3):
        message = camera_info(**fields)
        message.header.stamp.sec = stamp
        info.publish(message)
        known(robot, node, stamp)
        assert len(features_of(robot, image_message(photograph(), stamp=stamp)).rectified_x) == 0
    assert said == [sentence]


def test_each_image_is_rectified_by_the_camera_info_of_its_stamp(robot):
    """A region of interest that moves: as the node takes an image, the next CameraInfo may be there already."""
    from sensor_msgs.msg import RegionOfInterest

    node, info, _ = start(robot, rectify=True)
    regions = {stamp: RegionOfInterest(x_offset=10 * stamp, width=320, height=240) for stamp in (1, 2, 3)}
    for stamp, roi in regions.items():
        message = camera_info(width=640, roi=roi)
        message.header.stamp.sec = stamp
        info.publish(message)
        known(robot, node, stamp)
    for stamp, roi in regions.items():
        found = features_of(robot, image_message(photograph(), stamp=stamp))
        expected = rectify(calibration(camera_info(width=640, roi=roi)), np.stack([found.x, found.y], axis=1))
        np.testing.assert_allclose(np.stack([found.rectified_x, found.rectified_y], axis=1), expected)


@pytest.mark.parametrize(
    ("remaps", "image", "compressed", "info"),
    [
        ([], "image", "/image/compressed", "/camera_info"),
        ([], "/front/cam/raw", "/front/cam/raw/compressed", "/front/cam/camera_info"),
        ([], "/front/cam/raw/compressed", "/front/cam/raw/compressed", "/front/cam/camera_info"),
        (["image:=/cam/raw"], "image", "/cam/raw/compressed", "/cam/camera_info"),
        (["image:=/cam/raw", "image/compressed:=/small"], "image", "/small", "/cam/camera_info"),
        (["image:=/cam/raw", "camera_info:=/calib/info"], "image", "/cam/raw/compressed", "/calib/info"),
        (["camera_info:=/calib/info"], "/cam/raw", "/cam/raw/compressed", "/calib/info"),
        (["/cam/camera_info:=/calib/info"], "/cam/raw", "/cam/raw/compressed", "/calib/info"),
    ],
)
def test_transport_and_camera_info_follow_the_image_unless_they_are_remapped_themselves(
    robot, remaps, image, compressed, info
):
    arguments = [word for remap in remaps for word in ("-r", remap)]
    node = Node("names", context=robot.context, cli_args=["--ros-args", *arguments])
    assert (compressed_topic(node, image), camera_info_topic(node, "", image)) == (compressed, info)
    node.destroy_node()


def test_the_topics_of_a_named_camera_are_remapped_by_their_own_names(robot):
    arguments = ["--ros-args", "-r", "left/image:=/cam/raw", "-r", "right/camera_info:=/calib"]
    node = Node("names", context=robot.context, cli_args=arguments)
    assert camera_info_topic(node, "left/", "left/image") == "/cam/camera_info"
    assert camera_info_topic(node, "right/", "/cam1/raw") == "/calib"
    node.destroy_node()


def test_masks_of_file_and_topic_keep_keypoints_out(robot, tmp_path):
    fixed = np.zeros((240, 320), np.uint8)
    fixed[:120] = 255
    cv2.imwrite(str(tmp_path / "fixed.png"), fixed)
    node, _, mask = start(robot, mask_files=[str(tmp_path / "fixed.png")], use_mask_topic=True)
    left = np.zeros((240, 320), np.uint8)
    left[:, :160] = 1
    mask.publish(image_message(left))
    inputs = node.cameras[""].inputs
    robot.spin_until(lambda: not inputs.missing_mask, "the mask")
    found = features_of(robot, image_message(photograph(), stamp=2))
    assert len(found.y) > 10 and max(found.y) < 119.5 and max(found.x) < 159.5
    node.trigger_deactivate()
    node.trigger_activate()
    assert not inputs.missing_mask


def test_a_mask_that_was_published_before_the_node_came_is_used(robot):
    from sensor_msgs.msg import Image

    mask = robot.client.create_publisher(Image, "/mask", LATCHED)
    left = np.zeros((240, 320), np.uint8)
    left[:, :160] = 1
    mask.publish(image_message(left))
    node = robot.add_node(use_mask_topic=True)
    assert node.start()
    robot.connect(node)
    robot.spin_until(lambda: not node.cameras[""].inputs.missing_mask, "the mask")
    found = features_of(robot, image_message(photograph()))
    assert len(found.x) > 10 and max(found.x) < 159.5


def test_without_its_mask_no_image_is_extracted_and_that_is_said(robot, said):
    node, _, mask = start(robot, use_mask_topic=True)
    robot.camera.publish(image_message(photograph(), stamp=1))
    robot.await_diagnostics(frames_in="1", frames_unmasked="1", frames_out="0")
    assert said == ["/image: no mask has come on /mask; the frame is skipped"]
    status = robot.diagnostics[-1].status[0]
    expected = "no mask has come on /mask, and no image is extracted without"
    assert (status.level, status.message) == (b"\x01", expected)
    broken = image_message(np.ones((240, 320), np.uint8))
    broken.encoding = "bgr9"
    mask.publish(broken)
    robot.await_diagnostics(masks_bad="1", frames_bad="0")
    assert said[-1].endswith("; there is no mask yet") and node.cameras[""].inputs.missing_mask == "/mask"
    assert "its newest mask cannot be used: encoding 'bgr9'" in robot.diagnostics[-1].status[0].message
    broken.encoding = "\x1b[31m" + 10_000 * "m"
    mask.publish(broken)
    robot.await_diagnostics(masks_bad="2", frames_bad="0")
    assert len(robot.diagnostics[-1].status[0].message) < 1000
    assert robot.diagnostics[-1].status[0].message.isprintable()
    mask.publish(image_message(np.ones((240, 320), np.uint8)))
    robot.spin_until(lambda: not node.cameras[""].inputs.missing_mask, "the mask")
    assert not node.cameras[""].inputs.bad_mask
    robot.show(image_message(photograph(), stamp=2))
    assert [message.header.stamp.sec for message in robot.homographies] == [2]


def test_a_mask_that_is_not_latched_by_its_publisher_is_said_so(robot, said):
    from sensor_msgs.msg import Image

    node = robot.add_node(use_mask_topic=True)
    assert node.start()
    robot.client.create_publisher(Image, "/mask", 1)
    expected = (
        "/mask: /client offers reliable, volatile, but this node asks for reliable, transient local: no message comes "
        "from it. Change either, here by qos_overrides./mask.subscription."
    )
    robot.spin_until(lambda: expected in said, "the warning")


def test_a_mask_that_does_not_fit_is_counted_with_its_frames(robot, said):
    node, _, mask = start(robot, use_mask_topic=True)
    mask.publish(image_message(np.ones((64, 320), np.uint8)))
    inputs = node.cameras[""].inputs
    robot.spin_until(lambda: not inputs.missing_mask, "the mask")
    robot.camera.publish(image_message(photograph()))
    robot.await_diagnostics(frames_bad="1", frames_out="0")
    assert said == ["/image: mask of 320×64 does not fit an image of 320×240; the frame is skipped"]


def test_a_mask_file_that_is_none_fails_configure_and_leaves_the_node_alive(robot, tmp_path):
    from rclpy.parameter import Parameter

    node = robot.add_node(mask_files=[str(tmp_path / "none.png")])
    assert node.start() is False
    assert node.set_parameters([Parameter("mask_files", value=[""])])[0].successful
    assert node.start()


def test_markers_for_rviz_need_a_calibration(robot):
    from visualization_msgs.msg import MarkerArray

    node, info, _ = start(robot, rectify=True)
    arrays = []
    robot.client.create_subscription(MarkerArray, "/superpoint/markers", arrays.append, 10)
    robot.spin_until(lambda: node.cameras[""].outputs.publishers["markers"].get_subscription_count(), "the viewer")
    features_of(robot, image_message(photograph()))
    info.publish(camera_info())
    known(robot, node)
    found = features_of(robot, image_message(photograph(), stamp=2))
    robot.spin_until(lambda: arrays, "markers")
    assert len(arrays) == 1 and arrays[0].markers[0].header == found.header
    point = arrays[0].markers[0].points[0]
    seen = np.array([point.x, point.y]) / point.z * 190 + (160, 120)
    np.testing.assert_allclose(seen, (found.rectified_x[0], found.rectified_y[0]), atol=1e-3)
