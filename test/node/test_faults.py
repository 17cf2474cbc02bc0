"""superpoint_ros/node/faults.py"""

from superpoint_ros.node.faults import REPORT_PERIOD, Faults


def test_a_fault_is_said_once_a_period_and_topic_but_always_counted():
    said, now = [], [100.0]
    faults = Faults(said.append, clock=lambda: now[0])
    for _ in range(30):
        faults.add("bad", "/left", "step is 0")
    faults.add("bad", "/right", "no pixels")
    assert said == ["/left: step is 0", "/right: no pixels"]
    now[0] += REPORT_PERIOD
    faults.add("bad", "/left", "no encoding")
    assert said[-1] == "/left: no encoding (29 more like it since the last report)"
    assert faults.count("bad") == 32


def test_kinds_are_counted_and_throttled_apart():
    said = []
    faults = Faults(said.append, clock=lambda: 0.0)
    faults.add("bad", "/left", "empty")
    faults.add("failed", "/left", "out of memory")
    assert len(said) == 2
    assert (faults.count("bad"), faults.count("failed"), faults.count("other")) == (1, 1, 0)
