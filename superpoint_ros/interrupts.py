"""Ctrl-C at any time: while modules are imported, which takes seconds with torch, and twice."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager

INTERRUPTED = 130
"""Exit status of what SIGINT ended, as shells have it."""


@contextmanager
def ending_at_once() -> Iterator[None]:
    """Within the block SIGINT ends the process, without a word.

    An import that is interrupted raises anything: extension modules make an ImportError or a SystemError of
    KeyboardInterrupt, or leave half a module behind. There is nothing to put away yet.
    """
    ours = threading.current_thread() is threading.main_thread() and signal.getsignal(signal.SIGINT) not in (
        signal.SIG_IGN,
        None,
    )
    before = signal.signal(signal.SIGINT, lambda *_: os._exit(INTERRUPTED)) if ours else None
    try:
        yield
    finally:
        if ours:
            signal.signal(signal.SIGINT, before)


@contextmanager
def interrupting_once() -> Iterator[None]:
    """Within the block the first SIGINT or SIGTERM is a KeyboardInterrupt, and the next ends the process at once.

    What follows the first, such as putting away what was done, is not torn apart by the second, which would end in a
    traceback or a wait for ever. After an interrupt it stays so: the process is about to end.
    """
    interrupted = False

    def interrupt(*_: object) -> None:
        nonlocal interrupted
        interrupted = True
        for each in before:
            signal.signal(each, lambda *_: os._exit(INTERRUPTED))
        raise KeyboardInterrupt

    before = {each: signal.signal(each, interrupt) for each in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for each, handler in before.items() if not interrupted else ():
            signal.signal(each, handler)
