"""Which pictures of a recording show the same place: by votes of their descriptors."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from superpoint_ros.features.extractor import Features

VOTERS = 100
"""Of a picture, its strongest keypoints."""
SIMILARITY = 0.7
"""Cosine to the most similar descriptor of any other picture, below which a keypoint does not vote."""
MINIMUM_VOTES = 5
CANDIDATES = 3
"""Of a picture at most, those with the most votes first."""


def same_places(pictures: Sequence[Features], sequences: Sequence[int], window: int) -> list[tuple[int, int]]:
    """Pairs of pictures, (i, j) with i below j, ascending, that are worth matching although they are not neighbours.

    sequences  which recording each picture is of; pictures of one are in order of time
    window     pictures of the same sequence at most so far apart are neighbours, and left out

    Each voter votes for the picture with the descriptor that is most similar to its own.
    """
    voters = [found.descriptors[:VOTERS] for found in pictures]
    if not voters:
        return []
    everyone = np.concatenate(voters)
    of_picture = np.repeat(np.arange(len(pictures)), [len(each) for each in voters])
    place = _places_in_sequence(sequences)
    numbers = np.asarray(sequences)
    pairs = set()
    for i, own in enumerate(voters):
        near = (numbers == numbers[i]) & (np.abs(place - place[i]) <= window)
        others = ~near[of_picture]
        if not len(own) or not others.any():
            continue
        similarity = own @ everyone.T
        similarity[:, ~others] = -1
        chosen = of_picture[similarity.argmax(axis=1)[similarity.max(axis=1) >= SIMILARITY]]
        votes = np.bincount(chosen, minlength=len(pictures))
        first = np.argsort(-votes, kind="stable")[:CANDIDATES]
        pairs |= {(min(i, int(j)), max(i, int(j))) for j in first if votes[j] >= MINIMUM_VOTES}
    return sorted(pairs)


def neighbours(sequences: Sequence[int], window: int) -> list[tuple[int, int]]:
    """Pairs of pictures of one sequence that are at most `window` apart, ascending."""
    members: dict[int, list[int]] = {}
    for i, sequence in enumerate(sequences):
        members.setdefault(sequence, []).append(i)
    return sorted(
        (one, other)
        for each in members.values()
        for k, one in enumerate(each)
        for other in each[k + 1 : k + 1 + window]
    )


def _places_in_sequence(sequences: Sequence[int]) -> NDArray[np.int64]:
    counts: dict[int, int] = {}
    places = []
    for sequence in sequences:
        places.append(counts.get(sequence, 0))
        counts[sequence] = places[-1] + 1
    return np.array(places, np.int64)
