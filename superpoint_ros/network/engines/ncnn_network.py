"""The network in ncnn (BSD-3): Winograd convolutions on x86 and ARM, in tiles.

Winograd's F(4×4, 3×3) needs a quarter of the multiplications (Lavin and Gray 2015, arXiv
1509.09308), but its transformed maps are 2.25 times as large as the originals: over a whole picture
they run through main memory, which costs what the multiplications saved. In tiles they stay in a
core's cache. Tiles also are what the threads share out, instead of each layer as ncnn has it, whose
OpenMP threads spin at every layer's end: on a machine with other work that costs more than it gains.

Unpadded convolutions make tiles exact: a tile is read with the pixels around it that its
convolutions reach, and what they compute outside the picture is set to the zeros that their padding
would have been.
"""

from __future__ import annotations

import os
import struct
import tempfile
import threading
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import ncnn  # type: ignore[import-not-found]
import numpy as np
from numpy.typing import NDArray
from torch import Tensor, nn

from superpoint_ros.network.superpoint import (
    DESCRIPTOR_LAYERS,
    DETECTOR_LAYERS,
    SuperPoint,
    fold_norms,
)

Map = NDArray[np.float32]

TILES = ((24, 80), (24, 80), (20, 80), (30, 40))
"""Height and width of each stage's tiles, in pixels of its input: the maps of one, before and after
the transform, fit a core's second-level cache of 2 MB, and are large enough that handing tiles to threads costs little;
the last stage has the heads."""

WORKSPACES = 4
"""Picture sizes whose buffers are kept."""

EXACT = (
    "fp16_packed",
    "fp16_storage",
    "fp16_arithmetic",
    "bf16_packed",
    "bf16_storage",
    "int8_inference",
)
"""Roundings below float32 that ncnn takes by itself where the processor has them."""

NO_WINOGRAD = 1 << 6
"""A layer's switch: with one input channel the transforms cost more than they save."""


class NcnnNetwork:
    """As `SuperPoint.forward` for one picture; safe to call from any thread, one at a time.

    model    in eval mode; its BatchNorms are folded where exact
    threads  how many cores to use
    """

    def __init__(self, model: SuperPoint, threads: int) -> None:
        model = fold_norms(model)
        if model.architecture.stem > 1:
            raise ValueError("a network with a stem is not run in ncnn yet; expected engine torch or an ONNX one")
        self._stages = [_Net(_stage_graph(model, stage)) for stage in (1, 2, 3)]
        self._stages.append(_Net(_last_graph(model)))
        architecture = model.architecture
        self._channels = (1, *architecture.channels[:3])
        self._outputs = (65, architecture.descriptor_dim)
        self._threads = threads
        self._pool = ThreadPoolExecutor(threads) if threads > 1 else None
        self._workspaces: dict[tuple[int, ...], _Workspace] = {}
        self._lock = threading.Lock()

    def __call__(self, picture: NDArray[np.uint8]) -> tuple[Map, Map]:
        """Run on (H, W) uint8 grey, H and W multiples of 8.

        Returns cell logits (65, H/8, W/8) and descriptors (D, H/8, W/8) of unit length, float32.
        """
        cells = picture.shape[0] // 8, picture.shape[1] // 8
        logits, dense = (np.empty((channels, *cells), np.float32) for channels in self._outputs)
        with self._lock:
            work = self._workspace(picture.shape)
            np.multiply(picture, np.float32(1 / 255), out=work.inside(0)[0])
            for stage in range(3):
                self._run(stage, work, {"out": work.inside(stage + 1)})
            self._run(3, work, {"logits": logits, "dense": dense})
        return logits, dense

    def _run(self, stage: int, work: _Workspace, targets: dict[str, Map]) -> None:
        net = self._stages[stage]

        def extract(tile: _Tile) -> None:
            results = net([np.ascontiguousarray(tile.source), *tile.masks], targets)
            for target, found in zip(targets.values(), results, strict=True):
                target[tile.where] = found

        tiles = work.tiles[stage]
        for _ in self._pool.map(extract, tiles) if self._pool else map(extract, tiles):
            pass

    def _workspace(self, shape: tuple[int, ...]) -> _Workspace:
        work = self._workspaces.pop(shape, None)
        if work is None:
            work = _Workspace.of(shape, self._channels, self._threads)
        self._workspaces[shape] = work  # the last used comes last
        while len(self._workspaces) > WORKSPACES:
            del self._workspaces[next(iter(self._workspaces))]
        return work


INPUTS = ("in", "mask1", "mask2")
"""Of a graph; one mask for each convolution but the last."""

REACH = (2, 2, 2, 3)
"""Pixels that each stage's 3×3 convolutions, one after the other, see beyond a tile."""


@dataclass(frozen=True)
class _Tile:
    """A part of a stage's input.

    source  what its convolutions see, in the stage's padded map
    masks   for each convolution but the last: 1 inside the picture, 0 around it
    where   its place in the stage's outputs
    """

    source: Map
    masks: list[Map]
    where: tuple[slice, slice, slice]


@dataclass(frozen=True)
class _Workspace:
    """Buffers for one picture size: fresh memory costs a page fault every 4 KB.

    maps   each stage's input, with `REACH` zeros around it
    tiles  of each stage
    """

    maps: list[Map]
    tiles: list[list[_Tile]]

    @staticmethod
    def of(shape: tuple[int, ...], channels: Sequence[int], threads: int) -> _Workspace:
        maps, tiles = [], []
        for stage, (count, reach) in enumerate(zip(channels, REACH, strict=True)):
            size = shape[0] >> stage, shape[1] >> stage
            padded = np.zeros((count, size[0] + 2 * reach, size[1] + 2 * reach), np.float32)
            maps.append(padded)
            tiles.append(list(_cut(stage, padded, size, threads)))
        return _Workspace(maps, tiles)

    def inside(self, stage: int) -> Map:
        """The picture's part of a stage's input."""
        reach = REACH[stage]
        return self.maps[stage][:, reach:-reach, reach:-reach]


def _cut(stage: int, padded: Map, size: tuple[int, int], threads: int) -> Iterator[_Tile]:
    """A stage's input in tiles of about equal size, as many in a column as make no thread wait."""
    reach, pooled = REACH[stage], int(stage < 3)
    mask = np.zeros((1, *padded.shape[1:]), np.float32)
    mask[:, reach:-reach, reach:-reach] = 1
    # in pixels of the output, so that tiles begin at even pixels where a max-pool follows
    counts = [max(1, round(side / tile)) for side, tile in zip(size, TILES[stage], strict=True)]
    counts[0] = min(-(-counts[0] // threads) * threads, size[0] >> pooled)
    rows, columns = (
        np.linspace(0, side >> pooled, count + 1).astype(int).tolist() for side, count in zip(size, counts, strict=True)
    )
    for top, bottom in zip(rows, rows[1:], strict=False):
        for left, right in zip(columns, columns[1:], strict=False):
            y0, y1, x0, x1 = (edge << pooled for edge in (top, bottom, left, right))
            seen = [
                np.s_[:, y0 + after : y1 + 2 * reach - after, x0 + after : x1 + 2 * reach - after]
                for after in range(reach)
            ]
            masks = [np.ascontiguousarray(mask[part]) for part in seen[1:]]
            yield _Tile(padded[seen[0]], masks, np.s_[:, top:bottom, left:right])


class _Net:
    """A graph loaded into ncnn."""

    def __init__(self, graph: _Graph) -> None:
        self._net = ncnn.Net()
        # ncnn frees a map after its last reader; pools hand it on instead of back to the system.
        self._allocators = ncnn.PoolAllocator(), ncnn.PoolAllocator()
        options = self._net.opt
        options.blob_allocator, options.workspace_allocator = self._allocators
        options.num_threads = 1
        for name in EXACT:
            if hasattr(options, f"use_{name}"):
                setattr(options, f"use_{name}", False)
        with tempfile.TemporaryDirectory() as folder:
            # The functions that read from memory take text only.
            param, weights = Path(folder, "net.param"), Path(folder, "net.bin")
            param.write_text(graph.text())
            weights.write_bytes(bytes(graph.weights))
            if self._net.load_param(os.fspath(param)) or self._net.load_model(os.fspath(weights)):
                raise RuntimeError(f"ncnn {ncnn.__version__} does not load the network")

    def __call__(self, inputs: Sequence[Map], outputs: Iterable[str]) -> list[Map]:
        extractor = self._net.create_extractor()
        # ncnn reads the arrays in place: they must live until the results are there
        for name, array in zip(INPUTS, inputs, strict=False):
            extractor.input(name, ncnn.Mat(array))
        results = []
        for name in outputs:
            status, found = extractor.extract(name)
            if status:
                raise RuntimeError(f"ncnn failed with status {status} at '{name}'")
            results.append(np.asarray(found))
        return results


@dataclass
class _Graph:
    """A network in ncnn's own text format: a line for each layer; weights in the order of layers.

    https://github.com/Tencent/ncnn/wiki/param-and-model-file-structure
    """

    layers: list[str] = field(default_factory=list)
    weights: bytearray = field(default_factory=bytearray)
    blobs: int = 0

    def add(self, kind: str, inputs: Sequence[str], outputs: Sequence[str], values: str = "") -> str:
        """Add a layer; returns the name of its first output."""
        counts = f"{len(inputs)} {len(outputs)}"
        names = " ".join((*inputs, *outputs))
        self.layers.append(f"{kind} {kind}{len(self.layers)} {counts} {names} {values}".rstrip())
        self.blobs += len(outputs)
        return outputs[0]

    def layer(self, model: SuperPoint, name: str, source: str, pool: bool = False) -> str:
        """Convolution, ReLU, then perhaps a max-pool, and BatchNorm where the model has it."""
        x = self.convolution(getattr(model, f"conv{name}"), source, name, relu=True)
        norm = getattr(model, f"bn{name}", None)
        # A max-pool commutes with a rising function, and leaves a quarter of the work.
        rising = norm is None or bool((norm.weight >= 0).all())
        if pool and rising:
            x = self.add("Pooling", [x], [f"{name}pool"], "0=0 1=2 2=2")
        if norm is not None:
            for values in (norm.weight, norm.running_mean, norm.running_var, norm.bias):
                self.weights += _float32(values)
            settings = f"0={norm.num_features} 1={norm.eps}"
            x = self.add("BatchNorm", [x], [f"{name}norm"], settings)
        if pool and not rising:
            x = self.add("Pooling", [x], [f"{name}pool"], "0=0 1=2 2=2")
        return x

    def masked(self, source: str, mask: str) -> str:
        """Zeros where the (1, H, W) mask has them."""
        return self.add("BinaryOp", [source, mask], [f"{source}masked"], "0=2")

    def normalised(self, source: str, target: str) -> str:
        """Each pixel's vector at unit length."""
        self.weights += struct.pack("<f", 1)  # a scale, shared by all channels
        return self.add("Normalize", [source], [target], "0=0 1=1 2=1e-24 3=1 4=1 9=0")

    def convolution(self, conv: nn.Conv2d, source: str, target: str, relu: bool = False) -> str:
        """A convolution without padding, its weights in float32."""
        assert conv.bias is not None
        outputs, inputs, kernel, _ = conv.weight.shape
        self.weights += struct.pack("<I", 0) + _float32(conv.weight) + _float32(conv.bias)
        switches = NO_WINOGRAD if inputs == 1 else 0
        return self.add(
            "Convolution",
            [source],
            [target],
            f"0={outputs} 1={kernel} 5=1 6={conv.weight.numel()} 9={int(relu)} 31={switches}",
        )

    def text(self) -> str:
        return "\n".join(["7767517", f"{len(self.layers)} {self.blobs}", *self.layers, ""])


def _stage_graph(model: SuperPoint, stage: int) -> _Graph:
    graph = _Graph()
    x = graph.add("Input", [], ["in"])
    mask = graph.add("Input", [], ["mask1"])
    x = graph.masked(graph.layer(model, f"{stage}a", x), mask)
    graph.add("Noop", [graph.layer(model, f"{stage}b", x, pool=True)], ["out"])
    return graph


def _last_graph(model: SuperPoint) -> _Graph:
    """Stage 4 and the heads; the descriptors are normalised here, while they are in the cache."""
    graph = _Graph()
    x = graph.add("Input", [], ["in"])
    for name, mask in (("4a", "mask1"), ("4b", "mask2")):
        x = graph.masked(graph.layer(model, name, x), graph.add("Input", [], [mask]))
    graph.add("Split", [x], ["detector", "descriptor"])
    x = graph.layer(model, DETECTOR_LAYERS[0], "detector")
    graph.convolution(getattr(model, f"conv{DETECTOR_LAYERS[1]}"), x, "logits")
    x = graph.layer(model, DESCRIPTOR_LAYERS[0], "descriptor")
    x = graph.convolution(getattr(model, f"conv{DESCRIPTOR_LAYERS[1]}"), x, "unscaled")
    graph.normalised(x, "dense")
    return graph


def _float32(values: Tensor) -> bytes:
    return np.ascontiguousarray(values.detach().cpu().float().numpy(), "<f4").tobytes()
