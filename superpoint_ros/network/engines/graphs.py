"""Work on a GPU recorded as a CUDA graph, which starts with one call."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

import torch

Result = TypeVar("Result")

WARM_UPS = 3
"""Runs before a capture, in which libraries choose algorithms and take their memory."""


class GraphCapture:
    """Records work on a device as CUDA graphs, which share their scratch memory.

    Sharing is safe because they run one after the other, and what a graph returns is fetched before
    the next one runs. The memory is the device's again when all its graphs are gone and torch has given back what it
    keeps (`devices.give_back`).
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._stream = torch.cuda.Stream(device)
        self._pool = torch.cuda.graph_pool_handle()

    def __call__(self, work: Callable[[], Result]) -> Callable[[], Result]:
        """A call that repeats the work and returns the same tensors each time, filled anew.

        Raises RuntimeError for work that waits for the device, or where memory lacks.
        """
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.device(self._device), _choosing_algorithms():
            self._stream.wait_stream(torch.cuda.current_stream())
            with torch.cuda.stream(self._stream):
                for _ in range(WARM_UPS):
                    work()
            torch.cuda.current_stream().wait_stream(self._stream)
            # thread_local: other threads of the process may use the device meanwhile
            with torch.cuda.graph(graph, self._pool, self._stream, capture_error_mode="thread_local"):
                result = work()

        def replay() -> Result:
            graph.replay()
            return result

        return replay


@contextmanager
def _choosing_algorithms() -> Iterator[None]:
    """Let cuDNN measure which of its convolutions is the fastest: worth it for a shape that stays."""
    before = torch.backends.cudnn.benchmark
    torch.backends.cudnn.benchmark = True
    try:
        yield
    finally:
        torch.backends.cudnn.benchmark = before
