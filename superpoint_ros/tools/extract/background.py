"""Work that another thread does: reading ahead of whoever asks, and writing behind whoever gives."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Generator, Iterable
from contextlib import AbstractContextManager
from types import TracebackType
from typing import Any, Generic, TypeVar

T = TypeVar("T")
POLL = 0.1
"""Seconds until a thread looks again whether it is still wanted."""


def ahead(source: Iterable[T], size: int) -> Generator[T, None, None]:
    """The items of `source`, which runs in a thread of its own, at most so many items ahead.

    What it raises is raised here, after the items before it. The thread ends when this generator is closed.
    """
    items: queue.Queue[tuple[bool, Any]] = queue.Queue(size)
    unwanted = threading.Event()

    def put(entry: tuple[bool, Any]) -> None:
        while not unwanted.is_set():
            try:
                items.put(entry, timeout=POLL)
                return
            except queue.Full:
                continue

    def run() -> None:
        try:
            for item in source:
                put((True, item))
                if unwanted.is_set():
                    return
            put((False, None))
        except BaseException as error:
            put((False, error))

    thread = threading.Thread(target=run, name="reader", daemon=True)
    thread.start()
    try:
        while True:
            more, item = items.get()
            if not more:
                break
            yield item
        if item is not None:
            raise item
    finally:
        unwanted.set()
        thread.join()


class Behind(Generic[T]):
    """Gives items to `consume` in a thread of its own, within a `with` block.

    place  entered and left in that thread, around all of `consume`
    size   items that may wait; then `put` does

    What the thread raises is raised by the next `put`, or at the end of the block.
    """

    def __init__(self, place: AbstractContextManager[Any], consume: Callable[[T], None], size: int) -> None:
        self._place = place
        self._consume = consume
        self._items: queue.Queue[tuple[bool, Any]] = queue.Queue(size)
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name="writer", daemon=True)

    def __enter__(self) -> Behind[T]:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Wait until everything is consumed, also after an interrupt: what was paid for is kept."""
        self._send((False, None))
        self._thread.join()
        if self._error is not None and not isinstance(error, KeyboardInterrupt):
            raise self._error

    def put(self, item: T) -> None:
        """Leave an item for the thread."""
        self._send((True, item))
        if self._error is not None:
            raise self._error

    def _send(self, entry: tuple[bool, Any]) -> None:
        while self._thread.is_alive():
            try:
                self._items.put(entry, timeout=POLL)
                return
            except queue.Full:
                continue

    def _run(self) -> None:
        try:
            with self._place:
                while True:
                    more, item = self._items.get()
                    if not more:
                        return
                    self._consume(item)
        except BaseException as error:
            self._error = error
