"""Keypoints and matches as markers, which viewers draw over the raw image: no pixels are sent twice.

Foxglove's Image panel draws visualization_msgs/ImageMarker; RViz's Camera display draws a MarkerArray, which it
projects with the CameraInfo, so that one needs a calibration.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from geometry_msgs.msg import Point
from numpy.typing import NDArray
from std_msgs.msg import ColorRGBA
from visualization_msgs.msg import ImageMarker, Marker, MarkerArray

from superpoint_ros.features.extractor import Features
from superpoint_ros.frontend.debug_image import INLIER, OUTLIER, relative_scales, score_colours, segments
from superpoint_ros.frontend.tracker import Motion

RADIUS = 2.0
"""Pixels of a keypoint's dot."""
CORNER = 0.5
"""Foxglove counts pixels from the corner of the first one, we from its centre."""
DEPTH = 1.0
"""Metres in front of the camera at which RViz's markers float."""


def keypoint_marker(header: Any, found: Features) -> ImageMarker:
    """One dot for each keypoint, coloured by score; hexagons as large as the pixels of their level if these differ."""
    times = relative_scales(found)
    if (times != 1).any():
        return _hexagons(header, found, times)
    return ImageMarker(
        header=header,
        ns="keypoints",
        type=ImageMarker.POINTS,
        scale=RADIUS,
        points=_points(found.xy + CORNER),
        outline_colors=_colours(score_colours(found.scores)),
    )


def _hexagons(header: Any, found: Features, times: NDArray[np.float32]) -> ImageMarker:
    """Foxglove has one size for all points of a marker, so that circles of several sizes are lines."""
    turn = np.arange(7) * np.pi / 3
    corners = np.stack([np.cos(turn), np.sin(turn)], axis=1) * RADIUS
    edges = np.stack([corners[:-1], corners[1:]], axis=1).reshape(12, 2)
    ends = (found.xy + CORNER)[:, None] + times[:, None, None] * edges
    return ImageMarker(
        header=header,
        ns="keypoints",
        type=ImageMarker.LINE_LIST,
        scale=1.0,
        points=_points(ends.reshape(-1, 2)),
        outline_colors=_colours(np.repeat(score_colours(found.scores), 6, axis=0)),
    )


def motion_marker(header: Any, found: Features, motion: Motion) -> ImageMarker:
    """A line for each match, from the reference to the current position: green inliers, red outliers."""
    ends = segments(found, motion) + CORNER
    return ImageMarker(
        header=header,
        ns="motion",
        type=ImageMarker.LINE_LIST,
        scale=1.0,
        points=_points(ends.reshape(-1, 2)),
        outline_colors=_colours(_motion_colours(motion)),  # one for each line
    )


def markers(
    header: Any, found: Features, motion: Motion, keypoint_rays: NDArray[np.float64], motion_rays: NDArray[np.float64]
) -> MarkerArray:
    """The same for RViz, on a plane before the camera.

    keypoint_rays, motion_rays  (N, 2) and (2M, 2), x/z and y/z in the camera's frame of the keypoints and of the
                                ends of `segments`; NaN is left out
    """
    lines = np.repeat(_motion_colours(motion), 2, axis=0)
    known = np.repeat(np.isfinite(motion_rays).reshape(-1, 4).all(axis=1), 2)
    seen = np.isfinite(keypoint_rays).all(axis=1)
    width = 2 * RADIUS * DEPTH / 500  # metres: a dot's diameter at a focal length of 500 px
    dots = Marker(header=header, ns="keypoints", type=Marker.POINTS, points=_points(keypoint_rays[seen] * DEPTH, DEPTH))
    dots.colors = _colours(score_colours(found.scores)[seen])
    dots.scale.x = dots.scale.y = width
    moved = Marker(header=header, ns="motion", type=Marker.LINE_LIST)
    moved.points, moved.colors = _points(motion_rays[known] * DEPTH, DEPTH), _colours(lines[known])
    moved.scale.x = width / 4
    for marker in (dots, moved):
        marker.pose.orientation.w = 1.0
        # RViz complains of a list of no points
        marker.action = Marker.ADD if marker.points else Marker.DELETE
    return MarkerArray(markers=[dots, moved])


def _motion_colours(motion: Motion) -> NDArray[np.uint8]:
    return np.array([OUTLIER, INLIER], np.uint8)[motion.homography.inliers.astype(int)]


def _points(xy: NDArray[np.floating], z: float = 0.0) -> list[Point]:
    return [Point(x=x, y=y, z=z) for x, y in xy.astype(float).tolist()]


def _colours(bgr: NDArray[np.uint8]) -> list[ColorRGBA]:
    """One message for each colour, not for each point: making a message costs more than everything else."""
    known = {key: ColorRGBA(r=key[2] / 255, g=key[1] / 255, b=key[0] / 255, a=1.0) for key in map(tuple, bgr.tolist())}
    return [known[key] for key in map(tuple, bgr.tolist())]
