"""superpoint_ros/node/partners.py"""

import pytest

from superpoint_ros.node.partners import Partners

MS = 10**6


@pytest.fixture
def now():
    return [100.0]


def partners(now, cameras=("left", "right"), slop=0.01):
    return Partners(cameras, slop, patience=5.0, clock=lambda: now[0])


def run(rig, now, seconds, cameras):
    """Frames of these cameras (name: milliseconds after the first) every 100 ms."""
    for index in range(10 * seconds):
        now[0] += 0.1
        for name, offset in cameras.items():
            rig.came(name, (100 * index + offset) * MS)


def test_a_camera_that_sends_nothing_is_named(now):
    rig = partners(now, ("left", "right", "rear"))
    run(rig, now, 4, {"left": 0, "rear": 0})
    assert rig.trouble() == ""
    run(rig, now, 3, {"left": 0, "rear": 0})
    assert rig.trouble() == "no set of frames for 7 s: camera right has sent no image for 7 s"


@pytest.mark.parametrize(
    ("slop", "offset", "sentence"),
    [
        (0.01, 33, "frames of camera right are 33 ms after those of left, and sync_slop allows 10 ms"),
        (0.01, -20, "frames of camera right are 20 ms before those of left, and sync_slop allows 10 ms"),
        (0.0, 2, "frames of camera right are 2 ms after those of left, and synchronise is exact"),
        (0.01, 10**8, "frames of camera right are 99994.1 s after those of left, and sync_slop allows 10 ms"),
    ],
)
def test_the_offset_of_the_stamps_is_told(now, slop, offset, sentence):
    rig = partners(now, slop=slop)
    run(rig, now, 6, {"left": 0, "right": offset})
    assert rig.trouble().startswith("no set of frames for 6 s: frames of camera right are ")
    if offset < 10**8:
        assert rig.trouble().endswith(sentence)


def test_cameras_of_unequal_rate_are_no_trouble_while_there_are_sets(now):
    rig = partners(now)
    for index in range(200):
        now[0] += 0.1
        rig.came("left", 100 * index * MS)
        if index % 10 == 0:
            rig.came("right", 100 * index * MS)
            rig.matched()
        assert rig.trouble() == ""


def test_no_camera_at_all_is_no_trouble_of_the_partners(now):
    rig = partners(now)
    now[0] += 60
    assert rig.trouble() == ""
