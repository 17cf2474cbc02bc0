"""examples/stereo_odometry.py, over real DDS: rendered pictures, and the node's own functions."""

import importlib.util
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from space_scenes import SIZE, K, render, yawed
from superpoint_ros.features.levels import levels_for
from superpoint_ros.features.rectification import Calibration
from superpoint_ros.features.stereo import match_stereo, points, stereo_rig
from superpoint_ros.frontend.tracker import Tracker

ROOT = Path(__file__).parents[1]
BASELINE = 0.12
FRAMES = 24


def load(name):
    spec = importlib.util.spec_from_file_location(name, ROOT / "examples" / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


def drive():
    """Where the left camera is, frame after frame: a curve of 2.6 metres, looking about."""
    way = np.linspace(0, 1, FRAMES)
    places = np.stack([1.1 * np.sin(2.5 * way) - 0.4 * way, -0.15 * np.sin(5 * way), 1.8 * way], axis=1)
    return [(yawed(0.25 * np.sin(3 * t)), place) for t, place in zip(way, places, strict=True)]


def clouds(extractor):
    """What the node publishes for that drive: its own functions, on rendered pictures."""
    from std_msgs.msg import Header

    from superpoint_ros.node.point_cloud import cloud

    pair = [
        Calibration("plumb_bob", K, np.zeros(0), np.eye(3), K, (1, 1), (0, 0), SIZE, s) for s in (0, -280 * BASELINE)
    ]
    rig, tracker = stereo_rig(*pair), Tracker()
    for number, (rotation, place) in enumerate(drive()):
        pictures = [render(rotation, place + rotation @ [x, 0, 0]) for x in (0, BASELINE)]
        left, right = extractor.batch(pictures)
        motion = tracker.advance(
            number * 10**8, left, 3.0, track_max_gap=5, levels=levels_for(left, pictures[0]), positions=True
        )
        seen = points(rig, match_stereo(left, right, rig, images=tuple(pictures)))
        header = Header(frame_id="left_optical")
        header.stamp.sec, header.stamp.nanosec = divmod(number * 10**8, 10**9)
        yield cloud(header, seen, left, motion.track_ids)


def test_stereo_odometry_drifts_by_less_than_2_percent_of_a_rendered_path(ros_domain, extractor):
    rclpy = pytest.importorskip("rclpy", reason="needs ROS 2 (rclpy)")
    pytest.importorskip("nav_msgs", reason="needs ROS 2's nav_msgs")
    from nav_msgs.msg import Odometry
    from rclpy.executors import SingleThreadedExecutor
    from sensor_msgs.msg import PointCloud2

    example, context = load("stereo_odometry"), rclpy.Context()
    rclpy.init(context=context, domain_id=ros_domain)
    executor, received = SingleThreadedExecutor(context=context), []
    node, robot = example.StereoOdometry(context=context), rclpy.create_node("robot", context=context)
    executor.add_node(node)
    executor.add_node(robot)
    publisher = robot.create_publisher(PointCloud2, "points", 10)
    robot.create_subscription(Odometry, "odometry", received.append, 10)

    def spin_until(condition):
        end = time.monotonic() + 120
        while not condition():
            assert time.monotonic() < end
            executor.spin_once(timeout_sec=0.05)

    try:
        spin_until(lambda: publisher.get_subscription_count() and node._publisher.get_subscription_count())
        for number, message in enumerate(clouds(extractor), start=1):
            publisher.publish(message)
            spin_until(lambda number=number: len(received) == number)
    finally:
        executor.shutdown()
        node.destroy_node()
        robot.destroy_node()
        context.try_shutdown()

    truth = np.array([place for _, place in drive()]) @ example.FORWARD.T
    found = np.array([[getattr(message.pose.pose.position, axis) for axis in "xyz"] for message in received])
    path = np.linalg.norm(np.diff(truth, axis=0), axis=1).sum()
    drift = np.linalg.norm(found - truth, axis=1).max() / path
    assert path > 2
    assert drift < 0.02
    assert (received[-1].header.frame_id, received[-1].child_frame_id) == ("odom", "left_optical")
    assert received[-1].header.stamp.sec == 2


def test_the_example_is_as_short_as_it_is_said_to_be():
    assert len((ROOT / "examples" / "stereo_odometry.py").read_text().splitlines()) <= 200


@pytest.mark.parametrize(("dark", "found_again"), [(1, True), (4, True), (5, False)])
def test_after_a_few_clouds_without_points_stereo_odometry_knows_where_it_is_and_after_more_it_begins_anew(
    dark, found_again
):
    pytest.importorskip("rclpy", reason="needs ROS 2 (rclpy)")
    pytest.importorskip("nav_msgs", reason="needs ROS 2's nav_msgs")
    from superpoint_ros.node.point_cloud import POINT

    chain = load("stereo_odometry").Chain(0.005)
    world = np.random.default_rng(0).uniform([-2, -2, 4], [2, 2, 8], (60, 3))

    def seen(x, count=60):
        records = np.zeros(count, POINT)
        records["x"], records["y"], records["z"] = (world[:count] - [x, 0, 0]).T
        records["track_id"] = np.arange(count)
        for name in ("xx", "yy", "zz"):
            records[f"cov_{name}"] = 1e-4
        return records

    assert chain.advance(seen(0.0)) and chain.advance(seen(0.1))
    assert [chain.advance(seen(0.0, 0)) for _ in range(dark)] == [False] * dark
    assert chain.advance(seen(0.3)) is found_again
    assert chain.pose.place[0] == pytest.approx(0.3 if found_again else 0.1, abs=1e-3)
