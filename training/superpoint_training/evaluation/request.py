"""What an evaluation is asked for."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

from superpoint_training.evaluation.benchmark import PairProtocol
from superpoint_training.evaluation.corners import NOISE
from superpoint_training.evaluation.detectors import CLASSIC
from superpoint_training.evaluation.warps import KINDS

ANGLES = (15.0, 30.0, 45.0, 60.0, 90.0, 135.0, 180.0)


@dataclass(frozen=True)
class Request:
    """What to evaluate, and on what.

    weights          files; None is the package's default
    map_weights      a file, or None for the package's default: each of `weights` is matched with its features too,
                     the first picture of a pair being this one's; () for none
    baselines        of `detectors.CLASSIC`
    hpatches         directory of real pairs in HPatches layout; `all_pairs` for every two pictures
                     of a sequence
    native           real and warped pairs at the files' own size, too
    paper            real pairs as the paper has them instead, in two sets: 240×320 with 300 keypoints for
                     repeatability, 480×640 with 1000 for homographies; all of HPatches must be there
    pose             directory of pairs with relative poses, see `pose.pose_pairs`
    colmap           directory of pictures of which COLMAP makes a map, see `maps.evaluate_maps`
    pose_threshold   pixels, as in `pose.estimate_pose`
    photos, names    directory of photographs, and a file that lists those to take
    pairs, kinds     how many pairs to warp, and their kinds, of `warps.KINDS`
    zoom             how many pairs to zoom, see `warps.zoom_pairs`
    rotation         angles of the sweep, degrees, over `rotation_photos` photographs
    shapes           how many pictures of each synthetic shape, at each strength of `noise`
    match_nms        suppression radii of networks for matching, pixels; each is a row of its own
    scales           of networks, see `Extractor`; each is a row of its own
    seed             of the warped pairs and the shapes
    device           where networks run
    """

    weights: tuple[str | Path | None, ...] = (None,)
    map_weights: tuple[str | Path | None, ...] = ()
    baselines: tuple[str, ...] = tuple(CLASSIC)
    hpatches: Path | None = None
    all_pairs: bool = False
    native: bool = False
    paper: bool = False
    pose: Path | None = None
    pose_threshold: float = 1.0
    colmap: Path | None = None
    photos: Path | None = None
    names: Path | None = None
    pairs: int = 210
    zoom: int = 0
    kinds: tuple[str, ...] = tuple(KINDS)
    rotation: tuple[float, ...] = ANGLES
    rotation_photos: int = 20
    shapes: int = 0
    noise: tuple[float, ...] = NOISE
    match_nms: tuple[int, ...] = (4,)
    scales: tuple[tuple[float, ...], ...] = ((1.0,),)
    seed: int = 0
    device: str = "auto"
    protocol: PairProtocol = PairProtocol()

    def __post_init__(self) -> None:
        if not (self.hpatches or self.photos or self.pose or self.colmap or self.shapes):
            raise ValueError(
                "nothing to evaluate: give --hpatches DIR, --photos DIR, --pose DIR, --colmap DIR or --shapes N"
            )
        if self.paper and not self.hpatches:
            raise ValueError("--preset paper is of real pairs: give --hpatches DIR as well")
        if self.native and not (self.hpatches or self.photos):
            raise ValueError("--native is of pairs: give --hpatches DIR or --photos DIR as well")
        if self.names and not self.photos:
            raise ValueError("--list names photographs of a directory: give --photos DIR as well")
        if self.weights and not self.match_nms:
            raise ValueError("--match-nms names no radius; networks need at least one to be matched")
        numbers = {"--rotation": self.rotation, "--noise": self.noise, "--pose-threshold": (self.pose_threshold,)}
        numbers |= {"--epsilon": (self.protocol.epsilon,), "--inlier-threshold": (self.protocol.inlier_threshold,)}
        for option, values in numbers.items():
            if not all(map(math.isfinite, values)):
                raise ValueError(f"{option} takes finite numbers, got {', '.join(map(str, values))}")
        for radius in (*self.protocol.repeatability_nms, *self.match_nms):
            self.protocol.settings(radius)  # refuses what is out of range
