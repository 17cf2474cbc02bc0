"""The whole extraction in torch on one device, as one CUDA graph for each size and batch where that can be.

Run step by step, a GPU waits for the host between a hundred small kernels. A graph holds them all and
starts with one call. Making one takes seconds, so there are few: pictures go through in batches of 1,
2, 4 or 8, the missing ones being padding, and settings that change from frame to frame are inputs
(see `dense_plan`). `prepare` makes those that a robot's cameras will need before it needs them.

Everything but `GraphCapture` also runs on the CPU, Triton's kernels in its interpreter, where the tests compare it with
the other engines.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Sequence
from functools import partial
from types import ModuleType

import numpy as np
import torch
from numpy.typing import NDArray

from superpoint_ros.network.checkpoint import Checkpoint
from superpoint_ros.network.engines.dense_plan import AGAIN, TORCH_STEPS, Kind, Network, Plan, Result, Steps
from superpoint_ros.network.engines.devices import current, first_line, give_back, out_of_memory, plain_float32
from superpoint_ros.network.engines.engine import Extraction, Masks, require_descriptors
from superpoint_ros.network.engines.torch_network import TorchNetwork
from superpoint_ros.network.heatmap import DetectionSettings

logger = logging.getLogger(__name__)

BATCHES = (1, 2, 4, 8)
KINDS = 8
"""Sizes and settings whose graphs are kept: two cameras' sizes, each at four scales. One that was used in the last
`AGAIN` calls makes no room for another, whose steps then run one by one: where more than so many take turns, or each
picture of a folder has a size of its own, every call would capture."""

Work = Callable[[], Result]
Capture = Callable[[Work], Work]


class _Plans:
    """Those of one kind by batch, their graphs in one pool of memory, which goes when they go.

    used  the last call that did
    """

    def __init__(self, capture: Capture | None) -> None:
        self.capture, self.used = capture, 0
        self.by_batch: dict[int, Plan] = {}


class TorchEngine:
    """Extracts in torch; no step before the last leaves the device.

    precision  "float32", or "float16" for the convolutions and the descriptors' way to the host; all else is float32
    name       as `make_engine` knows it
    network    `TorchNetwork` by default
    triton     whether Triton's kernels run all but the convolutions, until one fails; ImportError where there is none
    captures   makes, for each kind of pictures, what turns work into a call that repeats it, as `GraphCapture` does;
               None: the steps run one by one

    What fails for lack of memory is tried again with what other plans had, then with fewer pictures at a time, and
    after a while as before.
    """

    def __init__(
        self,
        checkpoint: Checkpoint,
        device: torch.device,
        precision: str = "float32",
        name: str = "torch",
        network: Network | None = None,
        captures: Callable[[], Capture] | None = None,
        triton: bool = False,
    ) -> None:
        require_descriptors(checkpoint)
        self.name, self.device, self.precision = name, device, precision
        self._dtype = torch.float16 if precision == "float16" else torch.float32
        self._steps, layers = _triton() if triton else (TORCH_STEPS, None)
        self._network = network or TorchNetwork(checkpoint, device, self._dtype, layers=layers)
        self.triton, self._checkpoint = triton, checkpoint if network is None else None
        self._captures = captures
        self._kinds: dict[Kind, _Plans] = {}
        self._most, self._lacking, self._retries = BATCHES[-1], 0, 0
        self._calls = self._retry_batch = self._say_full = 0
        self._lock = threading.Lock()

    @torch.inference_mode()
    def __call__(
        self,
        pictures: Sequence[NDArray[np.uint8]],
        sizes: Sequence[tuple[int, int]],
        settings: DetectionSettings,
        masks: Masks = None,
    ) -> list[Extraction]:
        """Extract from pictures; those of one shape go through together.

        pictures  grey (H, W) uint8 each, H and W multiples of 8
        sizes     the height and width of each within its picture; what is beyond is padding,
                  without keypoints
        masks     where keypoints may be; what is outside is not in the heatmap, so it costs no
                  keypoint its place

        Raises what torch raises, torch.cuda.OutOfMemoryError if memory lacks even for one picture.
        """
        found: list[Extraction | None] = [None] * len(pictures)
        masks = [None] * len(pictures) if masks is None else masks
        shapes = [(picture.shape[0], picture.shape[1]) for picture in pictures]
        with self._lock, plain_float32(), current(self.device):
            self._calls += 1
            if self._most < BATCHES[-1] and self._calls >= self._retry_batch:
                self._most = BATCHES[-1]
                self._retries += 1
            for shape in dict.fromkeys(shapes):
                rows = [row for row, other in enumerate(shapes) if other == shape]
                while rows:
                    some = rows[: self._most]
                    arguments = [pictures[row] for row in some], [sizes[row] for row in some]
                    these = [masks[row] for row in some]
                    together = self._leaving_triton(
                        partial(self._run, Kind.of(shape, settings), *arguments, settings, these)
                    )
                    if together is None:
                        continue  # fewer at a time
                    for row, one in zip(some, together, strict=True):
                        found[row] = one
                    rows = rows[len(some) :]
        return [one for one in found if one is not None]

    @torch.inference_mode()
    def prepare(self, shape: tuple[int, int], count: int, settings: DetectionSettings) -> float:
        """Make all that up to `count` pictures of a shape at a time need.

        Returns the seconds it took, 0 if all was there.
        Raises as the call does.
        """
        with self._lock, plain_float32(), current(self.device):
            kind, begun = Kind.of(shape, settings), time.monotonic()
            if not self._has_room(kind):
                return 0.0
            most = min(_padded(count), self._most)
            missing = [batch for batch in BATCHES if batch <= most and not self._has(kind, batch)]
            for batch in missing:
                if batch > self._most:
                    break  # memory lacked for fewer
                nothing = [np.zeros(shape, np.uint8)] * batch
                # also what a first run takes: algorithms are chosen, pinned memory is made
                self._leaving_triton(partial(self._run, kind, nothing, [shape] * batch, settings, [None] * batch))
            return time.monotonic() - begun if missing else 0.0

    def free(self) -> None:
        """Give the device's memory back, but for the weights; what is needed again is made again."""
        with self._lock:
            self._free()

    def _free(self) -> None:
        self._kinds.clear()
        give_back(self.device)

    def _leaving_triton(self, run: Callable[[], list[Extraction] | None]) -> list[Extraction] | None:
        """What `run` returns; by torch's own steps, from now on, if Triton's fail where those do not."""
        try:
            return run()
        except Exception as error:
            if not self.triton or out_of_memory(error):
                raise
            reason = _reason(error)
        # only here, where the error and all that it holds are gone
        self._free()
        with_triton = self.triton, self._steps, self._network
        network = (
            self._network if self._checkpoint is None else TorchNetwork(self._checkpoint, self.device, self._dtype)
        )
        self.triton, self._steps, self._network = False, TORCH_STEPS, network
        try:
            found = run()
        except Exception:  # it was not Triton
            self._free()
            self.triton, self._steps, self._network = with_triton
            raise
        logger.warning("Triton's kernels fail on %s (%s); torch's own take their place.", self.device, reason)
        return found

    def _run(
        self,
        kind: Kind,
        pictures: Sequence[NDArray[np.uint8]],
        sizes: Sequence[tuple[int, int]],
        settings: DetectionSettings,
        masks: Sequence[NDArray[np.bool_] | None],
    ) -> list[Extraction] | None:
        """None if memory lacks for so many pictures at a time; `_most` is fewer from then on."""
        count, lacking = len(pictures), ""
        for last in (False, True):
            try:
                found = self._plan(kind, _padded(count)).run(pictures, sizes, settings, masks)
                if 0 < self._lacking <= _padded(count):
                    self._lacking = self._retries = 0
                return found
            except Exception as error:
                if not out_of_memory(error) or (last and count == 1):
                    raise
                lacking = first_line(error)
            # only here, where the error and all that it holds are gone
            self._free()
        self._lacking = _padded(count)
        patience = AGAIN << self._retries  # one in vain costs all graphs
        self._most, self._retry_batch = self._lacking // 2, self._calls + patience
        height, width = kind.shape
        logger.warning(
            "%s lacks memory for %d pictures of %d×%d at a time (%s); it takes %d for the next %d calls.",
            self.device,
            self._lacking,
            width,
            height,
            lacking,
            self._most,
            patience,
        )
        return None

    def _has(self, kind: Kind, batch: int) -> bool:
        return kind in self._kinds and batch in self._kinds[kind].by_batch

    def _has_room(self, kind: Kind) -> bool:
        """Whether a kind has a place, or may take that of the one that was used longest ago."""
        if kind in self._kinds or len(self._kinds) < KINDS:
            return True
        return self._calls - next(iter(self._kinds.values())).used >= AGAIN

    def _plan(self, kind: Kind, batch: int) -> Plan:
        if not self._has_room(kind):
            self._tell_full()
            return Plan(self._network, batch, kind, self.device, self._dtype, self._steps)
        plans = self._kinds.pop(kind, None)
        if plans is None:
            while len(self._kinds) >= KINDS:
                del self._kinds[next(iter(self._kinds))]
                give_back(self.device)
            plans = _Plans(self._captures() if self._captures is not None and self._network.capturable else None)
        self._kinds[kind], plans.used = plans, self._calls  # the last used comes last
        plan = plans.by_batch.get(batch)
        if plan is None:
            plan = plans.by_batch[batch] = Plan(self._network, batch, kind, self.device, self._dtype, self._steps)
        if plans.capture is not None and not plan.captured and self._calls >= plan.next_try:
            self._capture(plan, kind, plans)
        return plan

    def _tell_full(self) -> None:
        if self._captures is None or self._calls < self._say_full:
            return
        logger.warning(
            "More than %d sizes or settings of pictures take turns on %s: those beyond have no CUDA graph, and their "
            "steps run one by one, until one of the others was not used for %d calls.",
            KINDS,
            self.device,
            AGAIN,
        )
        self._say_full = self._calls + 10 * AGAIN

    def _capture(self, plan: Plan, kind: Kind, plans: _Plans) -> None:
        """Make a plan's work a graph, if need be with the memory of all other kinds; else leave it as it is."""
        reason = ""
        for last in (False, True):
            assert self._captures is not None and plans.capture is not None
            try:
                plan.work, plan.captured = plans.capture(plan.work), True
                return
            except Exception as error:  # whatever a driver, a library or a full memory comes up with
                if self.triton and last and not out_of_memory(error):
                    raise  # for `_leaving_triton`
                reason = f"{type(error).__name__}: {first_line(error)}"
            self._kinds = {kind: plans}
            give_back(self.device)
            plans.capture = self._captures()  # what failed may have left its pool or stream unusable
        plan.patience *= 2
        plan.next_try = self._calls + plan.patience
        logger.warning(
            "A CUDA graph for %d pictures of %d×%d cannot be captured (%s), not with the memory of all others either; "
            "its steps run one by one for the next %d calls.",
            plan.batch,
            kind.shape[1],
            kind.shape[0],
            reason,
            plan.patience,
        )


def _reason(error: BaseException) -> str:
    """What lies behind an error of Triton's compiler, which shows the place first and the reason last."""
    while error.__cause__ is not None:
        error = error.__cause__
    return ": ".join([type(error).__name__, *str(error).strip().splitlines()[-1:]])


def _triton() -> tuple[Steps, ModuleType]:
    from superpoint_ros.network.engines import triton_layers, triton_peaks

    return triton_peaks.STEPS, triton_layers


def _padded(count: int) -> int:
    """The smallest batch that holds so many pictures."""
    return next((batch for batch in BATCHES if batch >= count), BATCHES[-1])
