"""Nearest descriptors on a GPU, with copies of those that were compared last."""

from __future__ import annotations

import logging

import numpy as np
import torch
from torch import Tensor

from superpoint_ros.features import matching
from superpoint_ros.features.matching import Floats, Neighbours, nearest_on_cpu
from superpoint_ros.network.engines.devices import first_line, give_back, out_of_memory, plain_float32, require_alive

logger = logging.getLogger(__name__)

COPIES = 3
"""Frames whose descriptors are on the device: the current one, the one before, a keyframe."""


class NearestOnDevice:
    """`matching.nearest_on_cpu` on a GPU, for one thread; the CPU does it where the GPU lacks memory.

    Descriptors that were given before, the same array, are not uploaded again, so they must stay as they are.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._copies: list[tuple[Floats, Tensor]] = []
        self._lacking = False

    @torch.inference_mode()
    def __call__(self, d0: Floats, d1: Floats, second: bool) -> Neighbours:
        """As `matching.nearest_on_cpu`. Raises DeviceLost where the GPU answers no more."""
        try:
            with plain_float32():
                forward, mutual, best, runner_up = nearest_on_device(self._there(d0), self._there(d1)).cpu().numpy()
            if self._lacking:
                logger.warning("%s has memory again, and matches again.", self._device)
                self._lacking = False
            return forward.astype(np.intp), mutual > 0, best, runner_up
        except Exception as error:
            if not out_of_memory(error):
                require_alive(self._device, error)
                raise
            if not self._lacking:
                logger.warning(
                    "%s lacks memory (%s): the CPU matches until it has some.", self._device, first_line(error)
                )
            self._lacking = True
        self._copies.clear()
        give_back(self._device)
        return nearest_on_cpu(d0, d1, second)

    def _there(self, descriptors: Floats) -> Tensor:
        known = next((tensor for array, tensor in self._copies if array is descriptors), None)
        if known is None:
            known = torch.from_numpy(np.array(descriptors, np.float32)).to(self._device)
        others = [copy for copy in self._copies if copy[0] is not descriptors]
        self._copies = [*others, (descriptors, known)][-COPIES:]  # the last used comes last
        return known


def nearest_on_device(d0: Tensor, d1: Tensor) -> Tensor:
    """The nearest row of (M, D) `d1` to each row of (N, D) `d0`, without a step that waits for the device.

    Returns (4, N) float32: the row, 1 if the two are each other's nearest, their similarity, and that
    to the second nearest. At most `matching.BLOCK` similarities are held at a time.
    """
    rows, step = torch.arange(len(d0), device=d0.device), matching.rows_at_a_time(len(d1))
    forward, best, second = torch.empty_like(rows), d0.new_empty(len(d0)), d0.new_empty(len(d0))
    backward, highest = rows.new_zeros(len(d1)), d0.new_full((len(d1),), -torch.inf)
    for begin in range(0, len(d0), step):
        some = slice(begin, begin + step)
        similarity = d0[some] @ d1.T
        best[some], forward[some] = similarity.max(dim=1)
        above, row = similarity.max(dim=0)
        backward = torch.where(above > highest, row + begin, backward)  # of equal ones the first
        highest = torch.maximum(highest, above)
        second[some] = similarity.scatter_(1, forward[some, None], -2.0).amax(dim=1)
    return torch.stack([forward.float(), (backward[forward] == rows).float(), best, second])
