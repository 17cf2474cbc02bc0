"""Relative poses from matches of calibrated pictures, and how far they are from the truth.

Pairs are read in the format of SuperGlue's evaluation (Sarlin et al. 2020); so are the metric, the larger of the
angles by which rotation and direction of translation are off, and its area under the curve. The essential matrix
is OpenCV's USAC with MAGSAC++, then least squares.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from superpoint_ros.features.extractor import Features
from superpoint_ros.features.matching import match
from superpoint_ros.features.refinement import refine_matches
from superpoint_ros.network.heatmap import DetectionSettings
from superpoint_training.evaluation.detectors import Detector
from superpoint_training.evaluation.metrics import area_under_curve
from superpoint_training.pictures import BadPicture, read_picture

Matrix = NDArray[np.float64]

LIST = "pairs_with_gt.txt"
NUMBERS = 38
"""Words in a line: two names, two turns, two camera matrices, and the pose."""
LIMITS = (5.0, 10.0, 20.0)
"""Degrees up to which the area under the curve is taken."""
FEWEST = 8
"""Matches: five determine an essential matrix, some more make it credible."""
STEPS = 10
KEPT = 64
"""Pictures whose features are kept for the pairs that follow: about 1 MB a picture and detector."""


@dataclass(frozen=True)
class PosePair:
    """Two pictures of a scene.

    name, group  unique; the folder it is in
    paths        of the pictures
    cameras      (3, 3) matrices
    pose         (4, 4), takes points of the first camera's frame to the second's
    """

    name: str
    group: str
    paths: tuple[Path, Path]
    cameras: tuple[Matrix, Matrix]
    pose: Matrix


@dataclass(frozen=True)
class PoseResult:
    """What one detector made of one pair; angles in degrees, 180 where there is no pose."""

    pair: str
    group: str
    detector: str
    keypoints: tuple[int, int]
    matches: int
    inliers: int
    rotation_error: float
    translation_error: float

    @property
    def error(self) -> float:
        """Degrees: the larger of both."""
        return max(self.rotation_error, self.translation_error)


def pose_pairs(directory: Path) -> list[PosePair]:
    """The pairs that `pairs_with_gt.txt` lists, in a directory or in each of its folders.

    A line: names of both pictures, their turns (only 0 is known), camera matrices (9 numbers each), pose (16 numbers).
    Raises ValueError that names the file and the line.
    """
    lists = [directory / LIST] if (directory / LIST).is_file() else sorted(directory.glob(f"*/{LIST}"))
    pairs = [pair for path in lists for pair in _listed(path)]
    if not pairs:
        raise ValueError(f"{directory}: no pair found; expected {LIST} in it or in its folders (SuperGlue's format)")
    return pairs


def check_pictures(directory: Path, pairs: Sequence[PosePair]) -> None:
    """Raise ValueError unless the pictures of all pairs of a directory are there."""
    paths = list(dict.fromkeys(path for pair in pairs for path in pair.paths))
    missing = [path for path in paths if not path.is_file()]
    if missing:
        raise ValueError(
            f"{directory}: {len(missing)} of {len(paths)} pictures that {LIST} names are not there: {missing[0]} …; "
            "expected names relative to the list's folder"
        )


def evaluate_poses(
    detectors: Sequence[Detector],
    pairs: Sequence[PosePair],
    settings: Callable[[int], DetectionSettings],
    threshold: float,
    refine: bool = False,
    advance: Callable[[], object] = lambda: None,
    skip: Callable[[PosePair, ValueError], object] | None = None,
    into: list[PoseResult] | None = None,
) -> list[PoseResult]:
    """Evaluate every detector that has descriptors on every pair.

    settings   by suppression radius
    threshold  pixels, as in `estimate_pose`
    refine     align matches by the pictures, see `refine_matches`
    skip, into as in `evaluate_pairs`
    """
    results = [] if into is None else into

    @lru_cache(KEPT)
    def seen(path: Path) -> tuple[NDArray[np.uint8], list[Features]]:
        image = read_picture(path)
        return image, [detector(image, settings(detector.matched_nms)) for detector in detectors]

    for pair in pairs:
        try:
            (image0, all0), (image1, all1) = seen(pair.paths[0]), seen(pair.paths[1])
        except BadPicture as error:
            if skip is None:
                raise
            skip(pair, error)
        else:
            measured = []
            for detector, f0, f1 in zip(detectors, all0, all1, strict=True):
                matches = match(f0, f1)
                if refine:
                    f0, f1 = _aligned(f0, f1, matches, (image0, image1))
                measured.append(_measured(detector.name, pair, f0, f1, matches, threshold))
            results += measured
        advance()
    return results


def summarise_poses(results: Sequence[PoseResult]) -> dict[str, object]:
    """The means over pairs."""
    errors = np.array([result.error for result in results])
    return {
        "pairs": len(results),
        "keypoints": float(np.mean([result.keypoints for result in results])),
        "matches": float(np.mean([result.matches for result in results])),
        "inliers": float(np.mean([result.inliers for result in results])),
        "auc": {f"{limit:g}": area_under_curve(errors, limit) for limit in LIMITS},
        "median": float(np.median(errors)),
    }


def estimate_pose(
    f0: Features, f1: Features, matches: NDArray[np.int32], cameras: tuple[Matrix, Matrix], threshold: float
) -> tuple[Matrix, Matrix, NDArray[np.bool_]] | None:
    """Rotation (3, 3), direction of translation (3,) and inliers (M,), the same for the same matches; None if it fails.

    threshold  pixels of distance from the epipolar line, for a keypoint of scale 1
    """
    if len(matches) < FEWEST:
        return None
    points = [
        _rays(f.xy[matches[:, side]], camera) for side, (f, camera) in enumerate(zip((f0, f1), cameras, strict=True))
    ]
    focal = [float(np.mean(camera[(0, 1), (0, 1)])) for camera in cameras]
    limit = threshold / float(np.mean(focal))
    essential, mask = cv2.findEssentialMat(
        points[0], points[1], np.eye(3), cv2.USAC_MAGSAC, 0.99999, limit, maxIters=10_000
    )
    if essential is None or essential.shape != (3, 3):
        return None
    _, rotation, translation, _ = cv2.recoverPose(essential, points[0], points[1], np.eye(3), mask=mask)
    deviations = [f.scales[matches[:, side]] / focal[side] for side, f in enumerate((f0, f1))]
    start = np.asarray(rotation, np.float64), np.asarray(translation[:, 0], np.float64)
    rotation, direction = _refined(*start, points, deviations, threshold)
    errors = _epipolar(rotation, direction, points, deviations)
    return rotation, direction, np.abs(errors) <= threshold


def pose_errors(rotation: Matrix, direction: Matrix, truth: Matrix) -> tuple[float, float]:
    """Degrees by which rotation and direction of translation are off; the direction's sign does not count."""
    cosine = (np.trace(rotation.T @ truth[:3, :3]) - 1) / 2
    lengths = np.linalg.norm(direction) * np.linalg.norm(truth[:3, 3])
    along = float(abs(direction @ truth[:3, 3])) / max(float(lengths), 1e-12)
    return float(np.degrees(np.arccos(np.clip(cosine, -1, 1)))), float(np.degrees(np.arccos(np.clip(along, 0, 1))))


def _aligned(
    f0: Features, f1: Features, matches: NDArray[np.int32], images: tuple[NDArray[np.uint8], NDArray[np.uint8]]
) -> tuple[Features, Features]:
    """The features with the refined positions of those that are matched; these are as exact as of the finest level."""
    positions, refined = refine_matches(f0, f1, matches, images)
    xy, scales = f1.xy.copy(), [f0.scales.copy(), f1.scales.copy()]
    xy[matches[:, 1]] = positions
    for side, each in enumerate(scales):
        rows = matches[refined, side]
        each[rows] = np.minimum(each[rows], 1)
    return replace(f0, scales=scales[0]), replace(f1, xy=xy, scales=scales[1])


def _measured(
    detector: str, pair: PosePair, f0: Features, f1: Features, matches: NDArray[np.int32], threshold: float
) -> PoseResult:
    found = estimate_pose(f0, f1, matches, pair.cameras, threshold)
    inliers, errors = 0, (180.0, 180.0)
    if found is not None:
        inliers, errors = int(found[2].sum()), pose_errors(found[0], found[1], pair.pose)
    return PoseResult(pair.name, pair.group, detector, (len(f0), len(f1)), len(matches), inliers, *errors)


def _rays(xy: NDArray[np.float32], camera: Matrix) -> Matrix:
    """Pixels as points on the plane at distance 1 before the camera."""
    homogeneous = np.column_stack([xy, np.ones(len(xy))]) @ np.linalg.inv(camera).T
    return np.ascontiguousarray(homogeneous[:, :2])


def _refined(
    rotation: Matrix,
    direction: Matrix,
    points: Sequence[Matrix],
    deviations: Sequence[NDArray[np.floating]],
    limit: float,
) -> tuple[Matrix, Matrix]:
    """Gauss-Newton on the epipolar distances with Tukey's biweight, which lets go at twice the limit."""
    for _ in range(STEPS):
        here = _epipolar(rotation, direction, points, deviations)
        weight = np.maximum(1 - (here / (2 * limit)) ** 2, 0)  # the root of the biweight
        if np.count_nonzero(weight) < FEWEST:
            break
        slopes = np.empty((len(here), 5))
        for column, step in enumerate(np.eye(5) * 1e-6):
            slopes[:, column] = (_epipolar(*_moved(rotation, direction, step), points, deviations) - here) / 1e-6
        step = np.linalg.lstsq(slopes * weight[:, None], -here * weight, rcond=None)[0]
        rotation, direction = _moved(rotation, direction, step)
        if np.abs(step).max() < 1e-8:
            break
    return rotation, direction


def _moved(rotation: Matrix, direction: Matrix, step: NDArray[np.floating]) -> tuple[Matrix, Matrix]:
    """Turned by a rotation vector, and the direction by two numbers across it."""
    across = np.linalg.svd(direction[None])[2][1:]
    moved = direction / np.linalg.norm(direction) + step[3:] @ across
    return np.asarray(cv2.Rodrigues(step[:3])[0] @ rotation), moved / np.linalg.norm(moved)


def _epipolar(
    rotation: Matrix, direction: Matrix, points: Sequence[Matrix], deviations: Sequence[NDArray[np.floating]]
) -> Matrix:
    """Sampson's distance of each match, in units of its keypoints' deviations."""
    x, y, z = direction
    essential = np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]]) @ rotation
    p0, p1 = (np.column_stack([each, np.ones(len(each))]) for each in points)
    line1, line0 = p0 @ essential.T, p1 @ essential
    variance = (deviations[1] ** 2) * (line1[:, :2] ** 2).sum(axis=1) + (deviations[0] ** 2) * (line0[:, :2] ** 2).sum(
        axis=1
    )
    return np.asarray((p1 * line1).sum(axis=1) / np.sqrt(np.maximum(variance, 1e-30)))


def _listed(path: Path) -> list[PosePair]:
    pairs = []
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except UnicodeDecodeError:
        raise ValueError(f"{path}: not a text file; expected a pair of pictures a line (SuperGlue's format)") from None
    for number, line in enumerate(lines, start=1):
        words = line.split()
        if not words:
            continue
        try:
            first, second = words[:2]
            turns = tuple(int(word) for word in words[2:4])
            values = np.array(words[4:], np.float64)
        except ValueError:
            words = []
        if len(words) != NUMBERS or not np.isfinite(values).all() or any(turns):
            raise ValueError(
                f"{path}, line {number}: expected two names, two turns of 0, two camera matrices and a 4×4 pose "
                f"({NUMBERS} words), got {line[:60]!r}"
            )
        cameras = values[:9].reshape(3, 3), values[9:18].reshape(3, 3)
        if any(abs(np.linalg.det(camera)) < 1e-12 for camera in cameras):
            raise ValueError(f"{path}, line {number}: a camera matrix is singular, so it is no camera's: {line[:60]!r}")
        paths = path.parent / first, path.parent / second
        group = path.parent.name
        pairs.append(PosePair(f"{group} {first} {second}", group, paths, cameras, values[18:].reshape(4, 4)))
    return pairs
