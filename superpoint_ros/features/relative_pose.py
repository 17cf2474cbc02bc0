"""How a calibrated camera moved between two pictures: rotation, and translation as far as it can be known.

The essential matrix by OpenCV's USAC (MAGSAC++; Barath et al. 2020) with the five-point method (Nistér 2004), or,
where depths are known in the first picture, the pose by PnP; then least squares over the inliers (`pose_fit`).
Which of a homography and the essential matrix explains the matches better is told by the ratio of ORB-SLAM's
initialisation (Mur-Artal, Montiel, Tardós 2015, section IV).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import IntEnum

import cv2
import numpy as np
from numpy.typing import NDArray

from superpoint_ros.features.fit import project, root_mean_square
from superpoint_ros.features.pose_fit import Sights, angle, settled, spread, turned

Floats = NDArray[np.float64]

MINIMUM_MATCHES = 15
"""Five determine an essential matrix, and by chance a few more agree."""
MINIMUM_SHARE = 0.2
"""Of the matches: a band of two pixels along its line holds some of any wrong ones."""
THRESHOLD = 1.5
"""Pixels off the epipolar line, or of reprojection error, up to which a match is an inlier."""
STANDING = 4.0
"""Times the error across epipolar lines beyond which a match is not explained by a mere rotation: it has parallax."""
STILL = 0.2
"""Pixels up to which a rotation explains everything."""
MINIMUM_PARALLAX = 0.1
"""Of the inliers, without which there is nothing to tell a translation from."""
IN_FRONT = 0.75
"""Of those with parallax: of wrong matches that agree by chance half lie behind the camera."""
PLANE = 0.4
"""Of the ratio: from there on what is seen may be a plane, of which several poses give the same picture."""
APART = np.radians(3.0)
"""Between poses that are not the same."""
EXACT = 3.0
"""Times the error of the best pose, within which a match agrees with it or with a rival."""
RIVAL = 0.9
"""Of the inliers of the best pose, with which another one, or a mere rotation, may be meant."""
ITERATIONS = 500
GAMMA, CHI_E = 5.99, 3.84
"""χ² at 95 % of two degrees of freedom (a homography) and of one (an epipolar line)."""
ONE = np.eye(3)


class PoseStatus(IntEnum):
    """As in RelativePose.msg."""

    OK = 0
    NO_REFERENCE = 1
    TOO_FEW_MATCHES = 2
    DEGENERATE = 3
    ROTATION_ONLY = 4
    NO_CALIBRATION = 5


@dataclass(frozen=True)
class RelativePose:
    """Where points of the first camera's frame are in the second's: x₂ = rotation · x₁ + translation.

    rotation          (3, 3) float64; NaN unless `status` is OK or ROTATION_ONLY
    translation       (3,) float64: metres if `metric`, else of length 1; NaN unless OK
    inliers           (M,) bool, which matches agree
    rmse              pixels, root mean square of the inliers' error: across the epipolar line, or if `metric` or
                      ROTATION_ONLY between where they are and where they should be; NaN as the rotation
    homography_ratio  S_H / (S_H + S_E): from 0.45 on a homography, of a plane or a mere rotation, explains the matches
                      as well as the essential matrix; NaN without either
    """

    rotation: Floats
    translation: Floats
    inliers: NDArray[np.bool_]
    rmse: float
    status: PoseStatus
    metric: bool = False
    homography_ratio: float = np.nan


def estimate_pose(rays0: Floats, rays1: Floats, pixel: float, depths: Floats | None = None) -> RelativePose:
    """The motion of one camera from matched directions.

    rays0, rays1  (M, 2) float64, x/z and y/z in the first and in the second picture; NaN is no match
    pixel         x/z of a pixel
    depths        (M,) float64, metres along z in the first picture, NaN where it is not known; None: nowhere

    With as many depths as PnP needs the translation is metric. TOO_FEW_MATCHES: fewer than MINIMUM_MATCHES.
    DEGENERATE: no pose that enough of them agree with, or several, as of a plane. ROTATION_ONLY: the camera stood or
    only turned, or all it sees is far away: the direction of its translation cannot be known.
    """
    seen = np.isfinite(rays0).all(axis=1) & np.isfinite(rays1).all(axis=1)
    if seen.sum() < MINIMUM_MATCHES:
        return unknown_pose(PoseStatus.TOO_FEW_MATCHES, len(rays0))
    sights = Sights.of(rays0[seen], rays1[seen], 1 / pixel)
    essential = _five_points(sights)
    homography = _homography(sights)
    ratio = _ratio(sights, homography, essential)
    result = None if depths is None else _metric(sights, depths[seen])
    if result is None and essential is not None:
        result = _unit(sights, essential, homography if ratio >= PLANE else None)
    elif result is None and homography is not None:  # pictures that are the same have no essential matrix
        u, _, vt = np.linalg.svd(homography)
        turn = turned(u @ np.diag([1, 1, np.linalg.det(u @ vt)]) @ vt, sights)
        result = _rotation_only(turn, sights.off(turn))
    if result is None:
        result = unknown_pose(PoseStatus.DEGENERATE, int(seen.sum()))
    inliers = np.zeros(len(rays0), bool)
    inliers[seen] = result.inliers
    return replace(result, inliers=inliers, homography_ratio=ratio)


def unknown_pose(status: PoseStatus, matches: int) -> RelativePose:
    """What is reported when there is none."""
    return RelativePose(np.full((3, 3), np.nan), np.full(3, np.nan), np.zeros(matches, bool), np.nan, status)


def _five_points(sights: Sights) -> Floats | None:
    found, _ = cv2.findEssentialMat(
        sights.plane0,
        sights.plane1,
        ONE,
        method=cv2.USAC_MAGSAC,
        prob=0.999,
        threshold=THRESHOLD / sights.focal,
        maxIters=ITERATIONS,
    )
    known = found is not None and found.shape == (3, 3) and np.isfinite(found).all()
    return np.asarray(found, np.float64) if known else None


def _homography(sights: Sights) -> Floats | None:
    # In pixels: of x/z and y/z the same call finds homographies with few inliers.
    points = sights.focal * sights.plane0, sights.focal * sights.plane1
    found, _ = cv2.findHomography(*points, cv2.USAC_MAGSAC, THRESHOLD, maxIters=ITERATIONS, confidence=0.999)
    if found is None or abs(np.linalg.det(found)) < 1e-9:
        return None
    scale = np.array([sights.focal, sights.focal, 1])
    return np.asarray(found * scale / scale[:, None], np.float64)


def _unit(sights: Sights, essential: Floats, homography: Floats | None) -> RelativePose | None:
    """With a translation of length 1, or none if a rotation alone does; None if too few agree, or about several.

    homography  of the plane that is seen, if it may be one
    """
    first, second, direction = (np.asarray(each, np.float64) for each in cv2.decomposeEssentialMat(essential))
    starts = [(rotation, sign * direction[:, 0]) for rotation in (first, second) for sign in (1.0, -1.0)]
    # The four have the same epipolar lines: the one with the points before the camera is meant.
    start = max(starts, key=lambda each: int(sights.in_front(*each).sum()))
    rotation, translation = settled(*start, sights, THRESHOLD)
    inliers = np.abs(sights.across(rotation, translation)) <= THRESHOLD
    if inliers.sum() < _needed(len(inliers)):
        return None
    error = spread(sights.across(rotation, translation)[inliers])
    turn = turned(rotation, sights.some(inliers))
    off = sights.off(turn)
    parallax = inliers & (off > max(STANDING * error, STILL))
    front = sights.in_front(rotation, translation)
    if parallax.sum() < max(MINIMUM_MATCHES, MINIMUM_PARALLAX * inliers.sum()):
        return _rotation_only(turn, off)
    if homography is not None:
        poses = [(rotation, translation), *_poses_of_a_plane(sights, homography)]
        least = min(spread(sights.across(*pose)[inliers]) for pose in poses)
        counts = [_agreeing(sights, pose, max(EXACT * least, STILL)) for pose in poses]
        rotation, translation = poses[int(np.argmax(counts))]
        rivals = [pose for pose, count in zip(poses, counts, strict=True) if count >= RIVAL * max(counts)]
        if any(_apart(pose, (rotation, translation)) for pose in rivals):
            return None
        inliers = np.abs(sights.across(rotation, translation)) <= THRESHOLD
        front, parallax = sights.in_front(rotation, translation), inliers & parallax
    if (parallax & front).sum() < IN_FRONT * parallax.sum():
        return _rotation_only(turn, off) if (off[inliers] <= THRESHOLD).mean() >= RIVAL else None
    inliers &= front | ~parallax
    error = root_mean_square(sights.across(rotation, translation)[inliers])
    return RelativePose(rotation, translation, inliers, error, PoseStatus.OK)


def _rotation_only(turn: Floats, off: Floats) -> RelativePose | None:
    agree = off <= THRESHOLD
    if agree.sum() < _needed(len(off)):
        return None
    return RelativePose(turn, np.full(3, np.nan), agree, root_mean_square(off[agree]), PoseStatus.ROTATION_ONLY)


def _poses_of_a_plane(sights: Sights, homography: Floats) -> list[tuple[Floats, Floats]]:
    """Up to four poses that show a plane as this homography does (Malis and Vargas 2007)."""
    _, rotations, translations, _ = cv2.decomposeHomographyMat(homography, ONE)
    found = []
    for rotation, translation in zip(rotations, translations, strict=True):
        length = np.linalg.norm(translation)
        if length > 1e-6:
            start = np.asarray(rotation, np.float64), np.asarray(translation[:, 0] / length, np.float64)
            found.append(settled(*start, sights, THRESHOLD))
    return found


def _agreeing(sights: Sights, pose: tuple[Floats, Floats], threshold: float) -> int:
    return int((sights.in_front(*pose) & (np.abs(sights.across(*pose)) <= threshold)).sum())


def _apart(one: tuple[Floats, Floats], other: tuple[Floats, Floats]) -> bool:
    between = np.arccos(np.clip(one[1] @ other[1], -1, 1))
    return bool(angle(one[0] @ other[0].T) > APART or between > 2 * APART)


def _metric(sights: Sights, depths: Floats) -> RelativePose | None:
    """By PnP with the matches whose depth is known; None if they are too few, or do not agree."""
    known = np.flatnonzero(np.isfinite(depths))
    if len(known) < MINIMUM_MATCHES:
        return None
    xyz, seen = sights.first[known] * depths[known, None], sights.plane1[known]
    done, turn, translation, chosen = cv2.solvePnPRansac(
        xyz, seen, ONE, None, iterationsCount=200, reprojectionError=2 * THRESHOLD / sights.focal, confidence=0.9999
    )
    if not done or chosen is None or len(chosen) < _needed(len(known)):
        return None
    agree = chosen[:, 0]
    for _ in range(2):
        turn, translation = cv2.solvePnPRefineLM(xyz[agree], seen[agree], ONE, None, turn, translation)
        off = sights.focal * np.linalg.norm(
            cv2.projectPoints(xyz, turn, translation, ONE, None)[0][:, 0] - seen, axis=1
        )
        agree = np.flatnonzero(off <= THRESHOLD)
        if len(agree) < _needed(len(known)):
            return None
    inliers = np.zeros(len(depths), bool)
    inliers[known[agree]] = True
    rotation = np.asarray(cv2.Rodrigues(turn)[0], np.float64)
    return RelativePose(
        rotation, np.ravel(translation), inliers, root_mean_square(off[agree]), PoseStatus.OK, metric=True
    )


def _ratio(sights: Sights, homography: Floats | None, essential: Floats | None) -> float:
    """S_H / (S_H + S_E), both errors of a match counted, in the first picture and in the second."""
    plane = line = 0.0
    if homography is not None:
        back = np.asarray(np.linalg.inv(homography), np.float64)
        there = project(homography, sights.plane0) - sights.plane1
        here = project(back, sights.plane1) - sights.plane0
        plane = sum(_score(sights.focal**2 * (off**2).sum(axis=1), GAMMA) for off in (there, here))
    if essential is not None:
        for lines, points in ((sights.first @ essential.T, sights.second), (sights.second @ essential, sights.first)):
            length = np.maximum((lines[:, :2] ** 2).sum(axis=1), 1e-24)
            line += _score(sights.focal**2 * (lines * points).sum(axis=1) ** 2 / length, CHI_E)
    return plane / (plane + line) if plane + line > 0 else np.nan


def _score(squares: Floats, limit: float) -> float:
    """Equation 2 of Mur-Artal et al., with σ of a pixel."""
    return float((GAMMA - squares[squares < limit]).sum())


def _needed(matches: int) -> float:
    return max(MINIMUM_MATCHES, MINIMUM_SHARE * matches)
