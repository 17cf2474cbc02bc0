"""What belongs to one camera: inputs, tracker, outputs, counters and diagnostics."""

from __future__ import annotations

import time
from collections.abc import Callable

from diagnostic_msgs.msg import DiagnosticStatus, KeyValue
from rclpy.lifecycle import LifecycleNode
from rclpy.time import Time
from std_msgs.msg import Header

from superpoint_ros.features.extractor import Features
from superpoint_ros.node.faults import Faults
from superpoint_ros.node.inputs import Inputs
from superpoint_ros.node.mailbox import Frame
from superpoint_ros.node.outputs import Outputs
from superpoint_ros.node.parameters import Parameters
from superpoint_ros.node.statistics import Statistics, assess, diagnostic_values
from superpoint_ros.node.tracker import Tracker


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

    def destroy(self) -> None:
        """Take the topics back."""
        self.inputs.unsubscribe()
        self.outputs.destroy()

    def fault(self, kind: str, sentence: str) -> None:
        """Count what went wrong with a frame of this camera, and say it once in a while."""
        self.faults.add(kind, self.inputs.topic, sentence)

    def publish(self, frame: Frame, found: Features, values: Parameters, weights_id: str) -> None:
        """Compare a frame's features with the reference, and publish all that is listened to."""
        header = frame.header
        stamp = Time.from_msg(header.stamp)
        motion = self.tracker.advance(
            stamp.nanoseconds,
            found,
            values.homography_threshold,
            values.match_ratio if values.match_ratio < 1 else None,
            values.min_similarity if values.min_similarity > -1 else None,
            values.reference,
            values.keyframe_min_inliers,
            values.track_max_gap if values.tracks else None,
        )
        if self._frame_id:
            header = Header(stamp=header.stamp, frame_id=self._frame_id)
        self.outputs.publish(header, found, motion, self.inputs.rectified(found), weights_id, values)
        age = (self._node.get_clock().now().nanoseconds - stamp.nanoseconds) / 1e9
        self.statistics.published(time.monotonic() - frame.received, age, len(found))

    def status(self, state: str, facts: dict[str, str]) -> DiagnosticStatus:
        """This camera's diagnostics; `state` of the lifecycle, `facts` about the network."""
        counts = {kind: self.faults.count(kind) for kind in self._reported}
        new = {kind: count - self._reported[kind] for kind, count in counts.items()}
        self._reported = counts
        snapshot = self.statistics.snapshot()
        topic = self.inputs.topic
        level, sentence = assess(state, [topic], snapshot, new["bad"], new["failed"])
        facts = {"topic": topic, "calibration": self.inputs.calibration, **facts}
        return DiagnosticStatus(
            level=bytes([level]),
            name=self._status_name,
            message=sentence,
            hardware_id=facts["device"],
            values=[KeyValue(key=k, value=v) for k, v in diagnostic_values(snapshot, counts, facts).items()],
        )
