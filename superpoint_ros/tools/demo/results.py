"""What the node published about each frame, read back from the recorded bag."""

from __future__ import annotations

from collections.abc import Container, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from superpoint_ros.bags.content import header_stamp, stamp_nanoseconds
from superpoint_ros.bags.reader import BagReader
from superpoint_ros.features.homography import HomographyStatus

NODE = "/superpoint"
FEATURES, MATCHES, HOMOGRAPHY = f"{NODE}/features", f"{NODE}/matches", f"{NODE}/homography"
DIAGNOSTICS = "/diagnostics"

OUTPUTS = {
    FEATURES: "superpoint_ros/msg/Features",
    MATCHES: "superpoint_ros/msg/FeatureMatches",
    HOMOGRAPHY: "superpoint_ros/msg/HomographyStamped",
    DIAGNOSTICS: "diagnostic_msgs/msg/DiagnosticArray",
}
"""The topics that are recorded, and their types."""

MEMORY = 8
"""Frames that may be incomplete at a time (the first one never gets matches)."""


@dataclass(frozen=True)
class FrameResult:
    """What was received about one frame; a message that never came leaves its fields empty.

    stamp       nanoseconds, of the image
    features    whether a Features message came; size (height, width), xy (N, 2) and scores (N,) are
                from it
    pairs       (M, 2) int64, rows of the reference's and of this frame's keypoints
    inlier      (M,) bool
    status      None where no HomographyStamped came
    reference   nanoseconds, the stamp of the frame that the homography maps from
    matrix      (3, 3) float64, NaN unless status is OK
    rmse        pixels
    """

    stamp: int
    features: bool = False
    size: tuple[int, int] = (0, 0)
    xy: NDArray[np.float32] = field(default_factory=lambda: np.empty((0, 2), np.float32))
    scores: NDArray[np.float32] = field(default_factory=lambda: np.empty(0, np.float32))
    weights_id: str = ""
    pairs: NDArray[np.int64] = field(default_factory=lambda: np.empty((0, 2), np.int64))
    inlier: NDArray[np.bool_] = field(default_factory=lambda: np.empty(0, bool))
    status: HomographyStatus | None = None
    reference: int = 0
    matrix: NDArray[np.float64] = field(default_factory=lambda: np.full((3, 3), np.nan))
    rmse: float = np.nan

    @property
    def ok(self) -> bool:
        """Whether there is a homography."""
        return self.status == HomographyStatus.OK


def read_results(path: Path, stamps: Container[int]) -> Iterator[FrameResult]:
    """Results frame by frame, in the order in which they arrived.

    stamps  nanoseconds, of the frames that were played; others are ignored

    The node publishes features, matches and homography of one frame before those of the next, but
    DDS keeps no order between topics: a frame is complete once all three are there, a second one
    of a kind comes, or MEMORY frames later. Raises BagError for a bag that cannot be read.
    """
    pending: dict[int, FrameResult] = {}
    seen: dict[int, set[str]] = {}
    with BagReader(path) as bag:
        for message in bag.messages(_READ):
            stamp, topic = header_stamp(message.data), message.topic.name
            if stamp not in stamps:
                continue
            if topic in seen.get(stamp, ()):
                # another frame of the same stamp: a camera that does not set stamps
                del seen[stamp]
                yield pending.pop(stamp)
            pending[stamp] = _READ[topic](pending.get(stamp, FrameResult(stamp)), bag.decode(message))
            seen.setdefault(stamp, set()).add(topic)
            while pending:
                first = next(iter(pending))
                if len(seen[first]) < len(_READ) and len(pending) <= MEMORY:
                    break
                del seen[first]
                yield pending.pop(first)
    yield from pending.values()


def read_diagnostics(path: Path) -> dict[str, str]:
    """The node's last diagnostics before the bag ended: key -> value; empty if there were none."""
    last: dict[str, str] = {}
    with BagReader(path) as bag:
        for message in bag.messages([DIAGNOSTICS]):
            for status in bag.decode(message).status:
                if status.name.startswith(NODE):
                    last = {pair.key: pair.value for pair in status.values}
    return last


def _with_features(result: FrameResult, message: Any) -> FrameResult:
    return replace(
        result,
        features=True,
        size=(int(message.height), int(message.width)),
        xy=np.column_stack([message.x, message.y]).astype(np.float32),
        scores=np.asarray(message.scores, np.float32),
        weights_id=str(message.weights_id),
    )


def _with_matches(result: FrameResult, message: Any) -> FrameResult:
    return replace(
        result,
        pairs=np.column_stack([message.reference, message.current]).astype(np.int64),
        inlier=np.asarray(message.inlier, bool),
    )


def _with_homography(result: FrameResult, message: Any) -> FrameResult:
    return replace(
        result,
        status=HomographyStatus(message.status),
        reference=stamp_nanoseconds(message.reference_stamp),
        matrix=np.asarray(message.matrix, np.float64).reshape(3, 3),
        rmse=float(message.rmse),
    )


_READ = {FEATURES: _with_features, MATCHES: _with_matches, HOMOGRAPHY: _with_homography}
