"""A short stay on the ROS network: a context and a node, with an executor in a thread."""

from __future__ import annotations

import os
import random
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import rclpy
from rclpy.context import Context
from rclpy.executors import ExternalShutdownException, SingleThreadedExecutor
from rclpy.node import Node
from rclpy.signals import SignalHandlerOptions

from superpoint_ros.node.transport import make_room

DOMAINS = range(1, 102)
"""Domain ids whose ports lie below those that Linux hands out to clients."""

POLL = 0.02
"""Seconds between two looks at a condition."""


class Timeout(RuntimeError):
    """Something that was waited for did not come; the text says what."""


@contextmanager
def ros_session(name: str, domain_id: int | None = None) -> Iterator[Node]:
    """A node of this name whose callbacks run in one thread of their own, until the block ends.

    domain_id  None: that of the environment. Signals stay Python's, so Ctrl-C is a
               KeyboardInterrupt.
    """
    make_room()
    context = Context()
    # no arguments: those of the command line are the tool's, but rcl would take OLD:=NEW for its own
    rclpy.init(args=[], context=context, domain_id=domain_id, signal_handler_options=SignalHandlerOptions.NO)
    node = Node(name, context=context, start_parameter_services=False, enable_rosout=False)
    executor = SingleThreadedExecutor(context=context)
    executor.add_node(node)
    thread = threading.Thread(target=_spin, args=(executor,), name=f"{name}-executor", daemon=True)
    thread.start()
    try:
        yield node
    finally:
        executor.shutdown()
        thread.join()
        node.destroy_node()
        context.try_shutdown()


def _spin(executor: Any) -> None:
    try:
        executor.spin()
    except ExternalShutdownException:
        pass


def wait_until(
    condition: Callable[[], bool],
    seconds: float,
    what: str,
    check: Callable[[], None] = lambda: None,
) -> None:
    """Wait for a condition; Timeout says "no <what> within … s", and `check` may raise sooner."""
    deadline = time.monotonic() + seconds
    while not condition():
        check()
        if time.monotonic() > deadline:
            raise Timeout(f"no {what} within {seconds:.0f} s")
        time.sleep(POLL)


def private_domain() -> int:
    """A domain id that nobody on this machine uses now, and not the one of the environment.

    The first participant of a domain listens on UDP port 7410 + 250 · domain (DDSI-RTPS 2.2,
    section 9.6.1.1).
    """
    own = os.environ.get("ROS_DOMAIN_ID")
    candidates = [domain for domain in DOMAINS if str(domain) != own]
    random.shuffle(candidates)
    return next(filter(_unused, candidates), candidates[0])


def _unused(domain: int) -> bool:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.bind(("", 7410 + 250 * domain))
        except OSError:
            return False
    return True
