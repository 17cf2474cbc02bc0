from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("rclpy", reason="needs ROS 2 (rclpy)")

from bag_samples import SECOND, image_bytes
from superpoint_ros.bags.content import IMAGE, Message, Topic, header_stamp, stamp_nanoseconds
from superpoint_ros.bags.reader import BagReader
from superpoint_ros.tools.demo import playback
from superpoint_ros.tools.demo.node_process import NodeDied, NodeProcess
from superpoint_ros.tools.demo.playback import (
    FASTEST,
    LOAD,
    SLOWEST,
    await_recorder,
    in_turn,
    sustainable_rate,
    with_later_stamp,
)
from superpoint_ros.tools.demo.results import FEATURES, HOMOGRAPHY, MATCHES
from superpoint_ros.tools.session import wait_until


def test_the_rate_leaves_the_node_some_rest():
    assert sustainable_rate([9.0, 0.2, 0.2, 0.2], 0.1) == pytest.approx(LOAD * 0.5)
    assert sustainable_rate([0.12], 0.1) == pytest.approx(LOAD / 1.2)
    assert sustainable_rate([1.0, 0.001, 0.001], 0.1) == FASTEST
    assert sustainable_rate([1.0, 60.0], 0.1) == SLOWEST
    assert sustainable_rate([], 0.1) == FASTEST


def test_a_later_stamp_changes_nothing_else(make_images):
    with BagReader(make_images(count=1)) as bag:
        (message,) = bag.messages()
        later = with_later_stamp(message, 3600)
        assert header_stamp(later.data) == header_stamp(message.data) + 3600 * SECOND
        image, original = bag.decode(later), bag.decode(message)
        assert stamp_nanoseconds(image.header.stamp) == header_stamp(later.data)
        assert (image.data == original.data).all() and image.header.frame_id == "camera"


def test_a_stamp_near_the_last_one_there_is_becomes_another_one(make_bag):
    last = (2**31 - 7) * SECOND
    bag = make_bag("late", {"/image": IMAGE}, [("/image", SECOND, image_bytes(last, np.zeros((20, 20), np.uint8)))])
    with BagReader(bag) as reader:
        (message,) = reader.messages()
    assert {header_stamp(with_later_stamp(message, seconds).data) for seconds in (3, 9)} == {
        last + 3 * SECOND,
        last - 9 * SECOND,
    }


def test_a_node_that_ends_is_noticed_with_its_last_words(tmp_path, ros_domain):
    log = tmp_path / "node.log"
    with NodeProcess({}, {"no_such_parameter": "1"}, ros_domain, log) as process:
        with pytest.raises(NodeDied, match="status 1.*(?s:.)*'no_such_parameter' is unknown"):
            wait_until(lambda: False, 100, "end of the node", process.check)


def test_a_process_is_stopped_when_its_block_ends(tmp_path, ros_domain):
    with NodeProcess({}, {}, ros_domain, tmp_path / "node.log") as process:
        process.check()
    with pytest.raises(NodeDied):
        process.check()


FIRST = Message(Topic("/camera", IMAGE, 1), 0, image_bytes(7 * SECOND, np.zeros((20, 20), np.uint8)))


class Publisher:
    """In the place of a player: answers to the first image are lost, of one topic more than of the others."""

    def __init__(self):
        self.stamps, self.heard = [], set()

    def publish(self, message):
        self.stamps.append(header_stamp(message.data) // 10**9)
        self.heard |= [set(), {FEATURES, HOMOGRAPHY}, {MATCHES}][min(len(self.stamps), 3) - 1]


def test_the_first_frame_is_not_played_before_answers_reach_the_recorder(monkeypatch):
    monkeypatch.setattr(playback, "RESEND_SECONDS", 0.01)
    player = Publisher()
    await_recorder(player, FIRST, player.heard, lambda: None)
    assert player.stamps == [7 + 2 * playback.AFTERWARDS + number for number in (1, 2, 3)]


def test_a_first_image_that_the_node_cannot_read_is_not_waited_for_for_ever(monkeypatch):
    monkeypatch.setattr(playback, "RESEND_SECONDS", 0.01)
    monkeypatch.setattr(playback, "MEETING_SECONDS", 0.05)
    await_recorder(Publisher(), FIRST, set(), lambda: None)


def test_in_lockstep_a_frame_waits_for_the_answer_to_the_one_before():
    asked = []

    def answered():
        asked.append(len(seen))
        return len(asked) % 3 == 0

    seen = []
    for message in in_turn("abc", answered):
        seen.append(message)
    assert seen == ["a", "b", "c"]
    assert asked == [1, 1, 1, 2, 2, 2, 3, 3, 3]


def test_in_lockstep_a_frame_that_is_never_answered_ends_the_waiting_not_the_playing(monkeypatch):
    monkeypatch.setattr(playback, "ANSWER_SECONDS", 0.01)
    assert list(in_turn("abc", lambda: False)) == ["a", "b", "c"]
