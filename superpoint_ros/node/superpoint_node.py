"""The lifecycle node: images in; keypoints, matches, homographies and diagnostics out.

image callback → mailbox (newest wins) → worker: decode → extract → match to the reference →
homography → publish
"""

from __future__ import annotations

import time
from typing import Any

import numpy as np
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus, KeyValue
from numpy.typing import NDArray
from rcl_interfaces.msg import SetParametersResult
from rclpy.clock import Clock, ClockType
from rclpy.lifecycle import LifecycleNode, LifecycleState, TransitionCallbackReturn
from rclpy.parameter import Parameter
from rclpy.qos import QoSProfile, ReliabilityPolicy
from rclpy.qos_overriding_options import QoSOverridingOptions
from rclpy.time import Time
from sensor_msgs.msg import CompressedImage, Image

from superpoint_ros.features.decode import decode_compressed, decode_image
from superpoint_ros.features.extractor import Extractor, Features
from superpoint_ros.features.image import as_grey, target_size
from superpoint_ros.msg import FeatureMatches, HomographyStamped
from superpoint_ros.msg import Features as FeaturesMessage
from superpoint_ros.node import parameters
from superpoint_ros.node.faults import Faults
from superpoint_ros.node.mailbox import Frame, Mailbox
from superpoint_ros.node.messages import (
    features_fields,
    homography_fields,
    matches_fields,
    to_message,
)
from superpoint_ros.node.statistics import Statistics, assess, diagnostic_values
from superpoint_ros.node.tracker import Motion, Tracker
from superpoint_ros.node.worker import Worker

NODE_NAME = "superpoint"
CAMERA = "camera"
INPUT_QOS = QoSProfile(depth=1, reliability=ReliabilityPolicy.BEST_EFFORT)
OUTPUT_QOS = QoSProfile(depth=5)
SUCCESS, FAILURE = TransitionCallbackReturn.SUCCESS, TransitionCallbackReturn.FAILURE


class SuperPointNode(LifecycleNode):
    """See README.md for topics and parameters; ValueError for a parameter that is not allowed."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(NODE_NAME, **kwargs)
        self._extractor: Extractor | None = None
        self._worker: Worker | None = None
        self._subscription: Any = None
        self.parameters = parameters.declare(self)
        self.add_on_set_parameters_callback(self._change_parameters)
        self._topic = self.resolve_topic_name("image")
        self._state = "unconfigured"
        self._reset_counters()
        qos: dict[str, Any] = {
            "qos_overriding_options": QoSOverridingOptions.with_default_policies()
        }
        self._features_publisher = self.create_lifecycle_publisher(
            FeaturesMessage, "~/features", OUTPUT_QOS, **qos
        )
        self._matches_publisher = self.create_lifecycle_publisher(
            FeatureMatches, "~/matches", OUTPUT_QOS, **qos
        )
        self._homography_publisher = self.create_lifecycle_publisher(
            HomographyStamped, "~/homography", OUTPUT_QOS, **qos
        )
        self._diagnostics_publisher = self.create_publisher(DiagnosticArray, "/diagnostics", 10)
        # The steady clock: a paused simulation is when one wants diagnostics.
        self.create_timer(
            1.0, self._publish_diagnostics, clock=Clock(clock_type=ClockType.STEADY_TIME)
        )

    # Lifecycle

    def start(self) -> bool:
        """Configure and activate; False, with the reason logged, if either fails."""
        return self.trigger_configure() == SUCCESS and self.trigger_activate() == SUCCESS

    def on_configure(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Load the weights and warm the device up."""
        values = self.parameters
        try:
            self._extractor = Extractor(
                weights=values.weights or None,
                device=self._available_device(values.device),
                engine=values.engine,
                precision=values.precision,
            )
            self._apply(values)
            self._extractor(np.zeros((480, 640), np.uint8))
        except (ValueError, OSError, RuntimeError) as error:
            self._extractor = None
            self.get_logger().error(f"The network cannot be set up: {error}.")
            return FAILURE
        self._reset_counters()
        self._state = "inactive"
        self.get_logger().info(
            f"Weights {self._extractor.weights_id} run on {self._extractor.device} "
            f"({self._extractor.engine})."
        )
        return SUCCESS

    def on_activate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Subscribe: rclpy does not gate subscriptions, so they exist only while active."""
        result = super().on_activate(state)
        compressed = self.parameters.image_transport == "compressed"
        topic = "image/compressed" if compressed else "image"
        mailbox = Mailbox([CAMERA])
        self._tracker = Tracker()
        self._worker = Worker(mailbox, self._process, self._lose)

        def on_image(message: Any) -> None:
            self._statistics.received(mailbox.put(Frame(CAMERA, message, time.monotonic())))

        try:
            self._subscription = self.create_subscription(
                CompressedImage if compressed else Image,
                topic,
                on_image,
                INPUT_QOS,
                qos_overriding_options=QoSOverridingOptions.with_default_policies(),
            )
        except Exception as error:
            # a QoS override of an unknown policy or value: rclpy raises RuntimeError, ValueError or
            # its own
            self._stop_work()
            super().on_deactivate(state)
            self.get_logger().error(f"The subscription to '{topic}' cannot be made: {error}")
            return FAILURE
        self._topic = self._subscription.topic_name
        self._state = "active"
        self.get_logger().info(f"Waiting for images on {self._topic}.")
        return result

    def on_deactivate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Unsubscribe, and finish the frame in work."""
        self._stop_work()
        self._state = "inactive"
        return super().on_deactivate(state)

    def on_cleanup(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Give the network and its memory back."""
        self._extractor = None
        self._state = "unconfigured"
        return SUCCESS

    def on_shutdown(self, state: LifecycleState) -> TransitionCallbackReturn:
        """From any state."""
        self._stop_work()
        self._extractor = None
        self._state = "finalized"
        return SUCCESS

    def destroy_node(self) -> None:
        """Stop the worker before its publishers go."""
        self._stop_work()
        super().destroy_node()

    def _stop_work(self) -> None:
        if self._subscription is not None:
            self.destroy_subscription(self._subscription)
            self._subscription = None
        if self._worker is not None:
            self._worker.stop()
            self._worker = None

    def _available_device(self, device: str) -> str:
        """The device asked for; without CUDA the CPU, for a slow robot beats a blind one."""
        import torch

        if device.startswith("cuda") and not torch.cuda.is_available():
            self.get_logger().warning(
                f"Parameter device is '{device}', but there is no CUDA GPU; using the CPU."
            )
            return "cpu"
        return device

    # Parameters

    def _change_parameters(self, proposals: list[Parameter]) -> SetParametersResult:
        try:
            values = parameters.change(
                self.parameters, proposals, configured=self._extractor is not None
            )
        except ValueError as error:
            return SetParametersResult(successful=False, reason=str(error))
        self._apply(values)
        return SetParametersResult(successful=True)

    def _apply(self, values: parameters.Parameters) -> None:
        self.parameters = values
        if self._extractor is not None:
            self._extractor.settings = values.detection()
            self._extractor.resize = values.resize or None

    # Work, in the worker's thread

    def _process(self, frames: list[Frame]) -> None:
        extractor, values = self._extractor, self.parameters
        if extractor is None:
            return
        good: list[Frame] = []
        pictures: list[NDArray[np.uint8]] = []
        for frame in frames:
            try:
                pictures.append(self._decode(frame.message, values))
                good.append(frame)
            except ValueError as error:
                self._faults.add("bad", self._topic, f"{error}; the frame is skipped")
        for frame, found in zip(good, extractor.batch(pictures), strict=True):
            self._publish(frame, found, values)

    def _decode(self, message: Any, values: parameters.Parameters) -> NDArray[np.uint8]:
        """A picture that the extractor takes, so that one camera cannot fail the others' batch."""
        if isinstance(message, CompressedImage):
            picture = decode_compressed(message)
        else:
            low, high = values.intensity_range
            picture = decode_image(message, (low, high))
        target_size(as_grey(picture).shape, values.resize or None)
        return picture

    def _publish(self, frame: Frame, found: Features, values: parameters.Parameters) -> None:
        header = frame.message.header
        stamp = Time.from_msg(header.stamp)
        motion = self._tracker.advance(
            stamp.nanoseconds,
            found,
            values.homography_threshold,
            values.match_ratio if values.match_ratio < 1 else None,
            values.min_similarity if values.min_similarity > -1 else None,
        )
        if values.publish_features and _heard(self._features_publisher):
            assert self._extractor is not None
            fields = features_fields(
                found, header, self._extractor.weights_id, values.descriptor_type
            )
            self._features_publisher.publish(to_message(FeaturesMessage, fields))
        reference_stamp = Time(nanoseconds=motion.reference_stamp or 0).to_msg()
        self._publish_motion(motion, header, reference_stamp, values)
        age = (self.get_clock().now().nanoseconds - stamp.nanoseconds) / 1e9
        self._statistics.published(time.monotonic() - frame.received, age, len(found))

    def _publish_motion(
        self, motion: Motion, header: Any, reference_stamp: Any, values: parameters.Parameters
    ) -> None:
        if (
            values.publish_matches
            and motion.reference_stamp is not None
            and _heard(self._matches_publisher)
        ):
            fields = matches_fields(motion, header, reference_stamp)
            self._matches_publisher.publish(to_message(FeatureMatches, fields))
        if values.publish_homography and _heard(self._homography_publisher):
            fields = homography_fields(motion, header, reference_stamp)
            self._homography_publisher.publish(to_message(HomographyStamped, fields))

    def _lose(self, error: Exception, frames: list[Frame]) -> None:
        if not self.context.ok():
            return  # publishing fails once the process is asked to end
        sentence = f"{len(frames)} frame(s) lost to {type(error).__name__}: {error}"
        self._faults.add("failed", self._topic, sentence)

    # Diagnostics

    def _reset_counters(self) -> None:
        self._statistics = Statistics()
        self._faults = Faults(lambda sentence: self.get_logger().error(sentence))
        self._reported = {"bad": 0, "failed": 0}

    def _publish_diagnostics(self) -> None:
        extractor, faults, snapshot = self._extractor, self._faults, self._statistics.snapshot()
        counts = {kind: faults.count(kind) for kind in self._reported}
        new = {kind: count - self._reported[kind] for kind, count in counts.items()}
        self._reported = counts
        level, sentence = assess(self._state, [self._topic], snapshot, new["bad"], new["failed"])
        facts = {
            "topic": self._topic,
            "device": extractor.device if extractor else "",
            "engine": extractor.engine if extractor else "",
            "weights_id": extractor.weights_id if extractor else "",
        }
        values = diagnostic_values(snapshot, counts["bad"], counts["failed"], facts)
        status = DiagnosticStatus(
            level=bytes([level]),
            name=f"{self.get_fully_qualified_name()}: features",
            message=sentence,
            hardware_id=facts["device"],
            values=[KeyValue(key=key, value=value) for key, value in values.items()],
        )
        message = DiagnosticArray(status=[status])
        message.header.stamp = self.get_clock().now().to_msg()
        self._diagnostics_publisher.publish(message)


def _heard(publisher: Any) -> bool:
    """Whether anyone subscribes: building a message for nobody costs up to a millisecond."""
    return bool(publisher.get_subscription_count() > 0)
