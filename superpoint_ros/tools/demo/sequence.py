"""A camera sequence with known motion: a camera flies along a wall of photographs.

A plane seen by a pinhole camera moves by homographies (Hartley and Zisserman, "Multiple View
Geometry", section 13.1), so the motion between any two frames is known exactly.
"""

from __future__ import annotations

import math

import cv2
import numpy as np
from numpy.typing import NDArray

from superpoint_ros.tools.demo.wall import Picture, wall

LAP = 150
"""Frames in which the camera goes round the wall once; more frames go on, fewer stop earlier."""

SUPERSAMPLING = 4
"""Rendered so many times larger and averaged: a sensor's pixel gathers light over its area."""

SHOT_NOISE, READ_NOISE = 0.025, 1.0
"""Grey levels: the variance at level v is SHOT_NOISE · v + READ_NOISE², about 2² at mid grey."""

Matrix = NDArray[np.float64]


def view(index: int, size: tuple[int, int]) -> Matrix:
    """Where frame `index` of (height, width) sees the wall: (3, 3) float64, wall to frame pixels.

    The camera goes round the wall on an ellipse, and nods, pans, rolls and zooms at paces that do
    not repeat together, so that every kind of motion meets every other.
    """
    height, width = size
    lap = 2 * math.pi * index / LAP
    plane_height, plane_width = wall().shape[:2]
    target = np.array(
        [
            plane_width * (0.5 - 0.33 * math.cos(lap)),
            plane_height * (0.5 - 0.17 * math.sin(lap)),
            0,
        ]
    )
    focal = 0.95 * width
    distance = 1.3 * focal * (320 / width) * (1 + 0.15 * math.sin(3 * lap + 0.6))
    roll, tilt, pan = (
        math.radians(12) * math.sin(2 * lap),
        math.radians(11) * math.sin(3.3 * lap + 1),
        math.radians(11) * math.sin(2.6 * lap),
    )
    rotation = _rotation(2, roll) @ _rotation(0, tilt) @ _rotation(1, pan)
    # a point (X, Y, 0) of the wall is at R (X − target) + distance · z in the camera's frame
    pose = np.column_stack([rotation[:, 0], rotation[:, 1], [0, 0, distance] - rotation @ target])
    intrinsics = np.array([[focal, 0, (width - 1) / 2], [0, focal, (height - 1) / 2], [0, 0, 1]])
    matrix = intrinsics @ pose
    return np.asarray(matrix / matrix[2, 2])


def motion(reference: Matrix, current: Matrix) -> Matrix:
    """The homography from one frame to another, given where each sees the wall."""
    matrix = current @ inverse(reference)
    return np.asarray(matrix / matrix[2, 2])


def inverse(matrix: Matrix) -> Matrix:
    """The homography the other way round."""
    return np.asarray(np.linalg.inv(matrix), np.float64)


def photograph(index: int, size: tuple[int, int]) -> Picture:
    """Frame `index` as the camera delivers it: (height, width, 3) uint8 BGR; reproducible."""
    return _sense(_render(view(index, size), size), index)


def _render(matrix: Matrix, size: tuple[int, int]) -> Picture:
    height, width = size
    # pixel centres are whole numbers at both resolutions: u = S · (x + 0.5) − 0.5
    shift = (SUPERSAMPLING - 1) / 2
    fine = np.array([[SUPERSAMPLING, 0, shift], [0, SUPERSAMPLING, shift], [0, 0, 1.0]])
    large = cv2.warpPerspective(
        wall(),
        fine @ matrix,
        (width * SUPERSAMPLING, height * SUPERSAMPLING),
        flags=cv2.INTER_LINEAR,
        borderMode=cv2.BORDER_REFLECT_101,
    )
    return np.asarray(cv2.resize(large, (width, height), interpolation=cv2.INTER_AREA), np.uint8)


def _sense(light: Picture, index: int) -> Picture:
    """Exposure that drifts, and the noise of photons and electronics."""
    random = np.random.default_rng(index)
    exposure = 1 + 0.25 * math.sin(2 * math.pi * index / 70)
    level = light.astype(np.float32) * np.float32(exposure)
    deviation = np.sqrt(SHOT_NOISE * level + READ_NOISE**2)
    noisy = level + deviation * random.standard_normal(level.shape, np.float32)
    return np.rint(noisy.clip(0, 255)).astype(np.uint8)


def _rotation(axis: int, angle: float) -> Matrix:
    """About one axis of the camera: 0 tilts, 1 pans, 2 rolls."""
    vector = np.zeros(3)
    vector[axis] = angle
    return np.asarray(cv2.Rodrigues(vector)[0], np.float64)
