"""The cameras of a configured node, and the one worker that serves them all while it is active.

What the worker does with frames is in `pipeline.py`.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

from rclpy.lifecycle import LifecycleNode

from superpoint_ros.features.extractor import Extractor
from superpoint_ros.frontend.parameters import Parameters
from superpoint_ros.frontend.rate import RateLimit
from superpoint_ros.network.engines.devices import DeviceLost
from superpoint_ros.node.camera import AGAIN, Camera
from superpoint_ros.node.health import SILENCE
from superpoint_ros.node.mailbox import Frame, Mailbox, Worker
from superpoint_ros.node.pipeline import Pipeline
from superpoint_ros.node.synchroniser import Synchroniser, message_filters

SET = "set"
"""The mailbox slot of synchronised sets."""
STOP_LIMIT = 10.0
"""Seconds that stopping waits for the frames in work: a GPU may hang."""


class Rig:
    """image callback (→ synchroniser) → mailbox, newest wins → worker: pipeline.

    values      the parameters; may be replaced at any time
    on_matched  called when a subscriber of an output comes or goes, where rclpy tells; `attend` is due then
    on_lost     called, in the worker's thread, when the GPU answers no more

    Raises ValueError or RuntimeError with a sentence for a mask, topic name or QoS override that is not allowed,
    and if message_filters is needed and absent.
    """

    def __init__(
        self,
        node: LifecycleNode,
        extractor: Extractor,
        values: Parameters,
        on_matched: Callable[[], None],
        on_lost: Callable[[DeviceLost], None],
    ) -> None:
        self._node = node
        self._extractor = extractor
        self._worker: Worker | None = None
        self._abandoned: Worker | None = None
        self._synchroniser: Synchroniser | None = None
        self._post: Callable[[str, Sequence[Frame]], None] = lambda slot, frames: None
        self._complained: float | None = None
        self.values = values
        self.cameras: dict[str, Camera] = {}
        if values.synchronise != "none":
            message_filters()
        try:
            for index, name in enumerate(values.cameras):
                self.cameras[name] = Camera(node, values, index, on_matched, extractor.device)
            self._pipeline = Pipeline(node, extractor, self.cameras, values, lambda: self.running, on_lost)
        except Exception:
            self.destroy()
            raise

    @property
    def running(self) -> bool:
        """Whether it is started."""
        return self._worker is not None

    @property
    def hangs(self) -> bool:
        """Whether a frame that it did not wait for is in work still."""
        return self._abandoned is not None and self._abandoned.busy

    def start(self) -> None:
        """Be ready to work, and listen to the cameras; RuntimeError with a sentence if that cannot be."""
        if self.hangs:
            raise RuntimeError("The frame that was in work when the node stopped is so still; try again later.")
        slots = [SET] if self._synchronised else list(self.cameras)
        # Where a batch is no faster than its images one by one, none waits for another's: on a CPU, also while it does
        # the work of a GPU that lacks memory.
        synchronised = self._synchronised
        mailbox = Mailbox(slots, in_turn=lambda: not (synchronised or self._extractor.batches))
        limits = {slot: RateLimit() for slot in slots}

        def post(slot: str, frames: Sequence[Frame]) -> None:
            if not limits[slot].allows(frames[-1].received, self.values.of(slot).rate):
                for frame in frames:
                    self.cameras[frame.camera].statistics.skipped()
                return
            for dropped in mailbox.put(slot, frames):
                self.cameras[dropped.camera].statistics.dropped()

        self._post = post
        # The newest frame wins; but of a set none may be overtaken before it found its partners.
        depth = self.values.sync_queue if self._synchronised else 1
        self._worker = Worker(mailbox, lambda frames: self._pipeline.process(frames, self.values), self._pipeline.lose)
        try:
            for camera in self.cameras.values():
                camera.inputs.open(self.values, depth)
            self.attend(told=False)
        except BaseException:
            self.stop()
            raise

    def attend(self, told: bool = True) -> None:
        """Listen to those cameras of which someone wants to hear (`lazy`); of a synchronised rig to all, or none.

        told  whether what was so before is known to the log

        Raises RuntimeError with a sentence if images cannot be subscribed to.
        """
        if not self.running:
            return
        wanted = {name: not self.values.lazy or camera.outputs.subscribers > 0 for name, camera in self.cameras.items()}
        if self._synchronised:
            wanted = dict.fromkeys(wanted, any(wanted.values()))
        begun, ended = [], []
        for name, camera in self.cameras.items():
            if wanted[name] and not camera.inputs.listening:
                begun.append(camera)
            elif not wanted[name] and (camera.inputs.listening or not told):
                ended.append(camera)
        for camera in ended:
            camera.inputs.ignore()
        if self._synchronised and ended:
            self._end_synchroniser()
        if self._synchronised and begun:
            self._begin_synchroniser()
        for camera in begun:
            camera.listen(self._take)
        if begun:
            self._node.get_logger().info(f"Waiting for images on {_topics(begun)}.")
        if ended:
            self._node.get_logger().info(
                f"Nobody subscribes to what comes of images on {_topics(ended)}: they are not taken in (lazy)."
            )

    def stop(self) -> None:
        """Stop listening, and finish the frames in work; those that take longer than STOP_LIMIT are thrown away."""
        for camera in self.cameras.values():
            camera.inputs.ignore()
        self._end_synchroniser()
        if self._worker is not None:
            self._end_worker(self._worker)
        for camera in self.cameras.values():  # the frames in work needed masks and calibrations
            camera.inputs.close()

    def trouble(self) -> str:
        """Why a synchronised rig makes no sets, for the diagnostics; logged, too, once in a while."""
        sentence = self._synchroniser.trouble() if self._synchroniser else ""
        now = time.monotonic()
        if sentence and (self._complained is None or now - self._complained > AGAIN):
            self._complained = now
            self._node.get_logger().warning(f"{sentence}.")
        elif not sentence and self._complained is not None:
            self._complained = None
            self._node.get_logger().info("Sets of frames are complete again.")
        return sentence

    def reset(self) -> None:
        """Forget references and tracks of all cameras."""
        for camera in self.cameras.values():
            camera.tracker.reset()

    def destroy(self) -> None:
        """Stop, and take the topics back."""
        self.stop()
        for camera in self.cameras.values():
            camera.destroy()

    @property
    def _synchronised(self) -> bool:
        return self.values.synchronise != "none"

    def _take(self, frame: Frame) -> None:
        """An image came in."""
        if not self._synchronised:
            self._post(frame.camera, [frame])
        elif self._synchroniser is not None:
            try:
                for frames in self._synchroniser.add(frame):
                    self._post(SET, frames)
            except ValueError as error:
                self.cameras[frame.camera].fault("bad", f"{error}; the frame is skipped")

    def _begin_synchroniser(self) -> None:
        values = self.values
        slop = values.sync_slop if values.synchronise == "approximate" else 0.0

        def on_unmatched(name: str) -> None:
            # Of a camera that is faster than another most frames have no partner: no reason for a word.
            self.cameras[name].faults.count_only("unmatched")

        self._synchroniser = Synchroniser(list(self.cameras), slop, values.sync_queue, on_unmatched, SILENCE)

    def _end_synchroniser(self) -> None:
        if self._synchroniser is not None:
            self._synchroniser.end()
            self._synchroniser, self._complained = None, None

    def _end_worker(self, worker: Worker) -> None:
        for dropped in worker.stop(STOP_LIMIT):
            self.cameras[dropped.camera].statistics.dropped()
        if worker.busy:
            self._abandoned = worker
            self._node.get_logger().warning(
                f"The frame in work is not done after {STOP_LIMIT:.0f} s; the node stops without it."
            )
        self._worker = None


def _topics(cameras: Sequence[Camera]) -> str:
    return ", ".join(camera.inputs.topic for camera in cameras)
