from __future__ import annotations

import threading
from contextlib import nullcontext

import pytest

from superpoint_ros.tools.extract.background import Behind, ahead


def test_items_come_in_order_and_then_the_error():
    def source():
        yield from range(50)
        raise ValueError("the end")

    got = []
    with pytest.raises(ValueError, match="the end"):
        for item in ahead(source(), 3):
            got.append(item)
    assert got == list(range(50))


def test_no_more_is_read_ahead_than_asked_for():
    read, room = [], threading.Semaphore(0)

    def source():
        for number in range(100):
            read.append(number)
            room.release()
            yield number

    items = ahead(source(), 3)
    assert next(items) == 0
    for _ in range(5):  # the first, three that wait, and one in the hand
        assert room.acquire(timeout=300)
    assert not room.acquire(timeout=0.2)
    items.close()
    assert len(read) <= 6
    assert "reader" not in {thread.name for thread in threading.enumerate()}


def test_everything_is_consumed_before_the_block_ends_also_by_an_error():
    for error in (None, KeyboardInterrupt):
        got = []
        with nullcontext() if error is None else pytest.raises(error):
            with Behind(nullcontext(), got.append, 2) as behind:
                for number in range(50):
                    behind.put(number)
                if error is not None:
                    raise error
        assert got == list(range(50))


def test_what_goes_wrong_in_the_thread_is_raised_here():
    def fail(item):
        raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"), Behind(nullcontext(), fail, 1) as behind:
        for number in range(10_000):
            behind.put(number)
    with pytest.raises(OSError, match="disk full"), Behind(nullcontext(), fail, 9) as behind:
        behind.put(0)


def test_the_place_is_entered_and_left_in_the_thread():
    threads = []

    class Place:
        def __enter__(self):
            threads.append(threading.current_thread().name)

        def __exit__(self, *error):
            threads.append(threading.current_thread().name)

    with Behind(Place(), lambda item: threads.append(threading.current_thread().name), 1) as behind:
        behind.put(1)
    assert threads == ["writer"] * 3
