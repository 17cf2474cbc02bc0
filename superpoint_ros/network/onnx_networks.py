"""The network in ONNX Runtime and in OpenVINO, one picture at a time."""

from __future__ import annotations

import threading

import numpy as np
from numpy.typing import NDArray

Map = NDArray[np.float32]

OUTPUTS = ("logits", "descriptors")


class OnnxRuntimeNetwork:
    """As `SuperPoint.forward` for one picture, in ONNX Runtime (MIT) on the CPU.

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
        """(H, W) uint8, multiples of 8, to logits (65, H/8, W/8) and descriptors (D, H/8, W/8)."""
        logits, dense = self._session.run(OUTPUTS, {"image": _image(picture)})
        return logits[0], dense[0]


class OpenVinoNetwork:
    """As `SuperPoint.forward` for one picture, in OpenVINO (Apache-2.0) on the CPU.

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
        """(H, W) uint8, multiples of 8, to logits (65, H/8, W/8) and descriptors (D, H/8, W/8)."""
        with self._lock:
            found = self._request.infer({"image": _image(picture)})
            logits, dense = (np.array(found[name][0]) for name in OUTPUTS)
        return logits, dense


def _image(picture: NDArray[np.uint8]) -> Map:
    return np.multiply(picture, np.float32(1 / 255), dtype=np.float32)[None, None]
