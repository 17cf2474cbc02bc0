"""superpoint_ros/node/track_cloud.py: tracks as VINS's estimators read them, over real DDS."""

import cv2
import numpy as np
import pytest

pytest.importorskip("rclpy", reason="needs ROS 2 (rclpy)")

from sensor_msgs.msg import CameraInfo, PointCloud
from test_inputs import camera_info

from robot import image_message, photograph, shifted

K = np.array([[200.0, 0, 160], [0, 200, 120], [0, 0, 1]])
D = np.array([-0.2, 0.05, 0, 0, 0])
TURNED = cv2.Rodrigues(np.array([0.0, 0.1, 0.0]))[0]
"""A rectifying rotation, of which an estimator knows nothing."""


def as_vins_mono_reads(cloud):
    """Its feature_callback: id -> camera, x, y, z, u, v, velocity."""
    channels = [list(channel.values) for channel in cloud.channels]
    found = {}
    for i, point in enumerate(cloud.points):
        number = int(channels[0][i] + 0.5)
        found[number // 1] = (number % 1, point.x, point.y, point.z, *(channels[c][i] for c in (1, 2, 3, 4)))
    return found


def as_vins_fusion_reads(cloud):
    """The same of the other's: with more than five channels it takes nine for granted."""
    channels = [list(channel.values) for channel in cloud.channels]
    found = {}
    for i, point in enumerate(cloud.points):
        values = [channels[c][i] for c in (2, 3, 4, 5)]
        if len(channels) > 5:
            assert [channels[c][i] for c in (6, 7, 8)] == [0, 0, 0]
        found[int(channels[0][i])] = (int(channels[1][i]), point.x, point.y, point.z, *values)
    return found


@pytest.mark.parametrize(("layout", "read"), [("vins_mono", as_vins_mono_reads), ("vins_fusion", as_vins_fusion_reads)])
def test_an_estimator_reads_pixels_undistorted_places_and_velocities_of_tracked_points(robot, layout, read):
    clouds = []
    node = robot.add_node(tracks=True, track_cloud=layout)
    assert node.start()
    info = robot.client.create_publisher(CameraInfo, "/camera_info", 1)
    robot.client.create_subscription(PointCloud, "/superpoint/track_cloud", clouds.append, 10)
    robot.connect(node)
    publisher = node.cameras[""].outputs.publishers["track_cloud"]
    robot.spin_until(lambda: publisher.get_subscription_count() and info.get_subscription_count(), "the others")
    info.publish(camera_info(d=D.tolist(), r=TURNED.reshape(-1).tolist()))
    robot.spin_until(lambda: node.cameras[""].inputs._camera_info._calibrations._by_stamp, "the calibration")

    picture = photograph()
    for stamp in (1, 2, 3):  # 8 px to the right and 4 up in a second
        robot.show(image_message(shifted(picture, 8 * stamp, -4 * stamp), stamp))
    robot.spin_until(lambda: len(clouds) == 3 and len(robot.features) == 3, "clouds")
    assert [cloud.header.stamp.sec for cloud in clouds] == [1, 2, 3]
    first, second, third = map(read, clouds)
    assert not first and len(second) > 50 and len(third) > 50
    assert len(second.keys() & third.keys()) > 0.7 * len(third)
    assert not any(robot.features[0].rectified_x)  # nobody has asked for them

    both = second.keys() & third.keys()
    for number in both:
        (_, x0, y0, *_), (camera, x, y, z, u, v, *velocity) = second[number], third[number]
        assert (camera, z) == (0, 1)
        seen = cv2.projectPoints(np.array([[x, y, 1.0]]), np.zeros(3), np.zeros(3), K, D)[0][0, 0]
        np.testing.assert_allclose(seen, (u, v), atol=1e-2)
        np.testing.assert_allclose(velocity, (x - x0, y - y0), atol=1e-5)
    steps = np.array([np.subtract(third[number][4:6], second[number][4:6]) for number in both])
    assert np.mean(np.abs(steps - (8, -4)).max(axis=1) < 0.3) > 0.9


def test_without_a_calibration_no_cloud_goes_out_and_diagnostics_say_so(robot):
    clouds = []
    node = robot.add_node(tracks=True, track_cloud="vins_mono")
    assert node.start()
    robot.client.create_subscription(PointCloud, "/superpoint/track_cloud", clouds.append, 10)
    robot.connect(node)
    robot.show(image_message(photograph(), stamp=1))
    robot.show(image_message(photograph(), stamp=2))
    robot.spin_until(
        lambda: any("no track_cloud: no CameraInfo yet" in s.message for d in robot.diagnostics for s in d.status),
        "the reason",
    )
    assert clouds == []


def test_a_cloud_needs_tracks(robot):
    with pytest.raises(ValueError, match="'track_cloud' must be none without tracks"):
        robot.add_node(track_cloud="vins_mono")
