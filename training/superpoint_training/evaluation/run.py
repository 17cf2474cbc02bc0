"""One evaluation from beginning to end: every detector on every set of pairs, the report."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import asdict, replace
from importlib.metadata import PackageNotFoundError, version
from itertools import product
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from tqdm import tqdm

from superpoint_ros.features.colmap import pycolmap
from superpoint_training.evaluation.benchmark import PairProtocol, PairResult, evaluate_pairs
from superpoint_training.evaluation.corners import CornerProtocol, evaluate_corners, passes
from superpoint_training.evaluation.detectors import (
    CrossedDetectors,
    Detector,
    SuperPointDetector,
    classic_detector,
    superpoint_detector,
)
from superpoint_training.evaluation.maps import evaluate_maps
from superpoint_training.evaluation.pairs import Pair, check_complete, hpatches_pairs
from superpoint_training.evaluation.plots import write_failures, write_plots
from superpoint_training.evaluation.pose import evaluate_poses, pose_pairs
from superpoint_training.evaluation.report import Evaluation, write_report
from superpoint_training.evaluation.request import Request
from superpoint_training.evaluation.warps import (
    KINDS,
    list_photographs,
    rotation_pairs,
    warped_pairs,
    zoom_pairs,
)

PAPER_REPEATABILITY, PAPER_HOMOGRAPHY = (240, 320), (480, 640)
"""Height and width to which DeTone et al. resize HPatches in sections 7.2 and 7.3."""
NATIVE = "native"
"""What the name of a set of pairs at the files' own size ends with."""


def run_evaluation(request: Request, out: Path) -> Evaluation:
    """Evaluate, showing progress, and write report.json, report.md, pairs.csv and plots to `out`.

    A photograph that cannot be read is left out and listed; anything else that is wrong raises
    ValueError, OSError or RuntimeError with one sentence.
    """
    out.mkdir(parents=True, exist_ok=True)
    detectors = _detectors(request)
    sets = _sets(request, detectors)
    corner_protocol = CornerProtocol(pictures=request.shapes, seed=request.seed, noise=request.noise)
    evaluation = Evaluation(_describe(request, detectors, sets, corner_protocol))
    described = [detector for detector in detectors if detector.described]
    for which, pairs in sets.items():
        chosen = described if which == "rotation" else detectors
        evaluation.pairs[which] = _run_pairs(which, chosen, pairs, _protocol(request, which), evaluation.skipped)
    if request.pose:
        listed = pose_pairs(request.pose)
        with tqdm(desc="pose", total=len(listed), unit="pair") as bar:
            how = request.protocol.settings, request.pose_threshold, request.protocol.refine
            evaluation.poses.extend(evaluate_poses(described, listed, *how, bar.update))
    if request.colmap:
        with tqdm(desc="maps", unit="map") as bar:
            mapped = request.protocol.settings, request.protocol.refine
            evaluation.maps.extend(evaluate_maps(described, request.colmap, *mapped, bar.update))
    if request.shapes:
        single = [detector for detector in detectors if not isinstance(detector, CrossedDetectors)]
        with tqdm(desc="shapes", total=passes(corner_protocol, len(single)), unit="picture") as bar:
            evaluation.corners.update(evaluate_corners(single, corner_protocol, bar.update))
    write_report(evaluation, out)
    write_plots(evaluation, out)
    for detector in described:
        if "weights_id" in detector.protocol:
            for which in sets:
                name = re.sub(r"[^\w.@-]+", "_", f"worst_{which}_{detector.name}")
                results = evaluation.results(which, detector.name)
                write_failures(detector, sets[which], results, _protocol(request, which), out / f"{name}.png")
    return evaluation


def _detectors(request: Request) -> list[Detector]:
    """The detectors asked for, networks first; ValueError for one unknown or given twice."""
    found: list[Detector] = []
    for weights in request.weights:
        found += [_network(request, weights, *way) for way in product(request.match_nms, request.scales)]
    for map_weights, weights in product(request.map_weights, request.weights):
        for way in product(request.match_nms, request.scales):
            of_map, robot = _network(request, map_weights, *way), _network(request, weights, *way)
            if of_map.name != robot.name:
                found.append(_crossed(of_map, robot))
    found += [classic_detector(key) for key in request.baselines]
    names = [detector.name for detector in found]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise ValueError(
            f"{twice[0]} is given twice: two weights files hold the same tensors, or a baseline or radius is repeated"
        )
    return found


def _network(request: Request, weights: str | Path | None, radius: int, scales: tuple[float, ...]) -> Detector:
    """A network, whose name in the report says radius and scales where they could be others."""
    detector = superpoint_detector(weights, request.device, radius, scales)
    detector.name += f", NMS {radius}" if len(request.match_nms) > 1 else ""
    if detector.described and scales != (1.0,):
        detector.name += f", scales {' '.join(f'{scale:g}' for scale in scales)}"
    return detector


def _crossed(of_map: Detector, robot: Detector) -> CrossedDetectors:
    """A network in the map of another; ValueError where their descriptors do not compare."""
    theirs, ours = (d.descriptor_dim if isinstance(d, SuperPointDetector) else 0 for d in (of_map, robot))
    if not ours or ours != theirs:
        raise ValueError(
            f"{robot.name} cannot be matched in a map of {of_map.name}: descriptors of {ours} and {theirs} numbers"
        )
    return CrossedDetectors(of_map, robot)


def _sets(request: Request, detectors: Sequence[Detector]) -> dict[str, list[Pair]]:
    size = request.protocol.size
    sets: dict[str, list[Pair]] = {}
    if request.hpatches and request.paper:
        check_complete(request.hpatches)
        for height, width in (PAPER_REPEATABILITY, PAPER_HOMOGRAPHY):
            pairs = hpatches_pairs(request.hpatches, (height, width), request.all_pairs)
            sets[_paper_set((height, width))] = pairs
    elif request.hpatches:
        sets["hpatches"] = hpatches_pairs(request.hpatches, size, request.all_pairs)
    if request.hpatches and request.native:
        sets[f"hpatches {NATIVE}"] = hpatches_pairs(request.hpatches, None, request.all_pairs)
    if request.photos:
        photographs = list_photographs(request.photos, request.names)
        if request.pairs:
            sets["warped"] = warped_pairs(photographs, request.pairs, request.kinds, size, request.seed)
            if request.native:
                sets[f"warped {NATIVE}"] = warped_pairs(photographs, request.pairs, request.kinds, None, request.seed)
        if request.zoom:
            sets["zoom"] = zoom_pairs(photographs, request.zoom, request.seed)
        if request.rotation and any(detector.described for detector in detectors):
            step = max(len(photographs) // request.rotation_photos, 1)  # from all over the list
            turned = photographs[::step][: request.rotation_photos]
            sets["rotation"] = rotation_pairs(turned, request.rotation, size)
    return sets


def _protocol(request: Request, which: str) -> PairProtocol:
    """How a set is evaluated."""
    protocol = request.protocol
    if which == _paper_set(PAPER_REPEATABILITY):
        return replace(protocol, size=PAPER_REPEATABILITY, keypoints=300, repeatability_keypoints=300)
    if which == _paper_set(PAPER_HOMOGRAPHY):
        return replace(protocol, size=PAPER_HOMOGRAPHY, keypoints=1000, repeatability_nms=())
    # Every radius is another run of the network, so that only real pairs get all of them.
    radii = protocol.repeatability_nms if which == "hpatches" else protocol.repeatability_nms[:1]
    size = None if which == "zoom" or which.endswith(NATIVE) else protocol.size
    return replace(protocol, size=size, repeatability_nms=radii)


def _paper_set(size: tuple[int, int]) -> str:
    return f"hpatches {size[0]}×{size[1]}"


def _run_pairs(
    which: str,
    detectors: Sequence[Detector],
    pairs: Sequence[Pair],
    protocol: PairProtocol,
    skipped: list[str],
) -> list[PairResult]:
    def skip(pair: Pair, error: ValueError) -> None:
        skipped.append(f"{which}, {pair.name}: {error}")

    # A sequence with a missing picture is not the benchmark it claims to be; a photograph can be
    # spared.
    spared = None if which.startswith("hpatches") else skip
    with tqdm(desc=which, total=len(pairs), unit="pair") as bar:
        results = evaluate_pairs(detectors, pairs, protocol, bar.update, spared)
    if not results:
        raise ValueError(f"no pair could be read; the first: {skipped[0]}")
    return results


def _version() -> str:
    try:
        return version("superpoint_ros")
    except PackageNotFoundError:  # run from a checkout that is not installed
        return "unknown"


def _described_set(protocol: PairProtocol, pairs: Sequence[Pair]) -> dict[str, Any]:
    names = ("size", "keypoints", "repeatability_nms")
    return {"pairs": len(pairs), **{name: getattr(protocol, name) for name in names}}


def _describe(
    request: Request,
    detectors: Sequence[Detector],
    sets: dict[str, list[Pair]],
    corner_protocol: CornerProtocol,
) -> dict[str, Any]:
    """The protocol: everything that somebody needs to get the same figures."""
    protocol: dict[str, Any] = {
        "seed": request.seed,
        "detectors": {
            detector.name: detector.protocol | {"nms_for_matching": detector.matched_nms} for detector in detectors
        },
        "pairs": request.protocol.describe(),
        "sets": {which: _described_set(_protocol(request, which), pairs) for which, pairs in sets.items()},
        "versions": {
            "superpoint_ros": _version(),
            "torch": torch.__version__,
            "opencv": cv2.__version__,
            "numpy": np.__version__,
        },
    }
    if request.hpatches:
        protocol["hpatches"] = {"directory": str(request.hpatches), "all_pairs": request.all_pairs}
    if request.pose:
        protocol["pose"] = {
            "directory": str(request.pose),
            "threshold": request.pose_threshold,
            "estimator": "OpenCV USAC MAGSAC++, then least squares weighted by the keypoints' scales",
        }
    if request.colmap:
        protocol["maps"] = {"directory": str(request.colmap), "pycolmap": pycolmap().__version__}
    if request.photos:
        protocol["photos"] = {
            "directory": str(request.photos),
            "list": request.names and str(request.names),
        }
    if "warped" in sets:
        ranges = {}
        for kind in request.kinds:
            motion, light = KINDS[kind]
            ranges[kind] = {"motion": asdict(motion), "light": asdict(light)}
        protocol["warped"] = {
            "kinds": ranges,
            "light_of": "the second view",
            "outside": "reflected",
        }
    if request.shapes:
        protocol["shapes"] = corner_protocol.describe()
    return protocol
