"""`superpoint record`: topics into a bag, where `ros2 bag record` is not to be had."""

from __future__ import annotations

import signal
import sys
import threading
from pathlib import Path
from typing import Any

import click

from superpoint_ros.bags.content import BagError
from superpoint_ros.interrupts import ending_at_once


@click.command()
@click.argument("output", type=click.Path(path_type=Path))
@click.argument("topics", nargs=-1, required=True)
@click.option(
    "--header-times",
    is_flag=True,
    help="Log messages at the stamps of their headers, not as they arrive, but for those before 1970.",
)
def record_command(output: Path, topics: tuple[str, ...], header_times: bool) -> None:
    """Record TOPICS into the new bag OUTPUT until it is interrupted.

    Waits until each of them has a publisher: that one decides about type and reliability. Ends with status 1 if no
    message came.
    """
    with ending_at_once():
        from superpoint_ros.tools.playback.recorder import Recorder, header_time, now
        from superpoint_ros.tools.session import POLL, ros_session

    asked_to_stop = threading.Event()
    for kind in (signal.SIGINT, signal.SIGTERM):
        signal.signal(kind, lambda *_: asked_to_stop.set())
    counts = dict.fromkeys(topics, 0)

    def count(topic: str, arrival: int, data: bytes) -> None:
        counts[topic] += 1

    try:
        with ros_session("superpoint_recorder") as node:
            types: dict[str, str] = {}
            while len(types) < len(topics) and not asked_to_stop.wait(POLL):
                types = _published(node, topics)
            if asked_to_stop.is_set():
                missing = ", ".join(topic for topic in topics if topic not in types)
                raise click.ClickException(f"nothing is recorded: nobody published {missing}")
            with Recorder(node, output, types, count, header_time if header_times else now) as recorder:
                while not recorder.connected() and not asked_to_stop.wait(POLL):
                    pass
                click.echo(f"Recording {', '.join(topics)} into {output}.")
                while not asked_to_stop.wait(POLL):
                    recorder.check()
    except (BagError, OSError) as error:  # a full disk, above all
        raise click.ClickException(str(error)) from None
    found = ", ".join(f"{number} of {topic}" for topic, number in counts.items())
    click.echo(f"{output}: {found} messages.")
    if not any(counts.values()):
        raise click.ClickException(f"{output}: no message came while it was recorded")


def _published(node: Any, topics: tuple[str, ...]) -> dict[str, str]:
    """The types of those topics that have a publisher."""
    known = dict(node.get_topic_names_and_types())
    return {topic: known[topic][0] for topic in topics if topic in known and node.count_publishers(topic)}


if __name__ == "__main__":
    sys.exit(record_command())
