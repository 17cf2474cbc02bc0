"""The run on one page: keypoints, matches, motion against the truth, and latency."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import astuple
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from numpy.typing import NDArray

from superpoint_ros.features.homography import HomographyStatus
from superpoint_ros.tools import draw
from superpoint_ros.tools.demo.motion import WINDOW, movement
from superpoint_ros.tools.demo.overlay import Map
from superpoint_ros.tools.demo.sequence import inverse
from superpoint_ros.tools.demo.shots import Shot
from superpoint_ros.tools.demo.summary import CORNER_ERROR, FrameFigures, Summary

SIZE, DPI = (15, 14), 100
"""Inches, and dots per inch."""

ESTIMATE, TRUE, BAD = "#0072b2", "#999999", "#d55e00"
PICTURE_WIDTH = 960
MAP_WIDTH = 1400
"""Pixels."""

Pair = tuple[Shot, Shot]
"""A reference frame and the frame that was matched with it."""


def write_overview(
    path: Path,
    title: str,
    passed: bool,
    summary: Summary,
    frames: Sequence[FrameFigures],
    pair: Pair | None,
    place: Map | None,
) -> None:
    """Draw the page.

    title  the verdict
    pair   whose keypoints and matches are shown; None if no frame had a homography
    place  the plane and the views of it; None without truth
    """
    figure = Figure(figsize=SIZE, dpi=DPI, layout="constrained")
    FigureCanvasAgg(figure)
    figure.suptitle(title, fontsize=15, color="black" if passed else BAD)
    grid = figure.add_gridspec(4, 12, height_ratios=(3.1, 3.1 if place else 0.01, 2.4, 2.4))
    if pair is not None:
        _show_keypoints(figure.add_subplot(grid[0, :4]), pair[1])
        _show_matches(figure.add_subplot(grid[0, 4:]), pair)
    if place is not None:
        _show_place(figure.add_subplot(grid[1, :]), place, frames)
    seconds = _seconds(frames)
    _show_motion(figure, [grid[2, 3 * column : 3 * column + 3] for column in range(4)], seconds, frames)
    _show_errors(figure.add_subplot(grid[3, :4]), seconds, frames, summary)
    _show_keypoint_counts(figure.add_subplot(grid[3, 4:7]), seconds, frames)
    _show_latency(figure.add_subplot(grid[3, 7:]), seconds, frames, summary)
    figure.savefig(path)


def _show_keypoints(axes: Any, shot: Shot) -> None:
    assert shot.result is not None
    scale = PICTURE_WIDTH / shot.picture.shape[1]
    canvas = draw.canvas_of(shot.picture, scale)
    axes.imshow(cv2.cvtColor(canvas, cv2.COLOR_BGR2RGB))
    xy = draw.enlarge(shot.result.xy, scale)
    # strongest last, so that they lie on top; a logarithm, as scores span three powers of ten
    order = np.argsort(shot.result.scores)
    colours = np.log10(np.maximum(shot.result.scores[order], 1e-4))
    axes.scatter(xy[order, 0], xy[order, 1], c=colours, s=9, cmap="plasma", linewidths=0)
    axes.set_title(f"{len(xy)} keypoints, brighter is stronger")
    axes.axis("off")


def _show_matches(axes: Any, pair: Pair) -> None:
    reference, current = pair
    assert reference.result is not None and current.result is not None
    scale = PICTURE_WIDTH / current.picture.shape[1]
    canvas, offset = draw.side_by_side(
        draw.canvas_of(reference.picture, scale),
        draw.canvas_of(current.picture, scale),
    )
    result = current.result
    begins = draw.enlarge(reference.result.xy[result.pairs[:, 0]], scale)
    ends = draw.enlarge(result.xy[result.pairs[:, 1]], scale) + (offset, 0)
    for chosen, colour in ((~result.inlier, draw.OUTLIER), (result.inlier, draw.INLIER)):
        draw.draw_lines(canvas, begins[chosen], ends[chosen], colour, 0.5)
        for points in (begins, ends):
            draw.draw_points(canvas, points[chosen], 1, colour, 3)
    axes.imshow(cv2.cvtColor(canvas, cv2.COLOR_BGR2RGB))
    inliers = int(result.inlier.sum())
    axes.set_title(f"a frame and the next: {inliers} of {len(result.pairs)} matches agree (green)")
    axes.axis("off")


def _show_place(axes: Any, place: Map, frames: Sequence[FrameFigures]) -> None:
    axes.imshow(cv2.cvtColor(place.picture, cv2.COLOR_BGR2RGB))
    seen = [frame for frame in frames if frame.stamp in place.estimates and frame.stamp in place.truth]
    for views, style in ((place.truth, "w-"), (place.estimates, "y--")):
        middles = [_middle(views[frame.stamp], frame.size) for frame in seen]
        x, y = draw.enlarge(np.array(middles).reshape(-1, 2), place.scale).T
        axes.plot(x, y, style, linewidth=2 if style == "w-" else 1.5)
    for frame in seen[:: max(1, len(seen) // 8)]:
        for views, style in ((place.truth, "w-"), (place.estimates, "y--")):
            corners = draw.enlarge(draw.outline(inverse(views[frame.stamp]), frame.size), place.scale)
            x, y = np.vstack([corners, corners[:1]]).T
            axes.plot(x, y, style, linewidth=0.8)
    axes.set_xlim(0, place.picture.shape[1])
    axes.set_ylim(place.picture.shape[0], 0)
    axes.set_title(f"where the camera looked: truth (white), and by {WINDOW} homographies chained (yellow)")
    axes.axis("off")


def _show_motion(
    figure: Figure,
    cells: Sequence[Any],
    seconds: NDArray[np.float64],
    frames: Sequence[FrameFigures],
) -> None:
    # per second, as skipped frames make some intervals longer than others
    intervals = np.array([(frame.stamp - frame.reference) / 1e9 for frame in frames])
    intervals[[frame.status != HomographyStatus.OK for frame in frames]] = np.nan
    estimates = _movements([frame.estimate for frame in frames], frames) / intervals[:, None]
    truths = _movements([frame.truth for frame in frames], frames) / intervals[:, None]
    names = ("right, px", "down, px", "clockwise, degrees", "closer, %")
    known = bool(np.isfinite(truths).any())
    for column, (cell, name) in enumerate(zip(cells, names, strict=True)):
        axes = figure.add_subplot(cell)
        if known:
            axes.plot(seconds, truths[:, column], color=TRUE, linewidth=4, label="truth")
        axes.plot(seconds, estimates[:, column], ".", color=ESTIMATE, markersize=4, label="homography")
        axes.set_title(f"motion {name} per second", fontsize=10)
        axes.grid(alpha=0.3)
        if column == 0:
            axes.legend(loc="best", fontsize=8)


def _show_errors(axes: Any, seconds: NDArray[np.float64], frames: Sequence[FrameFigures], summary: Summary) -> None:
    errors = np.array([frame.corner_error_px for frame in frames])
    if np.isfinite(errors).any():
        axes.plot(seconds, errors, ".-", color=ESTIMATE, linewidth=0.6, markersize=4)
        axes.axhline(CORNER_ERROR, color=TRUE, linestyle="--", linewidth=1)
        axes.set_title(
            f"corner error, px: median {summary.median_corner_error_px:.2f} "
            f"(limit {CORNER_ERROR:g}), 95 % {summary.p95_corner_error_px:.2f}",
            fontsize=10,
        )
    else:
        errors = np.array([frame.rmse_px for frame in frames])
        axes.plot(seconds, errors, ".-", color=ESTIMATE, linewidth=0.6, markersize=4)
        axes.set_title("how well inliers fit their homography, px rms", fontsize=10)
    lost = np.array([frame.status not in (HomographyStatus.OK, None) for frame in frames], bool)
    axes.plot(seconds[lost], np.zeros(lost.sum()), "x", color=BAD, label="no homography")
    if lost.any():
        axes.legend(loc="upper left", fontsize=8)
    axes.set_ylim(bottom=min(0, axes.get_ylim()[0]))
    axes.set_xlabel("seconds of the bag")
    axes.grid(alpha=0.3)


def _show_keypoint_counts(axes: Any, seconds: NDArray[np.float64], frames: Sequence[FrameFigures]) -> None:
    axes.plot(seconds, [frame.keypoints for frame in frames], color=ESTIMATE, linewidth=1)
    axes.set_ylim(bottom=0)
    axes.set_title("keypoints", fontsize=10)
    axes.set_xlabel("seconds of the bag")
    axes.grid(alpha=0.3)


def _show_latency(axes: Any, seconds: NDArray[np.float64], frames: Sequence[FrameFigures], summary: Summary) -> None:
    axes.plot(
        seconds,
        [frame.latency_ms for frame in frames],
        ".-",
        color=ESTIMATE,
        linewidth=0.6,
        markersize=4,
    )
    if summary.latency_ms_p50 is not None and summary.latency_ms_p95 is not None:
        for value, style in ((summary.latency_ms_p50, "-"), (summary.latency_ms_p95, "--")):
            axes.axhline(value, color=TRUE, linestyle=style, linewidth=1)
        axes.set_title(
            f"from image published to features received, ms: median {summary.latency_ms_p50:.0f}, "
            f"95 % {summary.latency_ms_p95:.0f}",
            fontsize=10,
        )
    axes.set_ylim(bottom=0)
    axes.set_xlabel("seconds of the bag")
    axes.grid(alpha=0.3)


def _middle(view: NDArray[np.float64], size: tuple[int, int]) -> NDArray[np.float64]:
    """Where on the plane the middle of the image lies."""
    point = inverse(view) @ ((size[1] - 1) / 2, (size[0] - 1) / 2, 1)
    return np.asarray(point[:2] / point[2])


def _movements(matrices: Sequence[NDArray[np.float64]], frames: Sequence[FrameFigures]) -> NDArray[np.float64]:
    """(N, 4): the fields of Movement."""
    rows = [astuple(movement(matrix, frame.size)) for matrix, frame in zip(matrices, frames, strict=True)]
    return np.array(rows, np.float64).reshape(-1, 4)


def _seconds(frames: Sequence[FrameFigures]) -> NDArray[np.float64]:
    stamps = np.array([frame.stamp for frame in frames], np.int64)
    return (stamps - stamps.min(initial=stamps[0] if len(stamps) else 0)) / 1e9
