"""A network in ncnn's own format (BSD-3), from ours, layer by layer; and loaded.

https://github.com/Tencent/ncnn/wiki/param-and-model-file-structure: a line of text for each layer,
and the weights in the order of layers.
"""

from __future__ import annotations

import os
import struct
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from math import prod
from pathlib import Path
from typing import Any

import ncnn  # type: ignore[import-not-found]
import numpy as np
from numpy.typing import NDArray
from torch import Tensor, nn

from superpoint_ros.network.engines.tiles import Margins, Part
from superpoint_ros.network.superpoint import SuperPoint

Map = NDArray[np.float32]

INEXACT = (
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


@dataclass
class Graph:
    """Layers and weights, as they are added."""

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

    def layer(self, model: SuperPoint, name: str, source: str, pool: bool = False, scale: float = 1.0) -> str:
        """Convolution of the input times `scale`, ReLU, perhaps a max-pool, and BatchNorm where the model has it."""
        x = self.convolution(getattr(model, f"conv{name}"), source, name, relu=True, scale=scale)
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

    def convolution(self, conv: nn.Conv2d, source: str, target: str, relu: bool = False, scale: float = 1.0) -> str:
        """A convolution without padding of the input times `scale`, its weights in float32."""
        assert conv.bias is not None
        outputs, inputs, kernel, _ = conv.weight.shape
        self.weights += _tagged(conv.weight * scale) + _float32(conv.bias)
        switches = NO_WINOGRAD if inputs == 1 else 0
        return self.add(
            "Convolution",
            [source],
            [target],
            f"0={outputs} 1={kernel} 5=1 6={conv.weight.numel()} 9={int(relu)} 31={switches}",
        )

    def pixels_of_cells(self, logits: str, side: int) -> str:
        """Softmax over the channels, the last one dropped, then depth to space: (1, side·H, side·W)."""
        x = self.add("Softmax", [logits], ["probability"], "0=0 1=1")
        x = self.add("Crop", [x], ["inside"], f"3=-233 4=-233 5={side * side}")
        return self.add("PixelShuffle", [x], ["pixels"], f"0={side}")

    def vectors(self, conv: nn.Conv2d, source: str, target: str) -> str:
        """A 1×1 convolution whose result has the channels of a pixel side by side: (H·W, channels)."""
        assert conv.bias is not None
        outputs, inputs = conv.weight.shape[:2]
        x = self.add("Reshape", [source], [f"{source}flat"], f"0=-1 1={inputs}")
        self.weights += _tagged(conv.weight) + _tagged(conv.bias)
        # pixels × inputs, read transposed, times outputs × inputs, transposed; the bias for each column
        settings = f"2=1 3=1 5=1 6=1 8={outputs} 9={inputs} 10=4 12=1"
        return self.add("Gemm", [x], [target], settings)

    def text(self) -> str:
        """What the .param file holds."""
        return "\n".join(["7767517", f"{len(self.layers)} {self.blobs}", *self.layers, ""])


class Net:
    """A graph loaded into ncnn, which runs on the thread that calls it: one of some workers, numbered from 0."""

    def __init__(self, graph: Graph, workers: int) -> None:
        self._net = ncnn.Net()
        # ncnn frees a map after its last reader; pools hand it on instead of back to the system. Each worker has its
        # own, whose memory is in its core's cache; and for each graph, as pools hand on what is far too large, too.
        self._pools = [(ncnn.PoolAllocator(), ncnn.PoolAllocator()) for _ in range(workers)]
        options = self._net.opt
        options.num_threads = 1
        for name in INEXACT:
            if hasattr(options, f"use_{name}"):
                setattr(options, f"use_{name}", False)
        with tempfile.TemporaryDirectory() as folder:
            # The functions that read from memory take text only.
            param, weights = Path(folder, "net.param"), Path(folder, "net.bin")
            param.write_text(graph.text())
            weights.write_bytes(bytes(graph.weights))
            if self._net.load_param(os.fspath(param)) or self._net.load_model(os.fspath(weights)):
                raise RuntimeError(f"ncnn {ncnn.__version__} does not load the network")

    def __call__(
        self, worker: int, source: NDArray[Any], outside: Mapping[str, Margins], outputs: Sequence[str]
    ) -> list[Map]:
        """Run on the blob "in"; returns the blobs of some names. Only what they need is computed.

        source   (…, H, W, p), any numbers, as ncnn has it: p channels side by side
        outside  blobs of a margin that becomes 0 before anything else reads it, in the order of layers
        outputs  as they are, too: (C / p, H, W, p) float32; two-dimensional ones (H, W). They are to be
                 copied soon: their memory is the worker's.
        """
        extractor = self._net.create_extractor()
        blobs, scratch = self._pools[worker]
        extractor.set_blob_allocator(blobs)
        extractor.set_workspace_allocator(scratch)
        *counts, height, width, pack = source.shape
        # Memory of ncnn's own is aligned as it needs it.
        mat = ncnn.Mat(width, height, prod(counts), elemsize=4 * pack, elempack=pack, allocator=blobs)
        np.copyto(_view(mat).reshape(source.shape), source)
        extractor.input("in", mat)

        def blob(name: str) -> Map:
            found = ncnn.Mat()  # without one that is given, `extract` returns a copy
            status = extractor.extract(name, found, AS_IT_IS)
            if status:
                raise RuntimeError(f"ncnn failed with status {status} at '{name}'")
            return _view(found)

        for name, margins in outside.items():
            blank(blob(name), margins)
        return [blob(name) for name in outputs]

    def pack(self, part: Part) -> int:
        """How many channels of the blob "out" lie side by side: 16, 8, 4 or 1, as the processor has it."""
        side = 2 * part.reach + 2
        [out] = self(0, np.zeros((part.channels // part.pack, side, side, part.pack), np.float32), {}, ["out"])
        return int(out.shape[-1])


def blank(blob: Map, margins: Margins) -> None:
    """Zero the margins of a (C, H, W, p) blob."""
    above, below, left, right = margins
    height, width = blob.shape[1:3]
    blob[:, :above] = 0
    blob[:, height - below :] = 0
    blob[:, :, :left] = 0
    blob[:, :, width - right :] = 0


def _view(mat: Any) -> Map:
    """numpy's view of an ncnn.Mat, (C, H, W, p) or (H, W); writing to it changes what later layers read."""
    flat, pack = ncnn.Mat(mat), mat.elempack
    flat.elempack, flat.elemsize, flat.w, flat.cstep = 1, 4, mat.w * pack, mat.cstep * pack
    array = np.asarray(flat)
    return array if array.ndim == 2 else array.reshape(*array.shape[:2], mat.w, pack)


AS_IT_IS = 1
"""`extract` without conversion to one channel after the other."""

TAG = struct.pack("<I", 0)
"""Before weights that could be in another type: these are float32."""


def _tagged(values: Tensor) -> bytes:
    return TAG + _float32(values)


def _float32(values: Tensor) -> bytes:
    return np.ascontiguousarray(values.detach().cpu().float().numpy(), "<f4").tobytes()
