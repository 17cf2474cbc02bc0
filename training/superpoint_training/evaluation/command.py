"""`superpoint-train evaluate`: its options. The work is in `run`, loaded when the command runs."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any, TextIO

import click

from superpoint_ros.interrupts import INTERRUPTED, ending_at_once, interrupting_once

DEFAULT = "default"
ALL = "all"
NONE = "none"

_DIRECTORY = click.Path(exists=True, file_okay=False, path_type=Path)
_FILE = click.Path(exists=True, dir_okay=False, path_type=Path)


class _List(click.ParamType):
    """Words or numbers with commas between them: a tuple; empty for "none", and None for "all"."""

    name = "LIST"

    def __init__(self, item: type = str) -> None:
        self._item = item

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        if not isinstance(value, str):
            return value
        if value.strip() in ("", NONE):
            return ()
        if value.strip() == ALL and self._item is str:
            return None
        try:
            return tuple(self._item(word.strip()) for word in value.split(","))
        except ValueError:
            self.fail(f"expected numbers with commas between them, got {value!r}", param, ctx)


@click.command(context_settings={"show_default": True})
@click.option(
    "-w",
    "--weights",
    multiple=True,
    default=[DEFAULT],
    help="Weights file, or default or fast; repeatable.",
)
@click.option(
    "--map-weights",
    multiple=True,
    help="Weights file or name, in whose features those of each --weights are looked for too; repeatable.",
)
@click.option(
    "--baselines",
    type=_List(),
    default=ALL,
    help="Some of sift, sift-precise, orb, harris, shi-tomasi, fast, random; all, none.",
)
@click.option("--hpatches", type=_DIRECTORY, help="Real pairs: a directory in HPatches layout.")
@click.option(
    "--all-pairs",
    is_flag=True,
    help="Every two pictures of a sequence, not only the first with each.",
)
@click.option("--native", is_flag=True, help="Real and warped pairs at the files' own size, too.")
@click.option(
    "--preset",
    type=click.Choice(["paper"]),
    help="paper: all of HPatches at 240×320 with 300 keypoints (repeatability), 480×640 with 1000 (homographies).",
)
@click.option("--pose", type=_DIRECTORY, help="Pairs with relative poses: pairs_with_gt.txt there, or in its folders.")
@click.option(
    "--pose-threshold",
    type=click.FloatRange(0, min_open=True),
    default=1.0,
    help="Greatest distance of an inlier from its epipolar line, pixels.",
)
@click.option(
    "--colmap",
    type=_DIRECTORY,
    help="Pictures of a scene, of which COLMAP makes a map with each detector and with its own SIFT; needs pycolmap.",
)
@click.option("--photos", type=_DIRECTORY, help="Photographs for warped pairs and the rotation sweep.")
@click.option(
    "--list",
    "names",
    type=_FILE,
    help="Only these photographs: a name a line, relative to --photos.",
)
@click.option("--pairs", type=click.IntRange(0), default=210, help="How many warped pairs; 0 leaves them out.")
@click.option(
    "--kinds",
    type=_List(),
    default=ALL,
    help="Some of viewpoint, rotation, scale, illumination, noise, blur, strong; all.",
)
@click.option("--zoom", type=click.IntRange(0), default=0, help="How many pairs that zoom out by 1.5 to 4.")
@click.option(
    "--rotation",
    type=_List(float),
    default="15,30,45,60,90,135,180",
    help="Angles of the sweep, degrees; none.",
)
@click.option("--rotation-photos", type=click.IntRange(1), default=20, help="Photographs that are turned.")
@click.option("--shapes", type=click.IntRange(0), default=0, help="Pictures of each synthetic shape.")
@click.option(
    "--noise",
    type=_List(float),
    default="0,1",
    help="Strengths of the noise on synthetic shapes; a curve from three up.",
)
@click.option("--size", type=click.IntRange(32), default=640, help="Longer side of every picture, pixels.")
@click.option("--keypoints", type=int, default=1000, help="At most, in a picture.")
@click.option("--threshold", type=float, default=0.005, help="Detection threshold of networks.")
@click.option(
    "--match-nms",
    type=_List(int),
    default="4",
    help="Suppression radius of networks for matching, pixels; several are compared.",
)
@click.option(
    "--nms",
    type=_List(int),
    default="4,8",
    help="Suppression radii for repeatability, pixels; warped pairs have the first only.",
)
@click.option(
    "--scales",
    multiple=True,
    default=["single"],
    help="Of networks: single, video, matching, zoom or numbers as in 1.0,0.7; repeatable, each is a row.",
)
@click.option("--subpixel", is_flag=True, help="Networks refine keypoints within the pixel.")
@click.option(
    "--refine",
    is_flag=True,
    help="Homographies, poses and keypoints of maps are refined by the pictures, for every detector.",
)
@click.option(
    "--epsilon",
    type=click.FloatRange(0, min_open=True),
    default=3.0,
    help="Greatest distance of corresponding keypoints, pixels.",
)
@click.option(
    "--inlier-threshold",
    type=click.FloatRange(0, min_open=True),
    default=3.0,
    help="Greatest reprojection error of an inlier of the homography, pixels.",
)
@click.option("--seed", type=click.IntRange(0), default=0, help="Of warped pairs and shapes.")
@click.option("--device", default="auto", help="Where networks run: auto, cpu, cuda or cuda:N.")
@click.option(
    "--out",
    type=click.Path(file_okay=False, path_type=Path),
    required=True,
    help="Where the report goes.",
)
def evaluate(
    weights: tuple[str, ...],
    map_weights: tuple[str, ...],
    size: int,
    keypoints: int,
    threshold: float,
    nms: tuple[int, ...],
    subpixel: bool,
    refine: bool,
    scales: tuple[str, ...],
    preset: str | None,
    epsilon: float,
    inlier_threshold: float,
    out: Path,
    **request: Any,
) -> None:
    """Measure detectors, descriptors and homographies as the SuperPoint paper does.

    Any number of weights files and OpenCV's SIFT, ORB, Harris, Shi-Tomasi and FAST run through the
    same code, on the same pictures, in one run: real pairs (--hpatches), pairs warped from
    photographs and a rotation sweep (--photos), relative poses (--pose), maps (--colmap), and the corners
    of synthetic shapes (--shapes).
    Writes report.json with the whole protocol, report.md, pairs.csv and plots; after Ctrl-C or a failure, of what was
    measured by then.
    """
    with ending_at_once():
        from superpoint_ros.features.pyramid import check_scales
        from superpoint_training.evaluation.benchmark import PairProtocol
        from superpoint_training.evaluation.report import tables
        from superpoint_training.evaluation.request import Request
        from superpoint_training.evaluation.run import run_evaluation

    chosen = {key: value for key, value in request.items() if value is not None}  # None: the request's default
    try:
        protocol = PairProtocol(
            size,
            keypoints,
            threshold,
            subpixel=subpixel,
            repeatability_nms=nms,
            epsilon=epsilon,
            inlier_threshold=inlier_threshold,
            refine=refine,
        )
        levels = tuple(check_scales(each) for each in scales)
        asked = Request(
            weights=weights,
            map_weights=map_weights,
            protocol=protocol,
            scales=levels,
            paper=preset == "paper",
            **chosen,
        )
        with interrupting_once():
            evaluation = run_evaluation(asked, out)
    except (ValueError, OSError, RuntimeError) as error:
        raise click.ClickException(_shown(str(error), sys.stderr)) from None
    except KeyboardInterrupt as stop:
        click.echo(_shown(str(stop) or "interrupted; nothing was measured", sys.stderr), err=True)
        raise SystemExit(INTERRUPTED) from None
    click.echo(_shown(tables(evaluation), sys.stdout))
    for line in evaluation.skipped:
        click.echo(_shown(f"skipped: {line}", sys.stderr), err=True)


def _shown(text: str, stream: TextIO) -> str:
    """With ? for what the terminal has no letter for, such as names of files that are no text."""
    encoding = stream.encoding or "utf-8"
    return text.encode(encoding, "replace").decode(encoding)
