"""The one thread that works: callbacks never infer, inference never blocks the executor."""

from __future__ import annotations

import threading
from collections.abc import Callable

from superpoint_ros.node.mailbox import Frame, Mailbox


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

    def stop(self) -> None:
        """Close the mailbox, and wait for the frames in work to be finished."""
        self._mailbox.close()
        self._thread.join()

    def _run(self) -> None:
        while frames := self._mailbox.take():
            try:
                self._process(frames)
            except Exception as error:
                self._on_error(error, frames)
