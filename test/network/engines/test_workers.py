from __future__ import annotations

import threading
from collections import Counter

import pytest

from superpoint_ros.network.engines.workers import Workers

DEADLINE = 30


@pytest.mark.parametrize("count", [1, 2, 3, 5])
@pytest.mark.parametrize("tasks", [0, 1, 2, 7, 40])
def test_every_task_is_done_once_before_the_call_returns(count, tasks):
    done: Counter[int] = Counter()
    workers = Workers(count)
    for _ in range(20):
        workers(range(tasks), lambda worker, task: done.update([task]))
        assert sum(done.values()) == tasks and set(done.values()) <= {1}
        done.clear()


def test_a_worker_is_always_the_same_thread_and_the_first_is_the_caller():
    seen: dict[int, set[str]] = {}
    barrier = threading.Barrier(3)

    def work(worker, task):
        seen.setdefault(worker, set()).add(threading.current_thread().name)
        barrier.wait(DEADLINE)  # so that nobody takes two

    workers = Workers(3)
    for _ in range(5):
        workers(range(3), work)
    assert seen.keys() == {0, 1, 2} and all(len(names) == 1 for names in seen.values())
    assert seen[0] == {threading.current_thread().name}


def test_each_begins_at_a_stretch_of_its_own_and_goes_through_it_in_order():
    order: dict[int, list[int]] = {0: [], 1: []}
    barrier = threading.Barrier(2)

    def work(worker, task):
        order[worker].append(task)
        barrier.wait(DEADLINE)  # in step

    Workers(2)(range(6), work)
    assert order == {0: [0, 1, 2], 1: [3, 4, 5]}


def test_who_is_done_helps_the_others_from_their_ends():
    began, held = [], threading.Event()

    def work(worker, task):
        began.append((worker, task))
        if worker == 1:
            assert held.wait(DEADLINE)  # its core has been taken
        if len(began) == 8:
            held.set()

    Workers(2)(range(8), work)
    assert [task for worker, task in began if worker == 1] == [4]
    assert [task for worker, task in began if worker == 0] == [0, 1, 2, 3, 7, 6, 5]


@pytest.mark.parametrize("bad", [0, 5])
def test_an_error_is_raised_when_nobody_is_at_work_any_more(bad):
    at_work = Counter()

    def work(worker, task):
        at_work["begun"] += 1
        try:
            if task == bad:
                raise IndexError(f"task {task}")
        finally:
            at_work["ended"] += 1

    workers = Workers(2)
    with pytest.raises(IndexError, match=f"task {bad}"):
        workers(range(6), work)
    assert at_work["begun"] == at_work["ended"]
    done = []
    workers(range(6), lambda worker, task: done.append(task))
    assert sorted(done) == list(range(6)), "an error is not the end of the workers"
