"""Keypoints, matches and outlines on pictures.

All points are pixels of the source image (x right, y down, (0, 0) the centre of the first pixel);
`scale` enlarges them to the canvas. Colours are BGR, of Okabe and Ito's palette, which colour-blind
people can tell apart.
"""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from superpoint_ros.features.homography import image_corners, project

GREEN, ORANGE, BLUE, YELLOW = (115, 158, 0), (0, 94, 213), (233, 180, 86), (66, 228, 240)
WHITE, BLACK = (255, 255, 255), (0, 0, 0)
INLIER, OUTLIER, ESTIMATE, TRUTH = (140, 220, 40), ORANGE, YELLOW, WHITE

Canvas = NDArray[np.uint8]
Colour = tuple[int, int, int]

SHIFT = 4
"""Bits of a pixel's fraction in OpenCV's drawing functions."""

LINE_HEIGHT = 20
"""Pixels of a line of text."""


def canvas_of(picture: NDArray[np.uint8], scale: float) -> Canvas:
    """A picture, (H, W) grey or (H, W, 3) BGR, to draw on: (H · scale, W · scale, 3)."""
    colour = cv2.cvtColor(picture, cv2.COLOR_GRAY2BGR) if picture.ndim == 2 else picture.copy()
    if scale == 1:
        return np.asarray(colour, np.uint8)
    size = (max(1, round(picture.shape[1] * scale)), max(1, round(picture.shape[0] * scale)))
    interpolation = cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC
    return np.asarray(cv2.resize(colour, size, interpolation=interpolation), np.uint8)


def side_by_side(left: Canvas, right: Canvas, gap: int = 8) -> tuple[Canvas, int]:
    """Both on one black canvas, and the x at which the right one begins."""
    height = max(left.shape[0], right.shape[0])
    canvas = np.zeros((height, left.shape[1] + gap + right.shape[1], 3), np.uint8)
    canvas[: left.shape[0], : left.shape[1]] = left
    offset = left.shape[1] + gap
    canvas[: right.shape[0], offset:] = right
    return canvas, offset


def draw_points(canvas: Canvas, xy: NDArray[np.floating], scale: float, colour: Colour, radius: float = 2.0) -> None:
    """A disc at every point, in place."""
    for x, y in _fixed(xy, scale):
        cv2.circle(canvas, (x, y), round(radius * 2**SHIFT), colour, -1, cv2.LINE_AA, SHIFT)


def draw_lines(
    canvas: Canvas,
    begins: NDArray[np.floating],
    ends: NDArray[np.floating],
    colour: Colour,
    opacity: float = 1.0,
) -> None:
    """A thin line from each begin to its end, both in pixels of the canvas, in place."""
    target = canvas if opacity == 1 else canvas.copy()
    for begin, end in zip(_fixed(begins, 1), _fixed(ends, 1), strict=True):
        cv2.line(target, begin, end, colour, 1, cv2.LINE_AA, SHIFT)
    if target is not canvas:
        cv2.addWeighted(target, opacity, canvas, 1 - opacity, 0, dst=canvas)


def draw_polygon(
    canvas: Canvas, corners: NDArray[np.floating], scale: float, colour: Colour, thickness: int = 2
) -> None:
    """A closed outline through (N, 2) corners, in place; nothing if one of them is not finite."""
    if np.isfinite(corners).all():
        points = np.array(_fixed(corners, scale), np.int32)
        cv2.polylines(canvas, [points], True, colour, thickness, cv2.LINE_AA, SHIFT)


def outline(matrix: NDArray[np.float64], size: tuple[int, int]) -> NDArray[np.float64]:
    """Where the four corners of an image of (height, width) fall under a homography: (4, 2)."""
    return project(matrix, image_corners(size))


def enlarge(xy: NDArray[np.floating], scale: float) -> NDArray[np.float64]:
    """Pixels of the source image to pixels of the canvas, whole numbers at centres in both."""
    return (np.asarray(xy, np.float64) + 0.5) * scale - 0.5


def write_text(canvas: Canvas, text: str, corner: tuple[int, int], colour: Colour = WHITE) -> None:
    """A line of text with its upper left corner at (x, y), readable on any background, in place."""
    origin = (corner[0], corner[1] + LINE_HEIGHT - 6)
    for shade, thickness in ((BLACK, 3), (colour, 1)):
        cv2.putText(canvas, text, origin, cv2.FONT_HERSHEY_SIMPLEX, 0.45, shade, thickness, cv2.LINE_AA)


def _fixed(xy: NDArray[np.floating], scale: float) -> list[tuple[int, int]]:
    """Points in OpenCV's fixed-point format, kept within what its 32 bits can hold."""
    limited = enlarge(xy, scale).clip(-30000, 30000)
    return [(int(x), int(y)) for x, y in np.rint(limited * 2**SHIFT)]
