"""From frames to messages: decode → extract → publish features → match and publish the rest, in the worker's thread."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from rclpy.lifecycle import LifecycleNode

from superpoint_ros.features.extractor import Extractor, Features
from superpoint_ros.frontend.advice import Advice
from superpoint_ros.frontend.parameters import Parameters
from superpoint_ros.network.engines.devices import DeviceLost
from superpoint_ros.node.camera import Camera
from superpoint_ros.node.mailbox import Frame
from superpoint_ros.node.stereo import Seen, StereoPair


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


class Pipeline:
    """What becomes of the frames of a rig. A frame that fails costs no other; it is counted and told of by its camera.

    values     those of the configuration
    is_wanted  whether results are still to be published: a GPU may hang until nobody waits for it
    on_lost    called when the GPU answers no more
    """

    def __init__(
        self,
        node: LifecycleNode,
        extractor: Extractor,
        cameras: Mapping[str, Camera],
        values: Parameters,
        is_wanted: Callable[[], bool],
        on_lost: Callable[[DeviceLost], None],
    ) -> None:
        self._node = node
        self._extractor = extractor
        self._cameras = cameras
        self._is_wanted = is_wanted
        self._on_lost = on_lost
        self._advice = Advice(values.weights, self._counts)
        self._pairs = [
            StereoPair(cameras[left], cameras[right], lambda text: node.get_logger().warning(text))
            for left, right in values.pairs()
        ]

    def process(self, frames: list[Frame], values: Parameters) -> None:
        """Decode, extract and publish frames, at most one of each camera, together as far as they are alike."""
        begun = time.monotonic()
        # What goes through the network in another size or yields another number of keypoints is a batch of its own.
        batches: dict[tuple[int, int], list[Decoded]] = {}
        for frame in frames:
            camera, own = self._cameras[frame.camera], values.of(frame.camera)
            try:
                picture, mask = camera.inputs.decode(frame.message, own)
            except ValueError as error:
                camera.fault("bad", f"{error}; the frame is skipped")
                continue
            except Exception as error:  # it must not cost the other cameras' frames, whatever is wrong with it
                self.lose(error, [frame])
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
                camera = self._cameras[frame.camera]
                tracks, levels = camera.publish_motion(
                    frame, one.picture, one.mask, found, values, self._extractor.weights_id
                )
                seen[frame.camera] = Seen(frame, levels, found, tracks)
            except Exception as error:
                self.lose(error, [frame])
        self._publish_pairs(seen, values)
        if sent:
            whole = time.monotonic() - begun
            self._advise(sent[0][0].picture, whole / len(frames), extraction / len(frames))

    def lose(self, error: Exception, frames: list[Frame]) -> None:
        """Count frames that an error cost, and say so."""
        if not self._node.context.ok():
            return  # publishing fails once the process is asked to end
        if isinstance(error, DeviceLost):
            self._on_lost(error)
        for frame in frames:
            self._cameras[frame.camera].fault("failed", f"a frame is lost to {type(error).__name__}: {error}")

    def _extract(self, batch: list[Decoded]) -> list[tuple[Decoded, Features]]:
        """Extract frames that are alike, and publish their features; those of which that went well."""
        # Only here, in the worker's thread: a live change must not meet a batch half way.
        batch[0].values.apply(self._extractor)
        self._prepare([one.picture for one in batch])
        try:
            results = self._extractor.batch([one.picture for one in batch], [one.mask for one in batch])
        except Exception as error:
            if len(batch) == 1 or isinstance(error, DeviceLost):
                self.lose(error, [one.frame for one in batch])
                return []
            # Each alone: one that is too large must not cost the rest.
            return [sent for one in batch for sent in self._extract([one])]
        sent = []
        for one, found in zip(batch, results, strict=True):
            camera = self._cameras[one.frame.camera]
            if not self._is_wanted():
                camera.fault("failed", "a frame is thrown away, as it was not done in time")
                continue
            try:
                camera.publish_features(one.frame, found, one.values, self._extractor.weights_id)
                sent.append((one, found))
            except Exception as error:
                self.lose(error, [one.frame])
        return sent

    def _publish_pairs(self, seen: dict[str, Seen], values: Parameters) -> None:
        for pair in self._pairs:
            left, right = seen.get(pair.left.name), seen.get(pair.right.name)
            if left is None or right is None:
                continue
            try:
                pair.publish(left, right, values)
            except Exception as error:  # the features of both are out
                pair.left.incomplete("a stereo pair is not matched", error)

    def _prepare(self, pictures: Sequence[NDArray[np.uint8]]) -> None:
        """Let a GPU prepare itself at the first picture of a size, and not when one more camera first joins in."""
        for height, width in {picture.shape for picture in pictures}:
            try:
                seconds = self._extractor.prepare((height, width), len(self._cameras))
            except Exception as error:
                self._node.get_logger().warning(f"{self._extractor.device} is not prepared: {error}")
                return  # the frames are tried all the same, and say what fails
            if seconds:
                self._node.get_logger().info(
                    f"{self._extractor.device} was prepared for up to {len(self._cameras)} picture(s) of "
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
        frames_in, dropped = zip(*(camera.statistics.counts() for camera in self._cameras.values()), strict=True)
        return sum(frames_in), sum(dropped)
