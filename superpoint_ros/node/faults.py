"""Count what goes wrong by topic, and say it once in a while instead of thirty times a second."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable

REPORT_PERIOD = 5.0
"""Seconds between two reports of one kind on one topic."""


class Faults:
    """Counters and throttled reports, safe to use from any thread.

    report  called with a sentence at most once per REPORT_PERIOD, topic and kind
    clock   seconds, steady
    """

    def __init__(self, report: Callable[[str], None], clock: Callable[[], float] = time.monotonic) -> None:
        self._report = report
        self._clock = clock
        self._lock = threading.Lock()
        self._last: dict[tuple[str, str], float] = {}
        self._unsaid: Counter[tuple[str, str]] = Counter()
        self._counts: Counter[str] = Counter()

    def add(self, kind: str, topic: str, sentence: str) -> None:
        """Count a fault of a kind ("bad", "failed"); report it unless the like just was."""
        key = (kind, topic)
        now = self._clock()
        with self._lock:
            self._counts[kind] += 1
            if now - self._last.get(key, -REPORT_PERIOD) < REPORT_PERIOD:
                self._unsaid[key] += 1
                return
            self._last[key] = now
            unsaid = self._unsaid.pop(key, 0)
        more = f" ({unsaid} more like it since the last report)" if unsaid else ""
        self._report(f"{topic}: {sentence}{more}")

    def count(self, kind: str) -> int:
        """How many faults of this kind there were."""
        with self._lock:
            return self._counts[kind]
