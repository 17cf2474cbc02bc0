"""Matches between the two cameras of a stereo pair, and the points in space that they give.

What the lens, the mounting and the region of interest of each camera do is undone first, so that the same point has
the same y/z in both, and x/z less in the right one: by baseline / depth, the disparity. Without a calibration matches
agree with one fundamental matrix, found by OpenCV's USAC (MAGSAC++; Barath et al. 2020).
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from superpoint_ros.features.band import Side, match_in_band
from superpoint_ros.features.extractor import Features
from superpoint_ros.features.matching import match, match_similarity
from superpoint_ros.features.pose_fit import spread
from superpoint_ros.features.rectification import Calibration, Uncalibrated, rays
from superpoint_ros.features.refinement import Pictures, refine_matches

Floats = NDArray[np.float64]

SIDEWAYS = 0.25
"""Of the image's width: the largest disparity unless another is set."""
REFINED_ROW = 1.0
"""Pixels of the scale where it was found by which a refined match may be off its row. With it, 97 % of the matches of
scikit-image's motorcycle are within 2 px of the truth; of those that could not be refined half are."""
LEAST_DEVIATION = 0.1, 0.7
"""Pixels: no disparity is trusted more than this, if it is refined and if it is that of two keypoints."""
LEVEL = 0.01
"""Of the baseline, up to which one camera may be above the other: rows are compared."""
MINIMUM_MATCHES = 15
"""For a fundamental matrix; seven determine one, and a few more agree by chance."""


@dataclass(frozen=True)
class StereoRig:
    """Two calibrated cameras side by side; their calibrations name the same rectified frame.

    baseline  metres from the left to the right camera
    """

    left: Calibration
    right: Calibration
    baseline: float

    @property
    def pixel(self) -> float:
        """x/z of one pixel of the left image, rectified."""
        return pixel_of(self.left)


@dataclass(frozen=True)
class StereoMatches:
    """The keypoints of the left picture that were found in the right one.

    matches     (M, 2) int32, rows of the left and of the right features, ascending in the first
    similarity  (M,) float32, cosine
    right_xy    (M, 2) float32, where the left keypoint is in the right picture, pixels
    sight       (M, 2) float64, x/z and y/z of the left keypoint in the left camera's rectified frame; NaN without a
                calibration
    disparity   (M,) float64, x/z in the left less that in the right camera, above 0; NaN without a calibration
    deviation   (M,) float64, standard deviation of the disparity, as `points` takes it
    """

    matches: NDArray[np.int32]
    similarity: NDArray[np.float32]
    right_xy: NDArray[np.float32]
    sight: Floats
    disparity: Floats
    deviation: Floats


@dataclass(frozen=True)
class StereoPoints:
    """Points in the left camera's optical frame (rectified): x right, y down, z forward, metres.

    rows        (P,) int32, of the left features
    xyz         (P, 3) float64
    covariance  (P, 3, 3) float64, metres²
    """

    rows: NDArray[np.int32]
    xyz: Floats
    covariance: Floats


def stereo_rig(left: Calibration, right: Calibration) -> StereoRig:
    """Raises Uncalibrated with a sentence for two calibrations that are not of one pair."""
    baseline = left.shift / left.p[0, 0] - right.shift / right.p[0, 0]
    below = left.drop / left.p[1, 1] - right.drop / right.p[1, 1]
    if abs(below) > LEVEL * abs(baseline):
        word = "below" if below > 0 else "above"
        raise Uncalibrated(
            f"P[7] of the CameraInfos says that the right camera is {abs(below):.3g} m {word} the left one, "
            f"and P[3] {abs(baseline):.3g} m beside it: only cameras side by side have common rows"
        )
    if baseline == 0:
        raise Uncalibrated(
            "P[3] of both CameraInfos is the same, so that there is no baseline: not calibrated as a pair"
        )
    if baseline < 0:
        raise Uncalibrated(f"the right camera is {-baseline:.3g} m to the left of the left one: they are exchanged")
    return StereoRig(left, right, baseline)


def match_stereo(
    left: Features,
    right: Features,
    rig: StereoRig | None,
    tolerance: float = 2.0,
    max_disparity: float | None = None,
    ratio: float | None = None,
    min_similarity: float | None = None,
    images: Pictures | None = None,
) -> StereoMatches:
    """Match the features of two pictures taken at the same time.

    rig            None: the cameras are not calibrated
    tolerance      pixels by which a match may be off its epipolar line where keypoints are as exact as a pixel; it
                   grows with the coarser keypoint's scale
    max_disparity  pixels; None: SIDEWAYS. Without a calibration it is not asked for
    images         those that the features are from, as `refine_matches` takes them: then only matches are returned
                   whose surroundings could be aligned, and lie within REFINED_ROW of their row
    """
    if rig is None:
        return _uncalibrated(left, right, tolerance, ratio, min_similarity, images)
    limit = SIDEWAYS * left.size[1] if max_disparity is None else max_disparity
    places0, places1 = rays(rig.left, left.xy), rays(rig.right, right.xy)
    grain0, grain1 = left.scales * rig.pixel, right.scales * pixel_of(rig.right)
    matches = match_in_band(
        Side(left.descriptors, places0, tolerance * np.maximum(grain0, rig.pixel)),
        Side(right.descriptors, places1, tolerance * np.maximum(grain1, pixel_of(rig.right))),
        limit * rig.pixel,
        ratio,
        min_similarity,
    )
    rows0, rows1 = matches.T
    found, right_xy = places1[rows1], right.xy[rows1]
    grain = np.maximum(np.maximum(grain0[rows0], grain1[rows1]), rig.pixel)
    keep = np.ones(len(matches), bool)
    if images is not None:
        right_xy, keep = refine_matches(left, right, matches, images)
        found = rays(rig.right, right_xy)
        with np.errstate(invalid="ignore"):
            keep &= np.abs(places0[rows0, 1] - found[:, 1]) <= min(tolerance, REFINED_ROW) * grain
    disparity = places0[rows0, 0] - found[:, 0]
    with np.errstate(invalid="ignore"):
        keep &= (disparity > 0) & (disparity <= limit * rig.pixel)
    off = (places0[rows0, 1] - found[:, 1])[keep]
    matches, grain = matches[keep], grain[keep]
    return StereoMatches(
        matches,
        match_similarity(left, right, matches),
        right_xy[keep],
        places0[matches[:, 0]],
        disparity[keep],
        _deviation(off / grain, LEAST_DEVIATION[images is None]) * grain,
    )


def points(rig: StereoRig, found: StereoMatches) -> StereoPoints:
    """The matches' points in space: depth is baseline over disparity.

    A match whose disparity is not above its deviation has none: it may as well be infinitely far away.

    The covariance is that of a keypoint whose disparity has its `deviation`, and whose place in the left picture is by
    1/√2 as exact along x and y: the errors of both pictures are the disparity's.
    """
    near = found.disparity > found.deviation
    (x, y), disparity, deviation = found.sight[near].T, found.disparity[near], found.deviation[near]
    depth = rig.baseline / disparity
    xyz = np.stack([x, y, np.ones(len(x))], axis=1) * depth[:, None]
    along = np.zeros((len(x), 3, 3))  # derivatives by x, y and the disparity
    along[:, 0, 0] = along[:, 1, 1] = depth
    along[:, :, 2] = -xyz / disparity[:, None]
    variances = np.stack([deviation**2 / 2, deviation**2 / 2, deviation**2], axis=1)
    # x is in the disparity, too: they vary together
    middle = variances[:, :, None] * np.eye(3)
    middle[:, 0, 2] = middle[:, 2, 0] = variances[:, 0]
    return StereoPoints(found.matches[near, 0], xyz, along @ middle @ along.transpose(0, 2, 1))


def pixel_of(camera: Calibration) -> float:
    """x/z of one pixel of a camera's rectified image."""
    return float(camera.binning[0] / camera.p[0, 0])


def _deviation(off: Floats, least: float) -> float:
    """Of a disparity, in pixels of its scale, from how far the matches, (M,), are off their rows.

    Matching errs along x as along y, and y is known.
    """
    return max(spread(off), least) if len(off) else least


def _uncalibrated(
    left: Features,
    right: Features,
    tolerance: float,
    ratio: float | None,
    min_similarity: float | None,
    images: Pictures | None,
) -> StereoMatches:
    matches = match(left, right, ratio, min_similarity)
    right_xy, keep = right.xy[matches[:, 1]], np.ones(len(matches), bool)
    if images is not None:
        right_xy, keep = refine_matches(left, right, matches, images)
    matches, right_xy = matches[keep], right_xy[keep]
    keep = _one_geometry(left.xy[matches[:, 0]].astype(np.float64), right_xy.astype(np.float64), tolerance)
    matches, unknown = matches[keep], np.full(int(keep.sum()), np.nan)
    similarity = match_similarity(left, right, matches)
    return StereoMatches(matches, similarity, right_xy[keep], np.stack([unknown, unknown], axis=1), unknown, unknown)


def _one_geometry(points0: Floats, points1: Floats, tolerance: float) -> NDArray[np.bool_]:
    """Which matches, (M, 2) pixels each, agree with the fundamental matrix of most."""
    nothing = np.zeros(len(points0), bool)
    if len(points0) < MINIMUM_MATCHES:
        return nothing
    found, inliers = cv2.findFundamentalMat(points0, points1, cv2.USAC_MAGSAC, tolerance, 0.9999, 5000)
    if found is None or inliers.sum() < MINIMUM_MATCHES:
        return nothing
    return np.asarray(inliers[:, 0] > 0)
