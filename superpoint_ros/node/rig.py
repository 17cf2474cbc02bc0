"""The cameras of a configured node, and the one worker that serves them all while it is active."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from rclpy.lifecycle import LifecycleNode

from superpoint_ros.features.extractor import Extractor
from superpoint_ros.frontend.parameters import Parameters
from superpoint_ros.node.camera import Camera
from superpoint_ros.node.mailbox import Frame, Mailbox, Worker
from superpoint_ros.node.synchroniser import Synchroniser, message_filters

SET = "set"
"""The mailbox slot of synchronised sets."""


class Rig:
    """image callback (→ synchroniser) → mailbox, newest wins → worker: decode → extract → publish.

    values  the parameters; may be replaced at any time

    Raises ValueError or RuntimeError with a sentence for a mask, topic name or QoS override that is not allowed,
    and if message_filters is needed and absent.
    """

    def __init__(self, node: LifecycleNode, extractor: Extractor, values: Parameters) -> None:
        self._node = node
        self._extractor = extractor
        self._worker: Worker | None = None
        self.values = values
        self.cameras: dict[str, Camera] = {}
        if values.synchronise != "none":
            message_filters()
        try:
            for index, name in enumerate(values.cameras):
                self.cameras[name] = Camera(node, values, index)
        except Exception:
            self.destroy()
            raise

    @property
    def running(self) -> bool:
        """Whether it listens to its cameras."""
        return self._worker is not None

    def start(self) -> None:
        """Listen to the cameras and work; RuntimeError with a sentence if a topic is refused."""
        synchronised = self.values.synchronise != "none"
        mailbox = Mailbox([SET] if synchronised else list(self.cameras))
        self._worker = Worker(mailbox, self._process, self._lose)

        def post(slot: str, frames: Sequence[Frame]) -> None:
            for dropped in mailbox.put(slot, frames):
                self.cameras[dropped.camera].statistics.dropped()

        on_frame = self._synchronised(post) if synchronised else lambda f: post(f.camera, [f])
        # The newest frame wins; but of a set none may be overtaken before it found its partners.
        depth = self.values.sync_queue if synchronised else 1
        self.reset()
        try:
            for camera in self.cameras.values():
                camera.subscribe(self.values, depth, on_frame)
        except RuntimeError:
            self.stop()
            raise

    def stop(self) -> None:
        """Stop listening, and finish the frames in work."""
        for camera in self.cameras.values():
            camera.inputs.unsubscribe()
        if self._worker is not None:
            self._worker.stop()
            self._worker = None

    def reset(self) -> None:
        """Forget references and tracks of all cameras."""
        for camera in self.cameras.values():
            camera.tracker.reset()

    def destroy(self) -> None:
        """Stop, and take the topics back."""
        self.stop()
        for camera in self.cameras.values():
            camera.destroy()

    def _synchronised(self, post: Callable[[str, Sequence[Frame]], None]) -> Callable[[Frame], None]:
        values = self.values
        slop = values.sync_slop if values.synchronise == "approximate" else 0.0
        within = f"within {slop} s of its stamp" if slop else "with its stamp"

        def on_unmatched(name: str) -> None:
            self.cameras[name].fault("unmatched", f"a frame had no partners {within}")

        synchroniser = Synchroniser(list(self.cameras), slop, values.sync_queue, on_unmatched)

        def on_frame(frame: Frame) -> None:
            try:
                for frames in synchroniser.add(frame):
                    post(SET, frames)
            except ValueError as error:
                self.cameras[frame.camera].fault("bad", f"{error}; the frame is skipped")

        return on_frame

    # In the worker's thread

    def _process(self, frames: list[Frame]) -> None:
        values = self.values
        good, pictures, masks = [], [], []
        for frame in frames:
            camera = self.cameras[frame.camera]
            try:
                picture, mask = camera.inputs.decode(frame.message, values)
            except ValueError as error:
                camera.fault("bad", f"{error}; the frame is skipped")
                continue
            good.append(frame)
            pictures.append(picture)
            masks.append(mask)
        # Only here, in the worker's thread: a live change must not meet a batch half way.
        values.apply(self._extractor)
        try:
            results = self._extractor.batch(pictures, masks)
        except Exception as error:
            self._lose_one_by_one(error, good)
            return
        weights_id = self._extractor.weights_id
        sent = []
        for frame, picture, mask, found in zip(good, pictures, masks, results, strict=True):
            try:
                self.cameras[frame.camera].publish_features(frame, found, values, weights_id)
                sent.append((frame, picture, mask, found))
            except Exception as error:
                self._lose(error, [frame])
        # Matching takes many times as long as publishing: the features of all cameras come first.
        for frame, picture, mask, found in sent:
            try:
                self.cameras[frame.camera].publish_motion(frame, picture, mask, found, values, weights_id)
            except Exception as error:
                self._lose(error, [frame])

    def _lose_one_by_one(self, error: Exception, frames: list[Frame]) -> None:
        """Try each frame of a failed batch alone: one that is too large must not cost the rest."""
        if len(frames) == 1:
            self._lose(error, frames)
            return
        for frame in frames:
            self._process([frame])

    def _lose(self, error: Exception, frames: list[Frame]) -> None:
        if not self._node.context.ok():
            return  # publishing fails once the process is asked to end
        for frame in frames:
            self.cameras[frame.camera].fault("failed", f"a frame is lost to {type(error).__name__}: {error}")
