"""From counters to a diagnostics level that a monitor can act on, and to the sentence that says why."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from superpoint_ros.node.statistics import Period

SILENCE = 5.0
"""Seconds without an image after which a topic counts as silent."""
OTHER_CLOCK = 600.0
"""Seconds between stamps and the node's clock beyond which they are not from the same clock."""
IDLE = "idle, as nobody subscribes to what comes of the images"
"""State of a camera of an active node (parameter `lazy`)."""
OK, WARN, ERROR = 0, 1, 2
"""Levels of diagnostic_msgs/DiagnosticStatus."""


def assess(
    state: str,
    topic: str,
    period: Period,
    silence: float,
    faults: Mapping[str, int],
    remarks: Sequence[str] = (),
    max_age: float = 1.0,
    overload_drops: float = 0.5,
) -> tuple[int, str]:
    """The worst level, and every reason for one above OK.

    state    of the lifecycle, as in "active", or IDLE
    period   what happened since the last report
    silence  seconds since the last image; 0 where none is to be expected
    faults   frames of each kind ("failed", "bad") since the last report
    remarks  what is wrong with the set-up, such as running on the CPU though CUDA was asked for; of an idle camera they
             count, too
    max_age, overload_drops  the parameters of these names
    """
    if state == IDLE:
        return WARN if remarks else OK, "; ".join([*remarks, IDLE])
    if state != "active":
        return OK, f"node is {state}"
    reasons: list[tuple[int, str]] = []
    if faults.get("failed"):
        reasons.append((ERROR, f"frames lost to errors in the last second: {faults['failed']}"))
    if faults.get("incomplete"):
        reasons.append((ERROR, f"frames of which errors cost a part in the last second: {faults['incomplete']}"))
    if faults.get("bad"):
        reasons.append((WARN, f"bad images in the last second: {faults['bad']}"))
    if silence > SILENCE:
        reasons.append((WARN, f"no image on {topic} for {silence:.0f} s"))
    if period.motionless_s > SILENCE and period.empty < max(period.frames_out, 1):
        reasons.append((WARN, f"no homography for {period.motionless_s:.0f} s: ~/homography says why by its status"))
    if abs(period.age) > OTHER_CLOCK:
        reasons.append((WARN, f"stamps are {period.age:.0f} s before the node's clock: is use_sim_time right?"))
    elif period.age > max_age:
        reasons.append((WARN, f"features are stale: {period.age:.1f} s old when published"))
    wanted = period.frames_in - period.skipped
    if period.dropped > 1 and period.dropped > overload_drops * wanted:
        why = f", since one takes {1e3 * period.latency:.0f} ms" if period.frames_out else ""
        dropped = f"{period.dropped} of {wanted} images were dropped in the last second"
        reasons.append((WARN, f"overloaded: {dropped}{why}"))
    if period.lost > 1 and period.lost > overload_drops * (period.frames_in + period.lost):
        lost = f"{period.lost} of {period.frames_in + period.lost} images"
        reasons.append((WARN, f"the middleware lost {lost} in the last second, on the way to this node"))
    reasons += [(WARN, remark) for remark in remarks]
    reasons.sort(key=lambda reason: -reason[0])
    if not reasons:
        return OK, "extracting features"
    return reasons[0][0], "; ".join(sentence for _, sentence in reasons)
