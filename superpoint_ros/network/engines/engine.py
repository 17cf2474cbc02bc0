"""What an engine takes and gives: grey pictures in, keypoints and descriptors out.

What runs the network decides where the steps behind it run, and each is written twice: once in torch,
on whole maps and for any device, once in numpy for one picture on the CPU. For a CUDA graph there they
are a third time, as Triton's kernels.

| engine | network | heatmap, blank areas, suppression, choice | descriptors |
|---|---|---|---|
| `torch_engine.TorchEngine`: cudagraph, tensorrt; torch on a GPU | `torch_network`, `onnx_networks` | `dense_peaks` | `descriptors` |
| the same with Triton: cudagraph | `torch_network` with `triton_layers` | `triton_peaks` | `triton_peaks` |
| `cpu_engine.CpuEngine`: ncnn, openvino, onnxruntime; torch on the CPU | `ncnn_network`, `onnx_networks`, `superpoint` | `peaks` | `peaks.sample` |
| none: `heatmap.detect` and `descriptors`, as training and evaluation use them | `superpoint` | `dense_peaks` on a GPU, `peaks` on the CPU | `descriptors` |

Subpixel refinement is `heatmap.refine` in all of them. A CUDA graph holds the same steps as its engine
runs one by one where it cannot be captured; a network that no graph can hold (tensorrt) runs them one by one.
"""  # noqa: E501

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from superpoint_ros.network.checkpoint import Checkpoint
from superpoint_ros.network.superpoint import CELL

ENGINES = ("auto", "torch", "ncnn", "openvino", "onnxruntime", "cudagraph", "tensorrt")
PRECISIONS = ("auto", "float32", "float16")

Masks = Sequence[NDArray[np.bool_] | None] | None
"""For each picture of a batch where keypoints may be, (H, W) as the picture, or None: everywhere."""


@dataclass(frozen=True)
class Extraction:
    """What the network found in one picture, in pixels of the network input.

    xy (N, 2) float32, scores (N,) float32 descending, descriptors (N, D) float32 of unit length
    """

    xy: NDArray[np.float32]
    scores: NDArray[np.float32]
    descriptors: NDArray[np.float32]


def require_descriptors(checkpoint: Checkpoint) -> None:
    """Raise ValueError unless the network has a descriptor head."""
    if checkpoint.architecture.descriptor_dim == 0:
        raise ValueError(
            f"{checkpoint.metadata.get('name', 'checkpoint')}: has no descriptor head "
            "(MagicPoint?); an extractor needs one"
        )


def pad_to_cells(picture: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Repeat a picture's last row and column up to multiples of 8; no copy if there is no need."""
    height, width = picture.shape
    bottom, right = -height % CELL, -width % CELL
    if not bottom and not right:
        return picture
    return np.pad(picture, ((0, bottom), (0, right)), mode="edge")
