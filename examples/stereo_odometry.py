#!/usr/bin/env python3
"""Odometry from a stereo pair: PnP from where tracked points were to where they are seen now.

    ros2 launch superpoint_ros superpoint.launch.py params_file:=rig.yaml   # cameras, synchronise, stereo_pairs, tracks
    python3 examples/stereo_odometry.py --ros-args -r points:=/superpoint/left/points

Subscribes to `points`, whose track ids say which point is which; publishes `odometry` (nav_msgs/Odometry), and from
the frame `odom_frame` to the left camera's optical frame on tf. The camera starts at the origin, looking along x, z up.

An example to build upon: there is no loop closure, no bundle adjustment and no IMU, and a wrong pose stays wrong.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
import rclpy
from geometry_msgs.msg import TransformStamped
from nav_msgs.msg import Odometry
from rclpy.node import Node
from sensor_msgs.msg import PointCloud2, PointField

try:
    from tf2_ros import TransformBroadcaster
except ImportError:  # there is no wheel of it
    TransformBroadcaster = None

FORWARD = np.array([[0.0, 0, 1], [-1, 0, 0], [0, -1, 0]])
"""From an optical frame (x right, y down, z forward) to x forward, y left, z up (REP 103)."""
KINDS = {PointField.FLOAT32: "f4", PointField.INT32: "i4", PointField.UINT32: "u4"}
FEWEST = 15
"""Tracked points, of which so many must agree about a pose."""
FORGOTTEN = 60
"""Clouds without a point after which its place is forgotten: its track has ended."""
GIVEN_UP = 5
"""Clouds in a row of unknown pose after which odometry begins anew: tracks outlive as many (`track_max_gap`)."""


@dataclass
class Landmark:
    """A tracked point in the world, the mean of all sights of it, weighted by the inverse of their variances."""

    place: np.ndarray
    weight: float
    seen: int


@dataclass(frozen=True)
class Pose:
    """Where the camera is in the world, which is its first optical frame."""

    rotation: np.ndarray
    place: np.ndarray

    def to_world(self, xyz: np.ndarray) -> np.ndarray:
        """Points (N, 3) of the camera's frame."""
        return xyz @ self.rotation.T + self.place


def read_cloud(message: PointCloud2) -> np.ndarray:
    """The points as records with the fields' names."""
    layout = {
        "names": [field.name for field in message.fields],
        "formats": [KINDS[field.datatype] for field in message.fields],
        "offsets": [field.offset for field in message.fields],
        "itemsize": message.point_step,
    }
    return np.frombuffer(message.data, np.dtype(layout))


class Chain:
    """The camera's pose, cloud after cloud.

    threshold  error of x/z and y/z up to which a point agrees: 0.005 is two pixels at a focal length of 400
    """

    def __init__(self, threshold: float) -> None:
        self._threshold = threshold
        self._landmarks: dict[int, Landmark] = {}
        self._clouds = self._lost = 0
        self.pose = Pose(np.eye(3), np.zeros(3))

    def advance(self, records: np.ndarray) -> bool:
        """Take a cloud; False if its pose is not known: then it is taken to be the one before."""
        records = records[records["track_id"] >= 0]
        xyz = np.stack([records[name] for name in "xyz"], axis=1).astype(float)
        ids = records["track_id"].tolist()
        known = np.array([row for row, track in enumerate(ids) if track in self._landmarks], int)
        pose = self._located([self._landmarks[ids[row]].place for row in known], xyz[known])
        first = not self._clouds
        self._clouds += 1
        self._lost = 0 if pose or first else self._lost + 1
        if 0 < self._lost < GIVEN_UP:
            return False
        if self._lost:
            self._landmarks.clear()  # what was seen from the pose before cannot be told from what is seen now
        self.pose = pose or self.pose
        variances = sum(records[f"cov_{name}"].astype(float) for name in ("xx", "yy", "zz"))
        self._remember(ids, self.pose.to_world(xyz), 1 / variances)
        return pose is not None or first

    def _located(self, places: list[np.ndarray], seen: np.ndarray) -> Pose | None:
        if len(places) < FEWEST:
            return None
        world, sights, one = np.array(places), np.ascontiguousarray(seen[:, :2] / seen[:, 2:]), np.eye(3)
        guess = cv2.Rodrigues(self.pose.rotation.T)[0], -self.pose.rotation.T @ self.pose.place
        done, turn, shift, agree = cv2.solvePnPRansac(
            world,
            sights,
            one,
            None,
            *guess,
            useExtrinsicGuess=True,
            reprojectionError=self._threshold,
            confidence=0.9999,
        )
        if not done or agree is None or len(agree) < FEWEST:
            return None
        agree = agree[:, 0]
        turn, shift = cv2.solvePnPRefineLM(world[agree], sights[agree], one, None, turn, shift)
        rotation = cv2.Rodrigues(turn)[0].T
        return Pose(rotation, -rotation @ np.ravel(shift))

    def _remember(self, ids: list[int], places: np.ndarray, weights: np.ndarray) -> None:
        for track, place, weight in zip(ids, places, weights, strict=True):
            old = self._landmarks.get(track, Landmark(place, 0.0, 0))
            whole = old.weight + weight
            mean = old.place + (place - old.place) * weight / whole
            self._landmarks[track] = Landmark(mean, whole, self._clouds)
        gone = [track for track, each in self._landmarks.items() if each.seen < self._clouds - FORGOTTEN]
        for track in gone:
            del self._landmarks[track]


class StereoOdometry(Node):
    """`points` in, `odometry` and tf out."""

    def __init__(self, **kwargs) -> None:
        super().__init__("stereo_odometry", **kwargs)
        self._frame = self.declare_parameter("odom_frame", "odom").value
        self._chain = Chain(self.declare_parameter("threshold", 0.005).value)
        self._publisher = self.create_publisher(Odometry, "odometry", 10)
        self._broadcaster = TransformBroadcaster(self) if TransformBroadcaster else None
        self._subscription = self.create_subscription(PointCloud2, "points", self._on_points, 10)

    def _on_points(self, cloud: PointCloud2) -> None:
        try:
            known = self._chain.advance(read_cloud(cloud))
        except (KeyError, ValueError) as error:
            self.get_logger().warning(
                f"A cloud is skipped: it is none of superpoint's ({error}).", throttle_duration_sec=5
            )
            return
        if not known:
            self.get_logger().warning(
                "Too few tracked points agree about a pose (is `tracks` on?): the camera is taken to stand.",
                throttle_duration_sec=5,
            )
        message = Odometry(header=cloud.header, child_frame_id=cloud.header.frame_id)
        message.header.frame_id = self._frame
        pose = message.pose.pose  # its covariance is left at 0, which is: not known
        place = FORWARD @ self._chain.pose.place
        pose.position.x, pose.position.y, pose.position.z = place.tolist()
        turn = cv2.Rodrigues(FORWARD @ self._chain.pose.rotation)[0][:, 0]
        half = np.linalg.norm(turn) / 2
        pose.orientation.x, pose.orientation.y, pose.orientation.z = (turn / 2 * np.sinc(half / np.pi)).tolist()
        pose.orientation.w = float(np.cos(half))
        self._publisher.publish(message)
        if self._broadcaster is not None:
            transform = TransformStamped(header=message.header, child_frame_id=message.child_frame_id)
            translation = transform.transform.translation
            translation.x, translation.y, translation.z = place.tolist()
            transform.transform.rotation = pose.orientation
            self._broadcaster.sendTransform(transform)


def main() -> None:
    """Run until interrupted."""
    rclpy.init()
    node = StereoOdometry()
    node.create_timer(1.0, lambda: None)  # wakes spin, which may miss the signal that ends it
    try:
        rclpy.spin(node)
    except (KeyboardInterrupt, rclpy.executors.ExternalShutdownException):
        pass
    except Exception:
        if rclpy.ok():  # else a signal came amid spin's work
            raise
    finally:
        node.destroy_node()
        rclpy.try_shutdown()


if __name__ == "__main__":
    main()
