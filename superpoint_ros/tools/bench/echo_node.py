"""The least that a node in Python can do: answer an image with a features message it had ready. `timed_node`'s floor.

Run as `python -m … CLOCK_FILE --ros-args …`; the file gets a line an image, as `timed_node` writes it, with an
extraction that takes no time.
"""

from __future__ import annotations

import sys
import time

import numpy as np
import rclpy
from rclpy.executors import ExternalShutdownException
from rclpy.node import Node
from rclpy.qos import QoSProfile, ReliabilityPolicy
from sensor_msgs.msg import Image
from std_msgs.msg import Header

from superpoint_ros.features.extractor import Features as Found
from superpoint_ros.frontend.messages import features_fields, to_message
from superpoint_ros.msg import Features
from superpoint_ros.node.superpoint_node import NODE_NAME
from superpoint_ros.node.transport import make_room

KEYPOINTS = 1024


class EchoNode(Node):
    """Subscribes and publishes as the real node does, and does nothing in between."""

    def __init__(self, clock_file: str) -> None:
        super().__init__(NODE_NAME, automatically_declare_parameters_from_overrides=True)
        kind = self.get_parameter("descriptor_type").value
        nothing = np.zeros((KEYPOINTS, 256), np.float32)
        found = Found(np.zeros((KEYPOINTS, 2), np.float32), np.zeros(KEYPOINTS, np.float32), nothing, (480, 640))
        self._answer = to_message(Features, features_fields(found, Header(), "echo", kind))
        self._file = open(clock_file, "a", encoding="ascii", buffering=1)
        self._publisher = self.create_publisher(Features, "~/features", 5)
        qos = QoSProfile(depth=1, reliability=ReliabilityPolicy.BEST_EFFORT)
        self.create_subscription(Image, "image", self._on_image, qos)

    def _on_image(self, image: Image) -> None:
        now = time.monotonic_ns()
        self._answer.header = image.header
        self._publisher.publish(self._answer)
        self._file.write(f"{now} {now} 1\n")


def main() -> int:
    """Answer images until interrupted."""
    clock_file = sys.argv.pop(1)
    make_room()
    rclpy.init()
    try:
        rclpy.spin(EchoNode(clock_file))
    except (KeyboardInterrupt, ExternalShutdownException):
        pass
    return 0


if __name__ == "__main__":
    sys.exit(main())
