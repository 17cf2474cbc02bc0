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
from superpoint_ros.features.rectification import Calibration
from superpoint_ros.frontend.masking import Mask
from superpoint_ros.frontend.parameters import Parameters
from superpoint_ros.frontend.pictures import grey_picture
from superpoint_ros.node.calibration import CameraInfoListener
from superpoint_ros.node.faults import Faults, harmless
from superpoint_ros.node.mailbox import Frame
from superpoint_ros.node.names import camera_info_topic, compressed_topic, resolved
from superpoint_ros.node.qos import prepare_to_subscribe, publishers_sentence, subscribe


class Inputs:
    """One camera's subscriptions and what they make of messages.

    image_topic  `image/compressed` of `image`, if the images come compressed
    mask_file    or empty. Raises ValueError with a sentence for a file that is no mask
    max_pixels   of a mask
    """

    def __init__(
        self, node: LifecycleNode, camera: str, image_topic: str, mask_file: str, max_pixels: int, faults: Faults
    ) -> None:
        self._node = node
        self._camera = camera
        self._image_topic = image_topic
        self._mask = Mask(mask_file, max_pixels)
        self._mask_came = False
        self._camera_info: CameraInfoListener | None = None
        self._asked, self._depth, self._compressed, self._rectify = image_topic, 1, False, False
        self._range = FoundRange()
        self._faults = faults
        self._images: Any = None
        self._mask_subscription: Any = None
        self.without_calibration = ""
        """What goes wrong without a calibration; empty where none is asked for."""
        self.topic: str = resolved(node, image_topic)
        self.missing_mask = ""
        """The topic of a mask that has not come yet, without which no image is extracted."""
        self.bad_mask = ""
        """What is wrong with the newest mask of the topic; empty if nothing is."""

    def open(self, values: Parameters, depth: int) -> None:
        """Listen to all that was asked for beside the images, and prepare to listen to these, with a queue of `depth`.

        Raises RuntimeError with a sentence for a topic name or a QoS override that is not allowed.
        """
        node, prefix = self._node, f"{self._camera}/" if self._camera else ""
        self._compressed, self._depth = values.image_transport == "compressed", depth
        self._asked = compressed_topic(node, self._image_topic) if self._compressed else self._image_topic
        self.topic = prepare_to_subscribe(node, self._asked, depth)
        self._rectify = values.rectify
        if values.use_mask_topic:
            mask = self._mask_subscription = subscribe(node, Image, f"{prefix}mask", self._on_mask, latched=True)
            self.missing_mask = "" if self._mask_came else mask.topic_name
        self.without_calibration = _lost(values, self._camera)
        if self.without_calibration:
            topic = camera_info_topic(node, prefix, self._image_topic)
            self._camera_info = CameraInfoListener(node, topic, values.images_rectified, self._say)

    @property
    def listening(self) -> bool:
        """Whether images are subscribed to."""
        return self._images is not None

    def listen(self, on_frame: Callable[[Frame], None], on_lost: Callable[[int], None]) -> None:
        """Subscribe to images.

        on_lost  called with how many of them the middleware lost

        Raises RuntimeError with a sentence if that cannot be.
        """

        def on_image(message: Any) -> None:
            on_frame(Frame(self._camera, message, time.monotonic()))

        kind = CompressedImage if self._compressed else Image
        self._images = subscribe(self._node, kind, self._asked, on_image, self._depth, on_lost=on_lost)

    def ignore(self) -> None:
        """Unsubscribe from images."""
        if self._images is not None:
            self._node.destroy_subscription(self._images)
            self._images = None

    def close(self) -> None:
        """Unsubscribe from everything."""
        self.ignore()
        self.bad_mask = ""
        if self._mask_subscription is not None:
            self._node.destroy_subscription(self._mask_subscription)
            self._mask_subscription = None
        if self._camera_info is not None:
            self._camera_info.destroy()
            self._camera_info = None

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

    def rectified(self, found: Features, stamp: int) -> NDArray[np.float32] | None:
        """Keypoints of the image with this stamp in pixels of the rectified one; None unless asked for and possible."""
        listener = self._camera_info
        return listener.rectified(found, stamp) if listener and self._rectify else None

    def calibration_of(self, size: tuple[int, int], stamp: int) -> Calibration | None:
        """That of an image of this size and stamp; None unless one is asked for and there is one."""
        listener = self._camera_info
        return listener.of(size, stamp) if listener else None

    def rays(self, xy: NDArray[np.float32], size: tuple[int, int], stamp: int) -> NDArray[np.float64] | None:
        """Directions of pixels in the camera's frame; None without a calibration, or if none is asked for."""
        listener = self._camera_info
        return listener.rays(xy, size, stamp) if listener else None

    def normalised(self, xy: NDArray[np.float32], size: tuple[int, int], stamp: int) -> NDArray[np.float64] | None:
        """Pixels without their lens, as in `rectification.normalised`; None without a calibration."""
        listener = self._camera_info
        return listener.normalised(xy, size, stamp) if listener else None

    def _on_mask(self, message: Image) -> None:
        try:
            self._mask.update(message)
        except Exception as error:  # what a callback raises would end the node
            kept = "the mask stays as it was" if self._mask_came else "there is no mask yet"
            self.bad_mask = harmless(f"its newest mask cannot be used: {error}; {kept}")
            self._faults.add("mask", self.topic, self.bad_mask)
            return
        self.bad_mask = ""
        if self.missing_mask:
            self._node.get_logger().info(f"{self.topic}: a mask came on {self.missing_mask}.")
        self._mask_came, self.missing_mask = True, ""

    def _say(self, sentence: str) -> None:
        self._node.get_logger().warning(f"{self.topic}: {sentence}; {self.without_calibration}.")


def _lost(values: Parameters, camera: str) -> str:
    """What a camera lacks without its calibration, of what is asked for."""
    lost = ["keypoints are not rectified"] if values.rectify else []
    lost += ["there is no track_cloud"] if values.track_cloud != "none" else []
    lost += ["there is no motion in space"] if values.motion else []
    if camera in [name for pair in values.pairs() for name in pair]:
        lost += ["its stereo pair has no points"]
    return " and ".join(lost)
