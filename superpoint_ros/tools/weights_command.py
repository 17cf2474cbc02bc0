"""`superpoint weights`: list the package's, look into weights files, and convert them into our format."""

from __future__ import annotations

from dataclasses import asdict, replace
from pathlib import Path

import click

from superpoint_ros.network.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from superpoint_ros.network.named_weights import packaged_weights


@click.group("weights")
def weights_command() -> None:
    """Look into weights files, and convert them."""


@weights_command.command("list")
def list_names() -> None:
    """Print the names of the package's weights, which serve wherever a weights file does."""
    names: dict[Path, list[str]] = {}
    for name, path in packaged_weights().items():
        names.setdefault(path, []).append(name)
    rows = []
    for path, known in names.items():
        checkpoint = _load(str(path))
        size = f"{path.stat().st_size / 1e6:.1f} MB"
        rows.append((", ".join(known), checkpoint.weights_id, size, checkpoint.metadata.get("licence", "")))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        click.echo("  ".join(f"{text:<{width}}" for text, width in zip(row, widths, strict=True)).rstrip())


@weights_command.command("show")
@click.argument("weights")
def show(weights: str) -> None:
    """Print what a WEIGHTS file, or one of the package's by name, holds: its id, layout, architecture and what it says
    of itself."""
    click.echo(describe(_load(weights)))


@weights_command.command("convert")
@click.argument("source")
@click.argument("target", type=click.Path(path_type=Path))
@click.option("--name", help="What the weights are called; the file's name if left out.")
@click.option("--licence", help="Of the weights, as in MIT.")
@click.option("--training-data", help="What they were trained on.")
@click.option("--source", "origin", help="Where they come from.")
@click.option("--force", is_flag=True, help="Replace TARGET if it exists.")
def convert(
    source: str,
    target: Path,
    name: str | None,
    licence: str | None,
    training_data: str | None,
    origin: str | None,
    force: bool,
) -> None:
    """Write a weights file of any known layout, SOURCE, in our safetensors format: TARGET."""
    if target.suffix != ".safetensors":
        raise click.ClickException(f"{target}: our format is safetensors, so its name must end in .safetensors")
    if target.exists() and not force:
        raise click.ClickException(f"{target}: exists already; --force replaces it")
    checkpoint = _load(source)
    said = {"name": name, "licence": licence, "training_data": training_data, "source": origin}
    known = {key: value for key, value in said.items() if value is not None}
    checkpoint = replace(checkpoint, metadata={**checkpoint.metadata, **known})
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        save_checkpoint(target, checkpoint)
    except OSError as error:
        raise click.ClickException(f"{target}: {error.strerror or error}") from None
    click.echo(f"{target}\n{describe(load_checkpoint(target))}")


def describe(checkpoint: Checkpoint) -> str:
    """The facts of a checkpoint, a line each."""
    parameters = sum(tensor.numel() for tensor in checkpoint.state.values())
    facts = {
        "weights id": checkpoint.weights_id,
        "layout": checkpoint.layout,
        **{key.replace("_", " "): str(value) for key, value in asdict(checkpoint.architecture).items()},
        "parameters": f"{parameters:,}",
        **checkpoint.metadata,
    }
    width = max(map(len, facts))
    return "\n".join(f"{key:<{width}}  {value}" for key, value in facts.items())


def _load(weights: str) -> Checkpoint:
    try:
        return load_checkpoint(weights)
    except (ValueError, OSError) as error:
        raise click.ClickException(str(error)) from None
