"""superpoint_ros/node/faults.py"""

from superpoint_ros.node.faults import REASONS, REPORT_PERIOD, Faults


def test_a_fault_is_said_once_a_period_and_topic_but_always_counted():
    said, now = [], [100.0]
    faults = Faults(said.append, clock=lambda: now[0])
    for _ in range(30):
        faults.add("bad", "/left", "step is 0")
    faults.add("bad", "/right", "no pixels")
    assert said == ["/left: step is 0", "/right: no pixels"]
    now[0] += REPORT_PERIOD
    faults.add("bad", "/left", "no encoding")
    assert said[-1] == "/left: no encoding (29 more since the last report)"
    assert faults.count("bad") == 32


def test_kinds_are_counted_and_throttled_apart():
    said = []
    faults = Faults(said.append, clock=lambda: 0.0)
    faults.add("bad", "/left", "empty")
    faults.add("failed", "/left", "out of memory")
    assert len(said) == 2
    assert (faults.count("bad"), faults.count("failed"), faults.count("other")) == (1, 1, 0)


def test_another_reason_is_said_at_once_but_not_a_hundred():
    said = []
    faults = Faults(said.append, clock=lambda: 0.0)
    for sentence in ("step is 0", "step is 319", "no pixels (640×480)", "no pixels (1.5×2)"):
        faults.add("bad", "/left", sentence)
    assert said == ["/left: step is 0", "/left: no pixels (640×480) (1 more since the last report)"]
    for letter in "abcdefghij":
        faults.add("bad", "/left", f"unknown encoding {letter}")
    assert len(said) == REASONS
    assert faults.count("bad") == 14


def test_what_a_message_holds_can_neither_fill_the_log_nor_steer_the_terminal():
    said = []
    faults = Faults(said.append)
    faults.add("bad", "/left", f"encoding '\x1b[31m{'mono8' * 1000}' is unknown")
    assert len(said[0]) < 500 and "\x1b" not in said[0]
    assert said[0].startswith("/left: encoding '\\x1b[31mmono8") and said[0].endswith(" is unknown")
