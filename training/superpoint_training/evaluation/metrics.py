"""The metrics of the SuperPoint paper, as pure functions on arrays.

DeTone et al. 2018 (arXiv 1712.07629), section 7 and appendices: repeatability, localisation error,
nearest-neighbour mAP, matching score, homography correctness; corner average precision as in their
MagicPoint (arXiv 1707.07410). AUC as introduced with SuperGlue (Sarlin et al. 2020).

Points are (N, 2), x right, y down, (0, 0) the centre of the first pixel. Sizes are (height, width).
A homography maps pixels of image 0 to pixels of image 1. `epsilon` is the largest distance, in
pixels, of a correct point.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from superpoint_ros.features.homography import corner_error
from superpoint_training.homography import warp_points

Points = NDArray[Any]
Size = tuple[int, int]


@dataclass(frozen=True)
class View:
    """The keypoints of one image of a pair, without those that the other image cannot see.

    xy      (N, 2) float64, in this image
    mapped  (N, 2) float64, where the true homography takes them in the other image
    seen    (M,) bool, which of the keypoints given are these N
    """

    xy: NDArray[np.float64]
    mapped: NDArray[np.float64]
    seen: NDArray[np.bool_]


@dataclass(frozen=True)
class Repeatability:
    """How many keypoints are found again, and how precisely.

    value               in [0, 1]; 0 where no image has a keypoint in the common region
    localisation_error  pixels, mean distance of the points found again; NaN where there is none
    """

    value: float
    localisation_error: float


def common_views(
    xy0: Points, xy1: Points, homography: NDArray[np.float64], size0: Size, size1: Size
) -> tuple[View, View]:
    """Restrict the keypoints of both images to the region that both see; the order is kept."""
    inverse = np.asarray(np.linalg.inv(homography), np.float64)
    return _seen_by(xy0, homography, size1), _seen_by(xy1, inverse, size0)


def repeatability(
    xy0: Points,
    xy1: Points,
    homography: NDArray[np.float64],
    size0: Size,
    size1: Size,
    count: int = 300,
    epsilon: float = 3.0,
) -> Repeatability:
    """The share of keypoints that have one of the other image within `epsilon`; appendix A.

    xy0, xy1  best first: the `count` first in the common region are used, of each image
    count     k of the paper

    Distances are taken in image 1 for the points of both, as in the paper's equation for x̂.
    """
    view0, view1 = common_views(xy0, xy1, homography, size0, size1)
    points0, points1 = view0.mapped[:count], view1.xy[:count]
    total = len(points0) + len(points1)
    if len(points0) == 0 or len(points1) == 0:
        return Repeatability(0.0, np.nan)
    distances = pairwise_distances(points0, points1)
    nearest = np.concatenate([distances.min(axis=1), distances.min(axis=0)])
    found = nearest[nearest <= epsilon]
    return Repeatability(len(found) / total, float(found.mean()) if len(found) else np.nan)


def matching_score(
    xy0: Points,
    xy1: Points,
    matches: NDArray[np.integer],
    homography: NDArray[np.float64],
    size0: Size,
    size1: Size,
    epsilon: float = 3.0,
) -> float:
    """Correct matches over keypoints in the common region, mean of both images; appendix B.

    matches  (M, 2), rows of `xy0` and `xy1`. Distances for the share of image 0's points are taken
             in image 1, and the other way round.
    """
    views = common_views(xy0, xy1, homography, size0, size1)
    shares = []
    for own, other, view, target in ((0, 1, views[0], xy1), (1, 0, views[1], xy0)):
        row = np.cumsum(view.seen) - 1  # of a keypoint among those seen
        seen = matches[view.seen[matches[:, own]]]
        errors = np.linalg.norm(view.mapped[row[seen[:, own]]] - target[seen[:, other]], axis=1)
        shares.append(np.count_nonzero(errors <= epsilon) / len(view.xy) if len(view.xy) else 0.0)
    return float(np.mean(shares))


def nearest_neighbour_ap(
    xy0: Points,
    xy1: Points,
    descriptors0: NDArray[np.floating],
    descriptors1: NDArray[np.floating],
    homography: NDArray[np.float64],
    size0: Size,
    size1: Size,
    epsilon: float = 3.0,
) -> float:
    """Average precision of nearest-neighbour matching, mean of both directions; appendix B.

    Each keypoint in the common region is matched to its nearest neighbour among all keypoints of
    the other image; the curve runs over the descriptor similarity. Recall is of the keypoints that
    have a counterpart within `epsilon`. Descriptors are (N, D) of unit length.
    """
    view0, view1 = common_views(xy0, xy1, homography, size0, size1)
    similarity = descriptors0 @ descriptors1.T
    directions = ((view0, xy1, similarity[view0.seen]), (view1, xy0, similarity.T[view1.seen]))
    return float(np.mean([_one_way_ap(*direction, epsilon) for direction in directions]))


def _one_way_ap(view: View, target: Points, similarity: NDArray[np.floating], epsilon: float) -> float:
    if len(view.xy) == 0 or len(target) == 0:
        return 0.0
    distances = pairwise_distances(view.mapped, target)
    nearest = similarity.argmax(axis=1)
    rows = np.arange(len(nearest))
    possible = int((distances.min(axis=1) <= epsilon).sum())
    return average_precision(similarity[rows, nearest], distances[rows, nearest] <= epsilon, possible)


def average_precision(scores: NDArray[np.floating], correct: NDArray[np.bool_], positives: int) -> float:
    """Area under the precision-recall curve: the sum of recall's steps times the precision there.

    scores     (N,), any order; equal scores are one step, so that their order does not matter
    correct    (N,) bool
    positives  how many there are to find; the area is 0 where there is none
    """
    if positives == 0 or len(scores) == 0:
        return 0.0
    order = np.argsort(-scores, kind="stable")
    scores, hits = scores[order], np.cumsum(correct[order])
    steps = np.flatnonzero(np.append(np.diff(scores) != 0, True))
    precision = hits[steps] / (steps + 1)
    return float(np.sum(np.diff(hits[steps], prepend=0) / positives * precision))


def claim_corners(xy: Points, corners: Points, epsilon: float = 4.0) -> tuple[NDArray[np.bool_], NDArray[np.float64]]:
    """Which detections are right: each claims the nearest corner within `epsilon` that is left.

    xy       (N, 2), best first
    corners  (M, 2), the truth; each is claimed once, so that a second detection of it is wrong

    Returns (N,) bool and (N,) float64, the distance to the corner claimed, NaN where none was.
    """
    correct = np.zeros(len(xy), bool)
    errors = np.full(len(xy), np.nan)
    if len(xy) == 0 or len(corners) == 0:
        return correct, errors
    distances = pairwise_distances(xy, corners)
    for row in np.flatnonzero(distances.min(axis=1) <= epsilon):
        corner = distances[row].argmin()
        if distances[row, corner] <= epsilon:
            correct[row], errors[row] = True, distances[row, corner]
            distances[:, corner] = np.inf
    return correct, errors


def homography_error(estimate: NDArray[np.float64], truth: NDArray[np.float64], size: Size) -> float:
    """Mean distance of the image corners under both, in pixels; infinite without an estimate."""
    if not np.isfinite(estimate).all():
        return np.inf
    error = corner_error(estimate, truth, size)
    return error if np.isfinite(error) else np.inf


def share_within(errors: NDArray[np.floating], threshold: float) -> float:
    """The share of errors of at most `threshold`."""
    return float(np.mean(np.asarray(errors) <= threshold))


def area_under_curve(errors: NDArray[np.floating], threshold: float) -> float:
    """Mean, over t from 0 to `threshold`, of the share of errors below t; 1 if all errors are 0.

    The curve is linear between the sorted errors, which start at (0, 0), as SuperGlue's authors
    draw it.
    """
    errors = np.sort(np.append(0.0, errors))
    share = np.arange(len(errors)) / (len(errors) - 1)
    inside = errors <= threshold
    x = np.append(errors[inside], threshold)
    y = np.append(share[inside], share[inside][-1])
    return float(np.sum(np.diff(x) * (y[1:] + y[:-1]) / 2) / threshold)


def pairwise_distances(a: Points, b: Points) -> NDArray[np.float64]:
    """(N, M) Euclidean distances between (N, 2) and (M, 2) points."""
    a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
    return np.asarray(np.sqrt((a[:, None, 0] - b[None, :, 0]) ** 2 + (a[:, None, 1] - b[None, :, 1]) ** 2))


def _seen_by(xy: Points, homography: NDArray[np.float64], size: Size) -> View:
    """The points that land inside an image of `size`."""
    xy = np.asarray(xy, np.float64)
    # A plane seen from its front has det > 0, which settles the sign that a homography leaves open.
    mapped = warp_points(xy, homography * np.sign(np.linalg.det(homography)))
    height, width = size
    seen = np.all((mapped >= -0.5) & (mapped < (width - 0.5, height - 0.5)), axis=1)  # NaN compares as outside
    return View(xy[seen], mapped[seen], seen)
