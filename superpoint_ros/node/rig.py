"""The cameras of a configured node, and the one worker that serves them all while it is active."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from rclpy.lifecycle import LifecycleNode

from superpoint_ros.features.extractor import Extractor, Features
from superpoint_ros.frontend.advice import Advice
from superpoint_ros.frontend.parameters import Parameters
from superpoint_ros.frontend.rate import RateLimit
from superpoint_ros.network.engines.devices import DeviceLost
from superpoint_ros.node.camera import AGAIN, Camera
from superpoint_ros.node.health import SILENCE
from superpoint_ros.node.mailbox import Frame, Mailbox, Worker
from superpoint_ros.node.stereo import Seen, StereoPair
from superpoint_ros.node.synchroniser import Synchroniser, message_filters

SET = "set"
"""The mailbox slot of synchronised sets."""
STOP_LIMIT = 10.0
"""Seconds that stopping waits for the frames in work: a GPU may hang."""


@dataclass(frozen=True)
class Decoded:
    """A frame that can be extracted.

    picture  (H, W) uint8
    mask     (H, W) bool, or None: keypoints may be anywhere
    values   the parameters of its camera
    """

    frame: Frame
    picture: NDArray[np.uint8]
    mask: NDArray[np.bool_] | None
    values: Parameters


class Rig:
    """image callback (→ synchroniser) → mailbox, newest wins → worker: decode → extract → publish.

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
        self._on_lost = on_lost
        self._extractor = extractor
        self._worker: Worker | None = None
        self._abandoned: Worker | None = None
        self._synchroniser: Synchroniser | None = None
        self._post: Callable[[str, Sequence[Frame]], None] = lambda slot, frames: None
        self._complained: float | None = None
        self._advice = Advice(values.weights, self._counts)
        self.values = values
        self.cameras: dict[str, Camera] = {}
        if values.synchronise != "none":
            message_filters()
        try:
            for index, name in enumerate(values.cameras):
                self.cameras[name] = Camera(node, values, index, on_matched, extractor.device)
            self._pairs = [
                StereoPair(self.cameras[left], self.cameras[right], lambda text: node.get_logger().warning(text))
                for left, right in values.pairs()
            ]
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
        # Where a batch is no faster than its images one by one, none waits for another's.
        mailbox = Mailbox(slots, in_turn=not self._synchronised and not self._extractor.batches)
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
        self._worker = Worker(mailbox, self._process, self._lose)
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
            camera.inputs.close()
        self._end_synchroniser()
        worker = self._worker
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

    # In the worker's thread

    def _process(self, frames: list[Frame]) -> None:
        values, begun = self.values, time.monotonic()
        # What goes through the network in another size or yields another number of keypoints is a batch of its own.
        batches: dict[tuple[int, int], list[Decoded]] = {}
        for frame in frames:
            camera, own = self.cameras[frame.camera], values.of(frame.camera)
            try:
                picture, mask = camera.inputs.decode(frame.message, own)
            except ValueError as error:
                camera.fault("bad", f"{error}; the frame is skipped")
                continue
            except Exception as error:  # it must not cost the other cameras' frames, whatever is wrong with it
                self._lose(error, [frame])
                continue
            batches.setdefault((own.resize, own.max_keypoints), []).append(Decoded(frame, picture, mask, own))
        extraction, sent = 0.0, []
        for batch in batches.values():
            extracting = time.monotonic()
            sent += self._extract(batch)
            extraction += time.monotonic() - extracting
        # Matching takes many times as long as publishing: the features of all cameras come first.
        seen = {}
        for one, found in sent:
            frame = one.frame
            try:
                camera = self.cameras[frame.camera]
                tracks = camera.publish_motion(frame, one.picture, one.mask, found, values, self._extractor.weights_id)
                seen[frame.camera] = Seen(frame, one.picture, one.mask, found, tracks)
            except Exception as error:
                self._lose(error, [frame])
        self._publish_pairs(seen, values)
        if sent:
            whole = time.monotonic() - begun
            self._advise(sent[0][0].picture, whole / len(frames), extraction / len(frames))

    def _extract(self, batch: list[Decoded]) -> list[tuple[Decoded, Features]]:
        """Extract frames that are alike, and publish their features; those of which that went well."""
        # Only here, in the worker's thread: a live change must not meet a batch half way.
        batch[0].values.apply(self._extractor)
        self._prepare([one.picture for one in batch])
        try:
            results = self._extractor.batch([one.picture for one in batch], [one.mask for one in batch])
        except Exception as error:
            if len(batch) == 1 or isinstance(error, DeviceLost):
                self._lose(error, [one.frame for one in batch])
                return []
            # Each alone: one that is too large must not cost the rest.
            return [sent for one in batch for sent in self._extract([one])]
        sent = []
        for one, found in zip(batch, results, strict=True):
            camera = self.cameras[one.frame.camera]
            if self._worker is None:
                camera.fault("failed", "a frame is thrown away, as it was not done in time")
                continue
            try:
                camera.publish_features(one.frame, found, one.values, self._extractor.weights_id)
                sent.append((one, found))
            except Exception as error:
                self._lose(error, [one.frame])
        return sent

    def _publish_pairs(self, seen: dict[str, Seen], values: Parameters) -> None:
        for pair in self._pairs:
            left, right = seen.get(pair.left.name), seen.get(pair.right.name)
            if left is None or right is None:
                continue
            try:
                pair.publish(left, right, values)
            except Exception as error:  # the features of both are out
                pair.left.fault("incomplete", f"a stereo pair is not matched ({type(error).__name__}: {error})")

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

    def _lose(self, error: Exception, frames: list[Frame]) -> None:
        if not self._node.context.ok():
            return  # publishing fails once the process is asked to end
        if isinstance(error, DeviceLost):
            self._on_lost(error)
        for frame in frames:
            self.cameras[frame.camera].fault("failed", f"a frame is lost to {type(error).__name__}: {error}")


def _topics(cameras: Sequence[Camera]) -> str:
    return ", ".join(camera.inputs.topic for camera in cameras)
