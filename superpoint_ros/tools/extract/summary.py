"""What was found in a camera's images, and what of it is odd enough to be told."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

import numpy as np

from superpoint_ros.bags.content import stamp_nanoseconds
from superpoint_ros.features.emptiness import likely_reason
from superpoint_ros.features.extractor import Features
from superpoint_ros.features.homography import HomographyStatus
from superpoint_ros.frontend.tracker import Motion
from superpoint_ros.tools.extract.input import Picture

LONG, SECONDS = 10, 5.0
"""Homographies that failed from which on that is told: if most did, or so many in a row for so many seconds."""


@dataclass
class Summary:
    """Counts over the images of a camera.

    keypoints  of each image
    empty      reason -> images without keypoints
    failed     status -> homographies that failed though there was a reference
    estimated  homographies to a reference
    longest    seconds in which the homographies of so many images in a row failed though they have keypoints, of LONG
               images at least
    """

    keypoints: list[int] = field(default_factory=list)
    empty: Counter[str] = field(default_factory=Counter)
    failed: Counter[str] = field(default_factory=Counter)
    estimated: int = 0
    longest: tuple[float, int] = (0.0, 0)
    _failing: tuple[int, int] | None = None

    def count(self, picture: Picture, found: Features, motion: Motion | None) -> None:
        """Add an image."""
        self.keypoints.append(len(found))
        if len(found) == 0:
            self.empty[likely_reason(picture.pixels, picture.mask)] += 1
        if motion is not None and motion.homography.status != HomographyStatus.NO_REFERENCE:
            self.estimated += 1
            if motion.homography.status != HomographyStatus.OK:
                self.failed[motion.homography.status.name] += 1
            self._follow(motion.homography.status, stamp_nanoseconds(picture.header.stamp), len(found))

    def median(self) -> float:
        """Keypoints of an image; NaN without any image."""
        return float(np.median(self.keypoints)) if self.keypoints else float("nan")

    def warnings(self) -> list[str]:
        """Sentences without a full stop; none if all is well."""
        found = []
        if self.empty:
            reason = self.empty.most_common(1)[0][0]
            count, total = self.empty.total(), len(self.keypoints)
            found.append(f"{count} of {total} images have no keypoints; most likely {reason}")
        count = self.failed.total()
        if count >= LONG and count > self.estimated / 2 and count > self.empty.total():
            found.append(f"{count} of {self.estimated} homographies failed, mostly {self.failed.most_common(1)[0][0]}")
        elif self.longest[0] > SECONDS:
            found.append(f"{self.longest[1]} homographies in a row failed, for {self.longest[0]:.0f} s")
        return found

    def _follow(self, status: HomographyStatus, stamp: int, keypoints: int) -> None:
        if status == HomographyStatus.OK:
            self._failing = None
        elif keypoints:
            begin, count = self._failing or (stamp, 0)
            self._failing = begin, count + 1
            if count + 1 >= LONG:
                self.longest = max(self.longest, ((stamp - begin) / 1e9, count + 1))
