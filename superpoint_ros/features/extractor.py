"""Images to keypoints and descriptors: the class people use."""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from superpoint_ros.features.image import (
    as_grey,
    check_resize,
    pixel_scale,
    resize_image,
    target_size,
    to_source_pixels,
)
from superpoint_ros.features.pyramid import Size, check_scales, level_sizes, share_out
from superpoint_ros.network.checkpoint import Checkpoint, load_checkpoint
from superpoint_ros.network.engines.choice import CUDA_ENGINES, make_engine
from superpoint_ros.network.engines.devices import DeviceUnusable, choose_device
from superpoint_ros.network.engines.engine import ENGINES, Extraction, Masks, pad_to_cells
from superpoint_ros.network.engines.parity import Engine
from superpoint_ros.network.heatmap import DetectionSettings
from superpoint_ros.network.superpoint import CELL

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Features:
    """The keypoints and descriptors of one image.

    xy           (N, 2) float32, pixels of the source image; x right, y down, (0, 0) the centre of
                 the first pixel
    scores       (N,) float32, descending, the probability of a keypoint at that pixel
    descriptors  (N, D) float32, unit length
    size         (height, width) of the source image
    scales       (N,) float32, above 0: source pixels to a network pixel where the keypoint was found,
                 so its position's error is in proportion; ones if they are not given
    """

    xy: NDArray[np.float32]
    scores: NDArray[np.float32]
    descriptors: NDArray[np.float32]
    size: tuple[int, int]
    scales: NDArray[np.float32] = field(default=None, kw_only=True)  # type: ignore[arg-type]

    def __post_init__(self) -> None:
        if self.scales is None:
            object.__setattr__(self, "scales", np.ones(len(self.xy), np.float32))
        elif self.scales.shape != (len(self.xy),):
            raise ValueError(f"scales has shape {self.scales.shape}, expected ({len(self.xy)},), one a keypoint")

    def __len__(self) -> int:
        return len(self.xy)

    def rows(self, chosen: NDArray[np.integer]) -> Features:
        """The keypoints of these rows, in this order."""
        parts = self.xy[chosen], self.scores[chosen], self.descriptors[chosen]
        return Features(*parts, self.size, scales=self.scales[chosen])


class Extractor:
    """SuperPoint keypoints and descriptors of images.

    weights              a file (see `network.checkpoint`), or a name: "default", which None is, too, or "fast",
                         for a CPU (see `superpoint weights list`); or a `Checkpoint`, weights that are in memory
    device               "auto", "cpu", "cuda" or "cuda:N"
    engine               "auto" (see `network.engines.choice`), "torch"; on the CPU "ncnn", "openvino" or
                         "onnxruntime"; on CUDA "cudagraph" or "tensorrt"
    precision            "auto", "float32", or "float16" (CUDA only)
    max_keypoints        the strongest are kept
    detection_threshold  of the keypoint probability, in [0, 1)
    nms_radius           pixels at network resolution
    border               pixels at network resolution in which nothing is detected
    resize               None, the longer side in pixels, or (height, width); results stay in
                         source pixels
    subpixel             refine keypoints within the pixel
    scales               sizes at which a picture goes through the network, relative to `resize`, the largest
                         first, or a name in `pyramid.PRESETS`; `max_keypoints` is of all of them together,
                         `nms_radius` and `border` are pixels of each

    A GPU that is there but cannot be used is left to "auto" with a line of warning, and the CPU used; one that lacks
    memory is left for as long as it does. `trouble` says so.

    Raises ValueError or FileNotFoundError for a bad argument or weights file, RuntimeError for an
    engine whose package is not installed, DeviceUnusable for a device that is asked for by name and
    is missing or cannot be used. `settings`, `resize` and `scales` may be
    replaced at any time, from any thread; the next call uses them.
    """

    def __init__(
        self,
        weights: str | os.PathLike[str] | Checkpoint | None = None,
        device: str = "auto",
        engine: str = "auto",
        precision: str = "auto",
        max_keypoints: int = 1024,
        detection_threshold: float = 0.005,
        nms_radius: int = 4,
        border: int = 4,
        resize: int | tuple[int, int] | None = None,
        subpixel: bool = False,
        scales: str | float | Sequence[float] = (1.0,),
    ) -> None:
        if engine not in ENGINES:
            raise ValueError(f"engine must be one of {', '.join(ENGINES)}, got {engine!r}")
        self.settings = DetectionSettings(max_keypoints, detection_threshold, nms_radius, border, subpixel)
        self.resize = check_resize(resize)
        self.scales = check_scales(scales)
        checkpoint = weights if isinstance(weights, Checkpoint) else load_checkpoint(weights)
        self._unusable = ""
        try:
            self._engine = make_engine(checkpoint, choose_device(device), engine, precision)
        except DeviceUnusable as error:
            if device != "auto":
                raise
            self._unusable = str(error)
            logger.warning("%s; the CPU is used.", error)
            self._engine = _engine_for_cpu(checkpoint, engine)
        self.weights_id = checkpoint.weights_id
        self.descriptor_dim = checkpoint.architecture.descriptor_dim

    @property
    def device(self) -> str:
        """Where the network runs: "cpu" or "cuda:N"."""
        return str(self._engine.device)

    @property
    def engine(self) -> str:
        """What runs the network, with its precision, as in "torch float32"."""
        return f"{self._engine.name} {self._engine.precision}"

    @property
    def trouble(self) -> str:
        """Why the CPU does a GPU's work, in words; empty where it does not."""
        return self._unusable or getattr(self._engine, "trouble", "")

    @property
    def batches(self) -> bool:
        """Whether a batch takes less time than its images one by one: on a GPU."""
        return str(self._engine.device) != "cpu"

    def __call__(self, image: NDArray[np.uint8]) -> Features:
        """Extract from one image: (H, W) grey or (H, W, 3) BGR, uint8, at least 16×16.

        Raises ValueError for any other, saying what was given.
        """
        return self.batch([image])[0]

    def prepare(self, size: Size, count: int) -> float:
        """Make what up to `count` images of (height, width) at a time need of a GPU, seconds of work that the first of
        them would wait for; returns the seconds it took, 0 where there is nothing to do."""
        prepare = getattr(self._engine, "prepare", None)
        if prepare is None:
            return 0.0
        sizes = level_sizes(target_size(size, self.resize), self.scales)
        return sum(prepare(_padded(each), count, self.settings) for each in sizes)

    def batch(self, images: Sequence[NDArray[np.uint8]], masks: Masks = None) -> list[Features]:
        """Extract from several images, of equal or unequal sizes; in one forward pass on a GPU.

        masks  for each image where keypoints may be, (H, W) bool as the image, or None: everywhere

        Each image's result is what it would be alone, within rounding. Raises ValueError that
        names the image.
        """
        if len(images) == 0:
            return []
        greys = []
        for index, image in enumerate(images):
            try:
                greys.append(as_grey(image))
            except ValueError as error:
                raise ValueError(f"images[{index}]: {error}" if len(images) > 1 else str(error)) from None
        sources = [grey.shape for grey in greys]
        masks = [None] * len(greys) if masks is None else masks
        if len(masks) != len(greys):
            raise ValueError(f"{len(masks)} masks are given for {len(greys)} images; expected one for each, or None")
        resize, settings = self.resize, self.settings
        sizes = [level_sizes(target_size(size, resize), self.scales) for size in sources]
        levels: list[list[Features]] = [[] for _ in greys]
        # A level of all images after the other: only pictures of one size should go through the network together.
        for level in range(max(len(each) for each in sizes)):
            rows = [row for row, each in enumerate(sizes) if level < len(each)]
            fitting = [sizes[row][level] for row in rows]
            pictures = [pad_to_cells(resize_image(greys[row], size)) for row, size in zip(rows, fitting, strict=True)]
            allowed = [_fitted(masks[row], sources[row], size) for row, size in zip(rows, fitting, strict=True)]
            where = () if all(mask is None for mask in allowed) else (allowed,)
            found = self._engine(pictures, fitting, settings, *where)
            for row, size, one in zip(rows, fitting, found, strict=True):
                levels[row].append(_features(one, sources[row], size))
        return [_joined(*one, settings.max_keypoints) for one in zip(levels, sizes, strict=True)]


def _engine_for_cpu(checkpoint: Checkpoint, engine: str) -> Engine:
    """What comes closest to an engine that was meant for a GPU."""
    return make_engine(checkpoint, choose_device("cpu"), "auto" if engine in CUDA_ENGINES else engine)


def _features(found: Extraction, source: Size, size: Size) -> Features:
    """What was found in a picture of `size`, in pixels of the source."""
    scales = np.full(len(found.xy), pixel_scale(source, size), np.float32)
    xy = to_source_pixels(found.xy, source, size)
    return Features(xy, found.scores, found.descriptors, source, scales=scales)


def _joined(levels: Sequence[Features], sizes: Sequence[Size], limit: int) -> Features:
    """The strongest of each level as one; of equal scores the finer level's comes first."""
    if len(levels) == 1:
        return levels[0]
    kept = share_out([len(level) for level in levels], sizes, limit)
    scores = np.concatenate([level.scores[:count] for level, count in zip(levels, kept, strict=True)])
    order = np.argsort(-scores, kind="stable")

    def together(name: str) -> NDArray[np.float32]:
        parts = [getattr(level, name)[:count] for level, count in zip(levels, kept, strict=True)]
        return np.asarray(np.concatenate(parts)[order])

    arrays = together("xy"), scores[order], together("descriptors")
    return Features(*arrays, levels[0].size, scales=together("scales"))


def _padded(size: Size) -> Size:
    """Whole cells, as `pad_to_cells` makes them."""
    return -(-size[0] // CELL) * CELL, -(-size[1] // CELL) * CELL


def _fitted(mask: NDArray[np.bool_] | None, source: tuple[int, int], size: tuple[int, int]) -> NDArray[np.bool_] | None:
    """A mask of an image as the engine takes it, of `size` (height, width) and padded.

    A pixel is allowed if all that it covers of the image is. Raises ValueError for a mask of another shape.
    """
    if mask is None:
        return None
    if mask.shape != source:
        raise ValueError(f"mask has shape {mask.shape}, its image {source}")
    grey = np.where(mask, np.uint8(255), np.uint8(0))
    return pad_to_cells(resize_image(grey, size)) == 255
