"""The command `superpoint-train`: one subcommand for each stage of the paper, and `all` for the
whole chain.

torch and OpenCV are loaded by the command that needs them, so that --help is quick.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from superpoint_ros.interrupts import ending_at_once
from superpoint_training.evaluation.command import evaluate

if TYPE_CHECKING:
    from superpoint_training.chain import Budget
    from superpoint_training.config import Config
    from superpoint_training.processes import Processes

FILE = click.Path(exists=True, dir_okay=False, path_type=Path)
FOLDER = click.Path(exists=True, file_okay=False, path_type=Path)
SOURCE = click.Path(exists=True, path_type=Path)
NEW = click.Path(path_type=Path)


class _Weights(click.ParamType):
    """A weights file, or one of the package's by name; the path, once it is found."""

    name = "weights"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Path:
        from superpoint_ros.network.named_weights import find_weights

        try:
            return find_weights(value)
        except FileNotFoundError as error:
            self.fail(str(error), param, ctx)


WEIGHTS = _Weights()

STOPPED = 130  # what a shell reports for SIGINT


@click.group()
def main() -> None:
    """Train SuperPoint from nothing, on any pictures or bags.

    Every command takes a recipe (small, gpu, paper, or a YAML file) and KEY=VALUE pairs that
    override it, as in magicpoint.steps=1000. Start it with torchrun to use several GPUs.
    """


@contextmanager
def _sentences() -> Iterator[None]:
    """What goes wrong ends in one sentence, not in a traceback."""
    with ending_at_once():
        from superpoint_training.chain import Stopped
        from superpoint_training.stopping import TrainingDiverged

    try:
        yield
    except Stopped as stop:
        click.echo(str(stop), err=True)
        raise SystemExit(STOPPED) from None
    except (ValueError, OSError, ImportError, TrainingDiverged) as error:
        raise click.ClickException(str(error)) from None


def _recipe(usual: str) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """--recipe, `usual` if none is given, and KEY=VALUE, handed over as `config`."""

    def decorated(command: Callable[..., None]) -> Callable[..., None]:
        names = "paper, small, gpu, rotation, fast, or a YAML file."

        @click.option("--recipe", default=usual, show_default=True, help=names)
        @click.argument("overrides", nargs=-1, metavar="[KEY=VALUE]...")
        @wraps(command)
        def wrapped(recipe: str, overrides: tuple[str, ...], **options: Any) -> None:
            with _sentences():
                from superpoint_training.recipe import load_config

                command(config=load_config(recipe, overrides), **options)

        return wrapped

    return decorated


def _running(command: Callable[..., None]) -> Callable[..., None]:
    """--device and --budget, handed over as `here` and `budget`."""

    @click.option("--device", default="auto", show_default=True, help="auto, cpu or cuda.")
    @click.option("--budget", type=click.FloatRange(0, min_open=True), help="Minutes after which to stop and export.")
    @wraps(command)
    def wrapped(device: str, budget: float | None, **options: Any) -> None:
        from superpoint_training.chain import Budget
        from superpoint_training.processes import processes

        with processes(device) as here:
            command(here=here, budget=Budget(budget), **options)

    return wrapped


_out = click.option("--out", type=NEW, required=True, help="Folder for everything that is written.")
_resume = click.option("--resume", is_flag=True, help="Go on with what --out holds.")
_start = click.option(
    "--start", type=WEIGHTS, help="Weights file or name to start from; its encoder and detector must fit."
)
_images = click.option(
    "--images", "sources", type=SOURCE, multiple=True, required=True,
    help="Folder, .txt list, picture or bag (mcap, sqlite3); repeatable.",
)  # fmt: skip
_held_out = click.option(
    "--held-out", type=SOURCE, help="Pictures not to train on, a list or folder; else inputs.held_out."
)


@main.command()
@_out
@_resume
@_start
@_recipe("small")
@_running
def magicpoint(config: Config, out: Path, here: Processes, budget: Budget, resume: bool, start: Path | None) -> None:
    """Train the detector on Synthetic Shapes; writes OUT/magicpoint.safetensors."""
    from superpoint_training.chain import run_magicpoint

    _done(here, run_magicpoint(config, out, here, budget, resume, start))


@main.command()
@click.option(
    "--weights",
    type=WEIGHTS,
    required=True,
    help="The detector that labels: MagicPoint or SuperPoint; a file or a name.",
)
@_images
@_held_out
@_out
@_recipe("small")
@_running
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
    from superpoint_training.chain import run_adapt

    figures = run_adapt(config, weights, sources, out, here, budget, held_out)
    if here.leads:
        labelled, points = figures["labelled"], figures["points_per_picture"]
        click.echo(
            f"{out}: {labelled:.0f} pictures labelled, {points:.0f} points each; {figures['bad']:.0f} could not be read"
        )


@main.command()
@click.option("--labels", "data", type=FOLDER, required=True, help="What `adapt` wrote.")
@_out
@_resume
@_start
@_recipe("small")
@_running
def superpoint(
    config: Config, data: Path, out: Path, here: Processes, budget: Budget, resume: bool, start: Path | None
) -> None:
    """Train detector and descriptor on labelled pictures; writes OUT/superpoint.safetensors."""
    from superpoint_training.chain import run_superpoint

    _done(here, run_superpoint(config, data, out, here, budget, resume, start))


@main.command()
@click.option("--teacher", type=WEIGHTS, default="default", show_default=True, help="Weights file or name.")
@_images
@_held_out
@_out
@_resume
@_start
@_recipe("fast")
@_running
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
    from superpoint_training.chain import run_distill

    _done(here, run_distill(config, teacher, sources, out, here, budget, resume, start, held_out))


@main.command("all")
@_images
@_held_out
@_out
@_resume
@_recipe("small")
@_running
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
def export(weights: Path, target: Path, facts: tuple[str, ...]) -> None:
    """Write any known weights file, or a run's state.pt, as TARGET: .safetensors for the node, or
    .onnx.
    """
    with _sentences():
        from superpoint_training.export import export_file

        click.echo(export_file(weights, target, facts))


@main.command()
@click.argument("stage", type=click.Choice(["shapes", "labels", "pairs"]))
@click.option("--labels", "data", type=FOLDER, help="What `adapt` wrote; for labels and pairs.")
@click.option("--count", type=click.IntRange(1), default=24, show_default=True, help="Samples on the sheet.")
@click.option("--out", type=NEW, required=True, help="PNG file.")
@_recipe("small")
def preview(config: Config, stage: str, data: Path | None, count: int, out: Path) -> None:
    """Draw a contact sheet of a stage's samples with their labels.

    shapes: what MagicPoint learns from; labels: what adaptation found; pairs: what SuperPoint
    learns from.
    """
    from superpoint_training.preview import stage_sheet, write_sheet

    write_sheet(out, stage_sheet(config, stage, data, count))
    click.echo(f"{out}: {count} samples of {stage}")


@main.command()
@click.argument("log", type=FILE)
@click.option("--out", type=NEW, required=True, help="PNG file.")
def curves(log: Path, out: Path) -> None:
    """Plot the loss and the validated figures of a run from its log.jsonl."""
    with _sentences():
        from superpoint_training.curves import plot_log

        plot_log(log, out)
    click.echo(f"{out}: written")


main.add_command(evaluate)


def _done(here: Processes, weights: Path) -> None:
    if here.leads:
        click.echo(f"{weights}: written")


if __name__ == "__main__":
    main()
