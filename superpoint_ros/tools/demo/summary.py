"""Every homography against the truth, and the figures that sum the demo up."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from superpoint_ros.features.homography import corner_error
from superpoint_ros.tools.demo.results import FrameResult
from superpoint_ros.tools.demo.sequence import motion

OK_SHARE = 0.95
"""At least this part of the received homographies must be OK."""

CORNER_ERROR = 0.1
"""Pixels: the most that the median corner error may be; with the default weights it is 0.02."""

Truth = Mapping[int, NDArray[np.float64]]
"""Stamp in nanoseconds -> (3, 3): from the plane that the camera looks at to the frame."""


@dataclass(frozen=True)
class Timing:
    """When frames went out and features came back (stamp -> steady ns), and how many went out."""

    frames_sent: int
    sent: Mapping[int, int]
    received: Mapping[int, int]

    def latency_ms(self, stamp: int) -> float:
        """From publishing the image to receiving its features; NaN where they never came."""
        if stamp not in self.sent or stamp not in self.received:
            return float("nan")
        return (self.received[stamp] - self.sent[stamp]) / 1e6


@dataclass(frozen=True)
class FrameFigures:
    """The figures of one frame: what remains of a FrameResult when pictures are done with."""

    stamp: int
    reference: int
    features: bool
    keypoints: int
    status: int | None
    latency_ms: float
    corner_error_px: float
    rmse_px: float
    estimate: NDArray[np.float64]
    truth: NDArray[np.float64]
    size: tuple[int, int]
    weights_id: str


@dataclass(frozen=True)
class Summary:
    """What summary.json holds; pixels are of the image, and figures that nothing is known of are
    None.

    latency_ms_*  from publishing an image to receiving its features, both in the demo's process
    dropped       frames sent without features coming back
    """

    frames_sent: int
    features_received: int
    homographies_received: int
    homographies_ok: int
    median_corner_error_px: float | None
    p95_corner_error_px: float | None
    median_keypoints: float | None
    latency_ms_p50: float | None
    latency_ms_p95: float | None
    dropped: int
    device: str
    weights_id: str

    @property
    def homographies_expected(self) -> int:
        """Those received but the first, whose frame has nothing to be matched with."""
        return max(self.homographies_received - 1, self.homographies_ok)


def judge_frame(result: FrameResult, timing: Timing, truth: Truth | None) -> FrameFigures:
    """Compare one frame's homography with the truth between its reference and itself."""
    known = truth is not None and result.ok and {result.reference, result.stamp} <= set(truth)
    true = motion(truth[result.reference], truth[result.stamp]) if truth and known else np.full((3, 3), np.nan)
    return FrameFigures(
        stamp=result.stamp,
        reference=result.reference,
        features=result.features,
        keypoints=len(result.xy),
        status=None if result.status is None else int(result.status),
        latency_ms=timing.latency_ms(result.stamp),
        corner_error_px=corner_error(result.matrix, true, result.size) if known else float("nan"),
        rmse_px=result.rmse,
        estimate=result.matrix,
        truth=true,
        size=result.size,
        weights_id=result.weights_id,
    )


def summarise(frames: Sequence[FrameFigures], timing: Timing, device: str) -> Summary:
    """The figures of the whole run. A homography without a known truth has no corner error."""
    with_features = [frame for frame in frames if frame.features]
    judged = [frame for frame in frames if frame.status is not None]
    errors = [frame.corner_error_px for frame in frames]
    latencies = [frame.latency_ms for frame in with_features]
    return Summary(
        frames_sent=timing.frames_sent,
        features_received=len(with_features),
        homographies_received=len(judged),
        homographies_ok=sum(frame.status == 0 for frame in judged),
        median_corner_error_px=_percentile(errors, 50),
        p95_corner_error_px=_percentile(errors, 95),
        median_keypoints=_percentile([frame.keypoints for frame in with_features], 50),
        latency_ms_p50=_percentile(latencies, 50),
        latency_ms_p95=_percentile(latencies, 95),
        dropped=timing.frames_sent - len(with_features),
        device=device,
        weights_id=with_features[-1].weights_id if with_features else "",
    )


def faults(summary: Summary, with_truth: bool) -> list[str]:
    """Why the run failed, a sentence each; empty if it passed."""
    found = []
    received, good, expected = summary.homographies_received, summary.homographies_ok, summary.homographies_expected
    if summary.features_received == 0:
        found.append(f"no features came back for {summary.frames_sent} frames")
    if received == 0:
        found.append("no homographies came back")
    elif good < OK_SHARE * expected:
        share = f"{good} of {expected} homographies are OK ({good / expected:.0%})"
        found.append(f"{share}; {OK_SHARE:.0%} must be")
    median = summary.median_corner_error_px
    if with_truth and good > 0 and (median is None or median > CORNER_ERROR):
        found.append(f"the median corner error is {_figure(median, 'px')}; at most {CORNER_ERROR:g} px is allowed")
    return found


def headline(summary: Summary) -> str:
    """The run in one line."""
    line = f"superpoint demo: {summary.homographies_ok} of {summary.homographies_expected} homographies OK"
    if summary.median_corner_error_px is not None:
        line += f", median corner error {summary.median_corner_error_px:.2f} px"
    return f"{line}, {summary.weights_id} on {summary.device}"


def table(summary: Summary, diagnostics: Mapping[str, str]) -> str:
    """The figures as lines of text, in words.

    diagnostics  the node's own account, for the frames that it replaced by newer ones or could not
                 read
    """
    good, expected = summary.homographies_ok, summary.homographies_expected
    account = ", ".join(
        f"{diagnostics[key]} {words}"
        for key, words in (
            ("frames_dropped", "replaced by a newer one in the node"),
            ("frames_bad", "unreadable"),
            ("frames_failed", "failed"),
        )
        if diagnostics.get(key, "0") != "0"
    )
    rows = {
        "frames sent": str(summary.frames_sent),
        "features received": str(summary.features_received),
        "frames without features": f"{summary.dropped}" + (f" ({account})" if account else ""),
        "keypoints, median": _figure(summary.median_keypoints, "", 0),
        "homographies received": str(summary.homographies_received),
        "homographies OK": f"{good} of {expected} to a frame before ({good / max(expected, 1):.1%})",
        "corner error, median": _figure(summary.median_corner_error_px, "px"),
        "corner error, 95 %": _figure(summary.p95_corner_error_px, "px"),
        "latency, image published to features received, median": _figure(summary.latency_ms_p50, "ms", 1),
        "latency, 95 %": _figure(summary.latency_ms_p95, "ms", 1),
        "device": summary.device,
        "weights": summary.weights_id,
    }
    width = max(map(len, rows))
    return "\n".join(f"{name:<{width}}  {value}" for name, value in rows.items())


def write_summary(path: Path, summary: Summary) -> None:
    """summary.json."""
    path.write_text(json.dumps(asdict(summary), indent=2) + "\n", encoding="utf-8")


def _percentile(values: Sequence[float], percent: float) -> float | None:
    known = [value for value in values if np.isfinite(value)]
    return round(float(np.percentile(known, percent)), 3) if known else None


def _figure(value: float | None, unit: str, digits: int = 2) -> str:
    return "unknown" if value is None else f"{value:.{digits}f} {unit}".strip()
