"""What the commands of `superpoint-train` have in common: options, and how a command ends that cannot go on."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from pathlib import Path
from typing import Any

import click

from superpoint_ros.interrupts import ending_at_once
from superpoint_ros.printable import printable

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


@contextmanager
def sentences() -> Iterator[None]:
    """What goes wrong ends in one sentence, not in a traceback."""
    with ending_at_once():
        from superpoint_training.stages import Stopped

    try:
        yield
    except Stopped as stop:
        click.echo(str(stop), err=True)
        raise SystemExit(STOPPED) from None
    except (click.Abort, click.exceptions.Exit):  # which are RuntimeErrors
        raise
    except (ValueError, OSError, ImportError, RuntimeError, MemoryError) as error:
        raise click.ClickException(printable(_sentence(error), "\n")) from None


def _sentence(error: Exception) -> str:
    """What is wrong, without a traceback."""
    from torch.cuda import OutOfMemoryError

    text = str(error).strip() or type(error).__name__
    lines = text.splitlines()
    if "Original Traceback (most recent call last):" in lines:  # of a worker that reads samples, as torch passes it on
        text = lines[-1].partition(": ")[2] or lines[-1]
        lines = [text]
    if isinstance(error, (OutOfMemoryError, MemoryError)):
        return f"not enough memory ({lines[0]}); less would do: a smaller batch_size, or the same with more accumulate"
    return lines[0] if isinstance(error, RuntimeError) else text  # torch's further lines are advice to programmers


def with_recipe(usual: str) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """--recipe, `usual` if none is given, and KEY=VALUE, handed over as `config`."""

    def decorated(command: Callable[..., None]) -> Callable[..., None]:
        names = (
            "small, gpu, paper, robot (your own bags), rotation (made the default weights), fast (made the fast ones), "
            "or a YAML file."
        )

        @click.option("--recipe", default=usual, show_default=True, help=names)
        @click.argument("overrides", nargs=-1, metavar="[KEY=VALUE]...")
        @wraps(command)
        def wrapped(recipe: str, overrides: tuple[str, ...], **options: Any) -> None:
            with sentences():
                from superpoint_training.recipe import load_config

                command(config=load_config(recipe, overrides), **options)

        return wrapped

    return decorated


def running(command: Callable[..., None]) -> Callable[..., None]:
    """--device and --budget, handed over as `here` and `budget`."""

    @click.option("--device", default="auto", show_default=True, help="auto, cpu or cuda.")
    @click.option("--budget", type=click.FloatRange(0, min_open=True), help="Minutes after which to stop and export.")
    @wraps(command)
    def wrapped(device: str, budget: float | None, **options: Any) -> None:
        from superpoint_training.processes import processes
        from superpoint_training.stages import Budget

        with processes(device) as here:
            command(here=here, budget=Budget(budget), **options)

    return wrapped


out_option = click.option("--out", type=NEW, required=True, help="Folder for everything that is written.")
resume_option = click.option("--resume", is_flag=True, help="Go on with what --out holds.")
start_option = click.option(
    "--start", type=WEIGHTS, help="Weights file or name to start from; its encoder and detector must fit."
)
images_option = click.option(
    "--images", "sources", type=SOURCE, multiple=True, required=True,
    help="Folder, .txt list, picture or bag (mcap, sqlite3); repeatable.",
)  # fmt: skip
now_option = click.option(
    "--images",
    type=SOURCE,
    multiple=True,
    help="Where the labelled pictures are now, if not where they were; repeatable.",
)
held_out_option = click.option(
    "--held-out", type=SOURCE, help="Pictures not to train on, a list or folder; else inputs.held_out."
)
