"""superpoint_ros/node/synchroniser.py, with the real message_filters."""

from types import SimpleNamespace

import pytest

pytest.importorskip("message_filters", reason="needs ROS 2's message_filters")

from builtin_interfaces.msg import Time

from superpoint_ros.node.mailbox import Frame
from superpoint_ros.node.synchroniser import Synchroniser


class Rig:
    """Feeds a synchroniser; remembers sets and unmatched frames. Stamps in milliseconds."""

    def __init__(self, cameras=("left", "right"), slop=0.0, queue=5):
        self.unmatched = []
        self.synchroniser = Synchroniser(cameras, slop, queue, self.unmatched.append)

    def add(self, camera, stamp):
        time = Time(sec=stamp // 1000, nanosec=stamp % 1000 * 10**6)
        message = SimpleNamespace(header=SimpleNamespace(stamp=time), stamp=stamp)
        sets = self.synchroniser.add(Frame(camera, message, 0.0))
        return [tuple(frame.message.stamp for frame in frames) for frames in sets]


def test_equal_stamps_make_a_set_in_the_order_of_the_cameras():
    rig = Rig(("left", "right", "rear"))
    assert rig.add("rear", 10) == []
    assert rig.add("left", 10) == []
    assert rig.add("right", 10) == [(10, 10, 10)]
    assert rig.unmatched == []


def test_nearly_equal_stamps_make_a_set_only_with_slop():
    exact, approximate = Rig(), Rig(slop=0.005)
    for rig, expected in ((exact, []), (approximate, [(100, 103)])):
        assert rig.add("left", 100) == []
        assert rig.add("right", 103) == expected
    assert approximate.add("left", 200) == []
    assert approximate.add("right", 206) == []


def test_what_a_set_leaves_behind_is_unmatched_by_camera():
    rig = Rig()
    for stamp in (10, 20, 30):
        rig.add("left", stamp)
    rig.add("right", 15)
    assert rig.add("right", 30) == [(30, 30)]
    assert sorted(rig.unmatched) == ["left", "left", "right"]


def test_frames_of_a_camera_without_partner_are_unmatched_once_the_queue_is_full():
    rig = Rig(queue=3)
    for stamp in range(0, 100, 10):
        rig.add("left", stamp)
    assert rig.unmatched == ["left"] * 7
    assert rig.add("right", 90) == [(90, 90)]
    assert rig.unmatched == ["left"] * 9


def test_every_frame_is_in_a_set_or_unmatched_or_still_waiting():
    import random

    random.seed(5)
    rig = Rig(("left", "right", "rear"), slop=0.02, queue=4)
    sent, matched = 0, 0
    for stamp in range(0, 20000, 50):
        for camera in ("left", "right", "rear"):
            if random.random() < 0.8:
                sent += 1
                matched += 3 * len(rig.add(camera, stamp + random.randrange(15)))
    waiting = sum(len(stamps) for stamps in rig.synchroniser._pending.values())
    assert matched > 500
    assert sent == matched + len(rig.unmatched) + waiting
    rig.synchroniser.end()
    assert sent == matched + len(rig.unmatched)


def test_stamps_of_a_camera_never_go_back_from_set_to_set():
    """A slop beyond half the frame period lets message_filters go back to a leftover."""
    rig = Rig(slop=0.05)
    sets = []
    for camera, stamp in (("left", 80), ("left", 100), ("right", 99), ("right", 110)):
        sets += rig.add(camera, stamp)
    assert sets == [(100, 99)]
    assert sorted(rig.unmatched) == ["left", "right"]


@pytest.mark.parametrize("slop", [0.0, 0.01])
def test_a_bag_that_loops_goes_on_matching(slop):
    rig = Rig(slop=slop, queue=3)
    for _ in range(2):
        sets = []
        for stamp in range(0, 3000, 100):
            sets += rig.add("left", stamp)
            if stamp < 2500:
                sets += rig.add("right", stamp)
        assert len(sets) >= 24


def test_a_stamp_before_the_epoch_is_refused_and_does_not_block_the_next():
    rig = Rig()
    with pytest.raises(ValueError, match="-1.000 s, before the epoch"):
        rig.add("left", -1000)
    rig.add("left", 10)
    assert rig.add("right", 10) == [(10, 10)]
