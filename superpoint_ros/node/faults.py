"""Count what goes wrong by topic, and say it once in a while instead of thirty times a second."""

from __future__ import annotations

import re
import threading
import time
from collections import Counter
from collections.abc import Callable

REPORT_PERIOD = 5.0
"""Seconds between two reports of one kind and reason on one topic."""
REASONS = 4
"""Reports of one kind on one topic in that time, however many reasons there are."""
LONGEST = 400
"""Characters of a report."""
NUMBER = re.compile(r"-?\d[\d.,e+×x-]*")
"""What may differ between two reports of one reason."""


class Faults:
    """Counters and throttled reports, safe to use from any thread.

    report  called with a sentence at most once per REPORT_PERIOD, topic, kind and reason, which is the sentence
            without its numbers
    clock   seconds, steady
    """

    def __init__(self, report: Callable[[str], None], clock: Callable[[], float] = time.monotonic) -> None:
        self._report = report
        self._clock = clock
        self._lock = threading.Lock()
        self._said: dict[tuple[str, str], dict[str, float]] = {}
        self._unsaid: Counter[tuple[str, str]] = Counter()
        self._counts: Counter[str] = Counter()

    def count_only(self, kind: str) -> None:
        """Count a fault that is explained elsewhere."""
        with self._lock:
            self._counts[kind] += 1

    def add(self, kind: str, topic: str, sentence: str) -> None:
        """Count a fault of a kind ("bad", "failed"); report it unless the like just was."""
        key, reason = (kind, topic), NUMBER.sub("#", sentence)
        now = self._clock()
        with self._lock:
            self._counts[kind] += 1
            said = {each: when for each, when in self._said.get(key, {}).items() if now - when < REPORT_PERIOD}
            self._said[key] = said
            if reason in said or len(said) >= REASONS:
                self._unsaid[key] += 1
                return
            said[reason] = now
            unsaid = self._unsaid.pop(key, 0)
        more = f" ({unsaid} more since the last report)" if unsaid else ""
        self._report(f"{topic}: {harmless(sentence)}{more}")

    def count(self, kind: str) -> int:
        """How many faults of this kind there were."""
        with self._lock:
            return self._counts[kind]


def harmless(sentence: str) -> str:
    """For the log and the diagnostics: without control characters and of bounded length, as it may quote a message."""
    sentence = sentence if len(sentence) <= LONGEST else f"{sentence[: LONGEST // 2]} … {sentence[-LONGEST // 2 :]}"
    return "".join(letter if letter.isprintable() else repr(letter)[1:-1] for letter in sentence)
