"""Homographies in words a person can follow: shift, turn, zoom; and where a chain of them leads."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from superpoint_ros.features.homography import HomographyStatus, project
from superpoint_ros.tools.demo.summary import FrameFigures, Truth

WINDOW = 10
"""Homographies that are chained: a second of the camera sequence."""


@dataclass(frozen=True)
class Movement:
    """Of the image's middle: pixels right and down, degrees clockwise, per cent larger."""

    right: float
    down: float
    turn: float
    zoom: float


def movement(matrix: NDArray[np.float64], size: tuple[int, int]) -> Movement:
    """The movement of the middle of an image of (height, width); NaN for a NaN matrix.

    Turn and zoom are the rotation and the scale of the similarity nearest to the homography's
    derivative there.
    """
    height, width = size
    middle = np.array([(width - 1) / 2, (height - 1) / 2])
    steps = np.array([[0, 0], [1, 0], [-1, 0], [0, 1], [0, -1]]) * 0.5
    mapped = project(matrix, middle + steps)
    along_x, along_y = mapped[1] - mapped[2], mapped[3] - mapped[4]
    cosine, sine = along_x[0] + along_y[1], along_x[1] - along_y[0]
    right, down = mapped[0] - middle
    return Movement(
        right=float(right),
        down=float(down),
        turn=float(np.degrees(np.arctan2(sine, cosine))),
        zoom=float(100 * (np.hypot(cosine, sine) / 2 - 1)),
    )


def chained_views(frames: Sequence[FrameFigures], truth: Truth, window: int = WINDOW) -> dict[int, NDArray[np.float64]]:
    """Where each frame sees the plane by its last homographies: stamp -> (3, 3), plane to frame.

    So many homographies are chained from a frame whose true view is taken for granted; fewer after
    a frame without one. Errors add up within the window, as they do in odometry.
    """
    by_stamp = {frame.stamp: frame for frame in frames}
    views = {}
    for frame in frames:
        matrix, step = np.eye(3), frame
        for _ in range(window):
            if step.status != HomographyStatus.OK or step.reference not in by_stamp:
                break
            matrix, step = matrix @ step.estimate, by_stamp[step.reference]
        if step is not frame and step.stamp in truth:
            views[frame.stamp] = np.asarray(matrix @ truth[step.stamp], np.float64)
    return views
