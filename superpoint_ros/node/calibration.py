"""A camera's calibration as it comes in on camera_info, applied to keypoints."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rclpy.lifecycle import LifecycleNode
from sensor_msgs.msg import CameraInfo

from superpoint_ros.features.extractor import Features
from superpoint_ros.features.rectification import Calibration, Uncalibrated, calibration, rays, rectify
from superpoint_ros.node.qos import subscribe

PATIENCE = 5.0
"""Seconds without a CameraInfo after which that is said."""


class CameraInfoListener:
    """Listens to the camera_info beside an image topic, as image_transport does.

    say  called with a sentence when keypoints cannot be rectified, once for each reason
    """

    def __init__(self, node: LifecycleNode, image_topic: str, say: Callable[[str], None]) -> None:
        self._node = node
        self._say = say
        self._said: set[str] = set()
        self._calibration: Calibration | None = None
        self._info: Any = None
        self._since = time.monotonic()
        self.state = "no CameraInfo yet"
        self._subscription = subscribe(node, CameraInfo, camera_info_topic(image_topic), self._on_info)

    def destroy(self) -> None:
        """Stop listening."""
        self._node.destroy_subscription(self._subscription)

    def rectified(self, found: Features) -> NDArray[np.float32] | None:
        """Keypoints in pixels of the rectified image; None, with the reason said once, if that cannot be."""
        camera = self._camera(found.size)
        return None if camera is None else rectify(camera, found.xy)

    def rays(self, xy: NDArray[np.float32], size: tuple[int, int]) -> NDArray[np.float64] | None:
        """Directions of pixels of an image of that size, as in `rectification.rays`; None as above."""
        camera = self._camera(size)
        return None if camera is None else rays(camera, xy)

    def _camera(self, size: tuple[int, int]) -> Calibration | None:
        camera = self._calibration
        if camera is None:
            if self._info is None and time.monotonic() - self._since > PATIENCE:
                self._refuse(f"no CameraInfo on {self._subscription.topic_name} for {PATIENCE:.0f} s")
        elif camera.size != size:
            (height, width), (rows, columns) = camera.size, size
            self._refuse(f"CameraInfo is for images of {width}×{height}, but they are {columns}×{rows}")
        else:
            self.state = camera.model
            return camera
        return None

    def _on_info(self, info: CameraInfo) -> None:
        info.header = type(info.header)()  # only what matters is compared
        if info == self._info:
            return
        try:
            self._calibration = calibration(info)
        except Uncalibrated as error:
            self._calibration = None
            self._refuse(str(error))
        except Exception as error:  # what a callback raises would end the node
            self._refuse(f"CameraInfo cannot be read ({type(error).__name__}: {error})")
        self._info = info

    def _refuse(self, reason: str) -> None:
        self.state = reason
        if reason not in self._said:
            self._said.add(reason)
            self._say(f"{reason}; keypoints are not rectified")


def camera_info_topic(image_topic: str) -> str:
    """`camera_info` beside the image topic: image_transport's rule."""
    return image_topic.removesuffix("/compressed").rpartition("/")[0] + "/camera_info"
