"""One frame as a person wants to see it: keypoints, trails, figures, where the camera looks."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from superpoint_ros.tools import draw
from superpoint_ros.tools.demo.motion import WINDOW
from superpoint_ros.tools.demo.results import FrameResult
from superpoint_ros.tools.demo.sequence import inverse
from superpoint_ros.tools.demo.shots import Shot
from superpoint_ros.tools.demo.summary import FrameFigures, Truth

WIDTH = 512
"""Pixels of the overlay; even, as video codecs want it."""

BAR = 2 * draw.LINE_HEIGHT
"""Pixels below the picture, for figures."""

TRAIL = 5
"""Frames over which a keypoint's way is drawn."""


class Trails:
    """The way of every keypoint over the last frames, by matches that agree with the homography."""

    def __init__(self) -> None:
        self._stamp: int | None = None
        self._trails: dict[int, NDArray[np.float32]] = {}

    def advance(self, result: FrameResult) -> list[NDArray[np.float32]]:
        """Trails that end in this frame's keypoints, each (2 to TRAIL, 2), oldest point first."""
        before = self._trails if result.reference == self._stamp else {}
        trails = {}
        for reference, current in result.pairs[result.inlier]:
            point = result.xy[current : current + 1]
            trails[int(current)] = np.concatenate([before.get(int(reference), point[:0]), point])[-TRAIL:]
        for index in range(len(result.xy)):
            trails.setdefault(index, result.xy[index : index + 1])
        self._stamp, self._trails = result.stamp, trails
        return [trail for trail in trails.values() if len(trail) > 1]


@dataclass(frozen=True)
class Map:
    """The plane that the camera looks at, and where frames see it, in truth and by estimates."""

    picture: draw.Canvas
    scale: float
    truth: Truth
    estimates: Mapping[int, NDArray[np.float64]]

    def draw(self, stamp: int, size: tuple[int, int]) -> draw.Canvas:
        """The map with the outline of one frame of (height, width)."""
        canvas = self.picture.copy()
        for views, colour, thickness in (
            (self.truth, draw.TRUTH, 3),
            (self.estimates, draw.ESTIMATE, 1),
        ):
            if stamp in views:
                draw.draw_polygon(
                    canvas,
                    draw.outline(inverse(views[stamp]), size),
                    self.scale,
                    colour,
                    thickness,
                )
        draw.write_text(canvas, "true view", (6, 2), draw.TRUTH)
        draw.write_text(canvas, f"{WINDOW} homographies chained", (90, 2), draw.ESTIMATE)
        return canvas


def make_map(
    plane: NDArray[np.uint8],
    truth: Truth,
    estimates: Mapping[int, NDArray[np.float64]],
    width: int = WIDTH,
) -> Map:
    """A map so many pixels wide, darkened so that outlines show."""
    scale = width / plane.shape[1]
    picture = cv2.convertScaleAbs(draw.canvas_of(plane, scale), alpha=0.6)
    return Map(np.asarray(picture, np.uint8), scale, truth, estimates)


def compose(
    shot: Shot,
    figures: FrameFigures | None,
    trails: list[NDArray[np.float32]],
    place: Map | None,
    number: int,
) -> draw.Canvas:
    """The overlay of one frame: (H, WIDTH, 3) BGR uint8.

    figures  of this frame; None if it was skipped
    number   of the frame in the bag, from 0
    """
    scale = WIDTH / shot.picture.shape[1]
    canvas = draw.canvas_of(shot.picture, scale)
    bar = np.zeros((BAR, WIDTH, 3), np.uint8)
    draw.write_text(bar, f"frame {number}", (6, 0))
    if shot.result is None or figures is None:
        draw.write_text(bar, "skipped: the node took a newer one", (84, 0), draw.ORANGE)
    else:
        for trail in trails:
            way = draw.enlarge(trail, scale)
            draw.draw_lines(canvas, way[:-1], way[1:], draw.INLIER)
        draw.draw_points(canvas, shot.result.xy, scale, draw.BLUE)
        draw.draw_points(canvas, _ends(trails), scale, draw.INLIER)
        _write_figures(bar, shot.result, figures)
    parts = [canvas, bar]
    if place is not None:
        parts.append(place.draw(shot.stamp, shot.picture.shape[:2]))
    return np.concatenate(parts)


def _ends(trails: list[NDArray[np.float32]]) -> NDArray[np.float32]:
    return np.array([trail[-1] for trail in trails], np.float32).reshape(-1, 2)


def _write_figures(bar: draw.Canvas, result: FrameResult, figures: FrameFigures) -> None:
    draw.write_text(bar, f"{len(result.xy)} keypoints", (84, 0), draw.BLUE)
    inliers = int(result.inlier.sum())
    draw.write_text(bar, f"{inliers} of {len(result.pairs)} matches agree", (200, 0), draw.INLIER)
    if np.isfinite(figures.latency_ms):
        draw.write_text(bar, f"{figures.latency_ms:.0f} ms", (440, 0))
    if not result.ok:
        reason = "no homography message" if result.status is None else result.status.name
        draw.write_text(bar, f"homography: {reason}", (6, draw.LINE_HEIGHT), draw.ORANGE)
        return
    if np.isfinite(figures.corner_error_px):
        text = f"homography: corners {figures.corner_error_px:.2f} px from the truth"
    else:
        text = f"homography: inliers fit to {result.rmse:.2f} px"
    draw.write_text(bar, text, (6, draw.LINE_HEIGHT), draw.ESTIMATE)
