"""The network in ONNX Runtime, with TensorRT too, and in OpenVINO."""

from __future__ import annotations

import os
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from superpoint_ros.network.checkpoint import Checkpoint
from superpoint_ros.network.engines.cache import cache_folder, checkpoint_key
from superpoint_ros.network.engines.onnx_file import cached_onnx
from superpoint_ros.network.peaks import cells_of, heatmap_of
from superpoint_ros.network.superpoint import CELL

Map = NDArray[np.float32]

OUTPUTS = ("logits", "descriptors")


class OnnxRuntimeNetwork:
    """As `cpu_engine.Network`, in ONNX Runtime (MIT) on the CPU.

    content  an ONNX file of `onnx_file`
    threads  how many cores to use
    """

    def __init__(self, content: bytes, threads: int) -> None:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        # Threads that spin between two layers take the cores that the rest of a robot needs.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        options.log_severity_level = 3
        self._session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])

    def __call__(self, picture: NDArray[np.uint8]) -> tuple[Map, Map]:
        """(H, W) uint8, multiples of 8, to heatmap (H, W) and descriptors (H/8, W/8, D)."""
        logits, dense = self._session.run(OUTPUTS, {"image": _image(picture)})
        return heatmap_of(logits[0]), cells_of(dense[0])


class OnnxRuntimeOnDevice:
    """The same in ONNX Runtime for pictures that are on a device, without a way through the host.

    content    an ONNX file of `onnx_file`
    device     where the pictures are
    providers  as `onnxruntime.InferenceSession` takes them; see `tensorrt_providers`

    `dense_plan.Network`: (B, H, W) uint8 to logits and descriptors.
    """

    capturable = False

    def __init__(self, content: bytes, device: torch.device, providers: Sequence[Any]) -> None:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3
        self._session = onnxruntime.InferenceSession(content, options, providers=list(providers))
        self._device = device
        names = [provider if isinstance(provider, str) else provider[0] for provider in providers]
        # ONNX Runtime goes on without a provider that does not load
        if self._session.get_providers()[0] != names[0]:
            raise RuntimeError(f"ONNX Runtime does not load {names[0]}, only {self._session.get_providers()}")
        self._channels = {output.name: int(output.shape[1]) for output in self._session.get_outputs()}

    def __call__(self, grey: Tensor) -> tuple[Tensor, Tensor]:
        image = grey[:, None].float() / 255
        batch, _, height, width = image.shape
        outputs = [
            torch.empty((batch, self._channels[name], height // CELL, width // CELL), device=self._device)
            for name in OUTPUTS
        ]
        binding = self._session.io_binding()
        place = self._device.type, self._device.index or 0, np.float32
        binding.bind_input("image", *place, tuple(image.shape), image.data_ptr())
        for name, output in zip(OUTPUTS, outputs, strict=True):
            binding.bind_output(name, *place, tuple(output.shape), output.data_ptr())
        if self._device.type == "cuda":
            torch.cuda.current_stream(self._device).synchronize()  # ONNX Runtime has a stream of its own
        self._session.run_with_iobinding(binding)
        binding.synchronize_outputs()
        return outputs[0], outputs[1]


def load_tensorrt(checkpoint: Checkpoint, device: torch.device, precision: str) -> OnnxRuntimeOnDevice:
    """The network in TensorRT by ONNX Runtime, which builds an engine, in minutes, at each new shape's first run."""
    folder = cache_folder() / "tensorrt" / checkpoint_key(checkpoint)
    folder.mkdir(parents=True, exist_ok=True)
    return OnnxRuntimeOnDevice(
        cached_onnx(checkpoint), device, tensorrt_providers(device, precision == "float16", folder)
    )


def tensorrt_providers(device: torch.device, half: bool, folder: Path) -> list[Any]:
    """TensorRT, and CUDA for what it cannot do; engines that it builds, one a shape, are kept in `folder`."""
    index = device.index or 0
    tensorrt = {
        "device_id": index,
        "trt_fp16_enable": half,
        "trt_engine_cache_enable": True,
        "trt_engine_cache_path": os.fspath(folder),
    }
    return [("TensorrtExecutionProvider", tensorrt), ("CUDAExecutionProvider", {"device_id": index})]


class OpenVinoNetwork:
    """As `cpu_engine.Network`, in OpenVINO (Apache-2.0) on the CPU.

    content  an ONNX file of `onnx_file`
    threads  how many cores to use
    """

    def __init__(self, content: bytes, threads: int) -> None:
        import openvino  # type: ignore[import-not-found]

        core = openvino.Core()
        settings = {
            "INFERENCE_NUM_THREADS": threads,
            "PERFORMANCE_HINT": "LATENCY",
            "INFERENCE_PRECISION_HINT": "f32",
        }
        compiled = core.compile_model(core.read_model(content), "CPU", settings)
        self._request = compiled.create_infer_request()
        self._lock = threading.Lock()

    def __call__(self, picture: NDArray[np.uint8]) -> tuple[Map, Map]:
        """(H, W) uint8, multiples of 8, to heatmap (H, W) and descriptors (H/8, W/8, D)."""
        with self._lock:
            found = self._request.infer({"image": _image(picture)})
            # copies: the request's own memory is written anew by the next call
            return heatmap_of(found[OUTPUTS[0]][0]), cells_of(found[OUTPUTS[1]][0])


def _image(picture: NDArray[np.uint8]) -> Map:
    return np.multiply(picture, np.float32(1 / 255), dtype=np.float32)[None, None]
