"""`superpoint bench`: a table for people, JSON for machines."""

from __future__ import annotations

import json
import os
import platform
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click

from superpoint_ros.network.engines.engine import ENGINES

SIZES = "320x240,640x480,1280x720"


@click.command()
@click.option("--sizes", default=SIZES, show_default=True, help="WIDTHxHEIGHT, comma-separated.")
@click.option("--batches", default="1,2,4", show_default=True, help="Pictures a call.")
@click.option("--rounds", default=10, show_default=True, type=click.IntRange(1), help="Per size.")
@click.option(
    "--weights", multiple=True, help="File or name; repeatable. Default: default and fast. Engines run the first."
)
@click.option("--device", default="auto", show_default=True)
@click.option("--engine", "engines", multiple=True, type=click.Choice(ENGINES), help="Repeatable.")
@click.option(
    "--scales", multiple=True, default=["video", "matching"], show_default=True, help="Beside one scale. Repeatable."
)
@click.option("--threads", type=click.IntRange(1), help="Cores to use. Default: all there are.")
@click.option("--json", "json_path", type=click.Path(dir_okay=False), help="Also write JSON here.")
@click.option("--node", is_flag=True, help="Measure the ROS node, over DDS, instead.")
@click.option("--seconds", default=60, show_default=True, help="Of overload, with --node.")
def bench_command(
    sizes: str,
    batches: str,
    rounds: int,
    weights: tuple[str, ...],
    device: str,
    engines: tuple[str, ...],
    scales: tuple[str, ...],
    threads: int | None,
    json_path: str | None,
    node: bool,
    seconds: int,
) -> None:
    """Measure weights beside SIFT and ORB, engines beside plain eager torch; or the node's own part."""
    if node:
        try:
            from superpoint_ros.tools.bench.node import Plan, measure_node
        except ImportError as error:
            raise click.ClickException(f"bench --node needs ROS 2 ({error})") from None
        try:
            report = measure_node(Plan(device, engines[0] if engines else "auto", seconds))
        except RuntimeError as error:
            raise click.ClickException(str(error)) from None
    else:
        try:
            report = measure_all(_sizes(sizes), _numbers(batches), rounds, weights, device, engines, threads, scales)
        except (ValueError, OSError, RuntimeError) as error:
            raise click.ClickException(str(error)) from None
    if json_path:
        Path(json_path).write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")


def measure_all(
    sizes: list[tuple[int, int]],
    batches: list[int],
    rounds: int,
    weights: tuple[str, ...],
    device_name: str,
    names: tuple[str, ...],
    threads: int | None,
    scales: tuple[str, ...] = (),
) -> dict[str, Any]:
    """Everything but the node, printed as it comes; returns what the JSON holds."""
    import cv2
    import torch

    from superpoint_ros.network.checkpoint import load_checkpoint
    from superpoint_ros.network.engines.choice import installed, make_engine
    from superpoint_ros.network.engines.cpu_engine import PACKAGES
    from superpoint_ros.network.engines.devices import choose_device
    from superpoint_ros.network.engines.parity import Engine
    from superpoint_ros.network.engines.torch_network import TorchNetwork
    from superpoint_ros.network.heatmap import DetectionSettings
    from superpoint_ros.network.named_weights import SHORT_NAMES, packaged_weights
    from superpoint_ros.tools.bench import measure
    from superpoint_ros.tools.bench.reference import Reference

    if threads:
        torch.set_num_threads(threads)
        cv2.setNumThreads(threads)
    device = choose_device(device_name)
    weights = weights or tuple(name for name in packaged_weights() if name in SHORT_NAMES)
    checkpoint = load_checkpoint(weights[0])
    if not names:
        fast = [name for name in PACKAGES if installed(name)] if device.type == "cpu" else ["auto"]
        names = (*fast, "torch")
    engines = [make_engine(checkpoint, device, name) for name in names]
    reference = Reference(checkpoint, device)
    settings = DetectionSettings()
    rate = measure.matrix_rate(device)
    report: dict[str, Any] = {
        "machine": machine(device),
        "threads": torch.get_num_threads(),
        "weights_id": checkpoint.weights_id,
        "settings": asdict(settings),
        "rounds": rounds,
        "matrix_gmac_per_s": rate / 1e9,
        "choices": [],
        "whole": [],
        "stages": [],
    }
    click.echo(
        f"{report['machine']}, {report['threads']} threads, {checkpoint.weights_id}; matrix "
        f"products run at {rate / 1e9:.0f} GMAC/s. Medians of {rounds} rounds in turns.\n"
    )
    _choices(report, weights, device_name, names, sizes, rounds)
    click.echo(f"\n{'whole':22}{'size':>10} batch  wall ms   CPU ms   x wall    x CPU     busy   same  cosine")
    for size in sizes:
        floor = measure.multiplications(checkpoint, size) / rate * 1e3
        for batch in batches:
            for row in measure.compare_engines(reference, engines, size, batch, rounds, settings):
                report["whole"].append(asdict(row))
                click.echo(
                    f"{row.engine:22}{_name(size):>10}{row.batch:6}{row.wall:9.2f}{row.cpu:9.2f}"
                    f"{row.ratio:9.2f}{row.cpu_ratio:9.2f}{row.busy:9.2f}{row.same:7.3f}{row.cosine:8.5f}"
                )
            click.echo(f"{'floor':22}{_name(size):>10}{batch:6}{floor * batch:9.1f}")
            report["whole"].append({"engine": "floor", "size": size, "batch": batch, "wall": floor})
    networks: dict[str, TorchNetwork] = {}
    if device.type != "cpu":
        precisions = {"float32": torch.float32, "float16": torch.float16}
        networks = {name: TorchNetwork(checkpoint, device, dtype) for name, dtype in precisions.items()}
    click.echo(f"\n{'stages, wall ms':22}{'size':>10}")
    everyone: list[Engine | Reference] = [reference, *engines]
    for size in sizes:
        for engine in everyone:
            taken = measure.stages(engine, networks.get(engine.precision), size, rounds, settings)
            steps = "torch's steps" if engine.precision in networks and engine is not reference else engine.name
            name = f"{steps} {engine.precision}"
            report["stages"].append({"engine": name, "size": size, **taken})
            parts = "  ".join(f"{stage} {value:.2f}" for stage, value in taken.items())
            click.echo(f"{name:22}{_name(size):>10}  {parts}")
    if device.type == "cpu":
        click.echo("\nGPU: not measured, no CUDA device was used")
    report["matching"] = measure.matching_times(engines[0], 1024, max(rounds, 20))
    parts = ", ".join(f"{key} {value:.2f}" for key, value in report["matching"].items())
    click.echo(f"\nTwo views at 640x480, ms: {parts}")
    report["scales"] = _scales(weights[0], device_name, names[0], sizes, scales, rounds)
    report["descriptor_types"] = _descriptor_types(weights[0], device_name)
    return report


def _choices(
    report: dict[str, Any],
    weights: tuple[str, ...],
    device: str,
    engines: tuple[str, ...],
    sizes: list[tuple[int, int]],
    rounds: int,
) -> None:
    from superpoint_ros.tools.bench import choices

    everything = {**choices.networks(weights, device, engines), **choices.classics()}
    for size in sizes:
        picture, shown = choices.picture(size)
        title = f"{_name(size)}, {shown}"
        click.echo(f"{title:36} images/s  wall ms   CPU ms   x wall    x CPU  keypoints")
        for row in choices.compare(everything, picture, rounds):
            report["choices"].append({"size": size, "picture": shown, **asdict(row)})
            click.echo(
                f"{row.name:36}{1e3 / row.wall:9.1f}{row.wall:9.1f}{row.cpu:9.1f}{row.ratio:9.2f}{row.cpu_ratio:9.2f}"
                f"{row.keypoints:11}"
            )


def _descriptor_types(weights: str, device_name: str) -> dict[str, Any]:
    from superpoint_ros.features.extractor import Extractor
    from superpoint_ros.tools.bench.descriptor_types import compare_types, photographs

    try:
        pictures = photographs()
    except ImportError:
        click.echo("Descriptor types: not measured, scikit-image and its photographs are not installed")
        return {}
    found = compare_types(Extractor(weights, device_name), pictures)
    for kind, quality in found.items():
        click.echo(
            f"{kind} descriptors of {quality.size} bytes: {quality.correct} of {quality.matches} matches "
            f"within 3 px, on {len(pictures)} photographs"
        )
    return {kind: asdict(quality) for kind, quality in found.items()}


def _scales(
    weights: str, device: str, engine: str, sizes: list[tuple[int, int]], scales: tuple[str, ...], rounds: int
) -> list[dict[str, Any]]:
    from superpoint_ros.features.extractor import Extractor
    from superpoint_ros.features.pyramid import check_scales
    from superpoint_ros.tools.bench.measure import level_times

    chosen = [(name, check_scales(name)) for name in scales]
    extractor = Extractor(weights, device, engine=engine)
    rows: list[dict[str, Any]] = []
    click.echo(f"\n{'scales, beside one':22}{'size':>10}  one ms  all ms   x wall    x CPU  x pixels")
    for size in sizes:
        for name, each in chosen:
            row = level_times(extractor, size, each, rounds)
            rows.append({"scales": each, "size": size, "engine": extractor.engine, **row})
            click.echo(
                f"{name:22}{_name(size):>10}{row['single']:8.1f}{row['levels']:8.1f}{row['ratio']:9.2f}"
                f"{row['cpu_ratio']:9.2f}{row['pixels']:10.2f}"
            )
    return rows


def machine(device: Any) -> str:
    """The processor's or the GPU's name."""
    if device.type == "cuda":
        import torch

        return str(torch.cuda.get_device_name(device))
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as file:
            names = [line.split(":", 1)[1].strip() for line in file if line.startswith("model name")]
        name = names[0] if names else platform.machine()
    except OSError:
        name = platform.processor() or platform.machine()
    return f"{name}, {len(os.sched_getaffinity(0))} cores"


def _sizes(text: str) -> list[tuple[int, int]]:
    sizes = []
    for part in text.split(","):
        width, _, height = part.strip().partition("x")
        if not (width.isdigit() and height.isdigit()) or int(width) % 8 or int(height) % 8:
            raise click.BadParameter(f"'{part}': expected WIDTHxHEIGHT, both multiples of 8, as in 640x480")
        sizes.append((int(height), int(width)))
    return sizes


def _numbers(text: str) -> list[int]:
    parts = [part.strip() for part in text.split(",")]
    if not all(part.isdigit() and int(part) for part in parts):
        raise click.BadParameter(f"'{text}': expected numbers of at least 1, as in 1,2,4")
    return [int(part) for part in parts]


def _name(size: tuple[int, int]) -> str:
    return f"{size[1]}x{size[0]}"
