"""Processes side by side; of whole bags see test_resume and test_command."""

from __future__ import annotations

import signal
from types import SimpleNamespace

from superpoint_ros.tools.extract import jobs
from superpoint_ros.tools.extract.task import Report


def count_and_answer(task):
    """In the place of an extraction: 20,000 images; or more and more, until SIGALRM kills the process amid them."""
    if task.killed:
        signal.setitimer(signal.ITIMER_REAL, 0.05)
    while task.killed:
        jobs._progress(1)
    for _ in range(20_000):
        jobs._progress(1)
    return Report(task)


class Bar:
    shown = 0

    def update(self, count):
        self.shown += count


def test_a_process_that_is_killed_while_it_counts_holds_up_no_other(monkeypatch):
    monkeypatch.setattr(jobs, "_attempt", count_and_answer)
    bar, tasks = Bar(), [SimpleNamespace(bag=f"bag{number}", killed=number % 3 == 0) for number in range(7)]
    reports = list(jobs._run_in_processes(tasks, 2, bar))
    assert [bool(report.problems) for report in reports] == [task.killed for task in tasks]
    assert reports[0].problems == ["bag0: its process ended (BrokenProcessPool)"]
    assert bar.shown > 4 * 20_000
