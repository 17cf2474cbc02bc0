"""Plots: error curves, kinds of pairs, the rotation sweep, shapes, and the worst pairs."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from numpy.typing import NDArray

from superpoint_ros.features.extractor import Features
from superpoint_ros.features.homography import estimate_homography, image_corners, project
from superpoint_ros.features.matching import match
from superpoint_ros.printable import printable
from superpoint_training.evaluation.benchmark import PairProtocol, PairResult
from superpoint_training.evaluation.detectors import Detector
from superpoint_training.evaluation.metrics import share_within
from superpoint_training.evaluation.pairs import Pair, Views
from superpoint_training.evaluation.report import ALL, Evaluation

LARGEST_ERROR = 10.0
WORST = 6
LETTERS_AN_INCH = 14  # of a legend


def write_plots(evaluation: Evaluation, directory: Path) -> list[Path]:
    """Write a PNG for everything that was measured; returns what was written."""
    plots = {}
    compared = [which for which in evaluation.pairs if which != "rotation" and _matching(evaluation, which)]
    if compared:
        plots["homography"] = _error_curves(evaluation, compared)
        plots["kinds"] = _kinds(evaluation, compared)
    if evaluation.pairs.get("rotation") and _matching(evaluation, "rotation"):
        plots["rotation"] = _rotation(evaluation)
    if evaluation.corners:
        plots["shapes"] = _shapes(evaluation)
        if len(next(iter(evaluation.corners.values()))) > 2:
            plots["noise"] = _noise(evaluation)
    for figure in plots.values():
        figure.axes[-1].legend(fontsize=8, loc="center left", bbox_to_anchor=(1.0, 0.5))
    return [_save(figure, directory / f"{name}.png") for name, figure in plots.items()]


def write_failures(
    detector: Detector,
    pairs: Sequence[Pair],
    results: Sequence[PairResult],
    protocol: PairProtocol,
    path: Path,
) -> Path:
    """Write a sheet of the pairs on which a detector did worst, with inliers and outlines.

    results  the detector's own, of `pairs`
    """
    by_name = {pair.name: pair for pair in pairs}
    worst = sorted(results, key=lambda result: -result.corner_error)[:WORST]
    figure = Figure(figsize=(14, 3.6 * ((len(worst) + 1) // 2)), layout="constrained")
    for index, result in enumerate(worst):
        axes = figure.add_subplot((len(worst) + 1) // 2, 2, index + 1)
        views = by_name[result.pair].load()
        axes.imshow(_draw_pair(detector, views, protocol), interpolation="bilinear")
        error = f"{result.corner_error:.1f} px" if np.isfinite(result.corner_error) else "no homography"
        axes.set_title(_plain(f"{result.pair}: {error}, {result.inliers} of {result.matches} matches"), fontsize=9)
        axes.axis("off")
    figure.suptitle(_plain(f"{detector.name}: the worst pairs (green: the true outline, red: the estimated one)"))
    return _save(figure, path)


def file_stem(name: str) -> str:
    """A name that files can have, without suffix: letters, digits, and at most 200 bytes."""
    return re.sub(r"[^\w.@-]+", "_", name).encode()[:200].decode(errors="ignore")


def _draw_pair(detector: Detector, views: Views, protocol: PairProtocol) -> NDArray[np.uint8]:
    settings = protocol.settings(detector.matched_nms)
    f0, f1 = detector(views.reference, settings), detector(views.current, settings)
    matches = match(f0, f1)
    images = (views.reference, views.current) if protocol.refine else None
    estimate = estimate_homography(f0, f1, matches, protocol.inlier_threshold, images)
    height = max(f0.size[0], f1.size[0])
    canvas = np.zeros((height, f0.size[1] + f1.size[1], 3), np.uint8)
    canvas[: f0.size[0], : f0.size[1]] = views.reference[..., None]
    canvas[: f1.size[0], f0.size[1] :] = views.current[..., None]
    right = np.array([f0.size[1], 0])
    for start, end in _inlier_points(f0, f1, matches[estimate.inliers]):
        cv2.line(canvas, _pixel(start), _pixel(end + right), (255, 200, 60), 1, cv2.LINE_AA)
    for matrix, colour in ((views.homography, (0, 220, 0)), (estimate.matrix, (230, 0, 0))):
        if np.isfinite(matrix).all():
            outline = project(matrix, image_corners(f0.size)) + right
            cv2.polylines(canvas, [np.rint(outline).astype(np.int32)], True, colour, 2, cv2.LINE_AA)
    return canvas


def _inlier_points(
    f0: Features, f1: Features, matches: NDArray[np.int32]
) -> list[tuple[NDArray[np.float32], NDArray[np.float32]]]:
    shown = matches[:: max(len(matches) // 60, 1)]  # more would hide the picture
    return list(zip(f0.xy[shown[:, 0]], f1.xy[shown[:, 1]], strict=True))


def _pixel(point: NDArray[np.floating]) -> tuple[int, int]:
    x, y = np.rint(point).astype(int).tolist()
    return x, y


def _matching(evaluation: Evaluation, which: str) -> list[str]:
    """The detectors with descriptors."""
    described = {result.detector for result in evaluation.pairs[which] if not np.isnan(result.corner_error)}
    return [detector for detector in evaluation.detectors() if detector in described]


def _figure(evaluation: Evaluation, width: float, height: float) -> Figure:
    """One of so many inches, and what the longest name takes beside them in the legend."""
    legend = 0.5 + max(map(len, evaluation.detectors())) / LETTERS_AN_INCH
    return Figure(figsize=(width + legend, height), layout="constrained")


def _error_curves(evaluation: Evaluation, sets: Sequence[str]) -> Figure:
    figure = _figure(evaluation, 4.2 * len(sets), 4.2)
    thresholds = np.linspace(0, LARGEST_ERROR, 201)
    for index, which in enumerate(sets):
        axes = figure.add_subplot(1, len(sets), index + 1)
        for detector in _matching(evaluation, which):
            errors = np.array([result.corner_error for result in evaluation.results(which, detector)])
            axes.plot(
                thresholds,
                [share_within(errors, t) for t in thresholds],
                label=_plain(detector),
                **_style(evaluation, detector),
            )
        _label(
            axes,
            f"{which}: {len(errors)} pairs",
            "mean corner error, pixels",
            "share of pairs",
            ticks=[0, 1, 3, 5, 10],
        )
    return figure


def _kinds(evaluation: Evaluation, sets: Sequence[str]) -> Figure:
    figure = _figure(evaluation, 10.5, 3.6 * len(sets))
    for index, which in enumerate(sets):
        axes = figure.add_subplot(len(sets), 1, index + 1)
        kinds = [ALL, *evaluation.kinds(which)]
        bars = {
            detector: [
                share_within(
                    np.array([result.corner_error for result in evaluation.results(which, detector, kind)]),
                    3.0,
                )
                for kind in kinds
            ]
            for detector in _matching(evaluation, which)
        }
        _bars(evaluation, axes, kinds, bars)
        _label(axes, f"{which}: homographies within 3 px", "", "share of pairs")
    return figure


def _rotation(evaluation: Evaluation) -> Figure:
    figure = _figure(evaluation, 5.5, 4.2)
    axes = figure.add_subplot()
    angles = evaluation.kinds("rotation")
    for detector in _matching(evaluation, "rotation"):
        errors = [
            [result.corner_error for result in evaluation.results("rotation", detector, angle)] for angle in angles
        ]
        shares = [share_within(np.array(at_angle), 3.0) for at_angle in errors]
        axes.plot(
            [float(angle) for angle in angles],
            shares,
            marker="o",
            label=_plain(detector),
            **_style(evaluation, detector),
        )
    title = f"Rotation about the optical axis, {len(errors[0])} photographs"
    _label(axes, title, "degrees", "share within 3 px", ticks=[float(angle) for angle in angles])
    return figure


def _shapes(evaluation: Evaluation) -> Figure:
    corners = evaluation.corners
    conditions = list(next(iter(corners.values())))
    figure = _figure(evaluation, 10.5, 3.6 * len(conditions))
    for index, condition in enumerate(conditions):
        axes = figure.add_subplot(len(conditions), 1, index + 1)
        shapes = list(next(iter(corners.values()))[condition]["ap"])
        bars = {
            detector: [
                by_condition[condition]["map"],
                *(by_condition[condition]["ap"][shape] for shape in shapes),
            ]
            for detector, by_condition in corners.items()
        }
        _bars(evaluation, axes, ["mean", *shapes], bars)
        _label(axes, f"Corners of synthetic shapes, {condition}", "", "average precision")
    return figure


def _noise(evaluation: Evaluation) -> Figure:
    """Corner mAP over the strength of the noise."""
    figure = _figure(evaluation, 5.5, 4.2)
    axes = figure.add_subplot()
    strengths = sorted(set(evaluation.protocol["shapes"]["strengths"]))
    for detector, by_condition in evaluation.corners.items():
        means = [figures["map"] for figures in by_condition.values()]
        axes.plot(strengths, means, marker="o", label=_plain(detector), **_style(evaluation, detector))
    _label(axes, "Corners of synthetic shapes", "strength of the noise", "mean average precision", ticks=strengths)
    return figure


def _bars(evaluation: Evaluation, axes: Any, groups: Sequence[str], bars: dict[str, list[float]]) -> None:
    width = 0.8 / len(bars)
    for index, (detector, heights) in enumerate(bars.items()):
        positions = np.arange(len(groups)) + (index - (len(bars) - 1) / 2) * width
        axes.bar(positions, heights, width, label=_plain(detector), color=_style(evaluation, detector)["color"])
    axes.set_xticks(np.arange(len(groups)), [_plain(group) for group in groups])


def _label(axes: Any, title: str, x: str, y: str, ticks: Sequence[float] | None = None) -> None:
    axes.set(title=_plain(title), xlabel=x, ylabel=y, ylim=(0, 1.02))
    if ticks is not None:
        axes.set_xticks(ticks)
    axes.grid(alpha=0.3)


def _style(evaluation: Evaluation, detector: str) -> dict[str, Any]:
    """A colour for each detector, the same in every plot; thicker lines for networks."""
    names = evaluation.detectors()
    network = "weights_id" in evaluation.protocol["detectors"][detector]
    return {"color": f"C{names.index(detector)}", "linewidth": 2.5 if network else 1.2}


def _plain(text: str) -> str:
    """A name as matplotlib shows it and every other: no $ is mathematics, no leading _ keeps it out of the legend."""
    text = printable(text, "\n").replace("$", r"\$")
    return f"\u200b{text}" if text.startswith("_") else text


def _save(figure: Figure, path: Path) -> Path:
    FigureCanvasAgg(figure).print_png(str(path), metadata={"Software": None})
    return path
