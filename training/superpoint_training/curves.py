"""Curves of a run, from its log: the loss, and the figures of its validations."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from superpoint_training.journal import read_log

SHARES = ("map", "homography", "repeatability", "matching_score", "nn_map")
"""How the figures begin that are shares of one; others have units of their own."""


def plot_log(log: Path, out: Path) -> None:
    """Plot a log.jsonl to a PNG file. Raises ValueError if it holds no steps, OSError otherwise."""
    lines = read_log(log)
    steps = [line for line in lines if line["kind"] == "train"]
    validations = [line for line in lines if line["kind"] == "validation"]
    if not steps:
        raise ValueError(f"{log}: holds no steps of training; expected the log.jsonl of a run")
    figure = Figure(figsize=(9, 3.2), layout="constrained")
    FigureCanvasAgg(figure)
    left, right = figure.subplots(1, 2)
    _plot_losses(left, steps)
    _plot_validations(right, validations)
    for axes in (left, right):
        axes.set_xlabel("minutes")
        axes.grid(alpha=0.3)
    out.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(out, dpi=90)


def _plot_losses(axes: Axes, steps: list[dict[str, Any]]) -> None:
    minutes = np.array([line["seconds"] for line in steps]) / 60
    for name in ("detector", "detector_warped", "descriptor", "reprojection"):
        values = np.array([line.get(name, np.nan) for line in steps], dtype=float)
        if np.isfinite(values).any():
            (line,) = axes.plot(minutes, values, linewidth=0.5, alpha=0.35)
            axes.plot(minutes, _smooth(values), color=line.get_color(), label=name)
    axes.set_yscale("log")
    axes.set_ylabel("loss")
    axes.legend()


def _plot_validations(axes: Axes, validations: list[dict[str, Any]]) -> None:
    names = [name for name in (validations[-1] if validations else {}) if name.startswith(SHARES)]
    for name in names:
        points = [(line["seconds"] / 60, line[name]) for line in validations if name in line]
        axes.plot(*zip(*points, strict=True), marker=".", label=name)
    axes.set_ylim(0, 1.02)
    axes.set_ylabel("validation")
    if names:
        axes.legend()


def _smooth(values: np.ndarray, window: int = 15) -> np.ndarray:
    """The mean over `window` neighbours, fewer at the ends."""
    kernel = np.ones(min(window, len(values)))
    counts = np.convolve(np.ones(len(values)), kernel, mode="same")
    return np.asarray(np.convolve(values, kernel, mode="same") / counts)
