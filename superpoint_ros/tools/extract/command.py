"""`superpoint extract`: its options, and what it says in the end."""

from __future__ import annotations

import json
import os
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import click
from tqdm import tqdm

from superpoint_ros.bags.content import BagError, sentence
from superpoint_ros.bags.writer import STORAGES
from superpoint_ros.frontend.parameter_file import read_parameters
from superpoint_ros.frontend.parameters import Parameters
from superpoint_ros.interrupts import INTERRUPTED, ending_at_once, interrupting_once
from superpoint_ros.network.engines.engine import ENGINES

UNUSED = {
    "synchronise": "every frame is extracted, with partners or without",
    "stereo_pairs": "cameras are not matched with each other",
    "motion": "there is no ~/motion in a bag",
    "track_cloud": "there is no ~/track_cloud in a bag",
}


@click.command("extract")
@click.argument("bags", metavar="IN...", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.argument("output", metavar="OUT", type=click.Path(path_type=Path))
@click.option(
    "--topic",
    "topics",
    metavar="[NAME=]TOPIC",
    multiple=True,
    help="Image topic, once for each camera; may be left out for a bag with only one. NAME becomes part of the "
    "output's topics; without, several cameras are called after their topics.",
)
@click.option("--params", "params_file", type=click.Path(path_type=Path), help="YAML file of the node's parameters.")
@click.option(
    "--set",
    "assignments",
    metavar="NAME=VALUE",
    multiple=True,
    help="One of the node's parameters, as in --set tracks=true.",
)
@click.option("--weights", help="Weights file, or default or fast.")
@click.option("--device", help="auto, cpu, cuda or cuda:N.")
@click.option("--engine", type=click.Choice(ENGINES), help="What runs the network.")
@click.option("--max-keypoints", type=click.IntRange(1), help="The strongest are kept.")
@click.option(
    "--scales", help="Sizes at which a picture goes through the network: single, video, matching, zoom or numbers."
)
@click.option("--storage", type=click.Choice(list(STORAGES)), default="mcap", show_default=True, help="Of OUT.")
@click.option("--batch", type=click.IntRange(1), help="Images in a forward pass; 8 on CUDA, 1 on the CPU if left out.")
@click.option(
    "--colmap",
    metavar="DIR",
    type=click.Path(path_type=Path),
    help="Also make a COLMAP project: pictures, and a database of cameras, keypoints and verified matches. Needs "
    "pycolmap. For several IN a folder for each.",
)
@click.option(
    "--colmap-every",
    type=click.IntRange(1),
    default=1,
    show_default=True,
    help="Only each so-manieth image of a camera.",
)
@click.option("--resume", is_flag=True, help="Continue what an interrupted run has left in OUT.")
@click.option("--jobs", type=click.IntRange(1), default=1, show_default=True, help="Bags side by side.")
@click.option("--rank", type=click.IntRange(0), help="Do only every world-size-th bag; $RANK if left out.")
@click.option("--world-size", type=click.IntRange(1), help="Number of ranks; $WORLD_SIZE if left out.")
def extract_command(
    bags: tuple[Path, ...],
    output: Path,
    topics: tuple[str, ...],
    params_file: Path | None,
    assignments: tuple[str, ...],
    weights: str | None,
    device: str | None,
    engine: str | None,
    max_keypoints: int | None,
    scales: str | None,
    storage: str,
    batch: int | None,
    colmap: Path | None,
    colmap_every: int,
    resume: bool,
    jobs: int,
    rank: int | None,
    world_size: int | None,
) -> None:
    """Extract features, matches and homographies of the images in bags, without ROS.

    OUT becomes a bag with the node's topics, or for several IN a folder with a bag for each. IN may be a folder, an
    .mcap or a .db3 file, whole or damaged. Ends with status 1 if anything could not be extracted, having extracted the
    rest.
    """
    with ending_at_once():
        from superpoint_ros.features.colmap import pycolmap
        from superpoint_ros.tools.extract.jobs import output_of, run_tasks, share
        from superpoint_ros.tools.extract.task import Task
    options = {"weights": weights, "device": device, "engine": engine, "max_keypoints": max_keypoints, "scales": scales}
    try:
        given = {name: json.dumps(value) for name, value in options.items() if value is not None}
        values = read_parameters(params_file, {**_pairs(assignments), **given}, lambda text: click.echo(text, err=True))
    except (ValueError, OSError) as error:
        raise click.ClickException(str(error)) from None
    for name, text in UNUSED.items():
        if getattr(values, name) != getattr(Parameters(), name):
            click.echo(f"Parameter {name} is for the node: {text}.", err=True)
    rank, world_size = _place(rank, world_size)
    values = _own_gpu(values, rank, world_size)

    try:
        outputs = output_of(bags, output)
        projects = dict(zip(outputs, output_of(bags, colmap), strict=True)) if colmap else {}
        if colmap:
            pycolmap()
            if not values.publish_features:
                raise BagError("--colmap needs publish_features")
    except (BagError, RuntimeError) as error:
        raise click.ClickException(str(error)) from None
    tasks = [
        Task(bag, target, topics, values, batch or 0, storage, resume)
        for bag, target in zip(bags, outputs, strict=True)
    ]
    mine = share(tasks, rank, world_size)
    if not mine:
        click.echo(f"Rank {rank} of {world_size}: nothing to do, there are {len(tasks)} bags.")
    failed = interrupted = False
    with interrupting_once():
        for report in run_tasks(mine, jobs):
            failed |= bool(report.problems)
            interrupted |= report.interrupted
            _say(report)
            if report.task.output in projects and report.frames and not report.interrupted:
                failed |= not _map(report, projects[report.task.output], colmap_every)
    if interrupted:
        raise click.exceptions.Exit(INTERRUPTED)
    if failed:
        raise click.exceptions.Exit(1)


def _say(report: Any) -> None:
    """Beside the bar, which is still there."""
    for note in report.notes:
        tqdm.write(f"{report.task.bag}: {note}.", sys.stderr)
    for problem in report.problems:
        tqdm.write(f"Error: {problem}.", sys.stderr)
    if not report.frames:
        return
    new = report.frames - report.resumed
    text = f"{report.task.output}: {report.frames} frames"
    text += f", {report.resumed} of them from before" if report.resumed else ""
    medians = [f"{each.median():.0f}" for each in report.summaries.values()]
    text += f", {' and '.join(medians)} keypoints a frame (median)" if medians else ""
    if new and report.seconds:
        each, extracting = (1e3 * seconds / new for seconds in (report.seconds, report.extracting))
        text += (
            f"; {new / report.seconds:.1f} frames/s, {each:.2f} ms a frame, of which the network and its keypoints "
            f"took {extracting:.2f} and all else {each - extracting:.2f}"
        )
    tqdm.write(f"{text}.", sys.stdout)


def _map(report: Any, folder: Path, every: int) -> bool:
    """Make the COLMAP project of an extracted bag; False, with the reason said, if that cannot be."""
    from superpoint_ros.tools.extract.mapping import write_project

    try:
        text = write_project(report.task, folder, every, lambda problem: tqdm.write(f"{problem}.", sys.stderr))
    except Exception as error:  # a project must not cost the bags that follow, whatever is wrong with it
        tqdm.write(f"Error: no COLMAP project: {sentence(error)}.", sys.stderr)
        return False
    tqdm.write(f"{text}.", sys.stdout)
    return True


def _pairs(assignments: tuple[str, ...]) -> dict[str, str]:
    for each in assignments:
        if "=" not in each:
            raise click.UsageError(f"--set needs NAME=VALUE, got '{each}'")
    return dict(each.split("=", 1) for each in assignments)


def _place(rank: int | None, world_size: int | None) -> tuple[int, int]:
    """From the options, else from the environment as torchrun and others set it."""
    try:
        rank = int(os.environ.get("RANK", 0)) if rank is None else rank
        world_size = int(os.environ.get("WORLD_SIZE", 1)) if world_size is None else world_size
    except ValueError:
        raise click.UsageError("RANK and WORLD_SIZE in the environment must be numbers") from None
    if not 0 <= rank < world_size:
        raise click.UsageError(
            f"the rank must lie in 0 to {world_size - 1} for a world size of {world_size}, got {rank}"
        )
    return rank, world_size


def _own_gpu(values: Parameters, rank: int, world_size: int) -> Parameters:
    """A GPU of its own for each rank on this machine, unless one was named."""
    import torch

    if world_size == 1 or values.device not in ("auto", "cuda") or not torch.cuda.is_available():
        return values
    local = os.environ.get("LOCAL_RANK", str(rank))
    index = int(local) if local.isdigit() else rank
    return replace(values, device=f"cuda:{index % torch.cuda.device_count()}")
