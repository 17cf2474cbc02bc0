"""One evaluation from beginning to end: every detector on every set of pairs, the report."""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import partial
from itertools import product
from pathlib import Path

from tqdm import tqdm

from superpoint_training.evaluation.benchmark import PairProtocol, PairResult, evaluate_pairs
from superpoint_training.evaluation.corners import CornerProtocol, evaluate_corners, passes
from superpoint_training.evaluation.description import describe
from superpoint_training.evaluation.detectors import (
    CrossedDetectors,
    Detector,
    SuperPointDetector,
    classic_detector,
    superpoint_detector,
)
from superpoint_training.evaluation.maps import evaluate_maps, scene
from superpoint_training.evaluation.pairs import Pair, check_complete, hpatches_pairs
from superpoint_training.evaluation.plots import file_stem, write_failures, write_plots
from superpoint_training.evaluation.pose import PosePair, check_pictures, evaluate_poses, pose_pairs
from superpoint_training.evaluation.report import Evaluation, tables, write_report
from superpoint_training.evaluation.request import Request
from superpoint_training.evaluation.warps import list_photographs, rotation_pairs, warped_pairs, zoom_pairs

PAPER_REPEATABILITY, PAPER_HOMOGRAPHY = (240, 320), (480, 640)
"""Height and width to which DeTone et al. resize HPatches in sections 7.2 and 7.3."""
NATIVE = "native"
"""What the name of a set of pairs at the files' own size ends with."""


class EndedEarly(ValueError):
    """An evaluation that could not go on; what was measured is written, and the text says what is missing."""


def run_evaluation(request: Request, out: Path) -> Evaluation:
    """Evaluate, showing progress, and write report.json, report.md, pairs.csv and plots to `out`.

    Pairs of a picture that cannot be read are left out and listed. Anything else that is wrong raises ValueError,
    OSError or RuntimeError with one sentence, before anything runs where it can be seen by then. What goes wrong later
    raises EndedEarly, or KeyboardInterrupt with a text; the report then holds what was measured, and names the rest.
    """
    out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryFile(dir=out):
        pass  # it can be written to; to be told so after hours would be late
    detectors = _detectors(request)
    sets = {which: (_protocol(request, which), pairs) for which, pairs in _sets(request, detectors).items()}
    corners = CornerProtocol(pictures=request.shapes, seed=request.seed, noise=request.noise)
    sizes = {which: (protocol, len(pairs)) for which, (protocol, pairs) in sets.items()}
    evaluation = Evaluation(describe(request, detectors, sizes, corners))
    described = [detector for detector in detectors if detector.described]
    parts: dict[str, Callable[[], object]] = {}
    for which, (protocol, pairs) in sets.items():
        chosen = described if which == "rotation" else detectors
        parts[which] = partial(_run_pairs, evaluation, which, chosen, pairs, protocol)
    if request.pose:
        parts["pose"] = partial(_run_poses, evaluation, described, _listed_poses(request.pose, described), request)
    if request.colmap:
        scene(request.colmap)
        parts["maps"] = partial(_run_maps, evaluation, described, request.colmap, request)
    if request.shapes:
        single = [detector for detector in detectors if not isinstance(detector, CrossedDetectors)]
        parts["shapes"] = partial(_run_shapes, evaluation, single, corners)
    parts["plots"] = partial(_plot, evaluation, described, sets, out)
    _run_parts(parts, evaluation, out)
    return evaluation


def _run_parts(parts: Mapping[str, Callable[[], object]], evaluation: Evaluation, out: Path) -> None:
    """Run all in turn, and write what was measured, however they end."""
    failure: BaseException | None = None
    evaluation.missing.extend(parts)
    try:
        for name, part in parts.items():
            if evaluation.measured:
                with suppress(OSError):  # a disk that is full now may not be so at the end
                    write_report(evaluation, out)  # for who ends the process without a chance to write
            part()
            evaluation.missing.remove(name)
    except (Exception, KeyboardInterrupt) as error:
        if not evaluation.measured:
            raise
        failure = error
        begun = {**evaluation.pairs, "pose": evaluation.poses, "maps": evaluation.maps}
        if evaluation.missing and begun.get(evaluation.missing[0]):
            evaluation.missing[0] = f"the rest of {evaluation.missing[0]}"
    try:
        report = write_report(evaluation, out)[0]
    except OSError as error:
        tqdm.write(tables(evaluation))
        raise OSError(f"{out}: the report cannot be written ({error}); its tables are above") from failure
    if failure is None:
        return
    left = f"{report} holds what was measured; missing: {', '.join(evaluation.missing)}"
    if isinstance(failure, KeyboardInterrupt):
        raise KeyboardInterrupt(f"interrupted; {left}") from None
    if isinstance(failure, (ValueError, OSError, RuntimeError)):
        raise EndedEarly(f"{failure}; {left}") from failure
    tqdm.write(left, file=sys.stderr)
    raise failure


def _run_pairs(
    evaluation: Evaluation, which: str, detectors: Sequence[Detector], pairs: Sequence[Pair], protocol: PairProtocol
) -> None:
    results: list[PairResult] = []
    before = len(evaluation.skipped)
    try:
        with tqdm(desc=which, total=len(pairs), unit="pair") as bar:
            evaluate_pairs(detectors, pairs, protocol, bar.update, _skip(evaluation, which), results)
    finally:
        if results:
            evaluation.pairs[which] = results
    if not results:
        raise ValueError(f"no pair could be read; the first: {evaluation.skipped[before]}")


def _run_poses(
    evaluation: Evaluation, detectors: Sequence[Detector], pairs: Sequence[PosePair], request: Request
) -> None:
    how = request.protocol.settings, request.pose_threshold, request.protocol.refine
    before = len(evaluation.skipped)
    with tqdm(desc="pose", total=len(pairs), unit="pair") as bar:
        evaluate_poses(detectors, pairs, *how, bar.update, _skip(evaluation, "pose"), evaluation.poses)
    if not evaluation.poses:
        raise ValueError(f"no pair could be read; the first: {evaluation.skipped[before]}")


def _run_maps(evaluation: Evaluation, detectors: Sequence[Detector], folder: Path, request: Request) -> None:
    how = request.protocol.settings, request.protocol.refine

    def skip(error: ValueError) -> None:
        evaluation.skipped.append(f"maps, {error}")

    with tqdm(desc="maps", unit="map") as bar:
        evaluate_maps(detectors, folder, *how, bar.update, skip, evaluation.maps)


def _run_shapes(evaluation: Evaluation, detectors: Sequence[Detector], protocol: CornerProtocol) -> None:
    with tqdm(desc="shapes", total=passes(protocol, len(detectors)), unit="picture") as bar:
        evaluation.corners.update(evaluate_corners(detectors, protocol, bar.update))


def _plot(
    evaluation: Evaluation,
    described: Sequence[Detector],
    sets: Mapping[str, tuple[PairProtocol, Sequence[Pair]]],
    out: Path,
) -> None:
    write_plots(evaluation, out)
    for detector in described:
        if "weights_id" in detector.protocol:
            for which, (protocol, pairs) in sets.items():
                path = out / f"{file_stem(f'worst_{which}_{detector.name}')}.png"
                write_failures(detector, pairs, evaluation.results(which, detector.name), protocol, path)


def _skip(evaluation: Evaluation, which: str) -> Callable[[Pair | PosePair, ValueError], None]:
    return lambda pair, error: evaluation.skipped.append(f"{which}, {pair.name}: {error}")


def _listed_poses(directory: Path, described: Sequence[Detector]) -> list[PosePair]:
    """The pairs; ValueError where their pictures are not there, or no detector could be measured on them."""
    if not described:
        raise ValueError("--pose is of detectors with descriptors, and none of those named has any")
    pairs = pose_pairs(directory)
    check_pictures(directory, pairs)
    return pairs


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
    if not found:
        raise ValueError("no detector is named: give weights or baselines")
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
