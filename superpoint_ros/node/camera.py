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

from superpoint_ros.features.emptiness import likely_reason
from superpoint_ros.features.extractor import Features
from superpoint_ros.features.homography import HomographyStatus
from superpoint_ros.features.levels import Levels, levels_for
from superpoint_ros.features.rectification import COEFFICIENTS
from superpoint_ros.frontend.egomotion import Egomotion
from superpoint_ros.frontend.parameters import Parameters
from superpoint_ros.frontend.stamps import nanoseconds
from superpoint_ros.frontend.track_points import PointTracks
from superpoint_ros.frontend.tracker import Motion, Tracker
from superpoint_ros.node.faults import Faults, harmless
from superpoint_ros.node.health import IDLE, SILENCE, assess
from superpoint_ros.node.inputs import Inputs
from superpoint_ros.node.mailbox import Frame
from superpoint_ros.node.outputs import Extracted, Outputs, View
from superpoint_ros.node.statistics import Period, Statistics, diagnostic_values

AGAIN = 60.0
"""Seconds until a silent topic is complained of again."""


class Camera:
    """One camera of the node, from its configuration to its cleanup.

    index       its place in `cameras`. The only camera of a node may have an empty name: its topics are `image`,
                `~/features` …; those of "left" are `left/image`, `~/left/features` …
    on_matched  called when a subscriber of its outputs comes or goes, where rclpy tells
    device      where its frames are matched, as `Tracker` has it

    Raises ValueError or RuntimeError with a sentence for a mask, topic or QoS override that is not allowed.
    """

    def __init__(
        self, node: LifecycleNode, values: Parameters, index: int, on_matched: Callable[[], None], device: str = "cpu"
    ) -> None:
        self._node = node
        self.name = values.cameras[index]
        self._frame_id = values.per_camera("frame_ids")[index]
        self.tracker = Tracker(device)
        self.egomotion = Egomotion()
        self.statistics = Statistics()
        self.faults = Faults(lambda sentence: node.get_logger().warning(sentence))
        self._complained = 0.0
        self._times = (0.0, 0.0)  # latency and age of the features in work when they were published
        self._reported = {"bad": 0, "failed": 0, "unmatched": 0, "unmasked": 0, "incomplete": 0}
        self._introduced = False
        self._extracted: Extracted | None = None  # of the frame in work
        self._previous: Extracted | None = None
        self._keyframe: int | None = None  # the stamp of the one that was published last
        self._points = PointTracks()
        self._blank = ""  # why the last frame without keypoints had none
        slash = "/" if self.name else ""
        image_topic = values.per_camera("image_topics")[index] or f"{self.name}{slash}image"
        mask_file = values.per_camera("mask_files")[index]
        self.inputs = Inputs(node, self.name, image_topic, mask_file, values.max_image_pixels, self.faults)
        left = self.name in [left for left, _ in values.pairs()]
        self.outputs = Outputs(node, f"~/{self.name}{slash}", on_matched, values.motion, left)
        self._status_name = f"{node.get_fully_qualified_name()}: {self.name}{slash}features"

    def listen(self, on_frame: Callable[[Frame], None]) -> None:
        """Begin anew with images. Raises RuntimeError with a sentence if they cannot be subscribed to."""

        def count(frame: Frame) -> None:
            self.statistics.received()
            self._introduce(frame)
            if missing := self.inputs.missing_mask:
                self.fault("unmasked", f"no mask has come on {missing}; the frame is skipped")
                return
            on_frame(frame)

        self._introduced, self._complained = False, 0.0
        self.tracker.reset()
        self.statistics.listening()
        self.inputs.listen(count, self.statistics.lost)

    def destroy(self) -> None:
        """Take the topics back."""
        self.inputs.close()
        self.outputs.destroy()

    def fault(self, kind: str, sentence: str) -> None:
        """Count what went wrong with a frame of this camera, and say it once in a while."""
        self.faults.add(kind, self.inputs.topic, sentence)

    def incomplete(self, what: str, error: Exception) -> None:
        """Count what is missing of a frame that is out: no fault once a signal has ended the context, as then nothing
        can be published.
        """
        if self._node.context.ok():
            self.fault("incomplete", f"{what} ({type(error).__name__}: {error})")

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
    ) -> tuple[NDArray[np.int32], Levels | None]:
        """Compare a frame's features with the reference, and publish all else that is listened to.

        Returns the ids of the keypoints' tracks, none if they are off, and by what matches are refined, if they are.
        """
        stamp = nanoseconds(frame.header.stamp)
        outputs = self.outputs
        positions = self.moves or outputs.wants_matches(values) or outputs.wants_track_cloud(values)
        try:
            levels = levels_for(found, picture, mask) if values.refine else None
            motion = self.tracker.advance(
                stamp, found, **values.tracking(), levels=levels, positions=positions and values.refine
            )
        except Exception:
            if values.tracks:  # the features need not be lost with their ids
                self._send_features(frame, found, values, weights_id, None)
            raise
        if values.tracks:
            self._send_features(frame, found, values, weights_id, motion.track_ids)
        header = self.header(frame)
        self._publish_keyframe(stamp, motion, values)
        self.outputs.publish_motion(header, motion, values)
        if self.outputs.wants_track_cloud(values):
            self._publish_track_cloud(header, stamp, found, motion, values)
        if self.moves:
            self._publish_pose(header, stamp, found, motion)
        if not len(found):
            self._blank = likely_reason(picture, mask)
        self.statistics.published(*self._times, len(found))
        if motion.reference_stamp is not None:
            # what is not asked for does not fail
            self.statistics.compared(not values.publish_homography or motion.homography.status == HomographyStatus.OK)
        view = View(header, picture, found, motion, self._times[0])
        try:
            self.outputs.show(view, lambda xy, size: self.inputs.rays(xy, size, stamp))
        except Exception as error:  # what people look at costs nothing else
            self.incomplete("a frame is not shown", error)
        return motion.track_ids, levels

    def _publish_pose(self, header: Any, stamp: int, found: Features, motion: Motion) -> None:
        try:
            pose = self.egomotion.advance(stamp, motion, self.inputs.calibration_of(found.size, stamp))
            self.outputs.publish_pose(header, motion, pose)
        except Exception as error:  # all else that comes of the frame is out
            self.incomplete("a motion in space is not estimated", error)

    @property
    def moves(self) -> bool:
        """Whether its motion in space is asked for and listened to."""
        return self.outputs.wants_pose()

    def _publish_keyframe(self, stamp: int, motion: Motion, values: Parameters) -> None:
        """Before what refers to it; it is this frame, or the one before."""
        keyframe, extracted = motion.reference_stamp, self._previous
        if keyframe is None:
            keyframe, extracted = stamp, self._extracted
        anew = motion.reference_stamp is None or keyframe != self._keyframe  # a bag that loops has equal stamps
        if values.reference == "keyframe" and anew and extracted is not None:
            self.outputs.publish_keyframe(extracted, values)
            self._keyframe = keyframe
        self._previous = self._extracted

    def _publish_track_cloud(
        self, header: Any, stamp: int, found: Features, motion: Motion, values: Parameters
    ) -> None:
        xy = found.xy.copy()
        xy[motion.matches[:, 1]] = motion.current_xy
        try:
            normalised = self.inputs.normalised(xy, found.size, stamp)
            if normalised is not None and len(motion.track_ids):
                points = self._points.advance(stamp, motion.track_ids, xy, normalised)
                self.outputs.publish_track_cloud(header, points, values)
        except Exception as error:
            self.incomplete("tracks are not published", error)

    def _send_features(
        self,
        frame: Frame,
        found: Features,
        values: Parameters,
        weights_id: str,
        track_ids: NDArray[np.int32] | None,
    ) -> None:
        try:
            rectified = self.inputs.rectified(found, nanoseconds(frame.header.stamp))
        except Exception as error:
            rectified = None
            self.incomplete("keypoints are not rectified", error)
        self._extracted = Extracted(self.header(frame), found, weights_id, track_ids, rectified)
        self.outputs.publish_features(self._extracted, values)
        age = self._node.get_clock().now() - Time.from_msg(frame.header.stamp, self._node.get_clock().clock_type)
        self._times = (time.monotonic() - frame.received, age.nanoseconds / 1e9)

    def header(self, frame: Frame) -> Any:
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
        snapshot, period = self.statistics.snapshot(), self.statistics.period()
        idle = state == "active" and not self.inputs.listening
        level, sentence = assess(
            IDLE if idle else state,
            self.inputs.topic,
            period,
            snapshot.silence_s,
            new,
            remarks if idle else [*remarks, *self._remarks(period)],
            values.max_age,
            values.overload_drops,
        )
        facts = {
            "topic": self.inputs.topic,
            "calibration": self.inputs.calibration,
            "subscribers": str(self.outputs.subscribers),
            "rate_in_hz": f"{period.rates[0]:.1f}",
            "rate_out_hz": f"{period.rates[1]:.1f}",
            **self.inputs.intensity,
            **({"masks_bad": str(self.faults.count("mask"))} if values.use_mask_topic else {}),
            **facts,
        }
        return DiagnosticStatus(
            level=bytes([level]),
            name=self._status_name,
            message=sentence,
            hardware_id=self.name or self.inputs.topic,
            values=[KeyValue(key=k, value=v) for k, v in diagnostic_values(snapshot, counts, facts).items()],
        )

    def _remarks(self, period: Period) -> list[str]:
        """What is wrong with this camera's inputs or pictures."""
        remarks, calibration = [], self.inputs.calibration
        if calibration and calibration not in COEFFICIENTS:
            remarks.append(f"{self.inputs.without_calibration}: {calibration}")
        if missing := self.inputs.missing_mask:
            remarks.append(f"no mask has come on {missing}, and no image is extracted without")
        if bad := self.inputs.bad_mask:
            remarks.append(bad)
        if period.empty and period.empty == period.frames_out:
            remarks.append(f"no keypoints in the last second: {self._blank}")
        return remarks

    def _introduce(self, frame: Frame) -> None:
        """Log the first image, and the first after a silence that was complained of."""
        if self._introduced and not self._complained:
            return
        message, again = frame.message, " again" if self._introduced else ""
        kind = message.format if hasattr(message, "format") else f"{message.width}×{message.height} {message.encoding}"
        self._introduced, self._complained = True, 0.0
        self._node.get_logger().info(f"Images come in on {self.inputs.topic}{again}: {harmless(repr(kind))}.")

    def complain_of_silence(self) -> None:
        """Log who publishes the topic, when no image came for a while: once, and again every minute."""
        silence = self.statistics.snapshot().silence_s if self.inputs.listening else 0.0
        if silence <= SILENCE:
            self._complained = 0.0
        elif silence - self._complained > AGAIN or not self._complained:
            self._complained = silence
            publishers = self.inputs.publishers()
            self._node.get_logger().warning(f"no image on {self.inputs.topic} for {silence:.0f} s; {publishers}")
