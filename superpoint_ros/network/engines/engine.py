"""Run the network and everything after it on one device: grey pictures in, packed keypoints out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from superpoint_ros.network.checkpoint import Checkpoint
from superpoint_ros.network.descriptors import sample_descriptors
from superpoint_ros.network.heatmap import DetectionSettings, detect, flat, heatmap_from_logits
from superpoint_ros.network.superpoint import CELL, fold_norms

ENGINES = ("auto", "torch", "ncnn", "openvino", "onnxruntime", "cudagraph", "tensorrt")
PRECISIONS = ("auto", "float32", "float16")

Masks = Sequence[NDArray[np.bool_] | None] | None
"""For each picture of a batch where keypoints may be, (H, W) as the picture, or None: everywhere."""


@dataclass(frozen=True)
class Resident:
    """The same (N, D) float32 descriptors twice: here, and on the device they were made on.

    Whoever has other descriptors than `host`, a selection of them too, must not use `tensor`.
    """

    host: NDArray[np.float32]
    tensor: Tensor


@dataclass(frozen=True)
class Extraction:
    """What the network found in one picture, in pixels of the network input.

    xy (N, 2) float32, scores (N,) float32 descending, descriptors (N, D) float32 of unit length;
    resident: the descriptors where they were made, if that is a GPU
    """

    xy: NDArray[np.float32]
    scores: NDArray[np.float32]
    descriptors: NDArray[np.float32]
    resident: Resident | None = None


def choose_device(name: str) -> torch.device:
    """The torch device of "auto" (CUDA if there is one), "cpu", "cuda" or "cuda:N".

    Raises ValueError for another name, and RuntimeError where this machine has no such device.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(name)
    except (RuntimeError, TypeError):
        device = None
    if device is None or device.type not in ("cpu", "cuda"):
        raise ValueError(f"device must be auto, cpu, cuda or cuda:N, got {name!r}")
    if device.type == "cpu":
        return torch.device("cpu")
    index = device.index or 0
    if index >= torch.cuda.device_count():
        raise RuntimeError(f"device {name!r} was asked for, but torch {torch.__version__} sees no such GPU")
    return torch.device("cuda", index)


def require_descriptors(checkpoint: Checkpoint) -> None:
    """Raise ValueError unless the network has a descriptor head."""
    if checkpoint.architecture.descriptor_dim == 0:
        raise ValueError(
            f"{checkpoint.metadata.get('name', 'checkpoint')}: has no descriptor head "
            "(MagicPoint?); an extractor needs one"
        )


class TorchEngine:
    """The network in torch, on the CPU or a CUDA device; no step before the last leaves the device.

    device     where it runs
    precision  "float32", or "float16" for the convolutions on CUDA (softmax, NMS and sampling stay
               in float32)
    """

    name = "torch"

    def __init__(self, checkpoint: Checkpoint, device: torch.device, precision: str = "float32") -> None:
        require_descriptors(checkpoint)
        if precision not in PRECISIONS:
            raise ValueError(f"precision must be one of {', '.join(PRECISIONS)}, got {precision!r}")
        if precision == "float16" and device.type == "cpu":
            raise ValueError("precision 'float16' needs a CUDA device; the CPU runs float32")
        self.device = device
        self.precision = "float32" if precision == "auto" else precision
        self._dtype = torch.float16 if self.precision == "float16" else torch.float32
        # channels_last: 117 ms instead of 161 at 320×240 on two CPU cores
        model = fold_norms(checkpoint.build()).to(device, self._dtype)
        self._model = model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    @torch.inference_mode()
    def __call__(
        self,
        pictures: Sequence[NDArray[np.uint8]],
        sizes: Sequence[tuple[int, int]],
        settings: DetectionSettings,
        masks: Masks = None,
    ) -> list[Extraction]:
        """Extract from all pictures in one forward pass.

        pictures  grey (H, W) uint8 each, H and W multiples of 8
        sizes     the height and width of each within its picture; what is beyond is padding,
                  without keypoints
        masks     where keypoints may be; what is outside is not in the heatmap, so it costs no
                  keypoint its place
        """
        height = max(picture.shape[0] for picture in pictures)
        width = max(picture.shape[1] for picture in pictures)
        stack = np.zeros((len(pictures), 1, height, width), np.uint8)
        for row, picture in zip(stack, pictures, strict=True):
            row[0, : picture.shape[0], : picture.shape[1]] = picture
        valid = None
        if len({picture.shape for picture in pictures}) > 1:
            valid = torch.zeros(stack.shape, dtype=self._dtype, device=self.device)
            for row_mask, picture in zip(valid, pictures, strict=True):
                row_mask[:, : picture.shape[0], : picture.shape[1]] = 1
        grey = torch.from_numpy(stack).to(self.device)
        image = (grey.to(self._dtype) / 255).contiguous(memory_format=torch.channels_last)
        logits, dense = self._model(image, valid)
        extents = torch.tensor(sizes, device=self.device)
        heatmap = heatmap_from_logits(logits).masked_fill(flat(grey[:, 0], extents), 0)
        if masks is not None:
            heatmap.masked_fill_(torch.from_numpy(hidden(masks, (height, width))).to(self.device), 0)
        found = detect(heatmap, extents, settings)
        # Beyond the centre of a smaller picture's last cell, too, its descriptor is continued.
        last = torch.tensor([(p.shape[1], p.shape[0]) for p in pictures], device=self.device)
        within = torch.minimum(found.xy, last[:, None] - (CELL + 1) / 2)
        descriptors = sample_descriptors(dense, within)
        packed = torch.cat([found.xy, found.scores[..., None], descriptors], dim=2)
        return _unpack(packed.cpu().numpy())


def _unpack(packed: NDArray[np.float32]) -> list[Extraction]:
    """Split (B, K, 3 + D) rows of x, y, score, descriptor; a score of 0 marks padding."""
    extractions = []
    for rows in packed:
        rows = rows[: np.count_nonzero(rows[:, 2] > 0)]
        xy, scores, descriptors = rows[:, :2], rows[:, 2], rows[:, 3:]
        xy, scores, descriptors = (np.ascontiguousarray(part) for part in (xy, scores, descriptors))
        extractions.append(Extraction(xy, scores, descriptors))
    return extractions


def hidden(masks: Sequence[NDArray[np.bool_] | None], size: tuple[int, int]) -> NDArray[np.bool_]:
    """Where keypoints may not be in a batch whose largest picture has this (height, width): (B, H, W) bool."""
    everywhere = np.zeros((len(masks), *size), np.bool_)
    for row, mask in zip(everywhere, masks, strict=True):
        if mask is not None:
            row[: mask.shape[0], : mask.shape[1]] = ~mask
    return everywhere


def pad_to_cells(picture: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Repeat a picture's last row and column up to multiples of 8; no copy if there is no need."""
    height, width = picture.shape
    bottom, right = -height % CELL, -width % CELL
    if not bottom and not right:
        return picture
    return np.pad(picture, ((0, bottom), (0, right)), mode="edge")
