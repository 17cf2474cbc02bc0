"""`superpoint play`: a bag over DDS, where `ros2 bag play` is not to be had."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Collection
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from tqdm import tqdm

from superpoint_ros.bags.content import BagError, Topic
from superpoint_ros.bags.reader import BagReader
from superpoint_ros.interrupts import INTERRUPTED, ending_at_once, interrupting_once
from superpoint_ros.tools.extract.background import ahead

if TYPE_CHECKING:
    from superpoint_ros.tools.playback.player import Player

READ_AHEAD = 16
"""Messages: decompressing a chunk must not delay the next one."""


@click.command("play")
@click.argument("bag", type=click.Path(path_type=Path))
@click.option("--topic", "topics", metavar="TOPIC", multiple=True, help="Only this one; may be given several times.")
@click.option("--remap", "remaps", metavar="OLD:=NEW", multiple=True, help="Publish a topic under another name.")
@click.option(
    "--rate", type=click.FloatRange(0, min_open=True), default=1.0, show_default=True, help="Times the recorded speed."
)
@click.option("--loop", is_flag=True, help="Begin again at the end, until interrupted.")
@click.option("--clock", is_flag=True, help="Publish the bag's time on /clock.")
@click.option(
    "--clock-rate", type=click.FloatRange(1, 1000), default=100.0, show_default=True, help="Times a second, of /clock."
)
@click.option(
    "--max-gap",
    type=click.FloatRange(0, min_open=True),
    default=3600.0,
    show_default=True,
    help="Seconds without a message that are played as recorded; longer ones (a clock that was set) are left out.",
)
@click.option("--start", type=click.FloatRange(0), default=0.0, help="Leave out so many seconds at the beginning.")
@click.option("--duration", type=click.FloatRange(0, min_open=True), help="Play only so many seconds of the bag.")
@click.option(
    "--wait",
    type=click.FloatRange(0),
    default=3.0,
    show_default=True,
    help="Seconds at most that are waited for a subscriber before the first message.",
)
def play_command(
    bag: Path,
    topics: tuple[str, ...],
    remaps: tuple[str, ...],
    rate: float,
    loop: bool,
    clock: bool,
    clock_rate: float,
    max_gap: float,
    start: float,
    duration: float | None,
    wait: float,
) -> None:
    """Publish the messages of BAG with their recorded intervals, types and QoS.

    BAG is a folder, an .mcap or a .db3 file. A damaged one is played as far as it can be read; then the status is 1.
    """
    if importlib.util.find_spec("rclpy") is None:
        raise click.ClickException("playing needs ROS 2's rclpy; run `make setup` in a checkout, or source a ROS 2")
    names = _names(remaps)
    try:
        with interrupting_once(), BagReader(bag) as reader:
            chosen = _chosen(reader, topics)
            first = reader.start_time() + round(start * 1e9)
            stop = None if duration is None else first + round(duration * 1e9)
            for note in reader.notes:
                click.echo(f"{bag}: {note}.", err=True)
            _play(
                reader,
                chosen,
                names,
                (first if start else None, stop),
                rate,
                loop,
                clock_rate if clock else 0,
                max_gap,
                wait,
            )
    except KeyboardInterrupt:
        click.echo("Interrupted.")
        if not loop:  # which has no other end
            raise click.exceptions.Exit(INTERRUPTED) from None
    except BagError as error:
        raise click.ClickException(str(error)) from None


def _play(
    reader: BagReader,
    topics: list[Topic],
    names: dict[str, str],
    span: tuple[int | None, int | None],
    rate: float,
    loop: bool,
    clock_rate: float,
    max_gap: float,
    wait: float,
) -> None:
    with ending_at_once():
        from superpoint_ros.tools.playback.player import Player
        from superpoint_ros.tools.session import ros_session

    with ros_session("superpoint_player") as ros:
        player = Player(ros, topics, names)
        on_time = _clock(ros, clock_rate) if clock_rate else (lambda nanoseconds: None)
        if not player.settle(wait) and wait:
            click.echo(f"Nobody subscribes after {wait:g} s; playing all the same.", err=True)
        shown = ", ".join(f"{each.name} as {names[each.name]}" if each.name in names else each.name for each in topics)
        click.echo(f"Playing {shown} of {reader.path} at {rate:g} times the recorded speed.")
        count = 0
        try:
            while True:
                count += _once(
                    reader, player, [topic.name for topic in topics], span, rate, on_time, clock_rate, max_gap
                )
                if not loop or not count:
                    break
        finally:
            acknowledged = player.finish()
        if not acknowledged:
            click.echo("A subscriber has not acknowledged everything.", err=True)
        click.echo(f"{count} messages were played.")
        if not count:
            raise BagError(f"{reader.path}: there are no messages to play on {', '.join(each.name for each in topics)}")


def _once(
    reader: BagReader,
    player: Player,
    topics: list[str],
    span: tuple[int | None, int | None],
    rate: float,
    on_time: Callable[[int], None],
    clock_rate: float,
    max_gap: float,
) -> int:
    messages = ahead(reader.messages(topics, *span), READ_AHEAD)
    total = None if any(span) else sum(reader.topics[name].count for name in topics)
    shown = tqdm(messages, "Playing", total, unit=" messages", disable=None, leave=False)
    tick = min(0.02, 1 / clock_rate if clock_rate else 1)
    try:
        return player.play(shown, rate, on_time=on_time, tick=tick, longest_gap=max_gap, on_gap=_say_gap)
    finally:
        messages.close()


def _say_gap(seconds: float) -> None:
    length = f"{seconds:.0f} s" if seconds < 86400 else f"{seconds / 86400:.0f} days"
    tqdm.write(f"Nothing was recorded for {length}, which are left out (--max-gap).")


def _clock(ros: Any, rate: float) -> Callable[[int], None]:
    """Publishes /clock when it is told the time, no more often than `rate` a second of the steady clock."""
    import time

    from rosgraph_msgs.msg import Clock

    publisher = ros.create_publisher(Clock, "/clock", 10)
    last = [0.0, -1]

    def on_time(nanoseconds: int) -> None:
        now = time.monotonic()
        # a little early is no harm, a tick later would halve the rate; a jump back is told at once
        if not 0 <= nanoseconds < 10**9 << 31:
            return  # no Time can hold it
        if nanoseconds >= last[1] and now - last[0] < 0.9 / rate:
            return
        last[:] = [now, nanoseconds]
        message = Clock()
        message.clock.sec, message.clock.nanosec = divmod(nanoseconds, 1_000_000_000)
        publisher.publish(message)

    return on_time


def _chosen(reader: BagReader, names: Collection[str]) -> list[Topic]:
    """The topics asked for, or all whose messages are installed."""
    with ending_at_once():
        from superpoint_ros.tools.playback.player import message_class

    chosen = []
    for name in names:
        wanted = name if name.startswith("/") else f"/{name}"
        if wanted not in reader.topics:
            raise BagError(f"{reader.path}: there is no topic {wanted}, only {', '.join(reader.topics) or 'none'}")
        message_class(reader.topics[wanted].type)
        chosen.append(reader.topics[wanted])
    if names:
        return chosen
    for topic in reader.topics.values():
        try:
            message_class(topic.type)
            chosen.append(topic)
        except BagError as error:
            click.echo(f"{topic.name} is left out: {error}.", err=True)
    if not chosen:
        raise BagError("; ".join([f"{reader.path}: it has no topic that can be played", *reader.notes]))
    return chosen


def _names(remaps: tuple[str, ...]) -> dict[str, str]:
    names = {}
    for each in remaps:
        old, found, new = each.partition(":=")
        if not (old and found and new):
            raise click.UsageError(f"--remap needs OLD:=NEW, got '{each}'")
        names[old if old.startswith("/") else f"/{old}"] = new
    return names
