"""The whole extraction as one CUDA graph a shape: from uploaded uint8 pictures to packed results.

Run step by step, a GPU waits for the host between some two hundred small kernels. A graph holds them
all and starts with one call, but only if no shape depends on a picture and no step waits for a
result. So suppression has a fixed number of rounds, and the result says whether they sufficed.

Everything but `GraphCapture` also runs on the CPU, where the tests compare it with the other engines.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from superpoint_ros.network.checkpoint import Checkpoint
from superpoint_ros.network.dense_peaks import ROUNDS, flat_dense, strongest_dense, strongest_in_rounds
from superpoint_ros.network.descriptors import gather_descriptors
from superpoint_ros.network.engines.cache import cache_folder, checkpoint_key
from superpoint_ros.network.engines.engine import Extraction, Masks, Resident, hidden, require_descriptors
from superpoint_ros.network.engines.onnx_file import cached_onnx
from superpoint_ros.network.heatmap import DetectionSettings, heatmap_from_logits, refine
from superpoint_ros.network.superpoint import fold_norms

logger = logging.getLogger(__name__)

PLANS = 32
"""Shapes that are kept: four cameras in batches of one to four, at two sizes, each at four scales."""

WARM_UPS = 3
"""Runs before a capture, in which libraries choose algorithms and take their memory."""


class Network(Protocol):
    """A network on a device: (B, 1, H, W) float in [0, 1] to logits and unit-length descriptors."""

    dtype: torch.dtype
    capturable: bool

    def __call__(self, image: Tensor) -> tuple[Tensor, Tensor]: ...


@dataclass(frozen=True)
class Result:
    """What a run leaves on the device.

    packed   (B, K + 1, 3 + D) float32: x, y, score and descriptor of each keypoint, a score of 0
             where there is none; then a row whose first value is 1 if suppression is not finished
    heatmap  (B, H, W) and
    dense    (B, D, H/8, W/8), to go on from then
    """

    packed: Tensor
    heatmap: Tensor
    dense: Tensor


Work = Callable[[], Result]


class TorchNetwork:
    """The network in torch, in channels_last and a given precision."""

    capturable = True

    def __init__(self, checkpoint: Checkpoint, device: torch.device, dtype: torch.dtype) -> None:
        self.dtype = dtype
        model = fold_norms(checkpoint.build()).to(device, dtype)
        self._model = model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def __call__(self, image: Tensor) -> tuple[Tensor, Tensor]:
        logits, dense = self._model(image.contiguous(memory_format=torch.channels_last))
        return logits, dense


class CudaEngine:
    """Extracts by one graph a shape; a shape seen for the first time costs a capture.

    precision  "float16" or "float32", of the convolutions; all else is float32
    name       as `make_engine` knows it
    network    as `TorchNetwork`, the default
    capture    makes a call that repeats the work; `GraphCapture` where the network allows it

    A capture that fails is given up with one line of warning: the same steps run one by one.
    """

    def __init__(
        self,
        checkpoint: Checkpoint,
        device: torch.device,
        precision: str = "float16",
        name: str = "cudagraph",
        network: Network | None = None,
        capture: Callable[[Work], Work] | None = None,
    ) -> None:
        require_descriptors(checkpoint)
        self.name, self.device, self.precision = name, device, precision
        dtype = torch.float16 if precision == "float16" else torch.float32
        self._network = network or TorchNetwork(checkpoint, device, dtype)
        if capture is None and self._network.capturable:
            capture = GraphCapture(device)
        self._capture = capture
        self._plans: dict[tuple[object, ...], _Plan] = {}
        self._lock = threading.Lock()

    @torch.inference_mode()
    def __call__(
        self,
        pictures: Sequence[NDArray[np.uint8]],
        sizes: Sequence[tuple[int, int]],
        settings: DetectionSettings,
        masks: Masks = None,
    ) -> list[Extraction]:
        """As `TorchEngine.__call__`; pictures of one shape go through together."""
        found: list[Extraction | None] = [None] * len(pictures)
        shapes = [picture.shape for picture in pictures]
        with self._lock:
            for shape in dict.fromkeys(shapes):
                rows = [row for row, other in enumerate(shapes) if other == shape]
                plan = self._plan((len(rows), *shape), settings)
                theirs = None if masks is None else [masks[row] for row in rows]
                together = plan.run([pictures[row] for row in rows], [sizes[row] for row in rows], theirs)
                for row, one in zip(rows, together, strict=True):
                    found[row] = one
        return [one for one in found if one is not None]

    def _plan(self, shape: tuple[int, ...], settings: DetectionSettings) -> _Plan:
        key = (shape, settings)
        plan = self._plans.pop(key, None)
        if plan is None:
            while len(self._plans) >= PLANS:
                del self._plans[next(iter(self._plans))]
            plan = _Plan(self._network, shape, settings, self.device)
            plan.work = self._captured(plan.work)
        self._plans[key] = plan  # the last used comes last
        return plan

    def _captured(self, work: Work) -> Work:
        if self._capture is None:
            return work
        try:
            return self._capture(work)
        except Exception as error:
            # whatever a driver, a library or a full memory comes up with
            logger.warning(
                "A CUDA graph cannot be captured (%s: %s); its steps run one by one.", type(error).__name__, error
            )
            self._capture = None
            return work


class _Plan:
    """Buffers for one shape, and the work from the pictures in them to packed results."""

    def __init__(
        self, network: Network, shape: tuple[int, ...], settings: DetectionSettings, device: torch.device
    ) -> None:
        pinned = device.type == "cuda"
        self._settings = settings
        self._grey_here = torch.zeros(shape, dtype=torch.uint8, pin_memory=pinned)
        self._sizes_here = torch.tensor([shape[1:]] * shape[0], pin_memory=pinned)
        self._grey, self._sizes = self._grey_here.to(device), self._sizes_here.to(device)
        self._hidden = torch.zeros(shape, dtype=torch.bool, device=device)
        self._masked = False
        self._packed_here: Tensor | None = None
        self.work: Work = lambda: extract(network, self._grey, self._sizes, settings, hidden=self._hidden)

    def run(
        self, pictures: Sequence[NDArray[np.uint8]], sizes: Sequence[tuple[int, int]], masks: Masks = None
    ) -> list[Extraction]:
        """Upload, work, and one transfer back."""
        if masks is not None:
            self._hidden.copy_(torch.from_numpy(hidden(masks, pictures[0].shape)))
        elif self._masked:
            self._hidden.zero_()
        self._masked = masks is not None
        np.stack(pictures, out=self._grey_here.numpy())
        self._sizes_here.numpy()[:] = sizes
        self._grey.copy_(self._grey_here, non_blocking=True)
        self._sizes.copy_(self._sizes_here, non_blocking=True)
        result = self.work()
        packed = self._fetched(result.packed)
        if packed[:, -1, 0].any():
            result = Result(finished(result, self._sizes, self._settings), result.heatmap, result.dense)
            packed = self._fetched(result.packed)
        return [_extraction(here, there) for here, there in zip(packed, result.packed, strict=True)]

    def _fetched(self, packed: Tensor) -> NDArray[np.float32]:
        """The packed results in pinned memory, which the next call overwrites."""
        if packed.device.type == "cpu":
            return packed.numpy()
        if self._packed_here is None:
            self._packed_here = torch.empty(packed.shape, pin_memory=True)
        self._packed_here.copy_(packed, non_blocking=True)
        torch.cuda.current_stream(packed.device).synchronize()
        return self._packed_here.numpy()


def load_tensorrt(checkpoint: Checkpoint, device: torch.device, precision: str) -> Network:
    """The network in TensorRT by ONNX Runtime, which builds an engine, in minutes, at each new shape's first run."""
    from superpoint_ros.network.engines.onnx_networks import OnnxRuntimeOnDevice, tensorrt_providers

    folder = cache_folder() / "tensorrt" / checkpoint_key(checkpoint)
    folder.mkdir(parents=True, exist_ok=True)
    providers = tensorrt_providers(device, precision == "float16", folder)
    return OnnxRuntimeOnDevice(cached_onnx(checkpoint), device, providers)


def extract(
    network: Network,
    grey: Tensor,
    sizes: Tensor,
    settings: DetectionSettings,
    rounds: int = ROUNDS,
    hidden: Tensor | None = None,
) -> Result:
    """From (B, H, W) uint8 and (B, 2) int64 heights and widths to `Result`, without waiting for the device.

    hidden  (B, H, W) bool, where keypoints may not be
    """
    logits, dense = network(grey[:, None].to(network.dtype) / 255)
    nothing = flat_dense(grey, sizes)
    heatmap = heatmap_from_logits(logits).masked_fill(nothing if hidden is None else nothing | hidden, 0)
    xy, scores, unfinished = strongest_in_rounds(heatmap, sizes, *settings.choice, rounds)
    return Result(_packed(heatmap, dense, sizes, settings, xy, scores, unfinished), heatmap, dense)


def finished(result: Result, sizes: Tensor, settings: DetectionSettings) -> Tensor:
    """`packed` with as many rounds of suppression as it takes."""
    xy, scores = strongest_dense(result.heatmap, sizes, *settings.choice)
    none = torch.zeros(len(xy), device=xy.device)
    return _packed(result.heatmap, result.dense, sizes, settings, xy, scores, none)


class GraphCapture:
    """Records work on a device as CUDA graphs, which share their scratch memory.

    Sharing is safe because they run one after the other, and what a graph returns is fetched before
    the next one runs.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._stream = torch.cuda.Stream(device)
        self._pool = torch.cuda.graph_pool_handle()

    def __call__(self, work: Work) -> Work:
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


def _packed(
    heatmap: Tensor,
    dense: Tensor,
    sizes: Tensor,
    settings: DetectionSettings,
    xy: Tensor,
    scores: Tensor,
    unfinished: Tensor,
) -> Tensor:
    points = refine(heatmap, xy, sizes) if settings.subpixel else xy.float()
    rows = torch.cat([points, scores[..., None], gather_descriptors(dense, points)], dim=2)
    last = unfinished.float()[:, None, None].expand(-1, 1, rows.shape[2])
    return torch.cat([rows, last], dim=1)


def _extraction(here: NDArray[np.float32], there: Tensor) -> Extraction:
    """One picture's packed results, in host memory and on the device, copied out of the buffers."""
    count = np.count_nonzero(here[:-1, 2] > 0)
    xy, scores, descriptors = (np.array(here[:count, part]) for part in (np.s_[:2], 2, np.s_[3:]))
    return Extraction(xy, scores, descriptors, Resident(descriptors, there[:count, 3:].clone()))
