"""A GPU's engine, and the CPU's for as long as the GPU lacks memory: a slow robot beats a blind one."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from superpoint_ros.network.engines.devices import first_line, out_of_memory, require_alive
from superpoint_ros.network.engines.engine import Extraction, Masks
from superpoint_ros.network.engines.parity import Engine
from superpoint_ros.network.engines.torch_engine import TorchEngine
from superpoint_ros.network.heatmap import DetectionSettings

logger = logging.getLogger(__name__)

PATIENCE = 30.0
"""Seconds on the CPU until the GPU is tried again."""


class ShelteredEngine:
    """Called as an engine is. Raises DeviceLost where the GPU answers no more.

    engine    on a GPU
    make_cpu  makes the engine for the CPU, once it is needed
    clock     seconds, steady
    """

    def __init__(
        self, engine: TorchEngine, make_cpu: Callable[[], Engine], clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._gpu, self._make_cpu, self._clock = engine, make_cpu, clock
        self._cpu: Engine | None = None
        self._until: float | None = None
        self.trouble = ""
        """Why the CPU is at work; empty while the GPU is."""

    @property
    def name(self) -> str:
        """Of the engine at work."""
        return self._at_work.name

    @property
    def precision(self) -> str:
        """Of the engine at work."""
        return self._at_work.precision

    @property
    def device(self) -> torch.device:
        """Of the engine at work."""
        return self._at_work.device

    @property
    def _at_work(self) -> Engine:
        return self._cpu if self._cpu is not None and self.trouble else self._gpu

    def __call__(
        self,
        pictures: Sequence[NDArray[np.uint8]],
        sizes: Sequence[tuple[int, int]],
        settings: DetectionSettings,
        masks: Masks = None,
    ) -> list[Extraction]:
        """As `TorchEngine.__call__`."""
        if self._until is None or self._clock() >= self._until:
            try:
                found = self._gpu(pictures, sizes, settings, masks)
            except Exception as error:
                lacking = self._lacking(error)
            else:
                self._return()
                return found
            self._flee(lacking)  # only here, where the error and the memory that it holds are gone
        if self._cpu is None:
            self._cpu = self._make_cpu()
        return self._cpu(pictures, sizes, settings, masks)

    def prepare(self, shape: tuple[int, int], count: int, settings: DetectionSettings) -> float:
        """As `TorchEngine.prepare`; nothing while the CPU is at work."""
        if self._until is not None:
            return 0.0
        try:
            return self._gpu.prepare(shape, count, settings)
        except Exception as error:
            lacking = self._lacking(error)
        self._flee(lacking)
        return 0.0

    def _lacking(self, error: Exception) -> str:
        """What an error says of a lack of memory; any other is raised."""
        if not out_of_memory(error):
            require_alive(self._gpu.device, error)
            raise error
        return first_line(error)

    def _flee(self, lacking: str) -> None:
        """To the CPU for a while."""
        reason = f"{self._gpu.device} lacks memory ({lacking})"
        if not self.trouble:
            logger.warning("%s: the CPU does its work, and it is tried again every %.0f s.", reason, PATIENCE)
        self.trouble = reason
        self._gpu.free()
        self._until = self._clock() + PATIENCE

    def _return(self) -> None:
        if self.trouble:
            logger.warning("%s has memory again, and does its work again.", self._gpu.device)
        self.trouble, self._until = "", None
