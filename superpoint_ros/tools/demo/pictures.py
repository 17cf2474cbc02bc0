"""The demo's video, and what its page shows, from the two bags of a run."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from superpoint_ros.features.homography import HomographyStatus
from superpoint_ros.tools.demo import overlay, overview
from superpoint_ros.tools.demo.motion import chained_views
from superpoint_ros.tools.demo.overlay import Map, Trails, compose, make_map
from superpoint_ros.tools.demo.shots import Shot, Source, read_shots, recorded_times
from superpoint_ros.tools.demo.summary import FrameFigures, Timing, Truth
from superpoint_ros.tools.demo.video import write_video
from superpoint_ros.tools.demo.wall import wall

LONGEST_VIDEO = 900
"""Frames: VP9 takes a tenth of a second for each."""


def chained_maps(frames: Sequence[FrameFigures], truth: Truth) -> tuple[Map, Map]:
    """The wall with true and estimated views, small for the video and large for the page."""
    views = chained_views(frames, truth)
    return (
        make_map(wall(), truth, views, overlay.WIDTH),
        make_map(wall(), truth, views, overview.MAP_WIDTH),
    )


def write_overlays(
    path: Path,
    source: Source,
    record: Path,
    timing: Timing,
    frames: Sequence[FrameFigures],
    place: Map | None,
) -> int:
    """Write the video of all frames, at most LONGEST_VIDEO; returns how many."""
    total = min(timing.frames_sent, LONGEST_VIDEO)
    shots = islice(read_shots(source, record, timing.sent), LONGEST_VIDEO)
    shown = tqdm(overlays(shots, frames, place), "Drawing", total, disable=None)
    return write_video(path, shown, frame_rate(list(islice(recorded_times(source), 100))))


def overlays(shots: Iterable[Shot], frames: Sequence[FrameFigures], place: Map | None) -> Iterator[NDArray[np.uint8]]:
    """The overlay of every shot, with trails that go on from one to the next."""
    figures = {frame.stamp: frame for frame in frames}
    trails = Trails()
    for number, shot in enumerate(shots):
        ways = trails.advance(shot.result) if shot.result is not None else []
        yield compose(shot, figures.get(shot.stamp), ways, place, number)


def sample_pair(
    source: Source, record: Path, timing: Timing, frames: Sequence[FrameFigures]
) -> tuple[Shot, Shot] | None:
    """The middle one of the frames with a homography, after its reference; None without any."""
    good = [frame.stamp for frame in frames if frame.status == HomographyStatus.OK]
    if not good:
        return None
    wanted, previous = good[len(good) // 2], None
    for shot in read_shots(source, record, timing.sent):
        if shot.result is None:
            continue
        if shot.stamp == wanted and previous is not None:
            return (previous, shot) if shot.result.reference == previous.stamp else None
        previous = shot
    return None


def frame_rate(times: Sequence[int]) -> float:
    """Frames a second, 1 to 60, from times in nanoseconds; 10 where they say nothing."""
    if len(times) < 2 or times[-1] <= times[0]:
        return 10.0
    return float(np.clip((len(times) - 1) * 1e9 / (times[-1] - times[0]), 1, 60))
