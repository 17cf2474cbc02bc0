"""Candidates for match_ratio, min_similarity and subpixel from frame to frame, as a table in Markdown.

python docs/matching_defaults.py --poses DIR --planes DIR [--weights fast]

--poses has pairs_with_gt.txt in SuperGlue's format, --planes folders in HPatches layout. The third set is rendered
(`superpoint demo`'s flight along a wall of photographs). Everything else is as the node has it by default.
"""

from __future__ import annotations

import argparse
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from superpoint_ros import Extractor, Features, estimate_homography, match, refine_matches
from superpoint_ros.features.homography import project
from superpoint_ros.frontend.messages import DESCRIPTOR_TYPES, decode_descriptors, encode_descriptors
from superpoint_ros.tools.demo.sequence import motion, photograph, view
from superpoint_training.evaluation.metrics import homography_error
from superpoint_training.evaluation.pairs import hpatches_pairs
from superpoint_training.evaluation.pose import PosePair, estimate_pose, pose_errors, pose_pairs
from superpoint_training.pictures import read_picture

FARTHEST = 2
"""Frames between two of a drive: what a node sees that drops every other one."""
RENDERED = range(0, 150, 6)
SIZE = (480, 640)
KEYPOINTS = 1024
RIGHT = {"drive": 1.0, "planes": 3.0, "rendered": 3.0}
"""Pixels from the epipolar line, or from the place, up to which a match is right."""
ROWS: tuple[tuple[float, float, bool], ...] = (
    *((1.0, -1.0, subpixel) for subpixel in (False, True)),
    *((ratio, -1.0, False) for ratio in (0.98, 0.95, 0.9, 0.85, 0.8)),
    *((1.0, similarity, False) for similarity in (0.5, 0.6, 0.7, 0.8)),
    *((ratio, 0.6, True) for ratio in (1.0, 0.98, 0.95)),
)
"""match_ratio, min_similarity and subpixel."""

Picture = NDArray[np.uint8]
Errors = Callable[[NDArray[np.floating], NDArray[np.floating]], NDArray[np.floating]]


@dataclass(frozen=True)
class Pair:
    """Two frames and what is known of their motion.

    errors  of matched positions (M, 2) in both, pixels
    truth   the homography, (3, 3), or the pair with its pose
    """

    which: str
    pictures: tuple[Picture, Picture]
    errors: Errors
    truth: NDArray[np.float64] | PosePair


def drive(directory: Path) -> Iterator[Pair]:
    """Pairs of frames at most FARTHEST apart, by the numbers in their names."""
    for pair in pose_pairs(directory):
        first, second = (int(re.sub(r"\D", "", path.stem)) for path in pair.paths)
        if 0 < second - first <= FARTHEST:
            yield Pair("drive", (read_picture(pair.paths[0]), read_picture(pair.paths[1])), epipolar(pair), pair)


def planes(directory: Path) -> Iterator[Pair]:
    """Pairs of HPatches' layout at its usual size."""
    for pair in hpatches_pairs(directory, max(SIZE)):
        views = pair.load()
        yield Pair("planes", (views.reference, views.current), displacement(views.homography), views.homography)


def rendered() -> Iterator[Pair]:
    """Frames one and two apart."""
    for index in RENDERED:
        for gap in range(1, FARTHEST + 1):
            truth = motion(view(index, SIZE), view(index + gap, SIZE))
            first, second = (cv2.cvtColor(photograph(at, SIZE), cv2.COLOR_BGR2GRAY) for at in (index, index + gap))
            yield Pair("rendered", (np.asarray(first), np.asarray(second)), displacement(truth), truth)


def displacement(truth: NDArray[np.float64]) -> Errors:
    """Distance from where the homography takes the first."""
    return lambda xy0, xy1: np.linalg.norm(project(truth, xy0) - xy1, axis=1)


def epipolar(pair: PosePair) -> Errors:
    """Sampson's distance."""
    x, y, z = pair.pose[:3, 3]
    essential = np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]]) @ pair.pose[:3, :3]
    fundamental = np.linalg.inv(pair.cameras[1]).T @ essential @ np.linalg.inv(pair.cameras[0])

    def errors(xy0: NDArray[np.floating], xy1: NDArray[np.floating]) -> NDArray[np.floating]:
        p0, p1 = (np.column_stack([xy, np.ones(len(xy))]) for xy in (xy0, xy1))
        line1, line0 = p0 @ fundamental.T, p1 @ fundamental
        across = np.sqrt((line1[:, :2] ** 2).sum(axis=1) + (line0[:, :2] ** 2).sum(axis=1))
        return np.asarray(np.abs((p1 * line1).sum(axis=1)) / across)

    return errors


def measure(
    pair: Pair, f0: Features, f1: Features, ratio: float, similarity: float
) -> tuple[float, float, float, float]:
    """Matches, how many are right, pixels by which the corners are off or degrees the pose, and 1 unless it failed."""
    matches = match(f0, f1, ratio if ratio < 1 else None, similarity if similarity > -1 else None)
    right = pair.errors(f0.xy[matches[:, 0]], f1.xy[matches[:, 1]]) <= RIGHT[pair.which]
    if isinstance(pair.truth, PosePair):
        xy = f1.xy.copy()
        xy[matches[:, 1]] = refine_matches(f0, f1, matches, pair.pictures)[0]
        found = estimate_pose(f0, replace(f1, xy=xy), matches, pair.truth.cameras, 1.0)
        error = max(pose_errors(*found[:2], pair.truth.pose)) if found is not None else 180.0
        return len(matches), right.sum(), error, float(found is not None)
    h = estimate_homography(f0, f1, matches, images=pair.pictures)
    error = homography_error(h.matrix, pair.truth, pair.pictures[0].shape)  # type: ignore[arg-type]
    return len(matches), right.sum(), error, float(error <= 3.0)


def through(features: Features, kind: str) -> Features:
    """As a subscriber gets them."""
    data = encode_descriptors(features.descriptors, kind)
    decoded = decode_descriptors(data, features.descriptors.shape[1], DESCRIPTOR_TYPES[kind])
    return replace(features, descriptors=decoded)


def row(name: str, pairs: Sequence[Pair], figures: Sequence[tuple[float, float, float, float]]) -> str:
    """A line of the table."""
    cells = []
    for which in RIGHT:
        some = np.array([each for pair, each in zip(pairs, figures, strict=True) if pair.which == which])
        if not len(some):
            continue
        found, right, error, fine = some.T
        cells.append(
            f"{found.mean():.0f} | {right.mean():.0f} | {100 * right.sum() / found.sum():.1f} | "
            f"{np.median(error):.3f} | {100 * fine.mean():.0f}"
        )
    return f"| {name} | {' | '.join(cells)} |"


def main() -> None:
    """Print both tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--poses", type=Path, required=True)
    parser.add_argument("--planes", type=Path, required=True)
    parser.add_argument("--weights", default=None)
    given = parser.parse_args()
    pairs = [*drive(given.poses), *planes(given.planes), *rendered()]
    found = {}
    for subpixel in (False, True):
        extractor = Extractor(given.weights, max_keypoints=KEYPOINTS, subpixel=subpixel)
        found[subpixel] = [tuple(extractor(picture) for picture in pair.pictures) for pair in pairs]
    print(f"{', '.join(f'{which}: {sum(pair.which == which for pair in pairs)} pairs' for which in RIGHT)}\n")
    header = "matches | right | % | error | % fine"
    print(f"| match_ratio, min_similarity, subpixel | {' | '.join(header for _ in RIGHT)} |")
    print("|---" * (1 + 5 * len(RIGHT)) + "|")
    for ratio, similarity, subpixel in ROWS:
        frames = zip(pairs, found[subpixel], strict=True)
        figures = [measure(pair, f0, f1, ratio, similarity) for pair, (f0, f1) in frames]
        print(row(f"{ratio:g}, {similarity:g}, {str(subpixel).lower()}", pairs, figures), flush=True)
    print(f"\n| descriptor_type | {' | '.join(header for _ in RIGHT)} |")
    print("|---" * (1 + 5 * len(RIGHT)) + "|")
    for kind in DESCRIPTOR_TYPES:
        figures = [
            measure(pair, through(f0, kind), through(f1, kind), 1.0, -1.0)
            for pair, (f0, f1) in zip(pairs, found[False], strict=True)
        ]
        print(row(kind, pairs, figures), flush=True)


if __name__ == "__main__":
    main()
