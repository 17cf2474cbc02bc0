"""Keypoints of a raw image to where they are in the rectified one, by the camera's calibration.

Lens models and the meaning of K, D, R, P as in sensor_msgs/CameraInfo: plumb_bob and rational_polynomial
(Brown 1966, as in OpenCV's calib3d), equidistant (Kannala and Brandt 2006, OpenCV's fisheye). Binning and
region of interest as in REP 104, with pixel centres at whole numbers.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

COEFFICIENTS = {"plumb_bob": (4, 5), "rational_polynomial": (8, 12, 14), "equidistant": (4,)}
"""Lens models, and how many coefficients D may have; none at all stand for a perfect lens."""
LEAST = 4
"""Coefficients that D must have if it has any: with fewer it is not certain what they are."""
SPELLINGS = {
    "": "plumb_bob",
    "plumbbob": "plumb_bob",
    "radtan": "plumb_bob",
    "brownconrady": "plumb_bob",
    "rationalpolynomial": "rational_polynomial",
    "equidistant": "equidistant",
    "equi": "equidistant",
    "fisheye": "equidistant",
    "kannalabrandt": "equidistant",
    "kannalabrandt4": "equidistant",
}
"""What drivers write, without case and separators."""
PERFECT = ("none", "pinhole", "inversebrownconrady", "modifiedbrownconrady")
"""Spellings that stand for a perfect lens, or that are it when all coefficients are 0, as RealSense's are."""
TOLERANCE = 0.1
"""Pixels: a rectified pixel that the lens does not map back to within this has no meaning."""
SINGULAR = 1e12
"""Condition number from which on a matrix has no inverse; that of a lens of a million pixels is its square."""
CRITERIA = (cv2.TERM_CRITERIA_COUNT | cv2.TERM_CRITERIA_EPS, 100, 1e-9)


class Uncalibrated(ValueError):
    """A CameraInfo without a calibration, or with one that cannot be used; says what was found."""


@dataclass(frozen=True)
class Calibration:
    """What a sensor_msgs/CameraInfo says.

    model    a key of COEFFICIENTS
    k, r, p  (3, 3) float64: camera matrix, rectifying rotation, camera matrix of the rectified image;
             all in pixels of the full sensor
    d        float64, distortion coefficients
    binning  sensor pixels in a pixel of the image, (x, y)
    offset   of the image's first sensor pixel, (x, y)
    size     (height, width) of the image that this belongs to
    shift    P[0, 3], pixels of the full sensor times metres: −fx times how far this camera is to the right of the first
             of a stereo pair; 0 in the first
    drop     P[1, 3], the same of how far it is below the first
    """

    model: str
    k: NDArray[np.float64]
    d: NDArray[np.float64]
    r: NDArray[np.float64]
    p: NDArray[np.float64]
    binning: tuple[int, int]
    offset: tuple[int, int]
    size: tuple[int, int]
    shift: float = 0.0
    drop: float = 0.0


def calibration(info: Any) -> Calibration:
    """Read a sensor_msgs/CameraInfo. Raises Uncalibrated with a sentence."""
    k, r = (np.array(matrix, np.float64).reshape(3, 3) for matrix in (info.k, info.r))
    whole = np.array(info.p, np.float64).reshape(3, 4)
    p = whole[:, :3]
    d = np.array(info.d, np.float64)
    values = np.concatenate([k.ravel(), r.ravel(), whole.ravel(), d])
    if not k[0, 0]:
        raise Uncalibrated("camera is not calibrated: K of its CameraInfo is zero")
    if not np.isfinite(values).all() or k[0, 0] <= 0 or k[1, 1] <= 0:
        raise Uncalibrated("camera is not calibrated: its CameraInfo has focal lengths or values that cannot be")
    model, d = _lens(info.distortion_model, d)
    p = p if p[0, 0] else k
    r = r if r.any() else np.eye(3)
    for name, matrix in (("K", k), ("R", r), ("P", p)):
        if not np.linalg.cond(matrix) < SINGULAR:
            raise Uncalibrated(f"{name} of its CameraInfo has no inverse")
    binning = (max(info.binning_x, 1), max(info.binning_y, 1))
    roi = info.roi
    height, width = roi.height or info.height, roi.width or info.width
    return Calibration(
        model=model,
        k=k,
        d=d,
        r=r,
        p=p,
        binning=binning,
        offset=(roi.x_offset, roi.y_offset),
        size=(height // binning[1], width // binning[0]),
        shift=float(whole[0, 3]),
        drop=float(whole[1, 3]),
    )


def of_rectified(camera: Calibration) -> Calibration:
    """What the same CameraInfo says of images that image_proc has rectified: P alone counts."""
    return replace(camera, model="plumb_bob", k=camera.p, d=np.zeros(0), r=np.eye(3))


def _lens(written: str, d: NDArray[np.float64]) -> tuple[str, NDArray[np.float64]]:
    """The model, a key of COEFFICIENTS, and as many coefficients as it may have: drivers pad D with zeros."""
    spelling = re.sub(r"[\W_]", "", written.lower())
    given = np.trim_zeros(d, "b")
    model = "plumb_bob" if spelling in PERFECT and not len(given) else SPELLINGS.get(spelling)
    if model is None:
        raise Uncalibrated(f"distortion model '{written}' is unknown; expected one of {', '.join(COEFFICIENTS)}")
    counts = COEFFICIENTS[model]
    if 0 < len(d) < LEAST or len(given) > counts[-1]:
        expected = " or ".join(str(count) for count in counts)
        raise Uncalibrated(f"distortion model '{model}' has {len(d)} coefficients, expected {expected}")
    count = next(count for count in counts if count >= len(given))
    return model, np.concatenate([given, np.zeros(count - len(given))])


def rectify(camera: Calibration, xy: NDArray[np.float32]) -> NDArray[np.float32]:
    """Pixels of the raw image to pixels of the rectified one, which has the same binning and region of interest.

    xy (N, 2); returns (N, 2) float32, NaN where the lens model cannot be inverted.
    """
    if len(xy) == 0:
        return np.empty((0, 2), np.float32)
    binning, offset = np.array(camera.binning), np.array(camera.offset)
    raw = (xy.astype(np.float64) + 0.5) * binning - 0.5 + offset
    full = _undistorted(camera, raw)
    rectified = (full - offset + 0.5) / binning - 0.5
    with np.errstate(invalid="ignore"):
        wrong = np.linalg.norm(_distorted(camera, full) - raw, axis=1)
    rectified[~(wrong <= TOLERANCE * binning.max())] = np.nan
    return rectified.astype(np.float32)


def rays(camera: Calibration, xy: NDArray[np.float32]) -> NDArray[np.float64]:
    """Directions in which the camera sees pixels of the raw image, in its rectified frame.

    xy (N, 2); returns (N, 2) float64, x/z and y/z, NaN where the lens model cannot be inverted.
    """
    rectified = rectify(camera, xy).astype(np.float64)
    full = (rectified + 0.5) * camera.binning - 0.5 + camera.offset
    directions = np.column_stack([full, np.ones(len(full))]) @ np.linalg.inv(camera.p).T
    return np.asarray(directions[:, :2] / directions[:, 2:], np.float64)


def normalised(camera: Calibration, xy: NDArray[np.float32]) -> NDArray[np.float64]:
    """Where pixels of the raw image lie on the plane at distance 1 before the camera, without its lens.

    In the frame of the camera itself, which rectification has not turned: x/z and y/z as OpenCV's undistortPoints has
    them. xy (N, 2); returns (N, 2) float64, NaN where the lens model cannot be inverted.
    """
    return rays(replace(camera, r=np.eye(3), p=camera.k), xy)


def _undistorted(camera: Calibration, points: NDArray[np.float64]) -> NDArray[np.float64]:
    column = points[:, None]
    if camera.model == "equidistant":
        found = cv2.fisheye.undistortPoints(column, camera.k, camera.d, R=camera.r, P=camera.p)
    else:
        found = cv2.undistortPointsIter(column, camera.k, camera.d, camera.r, camera.p, CRITERIA)
    return np.asarray(found[:, 0], np.float64)


def _distorted(camera: Calibration, points: NDArray[np.float64]) -> NDArray[np.float64]:
    """Where the lens shows the given pixels of the rectified image; NaN for what is behind it."""
    rays = np.column_stack([points, np.ones(len(points))]) @ np.linalg.inv(camera.p).T @ camera.r
    rays[rays[:, 2] <= 0] = np.nan
    project = cv2.fisheye.projectPoints if camera.model == "equidistant" else cv2.projectPoints
    seen = project(rays[:, None], np.zeros(3), np.zeros(3), camera.k, camera.d)[0]
    return np.asarray(seen.reshape(-1, 2), np.float64)
