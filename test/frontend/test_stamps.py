"""superpoint_ros/frontend/stamps.py"""

from types import SimpleNamespace

import pytest

from superpoint_ros.frontend.stamps import jumped_back, nanoseconds

SECOND = 1_000_000_000


def test_seconds_and_nanoseconds_add_up():
    assert nanoseconds(SimpleNamespace(sec=3, nanosec=7)) == 3 * SECOND + 7


@pytest.mark.parametrize(("sec", "nanosec", "found"), [(-1, 0, "-1.000"), (-2, 500_000_000, "-1.500")])
def test_a_stamp_before_the_epoch_is_refused(sec, nanosec, found):
    with pytest.raises(ValueError, match=f"stamp is {found} s, before the epoch"):
        nanoseconds(SimpleNamespace(sec=sec, nanosec=nanosec))


@pytest.mark.parametrize(
    ("stamp", "anew"),
    [(12 * SECOND, False), (10 * SECOND, False), (9 * SECOND + 1, False), (9 * SECOND, True), (0, True)],
    ids=["later", "equal", "late, out of order", "a second back", "a bag that loops"],
)
def test_stamps_begin_anew_only_where_they_go_back_by_a_second(stamp, anew):
    assert jumped_back(10 * SECOND, stamp) == anew
