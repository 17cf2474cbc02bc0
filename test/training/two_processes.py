"""What tests run in two processes that talk over gloo; spawned, so it must be importable."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.distributed
import torch.multiprocessing

from superpoint_ros.network.superpoint import Architecture, SuperPoint
from superpoint_training.adaptation import adapt
from superpoint_training.config import AdaptationConfig, RunConfig, ShapesConfig
from superpoint_training.losses import Share
from superpoint_training.magicpoint import magicpoint_loss
from superpoint_training.optimisation import Optimisation
from superpoint_training.processes import Processes, processes
from superpoint_training.samples import Batch, ShapeSamples
from superpoint_training.task import Forward, Task
from superpoint_training.training import train

# BatchNorm's statistics are those of a process's own pictures on the CPU, so it is left out here.
SLIM = Architecture((4, 4, 8, 8), 16, 0, batch_norm=False)


def in_two_processes(work: Callable[..., None], *arguments: Any) -> None:
    """Run work(here, *arguments) in two processes; raises what either raises."""
    # as torchrun does: a port that was found free, and only then taken by the first process, another may have by then
    store = torch.distributed.TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
    torch.multiprocessing.spawn(_join, args=(store.port, work, arguments), nprocs=2)


def _join(rank: int, port: int, work: Callable[..., None], arguments: tuple[Any, ...]) -> None:
    torch.set_num_threads(1)
    os.environ.update(
        WORLD_SIZE="2",
        RANK=str(rank),
        LOCAL_RANK=str(rank),
        MASTER_ADDR="127.0.0.1",
        MASTER_PORT=str(port),
        TORCHELASTIC_USE_AGENT_STORE="True",
    )
    with processes("cpu") as here:
        work(here, *arguments)


def hear(here: Processes) -> None:
    """Both have what the first one says, and the sum of what each has."""
    assert here.broadcast(["the lists", 3.5] if here.leads else None) == ["the lists", 3.5]
    assert here.all_reduce(torch.tensor([1.0, here.rank])).tolist() == [2.0, 1.0]


def train_and_adapt(here: Processes, pictures: list[Path], folder: Path) -> None:
    """Both, into folder/weights.pt and folder/labels."""
    train_slim(here, folder)
    adapt_slim(here, pictures, folder / "labels")


def slim_network() -> SuperPoint:
    torch.manual_seed(0)
    return SuperPoint(SLIM)


def loss(forward: Forward, batch: Batch, progress: float) -> dict[str, tuple[float, Share]]:
    return magicpoint_loss(forward, batch)


def train_slim(here: Processes, folder: Path, steps: int = 3) -> None:
    """A few steps of MagicPoint; the weights go to folder/weights.pt."""
    shapes = ShapesConfig(size=(64, 80))
    task = Task("magicpoint", slim_network(), ShapeSamples(shapes, seed=0), loss, lambda _: {}, lambda _: {})
    folder.mkdir(parents=True, exist_ok=True)
    settings = Optimisation(steps=steps, batch_size=8, learning_rate=1e-2)
    outcome = train(task, settings, RunConfig(workers=0), folder, here)
    if here.leads:
        torch.save(outcome.model.state_dict(), folder / "weights.pt")


def adapt_slim(here: Processes, pictures: list[Path], folder: Path) -> None:
    """Label pictures with an untrained network."""
    settings = AdaptationConfig(size=(48, 64), views=4, threshold=0.0, max_points=20)
    adapt(slim_network(), "slim", pictures, folder, settings, 0, here)
