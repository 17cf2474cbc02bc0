"""One bag on its way: a thread reads and decodes, this one runs the network, more match and estimate, one writes."""

from __future__ import annotations

import sqlite3
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import replace
from typing import TypeVar

from superpoint_ros.bags.content import TIMES, BagError, Message, sentence, stamp_nanoseconds
from superpoint_ros.bags.reader import BagReader
from superpoint_ros.features.extractor import Extractor, Features
from superpoint_ros.features.rectification import rectify
from superpoint_ros.frontend.tracker import Motion
from superpoint_ros.network.engines.devices import DeviceLost
from superpoint_ros.tools.extract.background import Behind, ahead
from superpoint_ros.tools.extract.input import Camera, Images, Picture
from superpoint_ros.tools.extract.motion import Motions
from superpoint_ros.tools.extract.output import Output
from superpoint_ros.tools.extract.resume import Done, Past, Plan
from superpoint_ros.tools.extract.summary import Summary
from superpoint_ros.tools.extract.task import Frame, Report

T = TypeVar("T")


class Work:
    """One bag's way through the threads."""

    def __init__(
        self,
        report: Report,
        bag: BagReader,
        images: Images,
        extractor: Extractor,
        cameras: Sequence[Camera],
        batch: int,
        past: Past | None,
        progress: Callable[[int], object],
    ) -> None:
        self._report = report
        self._bag = bag
        self._images = images
        self._extractor = extractor
        self._values = report.task.values
        self._batch = batch
        self._past = past
        self._progress = progress
        self._motions = Motions(cameras, self._values, extractor.device)
        self._seen: Counter[Camera] = Counter()
        self._faults: dict[tuple[str, str], tuple[int, str]] = {}
        self._last = 0.0
        self._skipped = 0
        self.plan = Plan(past, batch, self._values, extractor.device == "cpu")

    def run(self, output: Output, on_copied: Callable[[], None]) -> None:
        """Do it all, and fill in the report.

        on_copied  called when everything of the earlier run is safe in the output
        """
        report, begin = self._report, time.perf_counter()
        self._output, self._on_copied = output, on_copied
        frames = ahead(self._frames(), 2 * self._batch + 2)
        try:
            with self._motions, Behind(output, self._write, 2 * self._batch + 2) as writer:
                for batch in self._batches(frames):
                    for frame in self._extract(batch):
                        writer.put((frame, self._motions.of(frame)))
        except KeyboardInterrupt:
            report.interrupted = True
        except BagError as error:
            report.problems.append(str(error))
        except Exception as error:
            # a full disk, above all; what was written stays, and the bags that follow are not concerned
            report.broken = True
            report.problems.append(f"{report.task.output}: {sentence(error)}; --resume continues it")
        finally:
            frames.close()
        report.seconds = (self._last or time.perf_counter()) - begin
        self._judge()

    # In the reader's thread

    def _frames(self) -> Iterator[Frame]:
        done, index = self.plan.done(), 0
        following = next(done, None)
        for message in self._images.messages():
            camera = self._images.cameras[message.topic.name]
            self._seen[camera] += 1
            if message.time not in TIMES:
                self._fault("lost", camera.topic, f"recorded at {message.time} ns, which no new bag can hold")
                self._progress(1)
                continue
            if not self._images.is_due(message):
                self._skipped += 1
                self._progress(1)
                continue
            if following is not None and (following.camera, following.time) == (camera, message.time):
                yield from self._again(message, following, index)
                following, index = next(done, None), index + 1
                continue
            picture = self._decode(message)
            if picture is not None and following is not None:
                self._fault("lost", camera.topic, "the interrupted run has no features of them")
                self._progress(1)
                yield Frame(camera, message.time)  # it has its place in a batch
            elif picture is not None:
                stamp = stamp_nanoseconds(picture.header.stamp)
                yield Frame(camera, message.time, picture, stamp=stamp, seen=picture)
            index += picture is not None
        if following is not None:
            raise BagError(
                f"{self._report.task.output}: what the interrupted run left does not belong to {self._bag.path}; "
                "delete it and start again"
            )

    def _again(self, message: Message, done: Done, index: int) -> Iterator[Frame]:
        """An image that has been extracted, and may be needed for what comes after it."""
        frame = Frame(done.camera, done.time, done=done)
        if index in self.plan.stored and self._past is not None:
            stamp, found = self._past.features(done)
            frame = replace(frame, stamp=stamp, found=found)
            if self._values.refine:  # matches are refined by the pictures
                yield replace(frame, seen=self._decode(message))
                return
        elif index // self._batch in self.plan.repeated:
            picture = self._decode(message)
            if picture is not None:
                stamp = stamp_nanoseconds(picture.header.stamp)
                frame = replace(frame, picture=picture, stamp=stamp, seen=picture)
            yield frame
            return
        with suppress(Exception):  # then it was followed before, too
            self._images.follow(message)
        yield frame

    def _decode(self, message: Message) -> Picture | None:
        try:
            return self._images.decode(message)
        except Exception as error:  # one image must not cost the rest, whatever is wrong with it
            text = sentence(error).removeprefix(f"{self._bag.path}: ")
            self._fault("unreadable", message.topic.name, text)
            self._progress(1)
            return None

    # In the main thread

    def _batches(self, frames: Iterator[Frame]) -> Iterator[list[Frame]]:
        """So many in a row; always the same ones, wherever an earlier run ended."""
        batch: list[Frame] = []
        error: BagError | None = None
        while True:
            try:
                frame = next(frames, None)
            except BagError as damage:  # comes after all that can be read
                frame, error = None, damage
            if frame is None:
                break
            batch.append(frame)
            if len(batch) == self._batch:
                yield batch
                batch = []
        if batch:
            yield batch
        if error is not None:
            raise error

    def _extract(self, batch: list[Frame]) -> Iterator[Frame]:
        """The frames with their features, in order; those of equal size and parameters in one forward pass."""
        found: dict[int, Features] = {}
        sizes: dict[tuple[int, ...], list[int]] = {}
        for index, frame in enumerate(batch):
            if frame.picture is not None:
                own = self._values.of(frame.camera.name)
                sizes.setdefault((*frame.picture.pixels.shape, own.resize, own.max_keypoints), []).append(index)
        begin = time.perf_counter()
        for indices in sizes.values():
            found.update(self._features([(index, batch[index]) for index in indices]))
        self._report.extracting += time.perf_counter() - begin
        for index, frame in enumerate(batch):
            if frame.picture is None:
                yield frame
            elif index in found:
                yield replace(frame, found=found[index])

    def _features(self, frames: list[tuple[int, Frame]]) -> dict[int, Features]:
        pictures = [frame.picture for _, frame in frames if frame.picture is not None]
        self._values.of(frames[0][1].camera.name).apply(self._extractor)
        try:
            results = self._extractor.batch([each.pixels for each in pictures], [each.mask for each in pictures])
            return {index: found for (index, _), found in zip(frames, results, strict=True)}
        except DeviceLost:
            raise  # so would all others
        except Exception as error:
            # one that is too large must not cost the rest
            if len(frames) > 1:
                return {index: found for frame in frames for index, found in self._features([frame]).items()}
            self._fault("lost", frames[0][1].camera.topic, f"{type(error).__name__}: {sentence(error)}")
            self._progress(1)
            return {}

    # In the writer's thread

    def _write(self, item: tuple[Frame, Future[Motion] | None]) -> None:
        frame, future = item
        motion = self._tried(frame, "without matches", lambda: future.result() if future is not None else None)
        if frame.done is not None:
            self._output.copy(frame.done.messages)
            self._report.resumed += 1
            if self._report.resumed == self.plan.count:
                self._output.flush()
                self._on_copied()
        elif frame.picture is not None and frame.found is not None:
            camera, header, found = frame.picture.calibration, frame.picture.header, frame.found
            self._summary(frame.camera).count(frame.picture, found, motion)
            rectified = self._tried(
                frame, "not rectified", lambda: rectify(camera, found.xy) if camera is not None else None
            )
            weights_id = self._extractor.weights_id
            try:
                self._output.add(frame.camera, frame.time, header, found, motion, rectified, weights_id)
            except (OSError, sqlite3.Error):
                raise  # a full disk concerns all that follow
            except Exception as error:
                self._fault("lost", frame.camera.topic, f"{type(error).__name__}: {sentence(error)}")
                self._progress(1)
                return
        else:
            return
        self._report.frames += 1
        self._last = time.perf_counter()
        self._progress(1)

    def _tried(self, frame: Frame, kind: str, work: Callable[[], T]) -> T | None:
        """What comes beside the features, which are kept if it fails."""
        try:
            return work()
        except DeviceLost:
            raise
        except Exception as error:
            self._fault(kind, frame.camera.topic, f"{type(error).__name__}: {sentence(error)}")
            return None

    def _summary(self, camera: Camera) -> Summary:
        return self._report.summaries.setdefault(camera.topic, Summary())

    # The end

    def _fault(self, kind: str, topic: str, text: str) -> None:
        count, first = self._faults.get((kind, topic), (0, text))
        self._faults[kind, topic] = (count + 1, first)

    def _judge(self) -> None:
        path, problems = self._bag.path, self._report.problems
        for (kind, topic), (count, first) in self._faults.items():
            problems.append(f"{path}: {count} of {sum(self._seen.values())} images are {kind} ({topic}: {first})")
        if self._report.interrupted:
            problems.append(f"{self._report.task.output}: interrupted; --resume continues it")
            return
        if self._skipped:
            self._report.notes.append(f"{self._skipped} of {sum(self._seen.values())} images are skipped (rate)")
        for camera in self._images.cameras.values():
            if not self._seen[camera]:
                problems.append(f"{path}: there are no images on {camera.topic}")
        for topic, summary in self._report.summaries.items():
            self._report.notes += [f"{topic}: {warning}" for warning in summary.warnings()]
