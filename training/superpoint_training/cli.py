"""The command `superpoint-train`: one subcommand for each stage of the paper, and `all` for the
whole chain.

torch and OpenCV are loaded by the command that needs them, so that --help is quick.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from superpoint_training.evaluation.command import evaluate
from superpoint_training.options import (
    FILE,
    FOLDER,
    NEW,
    WEIGHTS,
    held_out_option,
    images_option,
    now_option,
    out_option,
    resume_option,
    running,
    sentences,
    start_option,
    with_recipe,
)

if TYPE_CHECKING:
    from superpoint_training.config import Config
    from superpoint_training.processes import Processes
    from superpoint_training.stages import Budget


@click.group()
def main() -> None:
    """Train SuperPoint from nothing, on any pictures or bags.

    Every command takes a recipe (a name or a YAML file) and KEY=VALUE pairs that
    override it, as in magicpoint.steps=1000. Start it with torchrun to use several GPUs.
    """


@main.command()
@click.option("--labels", "data", type=FOLDER, help="Pictures that `adapt` labelled, instead of Synthetic Shapes.")
@now_option
@out_option
@resume_option
@start_option
@with_recipe("small")
@running
def magicpoint(
    config: Config,
    data: Path | None,
    images: tuple[Path, ...],
    out: Path,
    here: Processes,
    budget: Budget,
    resume: bool,
    start: Path | None,
) -> None:
    """Train the detector alone, on Synthetic Shapes; writes OUT/magicpoint.safetensors."""
    from superpoint_training.stages import run_magicpoint

    _done(here, run_magicpoint(config, out, here, budget, resume, start, data, images))


@main.command()
@click.option(
    "--weights",
    type=WEIGHTS,
    required=True,
    help="The detector that labels: MagicPoint or SuperPoint; a file or a name.",
)
@images_option
@held_out_option
@out_option
@with_recipe("small")
@running
def adapt(
    config: Config,
    weights: Path,
    sources: tuple[Path, ...],
    held_out: Path | None,
    out: Path,
    here: Processes,
    budget: Budget,
) -> None:
    """Label pictures by Homographic Adaptation; go on by running it again.

    OUT gets pictures.txt, held_out.txt, labels/ and the frames of bags.
    """
    from superpoint_training.stages import run_adapt

    figures = run_adapt(config, weights, sources, out, here, budget, held_out)
    if here.leads:
        labelled, points = figures["labelled"], figures["points_per_picture"]
        click.echo(
            f"{out}: {labelled:.0f} pictures labelled, {points:.0f} points each; {figures['bad']:.0f} could not be read"
        )


@main.command()
@click.option("--labels", "data", type=FOLDER, required=True, help="What `adapt` wrote.")
@now_option
@out_option
@resume_option
@start_option
@with_recipe("small")
@running
def superpoint(
    config: Config,
    data: Path,
    images: tuple[Path, ...],
    out: Path,
    here: Processes,
    budget: Budget,
    resume: bool,
    start: Path | None,
) -> None:
    """Train detector and descriptor on labelled pictures; writes OUT/superpoint.safetensors."""
    from superpoint_training.stages import run_superpoint

    _done(here, run_superpoint(config, data, out, here, budget, resume, start, images))


@main.command()
@click.option("--teacher", type=WEIGHTS, default="default", show_default=True, help="Weights file or name.")
@images_option
@held_out_option
@out_option
@resume_option
@start_option
@with_recipe("fast")
@running
def distill(
    config: Config,
    teacher: Path,
    sources: tuple[Path, ...],
    held_out: Path | None,
    out: Path,
    here: Processes,
    budget: Budget,
    resume: bool,
    start: Path | None,
) -> None:
    """Teach a small network what a large one answers; writes OUT/distill.safetensors."""
    from superpoint_training.stages import run_distill

    _done(here, run_distill(config, teacher, sources, out, here, budget, resume, start, held_out))


@main.command("all")
@images_option
@held_out_option
@out_option
@resume_option
@with_recipe("small")
@running
def whole_chain(
    config: Config,
    sources: tuple[Path, ...],
    held_out: Path | None,
    out: Path,
    here: Processes,
    budget: Budget,
    resume: bool,
) -> None:
    """Shapes, MagicPoint, adaptation, SuperPoint, evaluation: writes OUT/superpoint.safetensors."""
    from superpoint_training.chain import evaluate_chain, run_all

    weights = run_all(config, sources, out, here, budget, resume, held_out)
    if here.leads:
        click.echo(evaluate_chain(config, weights, out))
    _done(here, weights)


@main.command()
@click.argument("weights", type=WEIGHTS)
@click.argument("target", type=NEW)
@click.option("--set", "facts", multiple=True, metavar="KEY=VALUE", help="Metadata to add; repeatable.")
@click.option(
    "--mean",
    "others",
    type=WEIGHTS,
    multiple=True,
    help="Take the mean of WEIGHTS and these, of one lineage; repeatable.",
)
def export(weights: Path, target: Path, facts: tuple[str, ...], others: tuple[Path, ...]) -> None:
    """Write any known weights file, or a run's state.pt, as TARGET: .safetensors for the node, or
    .onnx.
    """
    with sentences():
        from superpoint_training.export import export_file

        click.echo(export_file(weights, target, facts, others))


@main.command()
@click.argument("stage", type=click.Choice(["shapes", "labels", "pairs"]))
@click.option("--labels", "data", type=FOLDER, help="What `adapt` wrote; for labels and pairs.")
@now_option
@click.option("--count", type=click.IntRange(1), default=24, show_default=True, help="Samples on the sheet.")
@click.option("--out", type=NEW, required=True, help="PNG file.")
@with_recipe("small")
def preview(config: Config, stage: str, data: Path | None, images: tuple[Path, ...], count: int, out: Path) -> None:
    """Draw a contact sheet of a stage's samples with their labels.

    shapes: what MagicPoint learns from; labels: what adaptation found; pairs: what SuperPoint
    learns from.
    """
    from superpoint_training.preview import stage_sheet, write_sheet

    write_sheet(out, stage_sheet(config, stage, data, count, images))
    click.echo(f"{out}: {count} samples of {stage}")


@main.command()
@click.argument("log", type=FILE)
@click.option("--out", type=NEW, required=True, help="PNG file.")
def curves(log: Path, out: Path) -> None:
    """Plot the loss and the validated figures of a run from its log.jsonl."""
    with sentences():
        from superpoint_training.curves import plot_log

        plot_log(log, out)
    click.echo(f"{out}: written")


main.add_command(evaluate)


def _done(here: Processes, weights: Path) -> None:
    if here.leads:
        click.echo(f"{weights}: written")


if __name__ == "__main__":
    main()
