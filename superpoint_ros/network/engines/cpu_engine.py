"""Engines that run the network on the CPU, one picture at a time, and everything after it in numpy."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from superpoint_ros.network.checkpoint import Checkpoint
from superpoint_ros.network.engines.engine import Extraction, Masks, require_descriptors
from superpoint_ros.network.engines.onnx_file import cached_onnx
from superpoint_ros.network.heatmap import DetectionSettings, refine
from superpoint_ros.network.peaks import FLAT_RADIUS, blank, cells_of, heatmap_of, sample, strongest_peaks
from superpoint_ros.network.superpoint import fold_norms

Map = NDArray[np.float32]
Network = Callable[[NDArray[np.uint8]], tuple[Map, Map]]
"""(H, W) uint8 grey, multiples of 8, to the heatmap (H, W) and each cell's descriptor (H/8, W/8, D), of any length."""

PACKAGES = {
    "ncnn": ("ncnn",),
    "openvino": ("openvino", "onnx"),
    "onnxruntime": ("onnxruntime", "onnx"),
}
"""What each engine needs installed; the fastest first, as measured (docs/performance.md)."""


class CpuEngine:
    """A network that takes a picture at a time, and its outputs made keypoints.

    name        one of `PACKAGES`, or "torch"
    checkpoint  the weights

    Raises ImportError naming the package that is missing.
    """

    device = torch.device("cpu")
    precision = "float32"

    def __init__(self, name: str, checkpoint: Checkpoint) -> None:
        require_descriptors(checkpoint)
        self.name = name
        self.network = load_network(name, checkpoint, torch.get_num_threads())

    @torch.inference_mode()
    def __call__(
        self,
        pictures: Sequence[NDArray[np.uint8]],
        sizes: Sequence[tuple[int, int]],
        settings: DetectionSettings,
        masks: Masks = None,
    ) -> list[Extraction]:
        """As `torch_engine.TorchEngine.__call__`; a picture's result never depends on the others'."""
        masks = [None] * len(pictures) if masks is None else masks
        return [self._extract(*one, settings) for one in zip(pictures, sizes, masks, strict=True)]

    def _extract(
        self,
        picture: NDArray[np.uint8],
        size: tuple[int, int],
        mask: NDArray[np.bool_] | None,
        settings: DetectionSettings,
    ) -> Extraction:
        picture = np.ascontiguousarray(picture)
        heatmap, cells = self.network(picture)
        xy, heatmap = self.locate(heatmap, picture, size, settings, mask)
        scores = heatmap[xy[:, 1], xy[:, 0]]
        points = xy.astype(np.float32)
        if settings.subpixel:
            maps = torch.from_numpy(heatmap)[None], torch.from_numpy(xy)[None]
            points = refine(*maps, torch.tensor([size]))[0].numpy()
        return Extraction(points, scores, sample(cells, points))

    @staticmethod
    def locate(
        heatmap: Map,
        picture: NDArray[np.uint8],
        size: tuple[int, int],
        settings: DetectionSettings,
        mask: NDArray[np.bool_] | None = None,
    ) -> tuple[NDArray[np.int64], Map]:
        """(N, 2) pixels x and y, the strongest first, and the (H, W) heatmap they come from, zero where
        none may be: the one given, or a part of it, changed in place."""
        heatmap = heatmap[: size[0], : size[1]]
        heatmap[blank(picture[: size[0], : size[1]], FLAT_RADIUS)] = 0
        if mask is not None:
            heatmap[~mask[: size[0], : size[1]]] = 0
        xy, _ = strongest_peaks(heatmap, *settings.choice)
        return xy, heatmap


def load_network(name: str, checkpoint: Checkpoint, threads: int) -> Network:
    """The bare network of an engine. Raises ImportError where a package is missing."""
    if name == "torch":
        return _TorchOnCpu(checkpoint)
    if name == "ncnn":
        from superpoint_ros.network.engines.ncnn_network import NcnnNetwork

        return NcnnNetwork(checkpoint.build(), threads)
    from superpoint_ros.network.engines import onnx_networks

    content = cached_onnx(checkpoint)
    if name == "onnxruntime":
        return onnx_networks.OnnxRuntimeNetwork(content, threads)
    return onnx_networks.OpenVinoNetwork(content, threads)


class _TorchOnCpu:
    """`SuperPoint` itself, where nothing faster is installed, and as what the others must agree with."""

    def __init__(self, checkpoint: Checkpoint) -> None:
        # channels_last: 117 ms instead of 161 at 320×240 on two CPU cores
        self._model = fold_norms(checkpoint.build()).to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def __call__(self, picture: NDArray[np.uint8]) -> tuple[Map, Map]:
        # torch.tensor copies; of a picture that lies in a message, read-only, from_numpy would warn
        image = torch.tensor(picture)[None, None].float().contiguous(memory_format=torch.channels_last) / 255
        logits, dense = self._model(image)
        return heatmap_of(logits[0].contiguous().numpy()), cells_of(dense[0].contiguous().numpy())
