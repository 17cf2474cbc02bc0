"""Times of engines, taken in turns: what else the machine does then slows all of them alike."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import cv2
import numpy as np
import torch
from numpy.typing import NDArray

from superpoint_ros.features.extractor import Extractor, Features
from superpoint_ros.features.homography import estimate_homography
from superpoint_ros.features.levels import levels_for
from superpoint_ros.features.matching import match
from superpoint_ros.features.pyramid import Size, level_sizes
from superpoint_ros.features.refinement import refine_matches
from superpoint_ros.network.checkpoint import Checkpoint
from superpoint_ros.network.descriptors import sample_descriptors
from superpoint_ros.network.engines.cpu_engine import CpuEngine
from superpoint_ros.network.engines.parity import Engine, built_in_picture, compare
from superpoint_ros.network.engines.torch_network import TorchNetwork
from superpoint_ros.network.heatmap import DetectionSettings, detect, flat, heatmap_from_logits
from superpoint_ros.network.peaks import sample
from superpoint_ros.network.superpoint import CELL
from superpoint_ros.tools.bench.reference import Reference

SETTLED = 0.02
"""Seconds before an engine is timed: OpenMP's threads spin for milliseconds after their work is done, on the cores that
the next engine in turn would use."""
MOTION = np.array([[0.995, -0.02, 6.0], [0.02, 0.995, -4.0], [1e-5, -1e-5, 1.0]])


@dataclass(frozen=True)
class Timing:
    """Of one engine at one size and batch, per call; milliseconds.

    wall    median time
    cpu     median processor time of all threads; the better figure on a machine with other work
    ratio   median over the rounds of the reference's wall time over this engine's
    cpu_ratio  the same of processor time
    busy    median wall time of calls one right after the other, engine by engine; the others come rested, as a camera's
            images do
    same    part of the keypoints on the same pixel as the reference's
    cosine  mean similarity of their descriptors
    """

    engine: str
    size: tuple[int, int]
    batch: int
    wall: float
    cpu: float
    ratio: float
    cpu_ratio: float
    busy: float
    same: float
    cosine: float


def compare_engines(
    reference: Reference,
    engines: Sequence[Engine],
    size: tuple[int, int],
    batch: int,
    rounds: int,
    settings: DetectionSettings,
) -> list[Timing]:
    """Run the reference and each engine `rounds` times in turns, on `batch` pictures of `size`.

    Settings as given, so that all do the same work. The first is the reference's own row.
    """
    pictures = [built_in_picture(size, seed) for seed in range(batch)]
    arguments = (pictures, [size] * batch, settings)
    runs: list[Engine | Reference] = [reference, *engines]
    found = [run(*arguments) for run in runs]  # also warms up
    tasks = [partial(run, *arguments) for run in runs]
    times = np.array([[elapsed_at_rest(task) for task in tasks] for _ in range(rounds)])
    busy = [np.median([_elapsed(task)[0] for _ in range(max(rounds // 2, 1))]) * 1e3 for task in tasks]
    rows = []
    for index, run in enumerate(runs):
        parities = [compare(a, b, 0) for a, b in zip(found[0], found[index], strict=True)]
        wall, cpu = np.median(times[:, index], axis=0) * 1e3
        ratio, cpu_ratio = np.median(times[:, 0] / times[:, index], axis=0)
        same = min(parity.same for parity in parities)
        cosine = min(parity.cosine for parity in parities)
        name = f"{run.name} {run.precision}"
        rows.append(Timing(name, size, batch, wall, cpu, ratio, cpu_ratio, busy[index], same, cosine))
    return rows


def stages(
    engine: Engine | Reference,
    network: TorchNetwork | None,
    size: tuple[int, int],
    rounds: int,
    settings: DetectionSettings,
) -> dict[str, float]:
    """Median milliseconds of each step on one picture, synchronised between steps.

    network  of an engine on a GPU, whose steps are run one by one
    """
    picture = built_in_picture(size)
    taken: dict[str, list[float]] = {}
    for _ in range(rounds + 1):
        watch = _Stopwatch(taken, engine.device)
        with torch.inference_mode():
            if isinstance(engine, Reference):
                _reference_stages(engine, picture, settings, watch)
            elif isinstance(engine, CpuEngine):
                _cpu_stages(engine, picture, settings, watch)
            elif network is not None:
                _gpu_stages(engine.device, network, picture, settings, watch)
    return {name: float(np.median(values[1:]) * 1e3) for name, values in taken.items()}


class _Stopwatch:
    def __init__(self, taken: dict[str, list[float]], device: torch.device) -> None:
        self._taken, self._device = taken, device
        self._last = time.perf_counter()

    def __call__(self, name: str) -> None:
        if self._device.type == "cuda":
            torch.cuda.synchronize(self._device)
        now = time.perf_counter()
        self._taken.setdefault(name, []).append(now - self._last)
        self._last = time.perf_counter()


def _reference_stages(
    reference: Reference,
    picture: NDArray[np.uint8],
    settings: DetectionSettings,
    watch: _Stopwatch,
) -> None:
    image = reference.upload([picture])
    watch("upload")
    logits, dense = reference.model(image)
    watch("network")
    [(xy, scores)] = reference.keypoints(logits, settings)
    watch("NMS + top-k")
    descriptors = reference.sample(xy, dense[0])
    watch("sampling")
    _ = xy.cpu(), scores.cpu(), descriptors.cpu()
    watch("download")


def _cpu_stages(
    engine: CpuEngine,
    picture: NDArray[np.uint8],
    settings: DetectionSettings,
    watch: _Stopwatch,
) -> None:
    heatmap, cells = engine.network(picture)
    watch("network")
    xy, _ = engine.locate(heatmap, picture, picture.shape, settings)
    watch("NMS + top-k")
    sample(cells, xy.astype(np.float32))
    watch("sampling")


def _gpu_stages(
    device: torch.device,
    network: TorchNetwork,
    picture: NDArray[np.uint8],
    settings: DetectionSettings,
    watch: _Stopwatch,
) -> None:
    grey = torch.from_numpy(picture)[None].to(device)
    extent = torch.tensor([picture.shape], device=device)
    watch("upload")
    logits, dense = network(grey)
    watch("network")
    heatmap = heatmap_from_logits(logits).masked_fill_(flat(grey, extent), 0)
    found = detect(heatmap, extent, settings)
    watch("NMS + top-k")
    descriptors = sample_descriptors(dense, found.xy)
    watch("sampling")
    _ = found.xy.cpu(), found.scores.cpu(), descriptors.cpu()
    watch("download")


def matching_times(engine: Engine, count: int, rounds: int) -> dict[str, float]:
    """Median milliseconds of `match`, of the matrix product in it alone, of `estimate_homography` without and with
    pictures, and of `refine_matches` of 500 matches.

    Between two views of one picture; as in the node, the levels of the first are at hand.

    count  keypoints in each view: the strongest of a picture that has more
    """
    size = (480, 640)
    first = built_in_picture(size)
    second = cv2.warpPerspective(first, MOTION, (size[1], size[0])).astype(np.uint8)
    settings = DetectionSettings(max_keypoints=count, detection_threshold=0.0005)
    found = engine([first, second], [size, size], settings)
    f0, f1 = (Features(one.xy, one.scores, one.descriptors, size) for one in found)
    matches = match(f0, f1)
    d0, d1 = (torch.from_numpy(f.descriptors) for f in (f0, f1))
    product, levels = torch.empty(len(f0), len(f1)), levels_for(f0, first)
    tasks: Mapping[str, Callable[[], object]] = {
        "match": lambda: match(f0, f1),
        "product": lambda: torch.mm(d0, d1.T, out=product),
        "homography": lambda: estimate_homography(f0, f1, matches),
        "refined": lambda: estimate_homography(f0, f1, matches, images=(levels, second)),
        "refine_500": lambda: refine_matches(f0, f1, matches[:500], (levels, second)),
    }
    taken = np.array([[_elapsed(task) for task in tasks.values()] for _ in range(rounds)])
    figures = dict(zip(tasks, np.median(taken[:, :, 0], axis=0) * 1e3, strict=True))
    cpu = dict(zip(tasks, np.median(taken[:, :, 1], axis=0) * 1e3, strict=True))
    return {
        **{name: float(value) for name, value in figures.items()},
        **{f"{name}_cpu": float(value) for name, value in cpu.items()},
        "keypoints": float(min(len(f0), len(f1))),
        "matches": float(len(matches)),
    }


def level_times(extractor: Extractor, size: Size, scales: Sequence[float], rounds: int) -> dict[str, float]:
    """What a picture at several scales costs beside one, taken in turns.

    Returns milliseconds of `single` and `levels`, the medians over the rounds of their `ratio` and `cpu_ratio`, and
    the ratio of their `pixels`, padding included.
    """
    picture = built_in_picture(size)
    pixels = []
    for each in ((1.0,), tuple(scales)):
        padded = [-(-height // CELL) * -(-width // CELL) for height, width in level_sizes(size, each)]
        pixels.append(sum(padded))

    def extract(chosen: Sequence[float]) -> None:
        extractor.scales = tuple(chosen)
        extractor(picture)

    tasks = [partial(extract, (1.0,)), partial(extract, scales)]
    for task in tasks:
        task()  # warms up
    times = np.array([[elapsed_at_rest(task) for task in tasks] for _ in range(rounds)])
    single, levels = np.median(times[:, :, 0], axis=0) * 1e3
    ratio, cpu_ratio = np.median(times[:, 1] / times[:, 0], axis=0)
    return {
        "single": float(single),
        "levels": float(levels),
        "ratio": float(ratio),
        "cpu_ratio": float(cpu_ratio),
        "pixels": pixels[1] / pixels[0],
    }


def multiplications(checkpoint: Checkpoint, size: tuple[int, int]) -> int:
    """Multiply-accumulates of the network's convolutions, as the definition has them."""
    height, width = size
    total, stem = 0, checkpoint.architecture.stem
    for name, tensor in checkpoint.state.items():
        if not name.startswith("conv") or not name.endswith(".weight"):
            continue
        layer = name[len("conv") : -len(".weight")]
        scale = max(2 ** (int(layer[0]) - 1), stem) if layer[0].isdigit() else CELL
        total += tensor.numel() * (height // scale) * (width // scale)
    return total


def matrix_rate(device: torch.device, dtype: torch.dtype = torch.float32) -> float:
    """Multiply-accumulates per second of a large matrix product, the best of several."""
    side = 1024 if device.type == "cpu" else 8192
    a, b = (torch.rand(side, side, device=device, dtype=dtype) for _ in range(2))

    def multiply() -> None:
        torch.mm(a, b)
        if device.type == "cuda":
            torch.cuda.synchronize(device)

    multiply()
    if device.type == "cpu":
        # By processor time, so that other programs do not count.
        return side**3 / min(_elapsed(multiply)[1] for _ in range(20)) * torch.get_num_threads()
    return side**3 / min(_elapsed(multiply)[0] for _ in range(10))


def elapsed_at_rest(call: Callable[[], object]) -> tuple[float, float]:
    """Wall and processor time of a call, seconds, begun when no other engine's threads spin any more."""
    time.sleep(SETTLED)
    return _elapsed(call)


def _elapsed(call: Callable[[], object]) -> tuple[float, float]:
    """Wall and processor time of a call, seconds."""
    wall, cpu = time.perf_counter(), time.process_time()
    call()
    return time.perf_counter() - wall, time.process_time() - cpu
