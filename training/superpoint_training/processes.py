"""One process or many: what `torchrun` set up, and what processes tell each other."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

T = TypeVar("T")

PATIENCE = timedelta(days=2)
"""For which processes wait for one another. Long bags take hours to extract, and where one process ends torchrun
ends the others; torch's ten minutes would end all of them."""


@dataclass(frozen=True)
class Processes:
    """rank of this process among `world`; device it computes on; `local` of them share this machine."""

    rank: int
    world: int
    device: torch.device
    local: int = 1

    def share(self, workers: int) -> int:
        """This process's share of what all on this machine have together, at least 1 of any."""
        return max(1, workers // self.local) if workers else 0

    @property
    def leads(self) -> bool:
        """Whether this process writes files and shows progress."""
        return self.rank == 0

    def all_reduce(self, values: Tensor) -> Tensor:
        """The sum of a tensor over all processes."""
        if self.world > 1:
            values = values.clone()
            dist.all_reduce(values)
        return values

    def broadcast(self, value: T) -> T:
        """What the leading process has for `value`, anything that can be pickled."""
        if self.world == 1:
            return value
        box = [value]
        dist.broadcast_object_list(box, src=0, device=self.device)
        return box[0]

    def barrier(self) -> None:
        """Until all processes are here."""
        if self.world > 1:
            dist.barrier()


@contextmanager
def processes(device: str) -> Iterator[Processes]:
    """Join the other processes where `torchrun` started this one; `device` is "auto", "cpu" or
    "cuda".

    Raises ValueError for another device, or for CUDA where there is none.
    """
    if device not in ("auto", "cpu", "cuda"):
        raise ValueError(f"device: expected auto, cpu or cuda, got {device!r}")
    if device == "cuda" and not torch.cuda.is_available():
        raise ValueError("device: cuda was asked for, but torch finds no CUDA device; expected auto or cpu")
    cuda = device != "cpu" and torch.cuda.is_available()
    world = int(os.environ.get("WORLD_SIZE", "1"))
    rank = int(os.environ.get("RANK", "0"))
    chosen = torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0"))) if cuda else torch.device("cpu")
    if cuda:
        torch.cuda.set_device(chosen)
    if world > 1:
        dist.init_process_group("nccl" if cuda else "gloo", rank=rank, world_size=world, timeout=PATIENCE)
    try:
        yield Processes(rank, world, chosen, int(os.environ.get("LOCAL_WORLD_SIZE", "1")))
    finally:
        if world > 1:
            dist.destroy_process_group()
