"""Threads that share out tiles.

Each has a stretch of its own, so that what a core has written it reads again itself: where two cores
have no cache in common, tiles handed out as they come cost a quarter more time. Who is done helps
the others, from their ends: another program may have taken a core.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from typing import TypeVar

Task = TypeVar("Task")


class Workers:
    """The thread that calls, and `count` - 1 others that wait in between; for one caller at a time."""

    def __init__(self, count: int) -> None:
        self.count = count
        # One for each, so that a number is always the same thread.
        self._others = [ThreadPoolExecutor(1, "superpoint-tiles") for _ in range(count - 1)]

    def __call__(self, tasks: Sequence[Task], work: Callable[[int, Task], None]) -> None:
        """Call `work` with the worker's number, from 0, and a task, each once; returns when all are done.

        Raises what `work` raises, when nobody is at work any more.
        """
        bounds = [len(tasks) * number // self.count for number in range(self.count + 1)]
        shares = [deque(tasks[first:last]) for first, last in zip(bounds, bounds[1:], strict=False)]

        def run(number: int) -> None:
            for task in _tasks(shares, number):
                work(number, task)

        futures = [other.submit(run, number) for number, other in enumerate(self._others, start=1)]
        try:
            run(0)
        finally:
            wait(futures)
        for future in futures:
            future.result()


def _tasks(shares: Sequence[deque[Task]], number: int) -> Iterator[Task]:
    """A worker's own from the front, then the others' from the back; a deque gives each task once."""
    for share in (*shares[number:], *shares[:number]):
        take = share.popleft if share is shares[number] else share.pop
        while True:
            try:
                task = take()
            except IndexError:
                break
            yield task
