"""The cameras of a configured node, and the one worker that serves them all while it is active."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray
from rclpy.lifecycle import LifecycleNode

from superpoint_ros.features.extractor import Extractor
from superpoint_ros.frontend.advice import Advice
from superpoint_ros.frontend.parameters import Parameters
from superpoint_ros.network.engines.devices import DeviceLost
from superpoint_ros.node.camera import AGAIN, Camera
from superpoint_ros.node.health import SILENCE
from superpoint_ros.node.mailbox import Frame, Mailbox, Worker
from superpoint_ros.node.synchroniser import Synchroniser, message_filters

SET = "set"
"""The mailbox slot of synchronised sets."""
STOP_LIMIT = 10.0
"""Seconds that stopping waits for the frames in work: a GPU may hang."""


class Rig:
    """image callback (→ synchroniser) → mailbox, newest wins → worker: decode → extract → publish.

    values   the parameters; may be replaced at any time
    on_lost  called, in the worker's thread, when the GPU answers no more

    Raises ValueError or RuntimeError with a sentence for a mask, topic name or QoS override that is not allowed,
    and if message_filters is needed and absent.
    """

    def __init__(
        self,
        node: LifecycleNode,
        extractor: Extractor,
        values: Parameters,
        on_lost: Callable[[DeviceLost], None],
    ) -> None:
        self._node = node
        self._on_lost = on_lost
        self._extractor = extractor
        self._worker: Worker | None = None
        self._abandoned: Worker | None = None
        self._synchroniser: Synchroniser | None = None
        self._complained: float | None = None
        self._advice = Advice(values.weights, self._counts)
        self.values = values
        self.cameras: dict[str, Camera] = {}
        if values.synchronise != "none":
            message_filters()
        try:
            for index, name in enumerate(values.cameras):
                self.cameras[name] = Camera(node, values, index, extractor.device)
        except Exception:
            self.destroy()
            raise

    @property
    def running(self) -> bool:
        """Whether it listens to its cameras."""
        return self._worker is not None

    def start(self) -> None:
        """Listen to the cameras and work; RuntimeError with a sentence if that cannot be."""
        if self._abandoned is not None and self._abandoned.busy:
            raise RuntimeError("The frame that was in work when the node stopped is so still; try again later.")
        synchronised = self.values.synchronise != "none"
        # Where a batch is no faster than its images one by one, none waits for another's.
        in_turn = not synchronised and not self._extractor.batches
        mailbox = Mailbox([SET] if synchronised else list(self.cameras), in_turn)

        def post(slot: str, frames: Sequence[Frame]) -> None:
            for dropped in mailbox.put(slot, frames):
                self.cameras[dropped.camera].statistics.dropped()

        on_frame = self._synchronised(post) if synchronised else lambda f: post(f.camera, [f])
        # The newest frame wins; but of a set none may be overtaken before it found its partners.
        depth = self.values.sync_queue if synchronised else 1
        self.reset()
        self._worker = Worker(mailbox, self._process, self._lose)
        try:
            for camera in self.cameras.values():
                camera.subscribe(self.values, depth, on_frame)
        except BaseException:
            self.stop()
            raise

    def stop(self) -> None:
        """Stop listening, and finish the frames in work; those that take longer than STOP_LIMIT are thrown away."""
        for camera in self.cameras.values():
            camera.inputs.unsubscribe()
        if self._synchroniser is not None:
            self._synchroniser.end()
        worker, self._synchroniser = self._worker, None
        if worker is None:
            return
        for dropped in worker.stop(STOP_LIMIT):
            self.cameras[dropped.camera].statistics.dropped()
        if worker.busy:
            self._abandoned = worker
            self._node.get_logger().warning(
                f"The frame in work is not done after {STOP_LIMIT:.0f} s; the node stops without it."
            )
        self._worker = None

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

    def _synchronised(self, post: Callable[[str, Sequence[Frame]], None]) -> Callable[[Frame], None]:
        values = self.values
        slop = values.sync_slop if values.synchronise == "approximate" else 0.0

        def on_unmatched(name: str) -> None:
            # Of a camera that is faster than another most frames have no partner: no reason for a word.
            self.cameras[name].faults.count_only("unmatched")

        synchroniser = Synchroniser(list(self.cameras), slop, values.sync_queue, on_unmatched, SILENCE)
        self._synchroniser, self._complained = synchroniser, None

        def on_frame(frame: Frame) -> None:
            try:
                for frames in synchroniser.add(frame):
                    post(SET, frames)
            except ValueError as error:
                self.cameras[frame.camera].fault("bad", f"{error}; the frame is skipped")

        return on_frame

    # In the worker's thread

    def _process(self, frames: list[Frame]) -> None:
        values, begun = self.values, time.monotonic()
        good, pictures, masks = [], [], []
        for frame in frames:
            camera = self.cameras[frame.camera]
            try:
                picture, mask = camera.inputs.decode(frame.message, values)
            except ValueError as error:
                camera.fault("bad", f"{error}; the frame is skipped")
                continue
            except Exception as error:  # it must not cost the other cameras' frames, whatever is wrong with it
                self._lose(error, [frame])
                continue
            good.append(frame)
            pictures.append(picture)
            masks.append(mask)
        # Only here, in the worker's thread: a live change must not meet a batch half way.
        values.apply(self._extractor)
        self._prepare(pictures)
        extracting = time.monotonic()
        try:
            results = self._extractor.batch(pictures, masks)
        except Exception as error:
            self._lose_one_by_one(error, good)
            return
        extraction, weights_id = time.monotonic() - extracting, self._extractor.weights_id
        sent = []
        for frame, picture, mask, found in zip(good, pictures, masks, results, strict=True):
            if self._worker is None:
                self.cameras[frame.camera].fault("failed", "a frame is thrown away, as it was not done in time")
                continue
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
        if sent:
            whole = time.monotonic() - begun
            self._advise(sent[0][1], whole / len(frames), extraction / len(frames))

    def _prepare(self, pictures: Sequence[NDArray[np.uint8]]) -> None:
        """Let a GPU prepare itself at the first picture of a size, and not when one more camera first joins in."""
        for height, width in {picture.shape for picture in pictures}:
            try:
                seconds = self._extractor.prepare((height, width), len(self.cameras))
            except Exception as error:
                self._node.get_logger().warning(f"{self._extractor.device} is not prepared: {error}")
                return  # the frames are tried all the same, and say what fails
            if seconds:
                self._node.get_logger().info(
                    f"{self._extractor.device} was prepared for up to {len(self.cameras)} picture(s) of "
                    f"{width}×{height} at a time in {seconds:.1f} s."
                )

    def _advise(self, picture: NDArray[np.uint8], whole: float, extraction: float) -> None:
        """Say once what would help a CPU that is too slow; seconds for a picture."""
        try:
            sentence = self._advice.after(self._extractor, picture, whole, extraction)
        except Exception as error:  # the frames are out: it must not make them count as lost
            sentence = f"What would help a CPU that is slower than its camera cannot be measured: {error}."
        if sentence:
            self._node.get_logger().warning(sentence)

    def _counts(self) -> tuple[int, int]:
        """Images of all cameras that came in, and that were dropped."""
        frames_in, dropped = zip(*(camera.statistics.counts() for camera in self.cameras.values()), strict=True)
        return sum(frames_in), sum(dropped)

    def _lose_one_by_one(self, error: Exception, frames: list[Frame]) -> None:
        """Try each frame of a failed batch alone: one that is too large must not cost the rest."""
        if len(frames) == 1 or isinstance(error, DeviceLost):
            self._lose(error, frames)
            return
        for frame in frames:
            self._process([frame])

    def _lose(self, error: Exception, frames: list[Frame]) -> None:
        if not self._node.context.ok():
            return  # publishing fails once the process is asked to end
        if isinstance(error, DeviceLost):
            self._on_lost(error)
        for frame in frames:
            self.cameras[frame.camera].fault("failed", f"a frame is lost to {type(error).__name__}: {error}")
