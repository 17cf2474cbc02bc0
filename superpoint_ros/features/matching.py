"""Descriptors of two images to matches: mutual nearest neighbours."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray

from superpoint_ros.features.extractor import Features

Floats = NDArray[np.float32]
Neighbours = tuple[NDArray[np.intp], NDArray[np.bool_], Floats, Floats]
"""For each of (N, D) descriptors: the nearest of others, whether the two are each other's nearest, their similarity,
and that to the second nearest, if it is asked for."""
Nearest = Callable[[Floats, Floats, bool], Neighbours]
"""(N, D), the (M, D) others, and whether the second nearest is asked for."""

BLOCK = 2**24
"""Similarities that are held at a time, 64 MB: 4096 × 4096 in one piece, 65536 × 65536 in 256."""


def match(
    f0: Features,
    f1: Features,
    ratio: float | None = None,
    min_similarity: float | None = None,
    nearest: Nearest | None = None,
) -> NDArray[np.int32]:
    """Match features whose descriptors are each other's nearest.

    ratio           keep a match whose distance is below `ratio` times that to the second nearest
                    (Lowe 2004)
    min_similarity  keep a match whose cosine similarity is at least this
    nearest         what compares descriptors, as `device_matching.NearestOnDevice` does on a GPU; None: the CPU

    Returns (M, 2) int32, rows of `f0` and of `f1`, ascending in the first; every row occurs at most
    once, and of rows with equal descriptors the first. Raises ValueError if the descriptors have
    different lengths or an option is out of range.
    """
    if f0.descriptors.shape[1] != f1.descriptors.shape[1]:
        raise ValueError(
            f"descriptors of length {f0.descriptors.shape[1]} and {f1.descriptors.shape[1]} can't "
            "be matched: the features come from different weights"
        )
    if ratio is not None and not 0 < ratio <= 1:
        raise ValueError(f"ratio must be above 0 and at most 1, got {ratio!r}")
    if min_similarity is not None and not -1 <= min_similarity <= 1:
        raise ValueError(f"min_similarity must lie between -1 and 1, got {min_similarity!r}")
    if len(f0) == 0 or len(f1) == 0:
        return np.empty((0, 2), np.int32)
    compare = nearest or nearest_on_cpu
    forward, mutual, best, second = compare(f0.descriptors, f1.descriptors, ratio is not None)
    keep = mutual
    if min_similarity is not None:
        keep &= best >= min_similarity
    if ratio is not None and len(f1) > 1:
        keep &= _distance(best) < ratio * _distance(second)
    rows = np.flatnonzero(keep)
    return np.stack([rows, forward[rows]], axis=1).astype(np.int32)


def match_similarity(f0: Features, f1: Features, matches: NDArray[np.int32]) -> Floats:
    """Cosine similarity of each match: (M,) float32 in [-1, 1]."""
    pairs = f0.descriptors[matches[:, 0]], f1.descriptors[matches[:, 1]]
    return np.clip(np.einsum("md,md->m", *pairs), -1, 1).astype(np.float32)


def nearest_on_cpu(d0: Floats, d1: Floats, second: bool) -> Neighbours:
    """The nearest row of (M, D) `d1` to each row of (N, D) `d0`; at most BLOCK similarities are held at a time."""
    rows, step = np.arange(len(d0)), rows_at_a_time(len(d1))
    forward, best, runner_up = np.empty(len(d0), np.intp), np.empty(len(d0), np.float32), np.empty(len(d0), np.float32)
    highest = np.full(len(d1), -np.inf, np.float32)
    for begin in range(0, len(d0), step):
        some = slice(begin, begin + step)
        similarity = _product(d0[some], d1)
        here = np.arange(len(similarity))
        forward[some] = similarity.argmax(axis=1)
        best[some] = similarity[here, forward[some]]
        # numpy's argmax down the columns takes 5 ms of 1024 × 1024, its max 0.2.
        np.maximum(highest, similarity.max(axis=0), out=highest)
        if second:
            similarity[here, forward[some]] = -2
            runner_up[some] = similarity.max(axis=1)
    mutual = best == highest[forward]
    first = np.zeros(len(d1), np.intp)
    first[forward[mutual][::-1]] = rows[mutual][::-1]
    mutual &= first[forward] == rows
    return forward, mutual, best, runner_up if second else best


def rows_at_a_time(columns: int) -> int:
    """How many rows of similarities to so many others are held at a time."""
    return max(1, BLOCK // columns)


def _product(d0: Floats, d1: Floats) -> Floats:
    """d0 · d1ᵀ, four fifths of the time that matching takes; torch's is a little faster than numpy's."""
    for array in (d0, d1):
        # torch warns of a read-only array, and refuses some layouts
        if array.dtype != np.float32 or not array.flags.writeable or not array.flags.c_contiguous:
            return np.asarray(d0 @ d1.T)
    # numpy asks the system for huge pages; with torch's own memory a thousand page faults took 2 ms.
    similarity = np.empty((len(d0), len(d1)), np.float32)
    torch.mm(torch.from_numpy(d0), torch.from_numpy(d1).T, out=torch.from_numpy(similarity))
    return similarity


def _distance(similarity: Floats) -> Floats:
    """Euclidean distance of unit vectors: sqrt(2 − 2 cos)."""
    return np.sqrt(np.maximum(2 - 2 * similarity, 0))
