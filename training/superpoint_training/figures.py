"""Figures: drawings made of polygons, what of their corners can be seen, and how they are rendered.

A figure is geometry, so a homography moves its vertices, not its pixels: labels stay exact and
edges stay sharp.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import product

import cv2
import numpy as np
from numpy.typing import NDArray

from superpoint_training.homography import warp_points

Array = NDArray[np.float64]

SUPERSAMPLING = 8
"""A power of two. What cv2 fills is half a pixel too large all round: here 0.06 pixels of the picture, 0.17 at three
times the size."""
SUBPIXEL_BITS = 6  # cv2 draws at 1/64 of a pixel of the supersampled canvas
FARTHEST = 1e5  # pixels; cv2 draws with 32-bit integers


@dataclass(frozen=True)
class Figure:
    """One connected drawing; later figures cover those before.

    polygons  (area, grey level) pairs, each area (N, 2) pixels, drawn in this order
    corners   (M, 2) pixels, its keypoints
    outlines  closed polylines of its border: where one crosses an earlier figure's, a T-junction
              appears
    """

    polygons: list[tuple[Array, float]]
    corners: Array
    outlines: list[Array] = field(default_factory=list)

    def in_sight(self) -> bool:
        """Whether every vertex lies on this side of the horizon and can be drawn."""
        points = np.concatenate([self.corners, *(area for area, _ in self.polygons)])
        return bool(np.all(np.abs(points) < FARTHEST))  # NaN is beyond the horizon

    def warp(self, homography: Array) -> Figure:
        """The same figure seen through a 3×3 homography."""
        return Figure(
            [(warp_points(area, homography), level) for area, level in self.polygons],
            warp_points(self.corners, homography),
            [warp_points(outline, homography) for outline in self.outlines],
        )


def visible_corners(figures: list[Figure], size: tuple[int, int]) -> NDArray[np.float32]:
    """The corners that no later figure hides, the T-junctions between figures, and of those the
    ones in the picture.

    Returns (N, 2) float32.
    """
    corners = np.zeros((0, 2))
    for index, figure in enumerate(figures):
        corners = _outside(corners, figure)
        for below, other in enumerate(figures[:index]):
            for edge, other_edge in product(figure.outlines, other.outlines):
                junctions = crossings(edge, other_edge)
                for between in figures[below + 1 : index]:
                    junctions = _outside(junctions, between)
                corners = np.concatenate([corners, junctions])
        corners = np.concatenate([corners, figure.corners])
    height, width = size
    inside = np.all((corners > -0.5) & (corners < (width - 0.5, height - 0.5)), axis=1)
    return corners[inside].astype(np.float32)


def render(figures: Sequence[Figure], background: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Draw figures on a background (H, W) uint8, as if `SUPERSAMPLING` times as large, averaged down."""
    canvas = background.repeat(SUPERSAMPLING, axis=1).repeat(SUPERSAMPLING, axis=0)
    for figure in figures:
        for area, level in figure.polygons:
            exact = ((area + 0.5) * SUPERSAMPLING - 0.5) * 2**SUBPIXEL_BITS
            points = np.rint(exact).astype(np.int32)
            cv2.fillPoly(canvas, [points], level, cv2.LINE_8, SUBPIXEL_BITS)
    while canvas.shape != background.shape:  # halving is four times as fast as all at once
        canvas = np.asarray(cv2.resize(canvas, None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA), np.uint8)
    return canvas


def segment_gap(first: Array, second: Array) -> float:
    """Distance between two segments, 0 where they cross."""
    if len(crossings(first, second)):
        return 0.0
    return min(_point_to_segment(p, s) for a, s in ((first, second), (second, first)) for p in a)


def crossings(first: Array, second: Array) -> Array:
    """Where the edges of two closed polylines cross: (K, 2)."""
    p, r = first, np.roll(first, -1, axis=0) - first
    q, s = second, np.roll(second, -1, axis=0) - second
    cross = r[:, None, 0] * s[None, :, 1] - r[:, None, 1] * s[None, :, 0]
    gap = q[None] - p[:, None]
    with np.errstate(divide="ignore", invalid="ignore"):
        t = (gap[..., 0] * s[None, :, 1] - gap[..., 1] * s[None, :, 0]) / cross
        u = (gap[..., 0] * r[:, None, 1] - gap[..., 1] * r[:, None, 0]) / cross
    row, column = np.nonzero((t > 0) & (t < 1) & (u > 0) & (u < 1))
    return p[row] + t[row, column][:, None] * r[row]


def _outside(points: Array, figure: Figure, margin: float = 0.5) -> Array:
    """The points that a figure drawn over them, and `margin` pixels around it, leaves visible."""
    for area, _ in figure.polygons:
        contour = area.astype(np.float32)
        keep = [cv2.pointPolygonTest(contour, (float(x), float(y)), True) < -margin for x, y in points]
        points = points[np.array(keep, dtype=bool)]
    return points


def _point_to_segment(point: Array, segment: Array) -> float:
    along = segment[1] - segment[0]
    share = np.clip((point - segment[0]) @ along / (along @ along), 0, 1)
    return float(np.hypot(*(segment[0] + share * along - point)))
