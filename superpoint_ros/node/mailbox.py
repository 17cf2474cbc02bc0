"""One slot for each camera: the newest frame wins, so that no frame is ever stale."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Frame:
    """An image message as it came in.

    camera    which slot it belongs to
    message   sensor_msgs/Image or CompressedImage
    received  seconds of the steady clock
    """

    camera: str
    message: Any
    received: float


class Mailbox:
    """Frames from subscription callbacks to the worker; a newer one replaces an older one."""

    def __init__(self, cameras: Sequence[str]) -> None:
        self._slots: dict[str, Frame | None] = dict.fromkeys(cameras)
        self._ready = threading.Condition()
        self._closed = False

    def put(self, frame: Frame) -> bool:
        """Leave a frame; returns True if one that nobody had taken was dropped for it."""
        with self._ready:
            if self._closed:
                return False
            replaced = self._slots[frame.camera] is not None
            self._slots[frame.camera] = frame
            self._ready.notify()
            return replaced

    def take(self) -> list[Frame]:
        """Wait for frames, and take the newest of every camera; empty only after `close`."""
        with self._ready:
            self._ready.wait_for(lambda: self._closed or any(self._slots.values()))
            frames = [frame for frame in self._slots.values() if frame is not None]
            self._slots = dict.fromkeys(self._slots)
            return frames

    def close(self) -> None:
        """Forget all frames and let `take` return empty from now on."""
        with self._ready:
            self._closed = True
            self._slots = dict.fromkeys(self._slots)
            self._ready.notify_all()
