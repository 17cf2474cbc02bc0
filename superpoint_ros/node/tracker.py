"""From frame to frame: the reference, its matches with the current frame, the homography."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from superpoint_ros.features.extractor import Features
from superpoint_ros.features.homography import (
    Homography,
    HomographyStatus,
    estimate_homography,
    unknown_homography,
)
from superpoint_ros.features.matching import match, match_similarity


@dataclass(frozen=True)
class Motion:
    """What happened between the reference frame and the current one.

    reference_stamp  nanoseconds; None when there was no reference
    matches          (M, 2) int32, rows of the reference and of the current features
    similarity       (M,) float32, cosine
    homography       maps reference pixels to current pixels
    """

    reference_stamp: int | None
    matches: NDArray[np.int32]
    similarity: NDArray[np.float32]
    homography: Homography


class Tracker:
    """Remembers the previous frame of one camera as the reference of the next."""

    def __init__(self) -> None:
        self._stamp: int | None = None
        self._features: Features | None = None

    def advance(
        self,
        stamp: int,
        features: Features,
        threshold: float,
        ratio: float | None = None,
        min_similarity: float | None = None,
    ) -> Motion:
        """Compare a frame with the reference, then make it the reference.

        stamp      nanoseconds; one before the reference's (a bag loops) drops the reference, as
                   does another image size or descriptor length
        threshold  pixels, of the homography's inliers; `ratio` and `min_similarity` as in `match`
        """
        reference, reference_stamp = self._features, self._stamp
        self._features, self._stamp = features, stamp
        if (
            reference is None
            or reference_stamp is None
            or stamp < reference_stamp
            or not _comparable(reference, features)
        ):
            homography = unknown_homography(HomographyStatus.NO_REFERENCE, 0)
            return Motion(None, np.empty((0, 2), np.int32), np.empty(0, np.float32), homography)
        matches = match(reference, features, ratio, min_similarity)
        similarity = match_similarity(reference, features, matches)
        homography = estimate_homography(reference, features, matches, threshold)
        return Motion(reference_stamp, matches, similarity, homography)


def _comparable(reference: Features, current: Features) -> bool:
    return (
        reference.size == current.size
        and reference.descriptors.shape[1] == current.descriptors.shape[1]
    )
