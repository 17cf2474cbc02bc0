"""Keypoints of many pictures moved to where those of one point of the scene agree, before a map is made of them.

The keypoint adjustment of Lindenberger et al. 2021 ("Pixel-Perfect Structure-from-Motion", section 4.1), by the
pictures themselves instead of a network's features: each match is aligned both ways (`refinement.align`), those that
could be join keypoints to points of the scene, and each point's keypoints move so that its alignments agree.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields, replace

import numpy as np
from numpy.typing import NDArray

from superpoint_ros.features.extractor import Features
from superpoint_ros.features.levels import Levels
from superpoint_ros.features.lucas_kanade import MAXIMUM_SHIFT
from superpoint_ros.features.neighbours import local_motion
from superpoint_ros.features.refinement import Floats, align

Doubles = NDArray[np.float64]
Matches = dict[tuple[int, int], NDArray[np.int32]]
"""Of pictures i and j: (M, 2), rows of their features."""

KEYPOINT = 1.0
"""Pixels (of its scale) by which a keypoint is taken to be off. Alignments tell only where a point's keypoints are to
each other; this keeps them from wandering off together."""
LEAST_DEVIATION = 0.05
"""Pixels (of the scale): no alignment is trusted more."""
TRUST = 3.0
"""Deviations off which an alignment counts half."""
ROUNDS = 4
"""Of weighing the alignments anew."""
STEPS = 50
"""Of conjugate gradients in a round, at most; they end when SETTLED of the force is left."""
SETTLED = 1e-3
FEWEST = 30
"""Matches of two pictures within points of the scene, with which the two are connected."""


@dataclass(frozen=True)
class Alignments:
    """Matches that were aligned, E of one direction each; rows are those of all pictures' keypoints, one after another.

    first, second  (E,) int64, rows
    warps          (E, 2, 2) float32, of the surroundings, from the first to the second
    steps          (E, 2) float32, pixels from the second keypoint to where the first one is in its picture
    deviations     (E,) float32, pixels, expected of the steps
    """

    first: NDArray[np.int64]
    second: NDArray[np.int64]
    warps: Floats
    steps: Floats
    deviations: Floats

    def rows(self, chosen: NDArray[np.bool_]) -> Alignments:
        return Alignments(*(getattr(self, field.name)[chosen] for field in fields(self)))


def adjust_keypoints(
    features: Sequence[Features],
    matches: Mapping[tuple[int, int], NDArray[np.int32]],
    levels: Callable[[int], Levels],
) -> tuple[list[Features], Matches]:
    """Move keypoints so that those of one point of the scene agree, and leave out matches that the pictures refute.

    matches  of pictures i and j: (M, 2) integers, rows of their features
    levels   of a picture, `levels_for` its features; asked for in the order of `matches`, again for every pair

    Returns the features, of which a keypoint is at most 2 px (of its scale) from where it was, and belongs to no point
    where it would be further; and of each pair the matches within points. Where these do not connect the two pictures,
    directly or by way of a third, as in other light, nothing is refuted: the pair keeps all.
    """
    begins = np.cumsum([0, *(len(found) for found in features)])
    scales = np.concatenate([np.ones(0, np.float32), *(found.scales for found in features)])
    aligned = _aligned(features, matches, levels, begins)
    points = points_of(aligned, np.repeat(np.arange(len(features)), np.diff(begins)))
    moves = moves_of(aligned.rows(points[aligned.first] == points[aligned.second]), scales)
    away = np.linalg.norm(moves, axis=1) > MAXIMUM_SHIFT * scales
    moves[away], points[away] = 0, -1 - np.flatnonzero(away)
    own = np.split(moves, begins[1:])[:-1]
    moved = [replace(found, xy=found.xy + each) for found, each in zip(features, own, strict=True)]
    return moved, _within(matches, points, begins)


def points_of(aligned: Alignments, pictures: NDArray[np.int64]) -> NDArray[np.int64]:
    """Of which point of the scene each of N keypoints is: (N,) int64, the row of one of the point's.

    pictures  (N,) integers, of which picture each is

    The surest alignments come first; one that would give a point two keypoints of a picture is left out.
    """
    parents, seen = list(range(len(pictures))), [{picture} for picture in pictures.tolist()]

    def root(row: int) -> int:
        while parents[row] != row:
            parents[row] = parents[parents[row]]
            row = parents[row]
        return row

    order = np.argsort(aligned.deviations, kind="stable")
    for first, second in zip(aligned.first[order].tolist(), aligned.second[order].tolist(), strict=True):
        a, b = root(first), root(second)
        if a != b and seen[a].isdisjoint(seen[b]):
            large, small = (a, b) if len(seen[a]) >= len(seen[b]) else (b, a)
            parents[small] = large
            seen[large] |= seen[small]
    return np.array([root(row) for row in range(len(pictures))], np.int64)


def moves_of(aligned: Alignments, scales: Floats) -> Floats:
    """How far each of N keypoints is to move so that alignments agree, (N, 2) float32, pixels: robust least squares.

    scales  (N,) float32, of the keypoints

    Where a first keypoint moves by a, what is seen there moves by warp · a in the second picture: the second keypoint
    is to move by step + warp · a.
    """
    deviations = np.hypot(aligned.deviations, LEAST_DEVIATION * scales[aligned.second])
    own = 1 / (KEYPOINT * scales.astype(np.float64)[:, None]) ** 2
    weights, moves = 1 / deviations**2, np.zeros((len(scales), 2))
    for _ in range(ROUNDS):
        moves = _solved(aligned, weights, own, moves)
        off = np.linalg.norm(_apart(aligned, moves) - aligned.steps, axis=1) / deviations
        weights = 1 / deviations**2 / (1 + (off / TRUST) ** 2)
    return moves.astype(np.float32)


def _solved(aligned: Alignments, weights: Floats, own: Doubles, moves: Doubles) -> Doubles:
    """The weighted least squares, by conjugate gradients from some moves on, preconditioned by the diagonal.

    own  (N, 1), weights of the keypoints' own positions
    """
    count, weighted = len(own), weights[:, None]
    alignments = np.bincount(aligned.first, weights, count) + np.bincount(aligned.second, weights, count)
    stiffness = alignments[:, None] + own

    def force(steps: NDArray[np.floating]) -> Doubles:
        """The transpose of `_apart`."""
        there = weighted * steps
        back = np.einsum("eji,ej->ei", aligned.warps, there)
        ends = (aligned.second, there), (aligned.first, back)
        onto, off = (np.stack([np.bincount(rows, each, count) for each in pull.T], axis=1) for rows, pull in ends)
        return np.asarray(onto - off)

    wanted = force(aligned.steps)
    left = wanted - force(_apart(aligned, moves)) - own * moves
    direction, energy, settled = np.zeros_like(moves), np.inf, SETTLED**2 * (wanted**2 / stiffness).sum()
    for _ in range(STEPS):
        eased = left / stiffness
        before, energy = energy, (left * eased).sum()
        if energy <= settled:
            break
        direction = eased + energy / before * direction
        response = force(_apart(aligned, direction)) + own * direction
        length = energy / (direction * response).sum()
        moves, left = moves + length * direction, left - length * response
    return moves


def _apart(aligned: Alignments, moves: Doubles) -> Doubles:
    """By how much the second keypoints move beyond what they do with the first ones, (E, 2)."""
    return np.asarray(moves[aligned.second] - np.einsum("eij,ej->ei", aligned.warps, moves[aligned.first]))


def _aligned(
    features: Sequence[Features],
    matches: Mapping[tuple[int, int], NDArray[np.int32]],
    levels: Callable[[int], Levels],
    begins: NDArray[np.int64],
) -> Alignments:
    """All matches that could be aligned, in each direction in which they could."""
    none = np.empty(0, np.int64)
    found = [Alignments(none, none, *(np.empty((0, *shape), np.float32) for shape in ((2, 2), (2,), ())))]
    for (i, j), rows in matches.items():
        if len(rows) < 3:
            continue
        for one, other, (first, second) in ((i, j, rows.T), (j, i, rows[:, ::-1].T)):
            here, there = features[one].xy[first], features[other].xy[second]
            warps = local_motion(here, there).affinities
            places, deviations = align(levels(one), levels(other), here, there, warps, features[other].scales[second])
            good = np.isfinite(deviations)
            ends = begins[one] + first[good], begins[other] + second[good]
            found.append(Alignments(*ends, warps[good], (places - there)[good], deviations[good]))
    return Alignments(*(np.concatenate([getattr(each, field.name) for each in found]) for field in fields(Alignments)))


def _within(
    matches: Mapping[tuple[int, int], NDArray[np.int32]], points: NDArray[np.int64], begins: NDArray[np.int64]
) -> Matches:
    """Of each pair the matches within points, or all, as `adjust_keypoints` says."""
    within = {}
    connected = [{picture} for picture in range(len(begins) - 1)]
    for (i, j), rows in matches.items():
        within[i, j] = rows[points[begins[i] + rows[:, 0]] == points[begins[j] + rows[:, 1]]]
        if len(within[i, j]) >= FEWEST:
            connected[i].add(j)
            connected[j].add(i)
    return {(i, j): rows if connected[i].isdisjoint(connected[j]) else within[i, j] for (i, j), rows in matches.items()}
