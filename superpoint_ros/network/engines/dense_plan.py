"""The steps from uploaded pictures to packed results, and the buffers that a plan runs them in.

No step waits for the device and no shape depends on a picture, so that a CUDA graph can hold them all.
What may change from frame to frame, threshold, border and masks, lies in buffers; of the keypoints
there are enough for any limit up to the plan's, and the host takes as many as it wants.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from superpoint_ros.network.dense_peaks import ROUNDS, Peaks, flat_dense, room, strongest_in_rounds
from superpoint_ros.network.descriptors import CellGrid, sample_descriptors
from superpoint_ros.network.engines.engine import Extraction
from superpoint_ros.network.heatmap import DetectionSettings, heatmap_from_logits, refine
from superpoint_ros.network.superpoint import CELL

FEWEST = 256
"""Keypoints that a plan has room for, or twice, four times … as many: few changes of the limit ask for another."""

AGAIN = 300
"""Calls until what failed, for lack of memory most likely, is tried once more."""


class Network(Protocol):
    """A network on a device: (B, H, W) uint8 to logits, and descriptors of any length."""

    capturable: bool

    def __call__(self, grey: Tensor) -> tuple[Tensor, Tensor]: ...


@dataclass(frozen=True)
class Kind:
    """What pictures and settings must have in common to go through one plan, but for their number."""

    shape: tuple[int, int]
    keypoints: int
    radius: int
    subpixel: bool

    @staticmethod
    def of(shape: tuple[int, int], settings: DetectionSettings) -> Kind:
        """Of pictures of (height, width)."""
        enough = max(FEWEST, 1 << (settings.max_keypoints - 1).bit_length())
        keypoints = min(enough, room(shape, settings.nms_radius))
        return Kind(shape, keypoints, settings.nms_radius, settings.subpixel)


@dataclass(frozen=True)
class Inputs:
    """What the steps read, on the device.

    grey       (B, H, W) uint8
    sizes      (B, 2) int64, height and width of each picture within its buffer
    threshold  () float32
    within     (B, H, W) bool, what is of a picture
    blocked    (B, H, W) bool, what is not, or is masked
    dropped    (B, H, W) bool, the border
    grid       of the cells
    """

    grey: Tensor
    sizes: Tensor
    threshold: Tensor
    within: Tensor
    blocked: Tensor
    dropped: Tensor
    grid: CellGrid

    @staticmethod
    def zeros(batch: int, shape: tuple[int, int], device: torch.device) -> Inputs:
        """For a batch of pictures of (height, width)."""
        size = (batch, *shape)
        grey = torch.zeros(size, dtype=torch.uint8, device=device)
        sizes = torch.zeros((batch, 2), dtype=torch.int64, device=device)
        within, blocked, dropped = (torch.zeros(size, dtype=torch.bool, device=device) for _ in range(3))
        grid = CellGrid.of(shape[0] // CELL, shape[1] // CELL, device)
        return Inputs(grey, sizes, torch.zeros((), device=device), within, blocked, dropped, grid)


@dataclass(frozen=True)
class Result:
    """What a run leaves on the device.

    packed   (B, L) int16: K times x and y, K scores, the strongest undecided pixel, all float32; K descriptors in the
             plan's precision
    heatmap  (B, H, W) and
    dense    (B, D, H/8, W/8), to go on from with more rounds of suppression
    """

    packed: Tensor
    heatmap: Tensor
    dense: Tensor


def masked_heatmap(logits: Tensor, inputs: Inputs) -> Tensor:
    """(B, H, W) float32 of (B, 65, H/8, W/8) logits; 0 where pixels are blocked, or have a window of one value."""
    nowhere = flat_dense(inputs.grey, inputs.within) | inputs.blocked
    return heatmap_from_logits(logits).masked_fill(nowhere, 0)


def strongest(heatmap: Tensor, inputs: Inputs, kind: Kind, rounds: int) -> Peaks:
    """`strongest_in_rounds` of what is above the threshold."""
    candidates = heatmap.masked_fill(~(heatmap > inputs.threshold), 0)
    return strongest_in_rounds(candidates, inputs.dropped, kind.radius, kind.keypoints, rounds)


def sampled(dense: Tensor, xy: Tensor, inputs: Inputs, dtype: torch.dtype) -> Tensor:
    """`sample_descriptors` in `dtype`."""
    return sample_descriptors(dense, xy, inputs.grid).to(dtype)


@dataclass(frozen=True)
class Steps:
    """What runs the steps behind the network: torch's own, or others that find the same.

    rounds  of suppression, in most pictures enough
    """

    masked_heatmap: Callable[[Tensor, Inputs], Tensor] = masked_heatmap
    strongest: Callable[[Tensor, Inputs, Kind, int], Peaks] = strongest
    sampled: Callable[[Tensor, Tensor, Inputs, torch.dtype], Tensor] = sampled
    rounds: int = ROUNDS


TORCH_STEPS = Steps()


def extract(network: Network, inputs: Inputs, kind: Kind, dtype: torch.dtype, steps: Steps = TORCH_STEPS) -> Result:
    """All steps, without waiting for the device; descriptors in `dtype`."""
    logits, dense = network(inputs.grey)
    heatmap = steps.masked_heatmap(logits, inputs)
    return Result(packed(heatmap, dense, inputs, kind, dtype, steps, steps.rounds), heatmap, dense)


def packed(
    heatmap: Tensor, dense: Tensor, inputs: Inputs, kind: Kind, dtype: torch.dtype, steps: Steps, rounds: int
) -> Tensor:
    """The steps behind the heatmap; see `Result`."""
    found = steps.strongest(heatmap, inputs, kind, rounds)
    points = refine(heatmap, found.xy, inputs.sizes) if kind.subpixel else found.xy.float()
    descriptors = steps.sampled(dense, points, inputs, dtype)
    parts = points, found.scores, found.undecided[:, None], descriptors
    return torch.cat([part.flatten(1).view(torch.int16) for part in parts], dim=1)


class Plan:
    """Buffers for a number of pictures of one kind, and the work from the pictures in them to packed results.

    work      may be replaced by what repeats it; then
    captured  is true, and until then
    next_try  the call at which that is tried, `patience` after the last that failed
    """

    def __init__(
        self,
        network: Network,
        batch: int,
        kind: Kind,
        device: torch.device,
        dtype: torch.dtype,
        steps: Steps = TORCH_STEPS,
    ) -> None:
        self.batch, self.captured, self.next_try, self.patience = batch, False, 0, AGAIN // 2
        self._kind, self._dtype, self._steps = kind, dtype, steps
        self._pinned = device.type == "cuda"
        self._grey_here = torch.zeros((batch, *kind.shape), dtype=torch.uint8, pin_memory=self._pinned)
        self._packed_here: Tensor | None = None
        self._inputs = inputs = Inputs.zeros(batch, kind.shape, device)
        self._threshold = 0.0
        self._places: list[tuple[tuple[int, int], int, NDArray[np.bool_] | None] | None] = [None] * batch
        # not of `self`: a plan that refers to itself keeps its memory until Python looks for cycles
        self.work: Callable[[], Result] = lambda: extract(network, inputs, kind, dtype, steps)

    def run(
        self,
        pictures: Sequence[NDArray[np.uint8]],
        sizes: Sequence[tuple[int, int]],
        settings: DetectionSettings,
        masks: Sequence[NDArray[np.bool_] | None],
    ) -> list[Extraction]:
        """Upload, work, and one transfer back; of fewer pictures than the batch the rest is what was there before."""
        for row, (size, mask) in enumerate(zip(sizes, masks, strict=True)):
            self._place(row, size, settings.border, mask)
        if settings.detection_threshold != self._threshold:
            self._inputs.threshold.fill_(settings.detection_threshold)
            self._threshold = settings.detection_threshold
        np.stack(pictures, out=self._grey_here.numpy()[: len(pictures)])
        self._inputs.grey.copy_(self._grey_here, non_blocking=True)
        result, rounds = self.work(), self._steps.rounds
        found = self._parts(result.packed, len(pictures))
        while any(one.unfinished(settings.max_keypoints) for one in found):
            rounds *= 2
            more = packed(result.heatmap, result.dense, self._inputs, self._kind, self._dtype, self._steps, rounds)
            found = self._parts(more, len(pictures))
        return [one.extraction(settings.max_keypoints) for one in found]

    def _place(self, row: int, size: tuple[int, int], border: int, mask: NDArray[np.bool_] | None) -> None:
        """Where keypoints may be in a picture; on the device only what has changed."""
        before = self._places[row]
        if before is not None and before[:2] == (size, border):
            known = before[2]
            if mask is known is None or (mask is not None and known is not None and np.array_equal(mask, known)):
                return
        height, width = size
        within, dropped = np.zeros(self._kind.shape, np.bool_), np.ones(self._kind.shape, np.bool_)
        within[:height, :width] = True
        dropped[border : max(height - border, 0), border : max(width - border, 0)] = False
        blocked = ~within if mask is None else ~(within & mask)
        inputs = self._inputs
        inputs.sizes[row].copy_(torch.tensor(size))
        for there, here in ((inputs.within, within), (inputs.blocked, blocked), (inputs.dropped, dropped)):
            there[row].copy_(torch.from_numpy(here))
        self._places[row] = size, border, None if mask is None else mask.copy()

    def _fetched(self, packed: Tensor) -> NDArray[np.int16]:
        """The packed results in pinned memory, which the next call overwrites."""
        if not self._pinned:
            return packed.numpy()
        if self._packed_here is None:
            self._packed_here = torch.empty(packed.shape, dtype=packed.dtype, pin_memory=True)
        self._packed_here.copy_(packed, non_blocking=True)
        torch.cuda.current_stream(packed.device).synchronize()
        return self._packed_here.numpy()

    def _parts(self, packed: Tensor, count: int) -> list[_Parts]:
        """Of the first `count` pictures."""
        most, rows = self._kind.keypoints, self._fetched(packed)[:count]
        return [
            _Parts(
                row[: 4 * most].view(np.float32).reshape(most, 2),
                row[4 * most : 6 * most].view(np.float32),
                row[6 * most : 6 * most + 2].view(np.float32)[0],
                torch.from_numpy(row[6 * most + 2 :]).view(self._dtype).view(most, -1),
            )
            for row in rows
        ]


@dataclass(frozen=True)
class _Parts:
    """One picture's packed results, in the buffer; see `Result`."""

    xy: NDArray[np.float32]
    scores: NDArray[np.float32]
    undecided: np.float32
    descriptors: Tensor

    def unfinished(self, limit: int) -> bool:
        """As `Peaks.unfinished`."""
        weakest = self.scores[limit - 1] if limit <= len(self.scores) else 0
        return bool(self.undecided > 0 and self.undecided >= weakest)

    def extraction(self, limit: int) -> Extraction:
        """Copied out of the buffer."""
        count = min(int(np.count_nonzero(self.scores > 0)), limit)
        # numpy takes ten times as long as torch to make float32 of float16
        own = np.empty((count, self.descriptors.shape[1]), np.float32)
        torch.from_numpy(own).copy_(self.descriptors[:count])
        return Extraction(self.xy[:count].copy(), self.scores[:count].copy(), own)
