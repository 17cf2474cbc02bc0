"""The network as ONNX, for ONNX Runtime, OpenVINO and whatever else reads it."""

from __future__ import annotations

import inspect
import os
import tempfile
import warnings
from pathlib import Path
from typing import Any

import torch

from superpoint_ros.network.checkpoint import Checkpoint
from superpoint_ros.network.engines.cache import cached, checkpoint_key
from superpoint_ros.network.superpoint import SuperPoint, fold_norms

OPSET = 17


def export_onnx(path: str | os.PathLike[str], model: SuperPoint) -> None:
    """Write an ONNX file with a free batch, height and width; it appears whole or not at all.

    Input `image` (B, 1, H, W) float32 in [0, 1], H and W multiples of 8; outputs `logits`
    (B, 65, H/8, W/8) and, with a descriptor head, `descriptors` (B, D, H/8, W/8) of unit length.
    The heads' BatchNorms are folded in `model`, which is put in eval mode.

    Raises ImportError where the package `onnx` is missing.
    """
    import onnx  # noqa: F401  torch's exporter asks for it only when it has finished

    path = Path(path)
    model = fold_norms(model.eval()).cpu()
    model = model.to(memory_format=torch.contiguous_format)  # type: ignore[call-overload]
    outputs = ["logits"] + ["descriptors"] * bool(model.architecture.descriptor_dim)
    axes = {"image": {0: "batch", 2: "height", 3: "width"}}
    axes |= {name: {0: "batch", 2: "rows", 3: "columns"} for name in outputs}
    # The exporter for torch.export needs onnxscript, and fixes sizes; this one knows every layer.
    known = inspect.signature(torch.onnx.export).parameters
    choice: dict[str, Any] = {"dynamo": False} if "dynamo" in known else {}
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            torch.onnx.export(
                model,
                (torch.zeros(1, 1, 64, 80),),
                os.fspath(partial),
                input_names=["image"],
                output_names=outputs,
                dynamic_axes=axes,
                opset_version=OPSET,
                **choice,
            )
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)


def cached_onnx(checkpoint: Checkpoint) -> bytes:
    """An ONNX file's content, from the user's cache or exported and kept there."""
    name = f"{checkpoint_key(checkpoint)}-opset{OPSET}.onnx"
    return cached(name, lambda: onnx_bytes(checkpoint.build()))


def onnx_bytes(model: SuperPoint) -> bytes:
    """What `export_onnx` writes."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "network.onnx")
        export_onnx(path, model)
        return path.read_bytes()
