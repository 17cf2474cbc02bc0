"""A slot for each camera, or one for a synchronised rig, and the one thread that empties them.

The newest wins, so no frame is stale; callbacks never infer, inference never blocks the executor.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Frame:
    """An image message as it came in.

    camera    name of the camera it is from
    message   sensor_msgs/Image or CompressedImage
    received  seconds of the steady clock
    """

    camera: str
    message: Any
    received: float

    @property
    def header(self) -> Any:
        """The message's std_msgs/Header; message_filters looks for it here."""
        return self.message.header


class Mailbox:
    """Frames from subscription callbacks to the worker.

    A slot holds the frames that belong together: one of a camera, or a synchronised set. What comes
    newer replaces it whole.

    in_turn  asked each time whether the worker takes one slot, each in its turn, and not all at once
    """

    def __init__(self, slots: Sequence[str], in_turn: Callable[[], bool] = lambda: False) -> None:
        self._slots: dict[str, list[Frame]] = {slot: [] for slot in slots}
        self._in_turn = in_turn
        self._ready = threading.Condition()
        self._closed = False

    def put(self, slot: str, frames: Sequence[Frame]) -> list[Frame]:
        """Leave frames; returns those that nobody had taken and that were dropped for them."""
        with self._ready:
            if self._closed:
                return list(frames)
            replaced = self._slots[slot]
            self._slots[slot] = list(frames)
            self._ready.notify()
            return replaced

    def take(self) -> list[Frame]:
        """Wait for frames, and take the newest of every slot, or of the next; empty only after `close`."""
        with self._ready:
            self._ready.wait_for(lambda: self._closed or any(self._slots.values()))
            filled = [slot for slot, held in self._slots.items() if held]
            frames = []
            for slot in filled[:1] if self._in_turn() else filled:
                frames += self._slots.pop(slot)
                self._slots[slot] = []  # behind all others, whose turn comes first
            return frames

    def close(self) -> list[Frame]:
        """Let `take` return empty from now on; returns the frames that nobody had taken and that are dropped."""
        with self._ready:
            self._closed = True
            left = [frame for held in self._slots.values() for frame in held]
            self._slots = {slot: [] for slot in self._slots}
            self._ready.notify_all()
            return left


class Worker:
    """Takes frames from a mailbox and hands them to `process`, until the mailbox closes.

    on_error  called with whatever `process` raises, and the frames it was given; the thread goes on
    """

    def __init__(
        self,
        mailbox: Mailbox,
        process: Callable[[list[Frame]], None],
        on_error: Callable[[Exception, list[Frame]], None],
    ) -> None:
        self._mailbox = mailbox
        self._process = process
        self._on_error = on_error
        self._thread = threading.Thread(target=self._run, name="superpoint-worker", daemon=True)
        self._thread.start()

    def stop(self, limit: float) -> list[Frame]:
        """Close the mailbox, and wait for the frames in work to be finished, `limit` seconds long: see `busy`.

        Returns the frames that were not begun.
        """
        left = self._mailbox.close()
        self._thread.join(limit)
        return left

    @property
    def busy(self) -> bool:
        """Whether its thread lives."""
        return self._thread.is_alive()

    def _run(self) -> None:
        while frames := self._mailbox.take():
            try:
                self._process(frames)
            except Exception as error:
                self._on_error(error, frames)
