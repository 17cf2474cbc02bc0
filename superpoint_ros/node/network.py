"""The network of a node: made where it can run, warmed up, and given back."""

from __future__ import annotations

import contextlib
import ctypes
import gc
from collections.abc import Callable

import numpy as np
import torch

from superpoint_ros.features.extractor import Extractor
from superpoint_ros.frontend.parameters import Parameters
from superpoint_ros.frontend.tracker import Tracker
from superpoint_ros.network.engines.choice import CUDA_ENGINES
from superpoint_ros.network.engines.devices import DeviceUnusable
from superpoint_ros.network.engines.parity import built_in_picture


def make_extractor(values: Parameters, warn: Callable[[str], object]) -> tuple[Extractor, str]:
    """On the device asked for; where that cannot be used on the CPU, for a slow robot beats a blind one.

    Returns also why it is on the CPU though a GPU was asked for; empty if it is not. Raises as `Extractor` does for
    all else.
    """
    weights = values.weights or None
    if values.device.startswith("cuda") and not torch.cuda.is_available():
        reason = "there is no CUDA GPU"
    else:
        try:
            extractor = Extractor(weights, values.device, values.engine, values.precision)
        except DeviceUnusable as error:
            reason = str(error)
        else:
            if extractor.trouble:
                warn(f"{extractor.trouble}; using the CPU.")
            return extractor, ""
    warn(f"Parameter device is '{values.device}', but {reason}; using the CPU.")
    return Extractor(weights, "cpu", "auto" if values.engine in CUDA_ENGINES else values.engine), reason


def warm_up(extractor: Extractor) -> None:
    """Extract once, on a GPU match too: its libraries load what they need at the first use, for seconds."""
    if extractor.device == "cpu":
        extractor(np.zeros((480, 640), np.uint8))
        return
    found, tracker = extractor(built_in_picture((480, 640))), Tracker(extractor.device)
    for stamp in (0, 1):
        tracker.advance(stamp, found, threshold=3.0)


def give_back_memory(gpu: bool = True) -> None:
    """Return what a network has left: glibc keeps a hundred megabytes for the next one, and torch the GPU's memory.

    glibc keeps the ends of threads' heaps all the same, 44 MB of one in a test; the next network takes them.

    gpu  False where work hangs on it: it would be waited for
    """
    gc.collect()
    if gpu and torch.cuda.is_initialized():
        with contextlib.suppress(RuntimeError):  # a GPU that answers no more
            torch.cuda.empty_cache()
    with contextlib.suppress(OSError, AttributeError):  # another C library
        ctypes.CDLL("libc.so.6").malloc_trim(0)
