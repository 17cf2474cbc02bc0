"""Player, recorder and session against real DDS."""

from __future__ import annotations

import socket
import struct
from dataclasses import replace
from types import SimpleNamespace

import pytest

rclpy = pytest.importorskip("rclpy", reason="needs ROS 2 (rclpy)")

from sensor_msgs.msg import Image

from superpoint_ros.bags.content import IMAGE, BagError, Topic, header_stamp
from superpoint_ros.bags.reader import BagReader
from superpoint_ros.bags.writer import offered_qos
from superpoint_ros.tools import session
from superpoint_ros.tools.playback import player as player_module
from superpoint_ros.tools.playback.player import Player, message_class
from superpoint_ros.tools.playback.recorder import Recorder, header_time
from superpoint_ros.tools.session import (
    DOMAINS,
    Timeout,
    private_domain,
    ros_session,
    wait_until,
)

TOPIC = "/camera/image_raw"


@pytest.fixture
def ros(ros_domain):
    with ros_session("test_player", ros_domain) as node:
        yield node


def meet(player, recorder):
    """Wait until the player's and the recorder's endpoints are matched."""
    wait_until(lambda: player.subscribers(TOPIC) > 0, 300, "subscription")
    wait_until(recorder.connected, 300, "publisher")


@pytest.mark.parametrize("reliable", [True, False])
def test_what_is_played_is_recorded_byte_for_byte(ros, make_images, tmp_path, reliable):
    with BagReader(make_images(count=5)) as bag:
        messages = list(bag.messages())
        player = Player(ros, [Topic(TOPIC, IMAGE, 5, offered_qos(reliable, 5))])
        arrived = []
        with Recorder(ros, tmp_path / "copy", {TOPIC: IMAGE}, lambda *each: arrived.append(each)) as recorder:
            meet(player, recorder)
            assert player.play(messages, rate=2) == 5
            wait_until(lambda: len(arrived) == 5, 300, "recorded messages", recorder.check)
    with BagReader(tmp_path / "copy") as copy:
        assert [message.data for message in copy.messages()] == [m.data for m in messages]
        recorded = copy.topics[TOPIC].qos.reliability.name
    assert recorded == ("RELIABLE" if reliable else "BEST_EFFORT")
    assert [topic for topic, _, _ in arrived] == [TOPIC] * 5


def test_what_is_not_wanted_is_neither_recorded_nor_told(ros, make_images, tmp_path):
    with BagReader(make_images(count=5)) as bag:
        messages, arrived = list(bag.messages()), []
        wanted = {header_stamp(message.data) for message in messages[2:]}
        recorder = Recorder(
            ros,
            tmp_path / "copy",
            {TOPIC: IMAGE},
            lambda *each: arrived.append(each),
            wanted=lambda topic, data: topic == TOPIC and header_stamp(data) in wanted,
        )
        player = Player(ros, [Topic(TOPIC, IMAGE, 5, offered_qos(True, 5))])
        with recorder:
            meet(player, recorder)
            player.play(messages, rate=2)
            wait_until(lambda: len(arrived) == 3, 300, "recorded messages", recorder.check)
    with BagReader(tmp_path / "copy") as copy:
        assert {header_stamp(message.data) for message in copy.messages()} == wanted


@pytest.mark.parametrize(("sec", "kept"), [(100, True), (0, True), (-3, False)])
def test_a_message_is_logged_at_its_stamp_if_a_bag_can_hold_it(sec, kept):
    time = header_time(struct.pack("<BBHiI", 0, 1, 0, sec, 5))
    assert (time == sec * 10**9 + 5) == kept and time > 0


@pytest.fixture
def now(monkeypatch):
    """A clock of the player's own, in a list: how late a message is depends on who else uses the machine."""
    now = [100.0]

    def sleep(seconds):
        now[0] += seconds

    monkeypatch.setattr(player_module, "time", SimpleNamespace(monotonic=lambda: now[0], sleep=sleep))
    return now


@pytest.mark.parametrize("rate", [1.0, 4.0])
def test_intervals_are_the_recorded_ones_divided_by_the_rate(ros, make_images, now, rate):
    times = []
    with BagReader(make_images(count=4)) as bag:
        player = Player(ros, [bag.image_topic(None)])
        player.play(bag.messages(), rate, before=lambda message: times.append(now[0]))
    assert times == pytest.approx([100.0 + number * 0.1 / rate for number in range(4)], abs=1e-6)


def test_a_hole_of_years_is_left_out_and_told(ros, make_images, now):
    with BagReader(make_images(count=5)) as bag:
        player, messages = Player(ros, [bag.image_topic(None)]), list(bag.messages())
    year = 365 * 86_400 * 10**9
    late = [replace(message, time=message.time + (number > 1) * 50 * year) for number, message in enumerate(messages)]
    times, gaps = [], []
    assert player.play(late, before=lambda message: times.append(now[0]), on_gap=gaps.append) == 5
    assert gaps == [pytest.approx(50 * 365 * 86_400 + 0.1)]
    assert [at - times[2] for at in times[2:]] == pytest.approx([0.0, 0.1, 0.2], abs=1e-6)


def test_a_check_that_raises_ends_the_playing(ros, make_images):
    with BagReader(make_images(count=20)) as bag:
        player, sent = Player(ros, [bag.image_topic(None)]), []

        def check():
            if len(sent) == 3:
                raise Timeout("enough")

        with pytest.raises(Timeout, match="enough"):
            player.play(bag.messages(), 1.0, before=sent.append, check=check)
        assert len(sent) == 3


def test_messages_that_are_not_installed_are_named():
    assert message_class(IMAGE) is Image
    for kind in ("foo_msgs/msg/Bar", "sensor_msgs/msg/Bar", "nonsense"):
        with pytest.raises(BagError, match="cannot be published"):
            message_class(kind)


def test_a_recorder_tells_what_went_wrong(ros, make_images, tmp_path):
    def fail(topic, arrival, data):
        raise OSError("no space left")

    with BagReader(make_images(count=1)) as bag:
        player = Player(ros, [bag.image_topic(None)])
        with Recorder(ros, tmp_path / "copy", {TOPIC: IMAGE}, fail) as recorder:
            meet(player, recorder)
            recorder.check()
            player.play(bag.messages())
            with pytest.raises(OSError, match="no space left"):
                wait_until(lambda: False, 300, "error", recorder.check)


def test_a_session_leaves_nothing_running(ros_domain):
    for _ in range(2):
        with ros_session("test_session", ros_domain) as node:
            assert node.context.ok()
        assert not node.context.ok()


def test_waiting_ends_with_the_condition_the_check_or_the_deadline():
    wait_until(lambda: True, 0, "nothing")
    with pytest.raises(Timeout, match="no answer within 0 s"):
        wait_until(lambda: False, 0.1, "answer")
    with pytest.raises(ZeroDivisionError):
        wait_until(lambda: False, 300, "answer", lambda: 1 // 0)


def test_a_private_domain_is_not_in_use(monkeypatch):
    # The machine's own ports change at any time, as others' nodes come and go: only what is held here is sure.
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as port:
        held = next(domain for domain in DOMAINS if bound(port, 7410 + 250 * domain))
        assert not session._unused(held)
    monkeypatch.setattr(session, "_unused", lambda domain: domain == 42)
    assert {private_domain() for _ in range(20)} == {42}


def test_a_private_domain_is_not_the_environments(monkeypatch):
    monkeypatch.setattr(session, "_unused", lambda domain: True)
    monkeypatch.setattr(session, "DOMAINS", range(6, 9))
    monkeypatch.setenv("ROS_DOMAIN_ID", "7")
    assert {private_domain() for _ in range(200)} == {6, 8}


def bound(port, number):
    """Whether a socket could be bound to a port, which others may have."""
    try:
        port.bind(("", number))
    except OSError:
        return False
    return True


def test_stamps_survive_the_wire(ros, make_images, tmp_path):
    with BagReader(make_images(count=3)) as bag:
        stamps = [header_stamp(message.data) for message in bag.messages()]
        arrived = []
        subscription = ros.create_subscription(
            Image, TOPIC, lambda data: arrived.append(header_stamp(data)), 10, raw=True
        )
        player = Player(ros, [bag.image_topic(None)])
        wait_until(lambda: player.subscribers(TOPIC) > 0, 300, "subscription")
        wait_until(lambda: subscription.get_publisher_count() > 0, 300, "publisher")
        player.play(bag.messages(), 10)
        wait_until(lambda: len(arrived) == 3, 300, "messages")
    assert arrived == stamps
