"""A picture for people: keypoints by score, tracks or matches, and the numbers that matter."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence

import cv2
import numpy as np
from numpy.typing import NDArray

from superpoint_ros.features.extractor import Features
from superpoint_ros.frontend.tracker import Motion

TRAIL = 12
"""Frames of a track that are drawn."""
FAINTEST = 0.005
"""Score that gets the darkest colour; the scale is logarithmic, as scores are."""
# BGR, of Okabe and Ito's palette, which colour-blind people can tell apart
INLIER, OUTLIER, TRACK = (115, 158, 0), (0, 94, 213), (233, 180, 86)
SHIFT = 4
"""Bits of a pixel's fraction in OpenCV's drawing functions."""


class Trails:
    """Where tracks have been in the last frames."""

    def __init__(self) -> None:
        self._frames: deque[dict[int, NDArray[np.float32]]] = deque(maxlen=TRAIL)

    def clear(self) -> None:
        """Forget all frames."""
        self._frames.clear()

    def add(self, track_ids: NDArray[np.int32], xy: NDArray[np.float32]) -> list[NDArray[np.float32]]:
        """Take a frame; returns the paths, (M, 2) each with M >= 2, of its tracks up to here."""
        self._frames.append(dict(zip(track_ids.tolist(), xy, strict=False)))
        paths = ([frame[i] for frame in self._frames if i in frame] for i in track_ids.tolist())
        return [np.array(path) for path in paths if len(path) > 1]


def draw(
    picture: NDArray[np.uint8],
    found: Features,
    motion: Motion,
    paths: Sequence[NDArray[np.float32]],
    lines: Sequence[str],
) -> NDArray[np.uint8]:
    """A (H, W) grey picture as (H, W, 3) BGR with everything drawn on it.

    Keypoints of coarser levels are circles, as large as their pixels were.

    paths  of the tracks; without any, the matches are drawn from the reference to the current position
    lines  of text, plain ASCII
    """
    canvas = np.asarray(cv2.cvtColor(picture, cv2.COLOR_GRAY2BGR), np.uint8)
    size = max(1.0, picture.shape[0] / 240)
    if paths:
        cv2.polylines(canvas, [_fixed(path) for path in paths], False, TRACK, 1, cv2.LINE_AA, SHIFT)
    else:
        inliers = motion.homography.inliers
        ends = segments(found, motion)
        for some, colour in ((ends[~inliers], OUTLIER), (ends[inliers], INLIER)):
            cv2.polylines(canvas, list(_fixed(some)), False, colour, 1, cv2.LINE_AA, SHIFT)
    coarseness = relative_scales(found)
    shown = zip(_fixed(found.xy).tolist(), score_colours(found.scores).tolist(), coarseness.tolist(), strict=True)
    for (x, y), colour, times in reversed(list(shown)):
        width = -1 if times == 1 else max(1, round(size / 2))
        cv2.circle(canvas, (x, y), round(1.5 * size * times * 2**SHIFT), colour, width, cv2.LINE_AA, SHIFT)
    for row, line in enumerate(lines, start=1):
        place = (round(4 * size), round(11 * size * row))
        for colour, width in (((0, 0, 0), round(3 * size)), ((255, 255, 255), round(size))):
            cv2.putText(canvas, line, place, cv2.FONT_HERSHEY_SIMPLEX, 0.33 * size, colour, width, cv2.LINE_AA)
    return canvas


def numbers(found: Features, motion: Motion, gap: float, latency: float) -> list[str]:
    """Lines of text about a frame. gap: seconds since its reference; latency: seconds since it came in."""
    homography = motion.homography
    lines = [f"{len(found)} keypoints, {1e3 * latency:.0f} ms"]
    if motion.reference_stamp is not None:
        inliers = int(homography.inliers.sum())
        lines.append(f"{inliers} of {len(motion.matches)} matches are inliers ({motion.inlier_ratio:.0%})")
        lines.append(f"{homography.status.name}, rmse {homography.rmse:.2f} px, reference {gap:.2f} s ago")
    else:
        lines.append(homography.status.name)
    if len(motion.track_ids):
        lines.append(f"newest track {motion.track_ids.max()}")
    return lines


def segments(found: Features, motion: Motion) -> NDArray[np.float32]:
    """(M, 2, 2) float32: for each match its position in the reference and in the current image, pixels."""
    return np.stack([motion.reference_xy, found.xy[motion.matches[:, 1]]], axis=1)


def relative_scales(found: Features) -> NDArray[np.float32]:
    """(N,) float32: 1 at the finest level at which a keypoint was found, 2 where pixels were twice as large."""
    return np.asarray(np.round(found.scales / found.scales.min(initial=np.inf), 3), np.float32)


def score_colours(scores: NDArray[np.float32]) -> NDArray[np.uint8]:
    """(N, 3) BGR: from dark blue, hardly detected, to yellow, certain (plasma)."""
    if len(scores) == 0:
        return np.empty((0, 3), np.uint8)
    part = 1 - np.log(np.maximum(scores, FAINTEST)) / np.log(FAINTEST)
    levels = (255 * part).clip(0, 255).astype(np.uint8)
    return np.asarray(cv2.applyColorMap(levels[:, None], cv2.COLORMAP_PLASMA)[:, 0], np.uint8)


def _fixed(points: NDArray[np.floating]) -> NDArray[np.int32]:
    return np.asarray(np.rint(points * 2**SHIFT), np.int32)
