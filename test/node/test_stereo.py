"""superpoint_ros/node/stereo.py, point_cloud.py and ~/motion: calibrated cameras of a running node, over real DDS."""

import numpy as np
import pytest

pytest.importorskip("rclpy", reason="needs ROS 2 (rclpy)")

from robot import image_message
from space_scenes import SIZE, K, depth, render, yawed

BASELINE = 0.12
OK, NO_REFERENCE, NO_CALIBRATION = 0, 1, 5
FIRST = np.eye(3), np.zeros(3)
SECOND = yawed(0.03), np.array([0.1, 0.0, 0.15])


def camera_info(shift=0.0, stamp=0):
    """Of a camera without distortion, so much to the right of the first of its pair: pixels times metres."""
    from sensor_msgs.msg import CameraInfo

    p = np.column_stack([K, [shift, 0, 0]])
    info = CameraInfo(width=SIZE[1], height=SIZE[0], distortion_model="plumb_bob", d=[0.0] * 5)
    info.k, info.r, info.p = K.ravel().tolist(), np.eye(3).ravel().tolist(), p.ravel().tolist()
    info.header.stamp.sec = stamp
    return info


class Cameras:
    """Publishers of images and calibrations, and what the node publishes, by topic."""

    def __init__(self, robot, names, outputs, **parameters):
        from sensor_msgs.msg import CameraInfo, Image

        self.robot, self.node = robot, robot.add_node(**parameters)
        client, prefixes = robot.client, {name: f"/{name}" if name else "" for name in names}
        self.images = {name: client.create_publisher(Image, f"{prefix}/image", 10) for name, prefix in prefixes.items()}
        self.infos = {
            name: client.create_publisher(CameraInfo, f"{prefix}/camera_info", 10) for name, prefix in prefixes.items()
        }
        self.received = {topic: [] for topic in outputs}
        for topic, message_class in outputs.items():
            client.create_subscription(message_class, f"/superpoint/{topic}", self.received[topic].append, 10)
        assert self.node.start()
        robot.spin_until(
            lambda: (
                all(each.get_subscription_count() for each in (*self.images.values(), *self.infos.values()))
                and all(client.count_publishers(f"/superpoint/{topic}") for topic in outputs)
                and all(
                    camera.outputs.publishers[topic.rpartition("/")[2]].get_subscription_count()
                    for topic in outputs
                    for camera in [self.node.cameras[topic.rpartition("/")[0]]]
                )
            ),
            "cameras, node and listeners to find each other",
        )

    def calibrate(self, **shifts):
        """Publish each camera's calibration, and wait until the node has it."""
        for name, info in self.infos.items():
            info.publish(camera_info(shifts.get(name, 0.0)))
        self.robot.spin_until(
            lambda: all(camera.inputs._camera_info._calibrations._by_stamp for camera in self.node.cameras.values()),
            "the calibrations",
        )

    def show(self, pictures, stamp, topic):
        """Publish an image of each camera; returns what comes on a topic."""
        count = len(self.received[topic])
        for name, picture in pictures.items():
            self.images[name].publish(image_message(picture, stamp=stamp, frame_id=name))
        self.robot.spin_until(lambda: len(self.received[topic]) > count, f"{topic}")
        return self.received[topic][-1]


def pair_of(rotation, place):
    return {"left": render(rotation, place), "right": render(rotation, place + rotation @ [BASELINE, 0, 0])}


def stereo(robot):
    from sensor_msgs.msg import PointCloud2

    from superpoint_ros.msg import FeatureMatches, Features, RelativePose

    outputs = {
        "left/features": Features,
        "right/features": Features,
        "left/stereo_matches": FeatureMatches,
        "left/points": PointCloud2,
        "left/motion": RelativePose,
    }
    rig = {"cameras": ["left", "right"], "synchronise": "exact", "stereo_pairs": ["left,right"]}
    return Cameras(robot, ["left", "right"], outputs, **rig, tracks=True, motion=True)


def points_of(message):
    """As a subscriber reads them: the layout is in the message."""
    kinds = {5: "i4", 6: "u4", 7: "f4"}
    layout = np.dtype(
        {
            "names": [field.name for field in message.fields],
            "formats": [kinds[field.datatype] for field in message.fields],
            "offsets": [field.offset for field in message.fields],
            "itemsize": message.point_step,
        }
    )
    return np.frombuffer(message.data, layout)


def test_a_stereo_pair_publishes_matches_points_and_metric_motion(robot):
    pytest.importorskip("message_filters", reason="needs ROS 2's message_filters")
    cameras = stereo(robot)
    cameras.calibrate(right=-K[0, 0] * BASELINE)
    first = cameras.show(pair_of(*FIRST), 1, "left/motion")
    second = cameras.show(pair_of(*SECOND), 2, "left/motion")
    robot.spin_until(lambda: len(cameras.received["left/points"]) == 2, "points of both sets")
    features = {message.header.stamp.sec: message for message in cameras.received["left/features"]}
    others = {message.header.stamp.sec: message for message in cameras.received["right/features"]}

    matches, cloud = cameras.received["left/stereo_matches"][0], cameras.received["left/points"][0]
    assert (matches.header.frame_id, matches.header.stamp.sec, matches.reference_stamp.sec) == ("left", 1, 1)
    left = np.stack([features[1].x, features[1].y], axis=1)[matches.current]
    right = np.stack([others[1].x, others[1].y], axis=1)[matches.reference]
    there = np.stack([matches.x, matches.y], axis=1)
    assert len(left) > 100 and (np.diff(np.asarray(matches.current, int)) > 0).all()
    assert np.abs(there - right).max() < 3 and np.abs(there[:, 1] - left[:, 1]).max() <= 1

    seen = points_of(cloud)
    assert (cloud.header.frame_id, cloud.height, cloud.width, cloud.is_dense) == ("left", 1, len(seen), True)
    assert cloud.row_step == len(cloud.data) == len(seen) * cloud.point_step
    np.testing.assert_array_equal(seen["keypoint"], matches.current)
    np.testing.assert_array_equal(seen["track_id"], np.asarray(features[1].track_ids)[matches.current])
    np.testing.assert_array_equal(seen["score"], np.asarray(features[1].scores)[matches.current])
    expected = depth(*FIRST, left)
    off = K[0, 0] * BASELINE * (1 / seen["z"] - 1 / expected)
    assert np.nanmedian(np.abs(off)) < 0.1
    assert (seen["cov_zz"] > seen["cov_yy"]).all() and (seen["cov_yy"] > 0).all()

    assert (first.status, first.metric, first.reference_stamp.sec) == (NO_REFERENCE, False, 0)
    assert np.isnan(first.transform.rotation.w) and np.isnan(first.rmse)
    assert (second.status, second.metric, second.header.stamp.sec, second.reference_stamp.sec) == (OK, True, 2, 1)
    rotation, place = SECOND
    translation = [getattr(second.transform.translation, axis) for axis in "xyz"]
    np.testing.assert_allclose(translation, -rotation.T @ place, atol=0.01)
    assert second.transform.rotation.y == pytest.approx(np.sin(-0.03 / 2), abs=1e-3)
    assert 15 <= second.inliers <= second.matches and second.rmse < 1


def test_a_pair_without_a_calibration_has_matches_and_no_points_and_says_why(robot):
    pytest.importorskip("message_filters", reason="needs ROS 2's message_filters")
    cameras = stereo(robot)
    motion = cameras.show(pair_of(*FIRST), 1, "left/motion")
    robot.spin_until(lambda: cameras.received["left/stereo_matches"], "matches")
    assert len(cameras.received["left/stereo_matches"][0].current) > 50
    assert motion.status == NO_CALIBRATION
    cameras.calibrate()  # each camera for itself: there is no baseline
    cameras.show(pair_of(*FIRST), 2, "left/stereo_matches")
    assert not cameras.received["left/points"]


def test_one_calibrated_camera_tells_the_direction_in_which_it_moved(robot):
    from superpoint_ros.msg import RelativePose

    cameras = Cameras(robot, [""], {"motion": RelativePose}, motion=True)
    cameras.calibrate()
    rotation, place = FIRST[0], np.array([0.5, 0.0, 0.1])
    cameras.show({"": render(*FIRST)}, 1, "motion")
    motion = cameras.show({"": render(rotation, place)}, 2, "motion")
    assert (motion.status, motion.metric) == (OK, False)
    translation = np.array([getattr(motion.transform.translation, axis) for axis in "xyz"])
    assert np.linalg.norm(translation) == pytest.approx(1)
    assert -translation @ place / np.linalg.norm(place) > np.cos(np.radians(3))
    assert 0 < motion.homography_ratio < 0.45


def test_without_a_camera_info_the_motion_says_so(robot):
    from superpoint_ros.msg import RelativePose

    cameras = Cameras(robot, [""], {"motion": RelativePose}, motion=True)
    assert cameras.show({"": render(*FIRST)}, 1, "motion").status == NO_CALIBRATION


def test_a_camera_that_is_no_left_one_advertises_no_stereo_topics(robot):
    node = robot.add_node()
    assert node.start()
    assert not {"stereo_matches", "points", "motion"} & set(node.cameras[""].outputs.publishers)
