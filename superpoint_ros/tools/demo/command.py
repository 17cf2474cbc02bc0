"""`superpoint demo`: its options, and what it needs."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import click

from superpoint_ros.interrupts import ending_at_once
from superpoint_ros.network.named_weights import find_weights

OWN_FRAMES = 150
"""Of the camera sequence: once round the wall."""


@click.command("demo")
@click.option(
    "--bag",
    type=click.Path(path_type=Path),
    help="Play this bag (a folder, an .mcap or a .db3 file) instead of the camera sequence.",
)
@click.option("--topic", help="Its image topic; may be left out if it has only one.")
@click.option(
    "--out",
    type=click.Path(path_type=Path, file_okay=False),
    default=Path("build/demo"),
    show_default=True,
    help="Folder for the results; those of an earlier run are replaced.",
)
@click.option(
    "--rate",
    type=click.FloatRange(0, min_open=True),
    help="Play so many times faster than recorded. Left out: 1 for a bag; for the camera "
    "sequence what this machine can sustain, at most 1.",
)
@click.option(
    "--lockstep",
    is_flag=True,
    help="Send each frame once the one before is answered: however slow the machine is, none is dropped.",
)
@click.option(
    "--duration",
    type=click.FloatRange(0, min_open=True),
    help="Play only so many seconds of the bag.",
)
@click.option(
    "--frames",
    type=click.IntRange(2),
    default=OWN_FRAMES,
    show_default=True,
    help="Of the camera sequence.",
)
@click.option("--weights", help="Weights file, or default or fast.")
@click.option("--device", default="auto", show_default=True, help="auto, cpu, cuda or cuda:N.")
def demo_command(
    bag: Path | None,
    topic: str | None,
    out: Path,
    rate: float | None,
    lockstep: bool,
    duration: float | None,
    frames: int,
    weights: str | None,
    device: str,
) -> None:
    """Play images to the node over DDS, and judge what it publishes.

    Without --bag, a camera flies along a wall of photographs, and every homography is compared with
    the true motion. Ends with status 1 if fewer than 95 % of the homographies to a frame before are OK, or their
    median corner error passes 0.1 px.
    """
    if importlib.util.find_spec("rclpy") is None or importlib.util.find_spec("superpoint_ros.msg") is None:
        raise click.ClickException(
            "the demo needs ROS 2 and the messages of superpoint_ros; run `make demo` in a "
            "checkout, or build the package with colcon and source its setup.bash"
        )
    if bag is None and (topic is not None or duration is not None):
        raise click.UsageError("--topic and --duration are about a bag, so they need --bag")
    with ending_at_once():
        from superpoint_ros.bags.content import BagError
        from superpoint_ros.tools.demo.node_process import NodeDied
        from superpoint_ros.tools.demo.run import run_demo
        from superpoint_ros.tools.session import Timeout

    try:
        # the whole path: the node runs in another folder
        chosen = {"weights": str(find_weights(weights).resolve())} if weights else {}
    except FileNotFoundError as error:
        raise click.BadParameter(str(error), param_hint="--weights") from None
    parameters = {"device": device, **chosen}
    try:
        faults = run_demo(out, bag, topic, frames, rate, lockstep, duration, parameters, click.echo)
    except (BagError, NodeDied, Timeout, OSError, ModuleNotFoundError) as error:
        raise click.ClickException(str(error)) from None
    for fault in faults:
        click.echo(f"Failed: {fault}.", err=True)
    if faults:
        raise click.exceptions.Exit(1)
    click.echo("Passed.")
