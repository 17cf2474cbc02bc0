"""A camera and a listener in a ROS domain of their own, for tests against real DDS."""

import os
import time
from array import array

import cv2
import numpy as np
import pytest

# Read by the RMW when the first context starts: no test sees, or is seen by, another machine.
os.environ["ROS_AUTOMATIC_DISCOVERY_RANGE"] = "LOCALHOST"

DEADLINE = 120.0


def photograph(size=(240, 320)):
    """A picture with corners everywhere: a coarse random mosaic, slightly blurred."""
    rng = np.random.default_rng(3)
    tiles = rng.integers(20, 236, (size[0] // 16 + 1, size[1] // 16 + 1), np.uint8)
    mosaic = cv2.resize(tiles, None, fx=16, fy=16, interpolation=cv2.INTER_NEAREST)
    return cv2.GaussianBlur(mosaic[: size[0], : size[1]], (0, 0), 0.8)


def shifted(picture, x, y):
    """The picture moved by whole pixels, right and down."""
    matrix = np.float32([[1, 0, x], [0, 1, y]])
    return cv2.warpAffine(picture, matrix, picture.shape[::-1], borderMode=cv2.BORDER_REFLECT)


def image_message(picture, stamp=1, encoding="mono8", frame_id="camera"):
    """sensor_msgs/Image of a picture, `stamp` in whole seconds."""
    from sensor_msgs.msg import Image

    message = Image(height=picture.shape[0], width=picture.shape[1], encoding=encoding)
    message.step = picture.itemsize * picture.shape[1] * (picture.shape[2] if picture.ndim == 3 else 1)
    message.data = array("B", np.ascontiguousarray(picture).tobytes())
    message.header.stamp.sec = stamp
    message.header.frame_id = frame_id
    return message


class Robot:
    """A camera that publishes, and a listener that keeps everything the node publishes."""

    def __init__(self, domain, topic="/image", node="/superpoint"):
        import rclpy
        from diagnostic_msgs.msg import DiagnosticArray
        from rclpy.executors import SingleThreadedExecutor
        from sensor_msgs.msg import Image

        from superpoint_ros.msg import FeatureMatches, Features, HomographyStamped

        self.domain = domain
        self.context = rclpy.Context()
        rclpy.init(context=self.context, domain_id=domain)
        self.executor = SingleThreadedExecutor(context=self.context)
        self.client = rclpy.create_node("client", context=self.context)
        self.executor.add_node(self.client)
        self.node = node
        self.camera = self.client.create_publisher(Image, topic, 1)
        self.features, self.matches, self.homographies, self.diagnostics = [], [], [], []
        for message_type, name, received in (
            (Features, f"{node}/features", self.features),
            (FeatureMatches, f"{node}/matches", self.matches),
            (HomographyStamped, f"{node}/homography", self.homographies),
            (DiagnosticArray, "/diagnostics", self.diagnostics),
        ):
            self.client.create_subscription(message_type, name, received.append, 10)

    def add_node(self, **parameters):
        """The node under test, in this process, not yet configured."""
        from rclpy.parameter import Parameter

        from superpoint_ros.node.superpoint_node import SuperPointNode

        overrides = [Parameter(name, value=value) for name, value in parameters.items()]
        node = SuperPointNode(context=self.context, parameter_overrides=overrides)
        self.executor.add_node(node)
        return node

    def spin_until(self, condition, what, seconds=DEADLINE):
        """Let callbacks run until the condition holds; fail with `what` after the deadline."""
        end = time.monotonic() + seconds
        while not condition():
            if time.monotonic() > end:
                pytest.fail(f"waited {seconds:.0f} s for {what}")
            self.executor.spin_once(timeout_sec=0.05)

    def connect(self, node):
        """Wait until camera, a node in this process and listener have found each other."""
        publishers = [
            camera.outputs.publishers[topic]
            for camera in node.cameras.values()
            for topic in ("features", "matches", "homography")
        ]
        self.spin_until(
            lambda: (
                self.camera.get_subscription_count() > 0
                and all(publisher.get_subscription_count() > 0 for publisher in publishers)
            ),
            "camera, node and listener to find each other",
        )

    def wake(self):
        """Show a blank picture of another size to a node elsewhere, until its answer arrives."""
        self.show_until_answered(image_message(np.zeros((32, 32), np.uint8), stamp=0))
        self.spin_until_quiet()

    def show_until_answered(self, message):
        """Publish one image again and again: best effort loses what is sent before the node has found the camera."""
        count = len(self.homographies)
        self._show_until(message, lambda: len(self.homographies) > count, "the node's first answer")
        return self.homographies[count]

    def show_until_heard(self):
        """Publish an image that is none until the diagnostics of a node elsewhere count it: no answer comes of it."""
        nothing = image_message(np.zeros((32, 32), np.uint8), stamp=0, encoding="none")
        heard = "diagnostics that count an image"
        self._show_until(nothing, lambda: self.diagnostics and self.values()["frames_in"] != "0", heard)

    def _show_until(self, message, condition, what):
        end = time.monotonic() + DEADLINE
        while not condition():
            if time.monotonic() > end:
                pytest.fail(f"waited {DEADLINE:.0f} s for {what}")
            self.camera.publish(message)
            self.executor.spin_once(timeout_sec=0.5)

    def spin_until_quiet(self):
        """Let answers that are still under way arrive: none for half a second."""
        last, count = time.monotonic(), -1
        while time.monotonic() - last < 0.5:
            if len(self.homographies) != count:
                last, count = time.monotonic(), len(self.homographies)
            self.executor.spin_once(timeout_sec=0.05)

    def show(self, message):
        """Publish one image; wait for its homography, the last that the node publishes for it."""
        count = len(self.homographies)
        self.camera.publish(message)
        self.spin_until(lambda: len(self.homographies) > count, "a homography")
        return self.homographies[-1]

    def values(self):
        """The newest diagnostics as a dictionary."""
        return {pair.key: pair.value for pair in self.diagnostics[-1].status[0].values}

    def await_diagnostics(self, **expected):
        """Wait for diagnostics with these values."""
        self.spin_until(
            lambda: self.diagnostics and expected.items() <= self.values().items(),
            f"diagnostics with {expected}",
        )

    def close(self):
        nodes = self.executor.get_nodes()  # which it forgets as it shuts down
        self.executor.shutdown()
        for node in nodes:
            node.destroy_node()
        self.context.try_shutdown()
