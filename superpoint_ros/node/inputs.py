"""What comes in for one camera: images, and if asked for its calibration and a mask."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rclpy.lifecycle import LifecycleNode
from sensor_msgs.msg import CompressedImage, Image

from superpoint_ros.features.extractor import Features
from superpoint_ros.features.intensity import FoundRange
from superpoint_ros.frontend.masking import Mask
from superpoint_ros.frontend.parameters import Parameters
from superpoint_ros.frontend.pictures import grey_picture
from superpoint_ros.node.calibration import CameraInfoListener
from superpoint_ros.node.faults import Faults
from superpoint_ros.node.mailbox import Frame
from superpoint_ros.node.qos import publishers_sentence, subscribe


class Inputs:
    """One camera's subscriptions and what they make of messages.

    image_topic  `image/compressed` of `image`, if the images come compressed
    mask_file    or empty. Raises ValueError with a sentence for a file that is no mask
    """

    def __init__(self, node: LifecycleNode, camera: str, image_topic: str, mask_file: str, faults: Faults) -> None:
        self._node = node
        self._camera = camera
        self._image_topic = image_topic
        self._mask = Mask(mask_file)
        self._camera_info: CameraInfoListener | None = None
        self._compressed = False
        self._range = FoundRange()
        self._faults = faults
        self._subscriptions: list[Any] = []
        self.topic: str = node.resolve_topic_name(image_topic)

    def subscribe(self, values: Parameters, depth: int, on_frame: Callable[[Frame], None]) -> None:
        """Listen to images, with a queue of `depth`, and to all that was asked for.

        Raises RuntimeError with a sentence for a topic name or a QoS override that is not allowed.
        """
        compressed = self._compressed = values.image_transport == "compressed"
        topic = f"{self._image_topic}/compressed" if compressed else self._image_topic

        def on_image(message: Any) -> None:
            on_frame(Frame(self._camera, message, time.monotonic()))

        images = subscribe(self._node, CompressedImage if compressed else Image, topic, on_image, depth)
        self._subscriptions.append(images)
        self.topic = images.topic_name
        if values.use_mask_topic:
            name = f"{self._camera}/mask" if self._camera else "mask"
            self._subscriptions.append(subscribe(self._node, Image, name, self._on_mask))
        if values.rectify:
            self._camera_info = CameraInfoListener(self._node, self.topic, self._say)

    def unsubscribe(self) -> None:
        """Stop listening."""
        for subscription in self._subscriptions:
            self._node.destroy_subscription(subscription)
        self._subscriptions.clear()
        if self._camera_info is not None:
            self._camera_info.destroy()

    @property
    def calibration(self) -> str:
        """For diagnostics: the lens model, or why there is none; empty if none was asked for."""
        return self._camera_info.state if self._camera_info else ""

    @property
    def intensity(self) -> dict[str, str]:
        """For diagnostics: the range that was found for images of 16 bits or float; nothing for others."""
        low, high = self._range.low, self._range.high
        return {} if math.isnan(low) else {"intensity_range_found": f"{low:.6g} to {high:.6g}"}

    def publishers(self) -> str:
        """Who publishes the images, for a log line."""
        kind = "CompressedImage" if self._compressed else "Image"
        return publishers_sentence(self._node, self.topic, f"sensor_msgs/msg/{kind}")

    # In the worker's thread

    def decode(self, message: Any, values: Parameters) -> tuple[NDArray[np.uint8], NDArray[np.bool_] | None]:
        """A picture that the extractor takes, so that one camera cannot fail the others' batch, and its mask.

        Raises ValueError with a sentence for an image that cannot be used.
        """
        grey = grey_picture(message, isinstance(message, CompressedImage), values, self._range)
        return grey, self._mask.allowed(grey.shape)

    def rectified(self, found: Features) -> NDArray[np.float32] | None:
        """Keypoints in pixels of the rectified image; None unless asked for and possible."""
        return self._camera_info.rectified(found) if self._camera_info else None

    def rays(self, xy: NDArray[np.float32], size: tuple[int, int]) -> NDArray[np.float64] | None:
        """Directions of pixels in the camera's frame; None without `rectify` and a calibration."""
        return self._camera_info.rays(xy, size) if self._camera_info else None

    def _on_mask(self, message: Image) -> None:
        try:
            self._mask.update(message)
        except Exception as error:  # what a callback raises would end the node
            self._faults.add("bad", self.topic, f"its mask: {error}; the mask stays as it was")

    def _say(self, sentence: str) -> None:
        self._node.get_logger().warning(f"{self.topic}: {sentence}.")
