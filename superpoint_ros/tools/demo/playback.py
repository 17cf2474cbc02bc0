"""Play a bag to the node over DDS, and record what it publishes."""

from __future__ import annotations

import itertools
import os
import struct
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence, Set
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import numpy as np
from lifecycle_msgs.msg import State
from lifecycle_msgs.srv import GetState
from rclpy.node import Node
from tqdm import tqdm

from superpoint_ros.bags.content import COMPRESSED_IMAGE, Message, Topic, header_stamp
from superpoint_ros.bags.reader import BagReader
from superpoint_ros.tools.demo.node_process import NodeProcess
from superpoint_ros.tools.demo.results import DIAGNOSTICS, FEATURES, HOMOGRAPHY, MATCHES, NODE, OUTPUTS
from superpoint_ros.tools.demo.shots import Source, images
from superpoint_ros.tools.demo.summary import Timing
from superpoint_ros.tools.playback.player import Player, message_class
from superpoint_ros.tools.playback.recorder import Recorder
from superpoint_ros.tools.session import Timeout, private_domain, ros_session, wait_until

START_SECONDS = 90.0
"""For a node to load torch and its weights, on a machine that is busy."""

ASK_AGAIN = 2.0
"""Seconds after which an unanswered question is put once more."""

ANSWER_SECONDS = 20.0
"""For DDS endpoints to meet, and for the last frames to come back."""

QUIET_SECONDS = 5.0
"""Without an answer after the last frame, for a bag whose last frames are unreadable."""

LONGEST_QUEUE = 60.0
"""Seconds for the frames that are on their way when the last one is sent: the node holds two."""

MEETING_SECONDS = 6.0
"""For the node to know the recorder, once that knows the node."""

RESEND_SECONDS = 3.0
AFTERWARDS = 3600
"""Seconds: after how long a rehearsed image is sent again, and by how much its stamp is later."""

REHEARSALS = 4
LOAD = 0.6
SLOWEST, FASTEST = 0.3, 1.0
"""The rate that is chosen when none is given keeps the node LOAD busy, within these bounds."""


def play_to_node(
    source: Source,
    record: Path,
    log: Path,
    parameters: Mapping[str, str],
    rate: float | None = None,
    say: Callable[[str], None] = print,
    lockstep: bool = False,
    problems: list[str] | None = None,
) -> Timing:
    """Start the node, play images to it, record its answers in a new bag, and stop it.

    log         file for the node's output
    parameters  of the node: name -> value
    rate        times the recorded speed; None: what this machine can sustain, at most 1
    lockstep    each frame is sent once the one before is answered, so that a busy node drops none
    problems    gets sentences about what of the bag cannot be played

    Raises NodeDied, Timeout or BagError, each with a sentence.
    """
    topic, domain_id = source.topic, private_domain()
    os.environ.update(local_discovery())
    compressed = topic.type == COMPRESSED_IMAGE
    settings: dict[str, str | bool] = {**parameters, "lazy": False}  # it is awaited by its subscription to images
    if compressed:
        settings["image_transport"] = "compressed"
    remappings = {"image/compressed" if compressed else "image": topic.name}
    with (
        NodeProcess(remappings, settings, domain_id, log) as process,
        ros_session("superpoint_demo", domain_id) as ros,
        BagReader(source.bag) as bag,
    ):
        say(f"Starting the node (ROS_DOMAIN_ID {domain_id}, output in {log}).")
        player = Player(ros, [topic])
        try:
            await_node(ros, player, topic, process)
            sustained = rehearse(ros, player, images(bag, source, []), process, required=rate is None)
        except Timeout as error:
            raise Timeout(f"{error}; the node's last words:\n{process.tail()}") from None
        rate = rate or sustained
        say(f"Playing {topic.name} at {rate:.2g} times the recorded speed.")
        messages = images(bag, source, [] if problems is None else problems)
        total = topic.count if source.stop is None else None
        playing = tqdm(messages, "Playing", total, disable=None)
        first = next(images(bag, source, []), None)
        return _perform(ros, player, first, playing, rate, record, process, lockstep)


def local_discovery() -> dict[str, str]:
    """Environment variables that keep DDS on this machine."""
    if os.environ.get("ROS_DISTRO") == "humble":
        return {"ROS_LOCALHOST_ONLY": "1"}
    return {"ROS_AUTOMATIC_DISCOVERY_RANGE": "LOCALHOST"}


def await_node(ros: Node, player: Player, topic: Topic, process: NodeProcess) -> None:
    """Wait until the node is active and its subscription is matched with our publisher."""
    client = ros.create_client(GetState, f"{NODE}/get_state")
    wait_until(client.service_is_ready, START_SECONDS, "answer from the node", process.check)

    def active() -> bool:
        answer = client.call_async(GetState.Request())
        try:
            wait_until(answer.done, ASK_AGAIN, "state from the node", process.check)
        except Timeout:
            # A service that is ready may not have discovered us yet; then its answer is lost.
            client.remove_pending_request(answer)
            return False
        return bool(answer.result().current_state.id == State.PRIMARY_STATE_ACTIVE)

    wait_until(active, START_SECONDS, "active node", process.check)
    ros.destroy_client(client)
    heard = f"subscription of the node to {topic.name}"
    wait_until(lambda: player.subscribers(topic.name) > 0, ANSWER_SECONDS, heard, process.check)


def rehearse(ros: Node, player: Player, messages: Iterator[Message], process: NodeProcess, required: bool) -> float:
    """Send the first image until it has come back a few times; returns the rate to play at.

    The rehearsed images bear stamps an hour later than the first: for the node the bag then begins
    with a jump back in time, so that its first frame has no reference, as it should.

    messages  those that are played
    required whether no answer is an error; a bag's first image may be one the node cannot read
    """
    first, second = next(messages, None), next(messages, None)
    if first is None or second is None:
        return FASTEST
    arrivals: dict[int, int] = {}
    subscription = ros.create_subscription(
        message_class(OUTPUTS[FEATURES]),
        FEATURES,
        lambda data: arrivals.setdefault(header_stamp(data), time.monotonic_ns()),
        10,
        raw=True,
    )
    seconds: list[float] = []
    deadline = time.monotonic() + ANSWER_SECONDS
    for number in itertools.count(1):
        # best effort: an image sent before all have met is lost, and sent again
        image = with_later_stamp(first, AFTERWARDS + number)
        seconds += _round_trip(player, image, arrivals, process)
        if len(seconds) == REHEARSALS or time.monotonic() > deadline:
            break
    ros.destroy_subscription(subscription)
    if required and not seconds:
        raise Timeout(f"no features came back for {number} images within {ANSWER_SECONDS:.0f} s")
    return sustainable_rate(seconds, (second.time - first.time) / 1e9)


def _round_trip(player: Player, image: Message, arrivals: Mapping[int, int], process: NodeProcess) -> list[float]:
    """Seconds until an image's features came back, or nothing."""
    stamp, sent = header_stamp(image.data), time.monotonic_ns()
    player.publish(image)
    try:
        wait_until(lambda: stamp in arrivals, RESEND_SECONDS, "features", process.check)
    except Timeout:
        return []
    return [(arrivals[stamp] - sent) / 1e9]


def sustainable_rate(seconds: Sequence[float], period: float) -> float:
    """The rate that keeps the node LOAD busy, from its round trips; the first goes through cold.

    period  seconds between two frames, as recorded
    """
    if not seconds:
        return FASTEST
    usual = float(np.median(seconds[1:] or seconds))
    return float(np.clip(LOAD * period / max(usual, 1e-6), SLOWEST, FASTEST))


def with_later_stamp(message: Message, seconds: int) -> Message:
    """The same message, with a header's stamp so many seconds later; earlier at the end of what an int32 holds."""
    order = "<" if message.data[1] & 1 else ">"
    (stamp,) = struct.unpack_from(f"{order}i", message.data, 4)
    later = struct.pack(f"{order}i", stamp + seconds if stamp + seconds < 1 << 31 else stamp - seconds)
    return replace(message, data=message.data[:4] + later + message.data[8:])


def _perform(
    ros: Node,
    player: Player,
    first: Message | None,
    messages: Iterable[Message],
    rate: float,
    record: Path,
    process: NodeProcess,
    lockstep: bool,
) -> Timing:
    """Play, and record until the answer to the last frame is there."""
    sent: dict[int, int] = {}
    heard: set[str] = set()
    arrivals: dict[str, dict[int, int]] = {name: {} for name in OUTPUTS}

    def note_sent(message: Message) -> None:
        sent[header_stamp(message.data)] = time.monotonic_ns()

    def note_arrival(name: str, arrival: int, data: bytes) -> None:
        arrivals[name].setdefault(header_stamp(data), arrival)

    def is_of_a_frame(name: str, data: bytes) -> bool:
        """Not what comes of the rehearsal."""
        heard.add(name)
        return name == DIAGNOSTICS or header_stamp(data) in sent

    with Recorder(ros, record, OUTPUTS, note_arrival, wanted=is_of_a_frame) as recorder:

        def check() -> None:
            process.check()
            recorder.check()

        wait_until(recorder.connected, ANSWER_SECONDS, "connection to the node's topics", check)
        if first is not None:
            await_recorder(player, first, heard, check)
        answers = arrivals[HOMOGRAPHY]
        if lockstep:
            messages = in_turn(messages, lambda: next(reversed(sent)) in answers, check)
        count = player.play(messages, rate, note_sent, check)
        ended, last = time.monotonic_ns(), next(reversed(sent), None)

        def answered() -> bool:
            quiet = time.monotonic_ns() - max([ended, *answers.values()])
            return last in answers or quiet > QUIET_SECONDS * 1e9

        wait_until(answered, LONGEST_QUEUE, "end of the node's answers", check)
        accounts = len(arrivals[DIAGNOSTICS])
        with suppress(Timeout):
            # one more, so that the node's account includes the last frame
            wait_until(lambda: len(arrivals[DIAGNOSTICS]) > accounts, QUIET_SECONDS, "", check)
    return Timing(count, sent, arrivals[FEATURES])


def await_recorder(player: Player, first: Message, heard: Set[str], check: Callable[[], None]) -> None:
    """Send the first image until its answers reach the recorder: the node may know the recorder's subscriptions later
    than they know the node, and its answers to the first frames would be lost.

    heard  the topics of which something has come, matches too, as it is not the first image

    After MEETING_SECONDS it is played all the same: the image may be one that the node cannot read.
    """
    deadline = time.monotonic() + MEETING_SECONDS
    for number in itertools.count(1):
        player.publish(with_later_stamp(first, 2 * AFTERWARDS + number))  # later than those of the rehearsal
        with suppress(Timeout):
            return wait_until(lambda: heard >= {FEATURES, MATCHES, HOMOGRAPHY}, RESEND_SECONDS, "", check)
        if time.monotonic() > deadline:
            return


def in_turn(
    messages: Iterable[Message], answered: Callable[[], bool], check: Callable[[], None] = lambda: None
) -> Iterator[Message]:
    """The messages, each once the one before, which has been sent meanwhile, is answered, or will not be."""
    for message in messages:
        yield message
        with suppress(Timeout):
            wait_until(answered, ANSWER_SECONDS, "", check)
