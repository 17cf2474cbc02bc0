"""What belongs to one camera: inputs, tracker, outputs, counters and diagnostics."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import numpy as np
from diagnostic_msgs.msg import DiagnosticStatus, KeyValue
from numpy.typing import NDArray
from rclpy.lifecycle import LifecycleNode
from rclpy.time import Time
from std_msgs.msg import Header

from superpoint_ros.features.extractor import Features
from superpoint_ros.features.rectification import COEFFICIENTS
from superpoint_ros.frontend.parameters import Parameters
from superpoint_ros.frontend.tracker import Tracker
from superpoint_ros.node.faults import Faults
from superpoint_ros.node.health import SILENCE, assess
from superpoint_ros.node.inputs import Inputs
from superpoint_ros.node.mailbox import Frame
from superpoint_ros.node.outputs import Outputs, View
from superpoint_ros.node.statistics import Statistics, diagnostic_values

AGAIN = 60.0
"""Seconds until a silent topic is complained of again."""


class Camera:
    """One camera of the node, from its configuration to its cleanup.

    index  its place in `cameras`. The only camera of a node may have an empty name: its topics are `image`,
           `~/features` …; those of "left" are `left/image`, `~/left/features` …

    Raises ValueError or RuntimeError with a sentence for a mask, topic or QoS override that is not allowed.
    """

    def __init__(self, node: LifecycleNode, values: Parameters, index: int) -> None:
        self._node = node
        self.name = values.cameras[index]
        self._frame_id = values.per_camera("frame_ids")[index]
        self.tracker = Tracker()
        self.statistics = Statistics()
        self.faults = Faults(lambda sentence: node.get_logger().warning(sentence))
        self._complained = 0.0
        self._times = (0.0, 0.0)  # latency and age of the features in work when they were published
        self._reported = {"bad": 0, "failed": 0, "unmatched": 0}
        slash = "/" if self.name else ""
        image_topic = values.per_camera("image_topics")[index] or f"{self.name}{slash}image"
        mask_file = values.per_camera("mask_files")[index]
        self.inputs = Inputs(node, self.name, image_topic, mask_file, self.faults)
        self.outputs = Outputs(node, f"~/{self.name}{slash}")
        self._status_name = f"{node.get_fully_qualified_name()}: {self.name}{slash}features"

    def subscribe(self, values: Parameters, depth: int, on_frame: Callable[[Frame], None]) -> None:
        """Listen, with a queue of `depth`. Raises RuntimeError with a sentence if that cannot be."""

        def count(frame: Frame) -> None:
            self.statistics.received()
            on_frame(frame)

        self.inputs.subscribe(values, depth, count)
        self.statistics.listening()

    def destroy(self) -> None:
        """Take the topics back."""
        self.inputs.unsubscribe()
        self.outputs.destroy()

    def fault(self, kind: str, sentence: str) -> None:
        """Count what went wrong with a frame of this camera, and say it once in a while."""
        self.faults.add(kind, self.inputs.topic, sentence)

    # In the worker's thread

    def publish_features(self, frame: Frame, found: Features, values: Parameters, weights_id: str) -> None:
        """Publish a frame's features at once, unless they wait for track ids."""
        if not values.tracks:
            self._send_features(frame, found, values, weights_id, None)

    def publish_motion(
        self,
        frame: Frame,
        picture: NDArray[np.uint8],
        mask: NDArray[np.bool_] | None,
        found: Features,
        values: Parameters,
        weights_id: str,
    ) -> None:
        """Compare a frame's features with the reference, and publish all else that is listened to."""
        stamp = Time.from_msg(frame.header.stamp).nanoseconds
        seen: dict[str, Any] = {"picture": picture, "mask": mask, "positions": self.outputs.wants_matches(values)}
        try:
            motion = self.tracker.advance(stamp, found, **values.tracking(), **(seen if values.refine else {}))
        except Exception:
            if values.tracks:  # the features need not be lost with their ids
                self._send_features(frame, found, values, weights_id, None)
            raise
        if values.tracks:
            self._send_features(frame, found, values, weights_id, motion.track_ids)
        header = self._header(frame)
        self.outputs.publish_motion(header, motion, values)
        self.statistics.published(*self._times, len(found))
        self.outputs.show(View(header, picture, found, motion, self._times[0]), self.inputs.rays)

    def _send_features(
        self,
        frame: Frame,
        found: Features,
        values: Parameters,
        weights_id: str,
        track_ids: NDArray[np.int32] | None,
    ) -> None:
        rectified = self.inputs.rectified(found)
        self.outputs.publish_features(self._header(frame), found, values, weights_id, track_ids, rectified)
        age = self._node.get_clock().now() - Time.from_msg(frame.header.stamp, self._node.get_clock().clock_type)
        self._times = (time.monotonic() - frame.received, age.nanoseconds / 1e9)

    def _header(self, frame: Frame) -> Any:
        """Of all that is published for a frame: the image's, or the frame that was asked for in its place."""
        if not self._frame_id:
            return frame.header
        return Header(stamp=frame.header.stamp, frame_id=self._frame_id)

    # Diagnostics

    def status(self, state: str, values: Parameters, facts: dict[str, str], remarks: list[str]) -> DiagnosticStatus:
        """This camera's diagnostics since the last call.

        state    of the lifecycle
        facts    about the network
        remarks  what is wrong with the node as a whole
        """
        counts = {kind: self.faults.count(kind) for kind in self._reported}
        new = {kind: count - self._reported[kind] for kind, count in counts.items()}
        self._reported = counts
        snapshot, calibration = self.statistics.snapshot(), self.inputs.calibration
        if calibration and calibration not in COEFFICIENTS:
            remarks = [*remarks, f"keypoints are not rectified: {calibration}"]
        level, sentence = assess(
            state,
            self.inputs.topic,
            self.statistics.period(),
            snapshot.silence_s,
            new,
            remarks,
            values.max_age,
            values.overload_drops,
        )
        facts = {"topic": self.inputs.topic, "calibration": calibration, **facts}
        return DiagnosticStatus(
            level=bytes([level]),
            name=self._status_name,
            message=sentence,
            hardware_id=facts["device"],
            values=[KeyValue(key=k, value=v) for k, v in diagnostic_values(snapshot, counts, facts).items()],
        )

    def complain_of_silence(self) -> None:
        """Log who publishes the topic, when no image came for a while: once, and again every minute."""
        silence = self.statistics.snapshot().silence_s
        if silence <= SILENCE:
            self._complained = 0.0
        elif silence - self._complained > AGAIN or not self._complained:
            self._complained = silence
            publishers = self.inputs.publishers()
            self._node.get_logger().warning(f"no image on {self.inputs.topic} for {silence:.0f} s; {publishers}")
