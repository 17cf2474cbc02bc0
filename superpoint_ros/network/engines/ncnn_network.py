"""The network in ncnn (BSD-3): Winograd convolutions on x86 and ARM, in tiles.

Winograd's F(4×4, 3×3) needs a quarter of the multiplications (Lavin and Gray 2015, arXiv
1509.09308), but its transformed maps are 2.25 times as large as the originals: over a whole picture
they run through main memory, which costs what the multiplications saved. In tiles they stay in a
core's cache. Tiles also are what the threads share out, instead of each layer as ncnn has it, whose
OpenMP threads spin at every layer's end: on a machine with other work that costs more than it gains.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from functools import partial

import numpy as np
from numpy.typing import NDArray

from superpoint_ros.network.engines.ncnn_graph import Graph, Net
from superpoint_ros.network.engines.tiles import Part, Tile, Workspace, Workspaces
from superpoint_ros.network.engines.workers import Workers
from superpoint_ros.network.superpoint import CELL, DESCRIPTOR_LAYERS, DETECTOR_LAYERS, SuperPoint, fold_norms

Map = NDArray[np.float32]

TILE_FLOATS = 192 * 1024
"""Pixels of a tile times its part's most channels. Measured with 64 to 128 and with 16 to 64 channels on a processor
with 512 KB of second-level cache a core: a third or twice as many cost 5 to 15 % (docs/performance.md)."""

MEMORY = 1 << 28
"""Bytes of buffers that are kept from call to call."""


class NcnnNetwork:
    """As `SuperPoint.forward` for one picture; safe to call from any thread, one at a time.

    model    in eval mode, with a descriptor head; its BatchNorms are folded where exact
    threads  how many cores to use
    """

    def __init__(self, model: SuperPoint, threads: int) -> None:
        model = fold_norms(model)
        architecture = model.architecture
        self._dim = architecture.descriptor_dim
        self._workers = Workers(threads)
        self._nets: list[Net] = []
        self._layers: list[list[str]] = []
        parts: list[Part] = []
        stem = architecture.stem
        channels, pack = stem**2, 1
        # Stages with no max-pool between them are one part.
        for stages in [range(1, stem + 1), *([stage] for stage in range(stem + 1, 5))]:
            heads = stages[-1] == 4
            graph, layers = _graph(model, [f"{stage}{letter}" for stage in stages for letter in "ab"], heads)
            widest = max(architecture.channels[stage - 1] for stage in stages)
            parts.append(Part(channels, pack, stages[-1] - 1, len(layers) + 1, int(not heads), TILE_FLOATS // widest))
            self._nets.append(Net(graph, threads))
            self._layers.append(layers)
            if not heads:
                channels = architecture.channels[stages[-1] - 1]
                pack = self._nets[-1].pack(parts[-1])
        self._workspaces = Workspaces(lambda shape: Workspace.of(shape, parts, threads), MEMORY)
        self._lock = threading.Lock()

    def __call__(self, picture: NDArray[np.uint8]) -> tuple[Map, Map]:
        """Run on (H, W) uint8 grey, H and W multiples of 8.

        Returns each pixel's keypoint probability (H, W) and each cell's descriptor (H/8, W/8, D),
        not of unit length; float32.
        """
        heatmap = np.empty(picture.shape, np.float32)
        cells = np.empty((picture.shape[0] // CELL, picture.shape[1] // CELL, self._dim), np.float32)

        def keep(where: tuple[slice, slice], pixels: Map, vectors: Map) -> None:
            rows, columns = where
            heatmap[_of_pixels(rows), _of_pixels(columns)] = pixels[0, ..., 0]
            part = cells[where]
            part[:] = vectors.reshape(part.shape)

        self._run(picture, ("pixels", "vectors"), keep)
        return heatmap, cells

    def logits_and_descriptors(self, picture: NDArray[np.uint8]) -> tuple[Map, Map]:
        """As `SuperPoint.forward`: cell logits (65, H/8, W/8) and descriptors (D, H/8, W/8) of unit length."""
        shape = picture.shape[0] // CELL, picture.shape[1] // CELL
        logits, cells = np.empty((CELL * CELL + 1, *shape), np.float32), np.empty((*shape, self._dim), np.float32)

        def keep(where: tuple[slice, slice], answers: Map, vectors: Map) -> None:
            logits[:, where[0], where[1]] = answers[..., 0]
            part = cells[where]
            part[:] = vectors.reshape(part.shape)

        self._run(picture, ("logits", "vectors"), keep)
        length = np.sqrt(np.einsum("yxd,yxd->yx", cells, cells))
        cells /= np.maximum(length, np.float32(1e-12))[..., None]
        return logits, np.ascontiguousarray(cells.transpose(2, 0, 1))

    def _run(self, picture: NDArray[np.uint8], outputs: Sequence[str], keep: Callable[..., None]) -> None:
        """Run all parts; `keep` is given the place of each tile of the last, in cells, and the blobs named."""
        with self._lock:
            work = self._workspaces((picture.shape[0], picture.shape[1]))
            np.copyto(work.picture, picture)
            for part, target in enumerate(work.inputs):
                self._each(part, work.tiles[part], ("out",), partial(_fill, target))
            self._each(len(self._nets) - 1, work.tiles[-1], outputs, keep)

    def _each(self, part: int, tiles: Sequence[Tile], outputs: Sequence[str], keep: Callable[..., None]) -> None:
        net, layers = self._nets[part], self._layers[part]

        def extract(worker: int, tile: Tile) -> None:
            outside = {name: margins for name, margins in zip(layers, tile.outside, strict=True) if any(margins)}
            keep(tile.where, *net(worker, tile.source, outside, outputs))

        self._workers(tiles, extract)


def _fill(target: Map, where: tuple[slice, slice], found: Map) -> None:
    target[:, where[0], where[1]] = found


def _of_pixels(cells: slice) -> slice:
    return slice(cells.start * CELL, cells.stop * CELL)


def _graph(model: SuperPoint, layers: Sequence[str], heads: bool) -> tuple[Graph, list[str]]:
    """From "in" through layers to "out" or to what the heads answer; and the blobs that other 3×3 convolutions read,
    which want zeros outside of the picture."""
    graph = Graph()
    x = graph.add("Input", [], ["in"])
    read = []
    for name in layers:
        scale = 1 / 255 if name == "1a" else 1.0  # pixels are 0 to 255
        x = graph.layer(model, name, x, pool=name == layers[-1] and not heads, scale=scale)
        read.append(x)
    if not heads:
        graph.add("Noop", [x], ["out"])
        return graph, read[:-1]
    graph.add("Split", [x], ["detector", "descriptor"])
    x = graph.layer(model, DETECTOR_LAYERS[0], "detector")
    graph.convolution(getattr(model, f"conv{DETECTOR_LAYERS[1]}"), x, "answers")
    graph.add("Split", ["answers"], ["logits", "scores"])
    graph.pixels_of_cells("scores", CELL)
    x = graph.layer(model, DESCRIPTOR_LAYERS[0], "descriptor")
    graph.vectors(getattr(model, f"conv{DESCRIPTOR_LAYERS[1]}"), x, "vectors")
    return graph, read
