"""A camera's calibration as it comes in on camera_info, applied to keypoints."""

from __future__ import annotations

import time
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from rclpy.lifecycle import LifecycleNode
from sensor_msgs.msg import CameraInfo

from superpoint_ros.features.extractor import Features
from superpoint_ros.features.rectification import Calibration, Uncalibrated, normalised, of_rectified, rays, rectify
from superpoint_ros.frontend.calibrations import Calibrations
from superpoint_ros.node.faults import harmless
from superpoint_ros.node.qos import subscribe

PATIENCE = 5.0
"""Seconds without a CameraInfo after which that is said."""
WAIT = 0.05
"""Seconds that the worker waits for an image's CameraInfo, once images have come with one of their own."""
DEPTH = 10
"""CameraInfos that may wait: each belongs to an image."""
REASONS = 100
"""Why there is no calibration: so many are told and remembered."""


class CameraInfoListener:
    """Listens to a camera_info topic.

    rectified  whether the images are, so that P alone counts
    say        called with the reason why there is no calibration, once for each
    """

    def __init__(self, node: LifecycleNode, topic: str, rectified: bool, say: Callable[[str], None]) -> None:
        self._node = node
        self._images_rectified = rectified
        self._say = say
        self._said: set[str] = set()
        self._calibrations = Calibrations()
        self._since = time.monotonic()
        self.state = "no CameraInfo yet"
        self._subscription = subscribe(node, CameraInfo, topic, self._calibrations.add, DEPTH)

    def destroy(self) -> None:
        """Stop listening."""
        self._node.destroy_subscription(self._subscription)

    def rectified(self, found: Features, stamp: int) -> NDArray[np.float32] | None:
        """Keypoints in pixels of the rectified image; None, with the reason said once, if that cannot be.

        stamp  of the image, nanoseconds
        """
        camera = self.of(found.size, stamp)
        return None if camera is None else rectify(camera, found.xy)

    def rays(self, xy: NDArray[np.float32], size: tuple[int, int], stamp: int) -> NDArray[np.float64] | None:
        """Directions of pixels of an image of that size, as in `rectification.rays`; None as above."""
        camera = self.of(size, stamp)
        return None if camera is None else rays(camera, xy)

    def normalised(self, xy: NDArray[np.float32], size: tuple[int, int], stamp: int) -> NDArray[np.float64] | None:
        """Pixels of an image of that size without their lens, as in `rectification.normalised`; None as above."""
        camera = self.of(size, stamp)
        return None if camera is None else normalised(camera, xy)

    def of(self, size: tuple[int, int], stamp: int) -> Calibration | None:
        """The calibration of an image of that size, (height, width); None as above."""
        try:
            camera = self._calibrations.of(stamp, WAIT)
        except Uncalibrated as error:
            self._refuse(str(error))
            return None
        if camera is None:
            if time.monotonic() - self._since > PATIENCE:
                self._refuse(f"no CameraInfo on {self._subscription.topic_name} for {PATIENCE:.0f} s")
            return None
        if camera.size != size:
            (height, width), (rows, columns) = camera.size, size
            self._refuse(f"CameraInfo is for images of {width}×{height}, but they are {columns}×{rows}")
            return None
        self.state = camera.model
        return of_rectified(camera) if self._images_rectified else camera

    def _refuse(self, reason: str) -> None:
        self.state = reason = harmless(reason)
        if reason not in self._said and len(self._said) < REASONS:
            self._said.add(reason)
            self._say(reason)
