"""Several bags, one after the other, side by side in processes, or shared out to the ranks of a cluster."""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import BrokenExecutor, ProcessPoolExecutor, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from queue import SimpleQueue
from typing import Any

import torch
from tqdm import tqdm

from superpoint_ros.bags.content import BagError, sentence
from superpoint_ros.features.extractor import Extractor
from superpoint_ros.frontend.parameters import Parameters
from superpoint_ros.interrupts import INTERRUPTED
from superpoint_ros.tools.extract.bag import extract_bag, number_of_images
from superpoint_ros.tools.extract.task import Report, Task

LOOK = 0.2
"""Seconds between two looks at how far processes have come."""

_progress: Callable[[int], object] = int
"""Of a process: tells the one that shows the bar of so many images more."""


def output_of(bags: Sequence[Path], output: Path) -> list[Path]:
    """Where each goes: OUT for a single bag, OUT/NAME for several; BagError if two have one name."""
    if len(bags) == 1:
        return [output]
    names = [bag.resolve().stem if bag.is_file() else bag.resolve().name for bag in bags]
    if len(set(names)) < len(names):
        common = Path(os.path.commonpath([bag.resolve().parent for bag in bags]))
        names = [
            str(bag.resolve().with_suffix("" if bag.is_file() else bag.suffix).relative_to(common)) for bag in bags
        ]
    if len(set(names)) < len(names):
        raise BagError(f"{output}: two of the bags would have the same name there: {', '.join(sorted(names))}")
    return [output / name for name in names]


def share(tasks: Sequence[Task], rank: int, world_size: int) -> list[Task]:
    """Every world_size-th task; which ones depends on nothing else."""
    return list(tasks[rank::world_size])


def run_tasks(tasks: Sequence[Task], jobs: int) -> Iterator[Report]:
    """Extract all of them, in so many processes; their reports as they come. A bar on stderr shows the images."""
    total, possible = 0, []
    for task in tasks:
        try:
            total += number_of_images(task)
            possible.append(task)
        except Exception as error:  # a bag must not cost the others, whatever is wrong with it
            yield Report(task, problems=[_named(task.bag, error)])
    if not possible:
        return
    with tqdm(
        total=total or None,
        desc="Extracting",
        unit=" frames",
        mininterval=0.2 if sys.stderr.isatty() else 10.0,
        smoothing=0.05,
        file=sys.stderr,
    ) as bar:
        if jobs == 1 or len(possible) == 1:
            extractors = Extractors()
            for task in possible:
                report = attempt(task, extractors, bar.update)
                yield report
                if report.interrupted:
                    return
            return
        yield from _run_in_processes(possible, min(jobs, len(possible)), bar)


class Extractors:
    """The extractor of a task, made once for all tasks that agree about it."""

    def __init__(self) -> None:
        self._known: dict[tuple[str, ...], Extractor] = {}

    def of(self, values: Parameters) -> Extractor:
        """Raises as `Extractor` does."""
        key = (values.weights, values.device, values.engine, values.precision)
        if key not in self._known:
            self._known = {
                key: Extractor(values.weights or None, values.device, engine=values.engine, precision=values.precision)
            }
        return self._known[key]


def attempt(task: Task, extractors: Extractors, progress: Callable[[int], object]) -> Report:
    """Extract a bag; what makes it impossible is in the report, so that the others go on."""
    try:
        return extract_bag(task, extractors.of(task.values), progress)
    except KeyboardInterrupt:
        return Report(task, problems=[f"{task.output}: interrupted; --resume continues it"], interrupted=True)
    except Exception as error:
        return Report(task, problems=[_named(task.output, error)])


def _named(path: Path, error: Exception) -> str:
    """The error in a sentence that names a file: its own, or the one given."""
    if isinstance(error, BagError) or (isinstance(error, OSError) and error.filename is not None):
        return sentence(error)
    if isinstance(error, (ValueError, RuntimeError, OSError)):
        return sentence(error) if str(path) in str(error) else f"{path}: {sentence(error)}"
    return f"{path}: {type(error).__name__}: {sentence(error)}"


def _run_in_processes(tasks: Sequence[Task], jobs: int, bar: Any) -> Iterator[Report]:
    context = multiprocessing.get_context("spawn")
    # Without a lock, as a queue has, which a process that is killed may hold for ever: each has a number of its own.
    counts = context.RawArray("q", jobs)
    threads = max(1, torch.get_num_threads() // jobs)

    def process(place: int) -> ProcessPoolExecutor:
        """Of its own, so that one that is killed takes no other bag along."""
        return ProcessPoolExecutor(1, context, _begin, (counts, place, threads))

    def run(task: Task) -> Report:
        place, mine = free.get()
        try:
            return mine.submit(_attempt, task).result()
        except Exception as error:  # its process was killed, for memory perhaps, or could not begin
            if isinstance(error, BrokenExecutor):
                mine = process(place)
            return Report(task, problems=[f"{task.bag}: its process ended ({type(error).__name__})"])
        finally:
            free.put((place, mine))

    free: SimpleQueue[tuple[int, ProcessPoolExecutor]] = SimpleQueue()
    for place in range(jobs):
        free.put((place, process(place)))
    with _shown(counts, bar), ThreadPoolExecutor(jobs) as pool:
        futures = [pool.submit(run, task) for task in tasks]
        try:
            for task, future in zip(tasks, futures, strict=True):
                try:
                    yield future.result()
                except KeyboardInterrupt:
                    for each in futures:
                        each.cancel()
                    for child in multiprocessing.active_children():
                        child.terminate()
                    yield Report(
                        task, problems=[f"{task.output}: interrupted; --resume continues it"], interrupted=True
                    )
                    return
        finally:
            pool.shutdown(wait=True, cancel_futures=True)
            for _ in range(jobs):
                free.get()[1].shutdown()


@contextmanager
def _shown(counts: Sequence[int], bar: Any) -> Iterator[None]:
    """A thread that moves the bar by what the processes have counted."""
    ended = threading.Event()

    def run() -> None:
        shown, last = 0, False
        while not last:
            last = ended.wait(LOOK)
            counted = sum(counts)
            bar.update(counted - shown)
            shown = counted

    thread = threading.Thread(target=run, name="progress", daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


def _begin(counts: Any, place: int, threads: int) -> None:
    global _progress, _extractors

    def count(images: int) -> None:
        counts[place] += images

    _progress, _extractors = count, Extractors()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # of the terminal: the first process passes it on
    signal.signal(signal.SIGTERM, _interrupt)
    torch.set_num_threads(threads)
    threading.Thread(target=_end_with_parent, name="parent", daemon=True).start()


_extractors = Extractors()


_working = False


def _interrupt(*_: object) -> None:
    if _working:
        raise KeyboardInterrupt
    os._exit(INTERRUPTED)  # there is nothing to put away


def _end_with_parent() -> None:
    """Without the first process nobody gives work or wants to know."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(INTERRUPTED)


def _attempt(task: Task) -> Report:
    global _working
    _working = True
    try:
        return attempt(task, _extractors, _progress)
    finally:
        _working = False
