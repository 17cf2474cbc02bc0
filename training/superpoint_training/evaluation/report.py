"""The outcome of an evaluation, for machines (report.json, pairs.csv) and for people (tables)."""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from superpoint_training.evaluation.benchmark import CORRECT, PairResult, summarise
from superpoint_training.evaluation.maps import MapResult, summarise_maps
from superpoint_training.evaluation.pose import LIMITS, PoseResult, summarise_poses

ALL = "all"
ENCODING, ERRORS = "utf-8", "backslashreplace"
"""Of all files, whatever the locale: names of pictures may hold bytes that are no text."""


@dataclass(frozen=True)
class Evaluation:
    """Everything that was measured in one run.

    protocol   what was done and with what: options, versions, seeds, detectors with their weights
    pairs      name of a set of pairs ("hpatches", "warped", "rotation") -> its results
    poses      results of pairs with relative poses
    maps       of pictures of one scene
    corners    what `evaluate_corners` returned; empty if it did not run
    skipped    pairs, and pictures of maps, that could not be read, with the reason
    missing    what was asked for and is not there, as the run ended early
    """

    protocol: dict[str, Any]
    pairs: dict[str, list[PairResult]] = field(default_factory=dict)
    corners: dict[str, dict[str, dict[str, Any]]] = field(default_factory=dict)
    poses: list[PoseResult] = field(default_factory=list)
    maps: list[MapResult] = field(default_factory=list)
    skipped: list[str] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)

    @property
    def measured(self) -> bool:
        """Whether there is anything to report."""
        return bool(self.pairs or self.poses or self.maps or self.corners)

    def detectors(self) -> list[str]:
        """The names of the detectors, in the order in which they were given."""
        return list(self.protocol["detectors"])

    def kinds(self, which: str) -> list[str]:
        """The kinds of a set of pairs, in the order in which they first occur."""
        return list(dict.fromkeys(result.kind for result in self.pairs[which]))

    def results(self, which: str, detector: str, kind: str = ALL) -> list[PairResult]:
        """The results of one detector in a set of pairs."""
        chosen = [result for result in self.pairs[which] if result.detector == detector]
        return chosen if kind == ALL else [result for result in chosen if result.kind == kind]

    def radii(self, which: str) -> list[int]:
        """The suppression radii at which a set's repeatability was measured."""
        return list(self.pairs[which][0].repeatability)

    def summary(self) -> dict[str, Any]:
        """Set -> detector -> kind ("all" first) -> means; and "shapes" -> detector -> condition."""
        summary: dict[str, Any] = {}
        for which in self.pairs:
            summary[which] = {
                detector: {kind: summarise(self.results(which, detector, kind)) for kind in (ALL, *self.kinds(which))}
                for detector in self.detectors()
            }
        if self.poses:
            summary["pose"] = self._pose_summary()
        if self.maps:
            summary["maps"] = summarise_maps(self.maps)
        if self.corners:
            summary["shapes"] = self.corners
        return summary

    def _pose_summary(self) -> dict[str, dict[str, dict[str, object]]]:
        summary: dict[str, dict[str, dict[str, object]]] = {}
        for detector in dict.fromkeys(result.detector for result in self.poses):
            own = [result for result in self.poses if result.detector == detector]
            groups = dict.fromkeys(result.group for result in own)
            summary[detector] = {ALL: summarise_poses(own)}
            for group in groups:
                summary[detector][group] = summarise_poses([result for result in own if result.group == group])
        return summary


def write_report(evaluation: Evaluation, directory: Path) -> list[Path]:
    """Write report.json, report.md and, if there are pairs, pairs.csv and poses.csv; returns what was written."""
    document = {
        "protocol": evaluation.protocol,
        "skipped": evaluation.skipped,
        "missing": evaluation.missing,
        "results": evaluation.summary(),
    }
    written = [directory / "report.json", directory / "report.md"]
    written[0].write_text(
        json.dumps(_finite(document), indent=1, ensure_ascii=False) + "\n", encoding=ENCODING, errors=ERRORS
    )
    written[1].write_text(tables(evaluation), encoding=ENCODING, errors=ERRORS)
    if evaluation.pairs:
        written.append(directory / "pairs.csv")
        _write_pairs(evaluation, written[-1])
    if evaluation.poses:
        written.append(directory / "poses.csv")
        _write_poses(evaluation.poses, written[-1])
    return written


def tables(evaluation: Evaluation) -> str:
    """The figures as Markdown tables."""
    summary = evaluation.summary()
    parts = []
    for which in evaluation.pairs:
        if which == "rotation":
            parts.append(_rotation_table(evaluation, summary[which]))
        else:
            parts.append(_pair_table(evaluation, which, summary[which]))
            parts.append(_kind_table(evaluation, which, summary[which]))
    if evaluation.poses:
        parts.append(_pose_table(summary["pose"]))
    if evaluation.maps:
        parts.append(_map_table(evaluation.maps))
    if evaluation.corners:
        parts.append(_corner_table(evaluation))
    if evaluation.skipped:
        parts.append(f"{len(evaluation.skipped)} pairs or pictures skipped, the first: {evaluation.skipped[0]}\n")
    if evaluation.missing:
        parts.append(f"Missing, as the evaluation ended early: {', '.join(evaluation.missing)}\n")
    return "\n".join(part for part in parts if part)


def _pair_table(evaluation: Evaluation, which: str, summary: dict[str, Any]) -> str:
    radii = evaluation.radii(which)
    columns = ["", "keypoints", "within " + " / ".join(f"{t:g}" for t in CORRECT) + " px", "AUC"]
    columns += ["matching score", "NN mAP"]
    columns += [f"{name}, NMS {radius}" for radius in radii for name in ("repeatability", "error px")]
    rows = []
    for detector in evaluation.detectors():
        means = summary[detector][ALL]
        row = [detector, _number(means.get("keypoints"), 0)]
        row += [_numbers(means.get(key, {}).values()) for key in ("homography", "auc")]
        row += [_number(means.get(key)) for key in ("matching_score", "nn_map")]
        for radius in radii:
            row.append(_number(means.get(f"repeatability_nms{radius}")))
            row.append(_number(means.get(f"localisation_error_nms{radius}")))
        rows.append(row)
    pairs = summary[evaluation.detectors()[0]][ALL].get("pairs", 0)
    return _table(f"{which}: {pairs} pairs", columns, rows)


def _kind_table(evaluation: Evaluation, which: str, summary: dict[str, Any]) -> str:
    kinds = evaluation.kinds(which)
    rows = [
        [detector, *(_numbers(summary[detector][kind]["homography"].values()) for kind in kinds)]
        for detector in _matching(evaluation, summary)
    ]
    title = f"{which}: share of homographies within {' / '.join(f'{t:g}' for t in CORRECT)} px, by kind"
    return _table(title, ["", *kinds], rows) if rows else ""


def _rotation_table(evaluation: Evaluation, summary: dict[str, Any]) -> str:
    angles = evaluation.kinds("rotation")
    rows = []
    for detector in _matching(evaluation, summary):
        shares = [summary[detector][angle]["homography"]["3"] for angle in angles]
        rows.append([detector, *(_number(share) for share in shares), _number(min(shares))])
    title = "rotation: share of homographies within 3 px, by angle"
    return _table(title, ["", *(f"{angle}°" for angle in angles), "worst"], rows) if rows else ""


def _pose_table(summary: dict[str, dict[str, dict[str, Any]]]) -> str:
    groups = list(next(iter(summary.values())))
    rows = [
        [detector, _number(means[ALL]["keypoints"], 0), *(_numbers(means[group]["auc"].values()) for group in groups)]
        for detector, means in summary.items()
    ]
    pairs = next(iter(summary.values()))[ALL]["pairs"]
    title = f"pose: AUC at {' / '.join(f'{limit:g}' for limit in LIMITS)} degrees, {pairs} pairs"
    return _table(title, ["", "keypoints", *groups], rows)


def _map_table(maps: Sequence[MapResult]) -> str:
    columns = ["", "pictures", "points", "pictures a point", "reprojection error px", "rotation °", "translation °"]
    rows = [
        [each.detector, str(each.registered), str(each.points), _number(each.track, 2), _number(each.error, 2)]
        + [_number(angle, 3) for angle in (each.rotation, each.translation)]
        for each in maps
    ]
    return _table(f"maps: {maps[0].pictures} pictures", columns, rows)


def _corner_table(evaluation: Evaluation) -> str:
    corners = evaluation.corners
    conditions = list(next(iter(corners.values())))
    shapes = list(next(iter(corners.values()))[conditions[0]]["ap"])
    rows = []
    for detector, by_condition in corners.items():
        for condition in conditions:
            figures = by_condition[condition]
            row = [detector, condition, _number(figures["map"]), _number(figures["ap_all"])]
            row.append(_number(figures["localisation_error"]))
            rows.append(row + [_number(figures["ap"][shape]) for shape in shapes])
    pictures = evaluation.protocol["shapes"]["pictures"]
    title = f"shapes: average precision of corners, {pictures} pictures of each shape"
    return _table(title, ["", "", "mAP", "one curve", "error px", *shapes], rows)


def _matching(evaluation: Evaluation, summary: dict[str, Any]) -> list[str]:
    """The detectors that have descriptors."""
    return [detector for detector in evaluation.detectors() if "homography" in summary[detector][ALL]]


def _table(title: str, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    cells = [list(columns), *(list(row) for row in rows)]
    widths = [max(len(row[column]) for row in cells) for column in range(len(columns))]
    lines = [
        "| " + " | ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) + " |" for row in cells
    ]
    rule = "|" + "|".join("-" * (width + 2) for width in widths) + "|"
    return "\n".join([f"### {title}", "", lines[0], rule, *lines[1:], ""])


def _number(value: float | None, digits: int = 3) -> str:
    return "–" if value is None or not math.isfinite(value) else f"{value:.{digits}f}"


def _numbers(values: Iterable[float]) -> str:
    return " / ".join(f"{value:.2f}" for value in values) or "–"


def _write_pairs(evaluation: Evaluation, path: Path) -> None:
    radii = sorted({radius for which in evaluation.pairs for radius in evaluation.radii(which)})
    header = ["set", "pair", "kind", "detector", "keypoints_reference", "keypoints_current"]
    header += ["matches", "inliers", "corner_error", "matching_score", "nn_map"]
    for radius in radii:
        header += [f"repeatability_nms{radius}", f"localisation_error_nms{radius}"]
    header += ["changes", *(f"h{row}{column}" for row in range(3) for column in range(3))]
    with path.open("w", newline="", encoding=ENCODING, errors=ERRORS) as file:
        writer = csv.writer(file)
        writer.writerow(header)
        for which, results in evaluation.pairs.items():
            for result in results:
                row: list[object] = [which, result.pair, result.kind, result.detector]
                row += [*result.keypoints, result.matches, result.inliers]
                measured = [result.corner_error, result.matching_score, result.nn_map]
                for radius in radii:
                    measured.append(result.repeatability.get(radius, math.nan))
                    measured.append(result.localisation_error.get(radius, math.nan))
                row += [f"{value:.4f}" for value in measured]
                row.append(" ".join(f"{name}={value:.3f}" for name, value in result.changes.items()))
                row += [f"{value:.9g}" for value in result.homography.ravel()]
                writer.writerow(row)


def _write_poses(results: Sequence[PoseResult], path: Path) -> None:
    with path.open("w", newline="", encoding=ENCODING, errors=ERRORS) as file:
        writer = csv.writer(file)
        names = ["keypoints_first", "keypoints_second", "matches", "inliers", "rotation_error", "translation_error"]
        writer.writerow(["set", "pair", "detector", *names])
        for result in results:
            angles = f"{result.rotation_error:.4f}", f"{result.translation_error:.4f}"
            row = result.group, result.pair, result.detector, *result.keypoints, result.matches, result.inliers, *angles
            writer.writerow(row)


def _finite(value: Any) -> Any:
    """The same document with null for what is not a number, as JSON has no word for it."""
    if isinstance(value, dict):
        return {str(key): _finite(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(item) for item in value]
    if isinstance(value, np.generic):
        return _finite(value.item())
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return value
