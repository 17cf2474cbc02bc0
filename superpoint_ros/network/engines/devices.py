"""The device an engine runs on: which one, whether it can be used, and what its errors mean."""

from __future__ import annotations

import re
import threading
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext

import torch

OUT_OF_MEMORY = re.compile(r"out of memory|ALLOC_FAILED|unable to find an engine", re.IGNORECASE)
"""The last is what torch says where memory lacks for the work space of each of cuDNN's algorithms."""

_entering = threading.Lock()
_found: list[tuple[bool, bool]] = []
"""The settings of TF32 that each thread in `plain_float32` found, the first one first."""


class DeviceUnusable(RuntimeError):
    """A device that is not there, or is there and cannot be used; another one may do."""


class DeviceLost(RuntimeError):
    """A GPU that answers no more: after some errors CUDA refuses everything until the process ends."""


def choose_device(name: str) -> torch.device:
    """The torch device of "auto" (CUDA if there is one), "cpu", "cuda" or "cuda:N".

    Raises ValueError for another name, and DeviceUnusable where this machine has no such device.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(name) if isinstance(name, str) else None  # a number would be a GPU's
    except RuntimeError:
        device = None
    if device is None or device.type not in ("cpu", "cuda"):
        raise ValueError(f"device must be auto, cpu, cuda or cuda:N, got {name!r}")
    if device.type == "cpu":
        return torch.device("cpu")
    index = device.index or 0
    if index >= torch.cuda.device_count():
        raise DeviceUnusable(f"device {name!r} was asked for, but torch {torch.__version__} sees no such GPU")
    return torch.device("cuda", index)


def require_usable(device: torch.device) -> None:
    """Raise DeviceUnusable, with the reason, for a device that cannot add two numbers: an old driver, a GPU that torch
    was not built for, one that another process has for itself."""
    try:
        _add(device)
    except Exception as error:  # whatever a driver comes up with
        raise DeviceUnusable(f"{_name(device)} cannot be used: {first_line(error)}") from error


def require_alive(device: torch.device, error: Exception) -> None:
    """After an error: raise DeviceLost if the device answers no more, which only a new process cures."""
    try:
        _add(device)
    except Exception:
        text = f"{_name(device)} answers no more after an error, which only a new process cures: {first_line(error)}"
        raise DeviceLost(text) from error


def out_of_memory(error: Exception) -> bool:
    """Whether an error says that a device lacks memory, in the words of torch, CUDA, cuDNN or cuBLAS."""
    return isinstance(error, torch.cuda.OutOfMemoryError) or bool(OUT_OF_MEMORY.search(str(error)))


def first_line(error: Exception) -> str:
    """What an error says, without the advice of several lines that CUDA adds."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0].rstrip(".")


def give_back(device: torch.device) -> None:
    """Return memory that nothing uses any more to the device: torch keeps it for the next tensor otherwise."""
    if device.type == "cuda":
        torch.cuda.empty_cache()


@contextmanager
def plain_float32() -> Iterator[None]:
    """Convolutions and products of float32 in float32: cuDNN rounds to TF32's eleven bits unless it is told not to.

    That is told to the process: of several threads inside, the last to leave sets it as the first found it.
    """
    cudnn, products = torch.backends.cudnn, torch.backends.cuda.matmul
    with _entering:
        _found.append((cudnn.allow_tf32, products.allow_tf32))
        cudnn.allow_tf32 = products.allow_tf32 = False
    try:
        yield
    finally:
        with _entering:
            first = _found[0]
            _found.pop()
            if not _found:
                cudnn.allow_tf32, products.allow_tf32 = first


def current(device: torch.device) -> AbstractContextManager[None]:
    """Make a GPU the one that kernels start on, whatever their tensors say."""
    return torch.cuda.device(device) if device.type == "cuda" else nullcontext()


def _add(device: torch.device) -> None:
    with current(device):
        if float(torch.ones(1, device=device) + 1) != 2:
            raise RuntimeError("1 + 1 is not 2 there")


def _name(device: torch.device) -> str:
    try:
        return f"GPU {device} ({torch.cuda.get_device_name(device)})"
    except Exception:  # a device that cannot even say its name
        return f"GPU {device}"
