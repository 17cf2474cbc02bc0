"""Read features in Python: keypoints for OpenCV, descriptors, and matches with the message before.

python3 subscriber.py --ros-args -r features:=/superpoint/features
"""

import cv2
import numpy as np
import rclpy
from rclpy.executors import ExternalShutdownException
from rclpy.node import Node
from rclpy.qos import qos_profile_sensor_data

from superpoint_ros import decode_descriptors
from superpoint_ros.msg import Features

CELL = 8


def keypoints(message):
    """As include/superpoint_ros/features.hpp has them: size of the network's cell, octave, track id."""
    tracks = message.track_ids or [-1] * len(message.x)
    octaves = np.rint(np.log2(message.scale)).astype(int).clip(min=0)
    return [
        cv2.KeyPoint(x, y, CELL * scale, -1, score, int(octave), track)
        for x, y, scale, score, octave, track in zip(
            message.x, message.y, message.scale, message.scores, octaves, tracks, strict=True
        )
    ]


class Subscriber(Node):
    """Says of each message how many keypoints it has, and how many match those of the message before."""

    def __init__(self):
        super().__init__("subscriber")
        self.matcher = cv2.BFMatcher(cv2.NORM_L2, crossCheck=True)  # mutual nearest neighbours
        self.before = None
        self.create_subscription(Features, "features", self.receive, qos_profile_sensor_data)

    def receive(self, message):
        found = keypoints(message)
        descriptors = decode_descriptors(message.descriptors, message.descriptor_dim, message.descriptor_type)
        matches = []
        if self.before and self.before[0] == message.weights_id and len(self.before[1]) and found:
            matches = self.matcher.match(self.before[1], descriptors)
        self.before = message.weights_id, descriptors
        self.get_logger().info(f"{len(found)} keypoints, {len(matches)} matches")


def main():
    rclpy.init()
    node = Subscriber()
    node.create_timer(1.0, lambda: None)  # wakes spin, which may miss the signal that ends it
    try:
        rclpy.spin(node)
    except (KeyboardInterrupt, ExternalShutdownException):
        pass
    except Exception:
        if rclpy.ok():  # else a signal came amid spin's work
            raise
    node.destroy_node()
    rclpy.try_shutdown()


if __name__ == "__main__":
    main()
