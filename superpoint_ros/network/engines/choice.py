"""Which engine runs the network, and the check that it computes what torch computes.

"auto" on the CPU takes the first that is installed of ncnn, OpenVINO and ONNX Runtime, in the order
of their measured speed, else torch. On CUDA it takes the CUDA graph in half precision, then in
float32, with Triton's kernels in it where they compile; TensorRT, which takes minutes to prepare for
each new picture size, only if it is asked for; and the CPU for as long as the GPU lacks memory.
Whatever is taken must first agree with torch in float32 on a built-in picture; one that does not, or
fails to load, is left with one line of warning, and the next is tried.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from functools import partial
from importlib.util import find_spec

import torch

from superpoint_ros.network.checkpoint import Checkpoint
from superpoint_ros.network.engines.cpu_engine import PACKAGES, CpuEngine
from superpoint_ros.network.engines.devices import DeviceUnusable, first_line, require_alive, require_usable
from superpoint_ros.network.engines.engine import PRECISIONS, require_descriptors
from superpoint_ros.network.engines.graphs import GraphCapture
from superpoint_ros.network.engines.onnx_networks import load_tensorrt
from superpoint_ros.network.engines.parity import Engine, built_in_extraction, check
from superpoint_ros.network.engines.shelter import ShelteredEngine
from superpoint_ros.network.engines.torch_engine import TorchEngine

logger = logging.getLogger(__name__)

CUDA_ENGINES = ("cudagraph", "tensorrt")

LIMITS = {"float32": (0.995, 0.999, 0.0), "float16": (0.99, 0.99, 1.0)}
"""Part of the keypoints that must be the same, mean cosine of their descriptors, and within how
many pixels."""


def make_engine(checkpoint: Checkpoint, device: torch.device, engine: str = "auto", precision: str = "auto") -> Engine:
    """The engine that is asked for, or the best there is.

    engine     "auto", "torch", a CPU engine's name, or on CUDA "cudagraph" or "tensorrt"
    precision  "auto", "float32", or "float16" (CUDA only)

    Raises ValueError for a combination that cannot be, RuntimeError naming the package that an
    engine asked for needs, DeviceUnusable with the reason for a GPU that does not run the network, DeviceLost for one
    that answers no more after the check.
    """
    require_descriptors(checkpoint)
    if precision not in PRECISIONS:
        raise ValueError(f"precision must be one of {', '.join(PRECISIONS)}, got {precision!r}")
    if device.type != "cpu":
        return _make_on_cuda(checkpoint, device, engine, precision)
    if engine in CUDA_ENGINES:
        raise ValueError(f"engine '{engine}' needs a CUDA device; the CPU has auto, torch and {', '.join(PACKAGES)}")
    if precision == "float16":
        raise ValueError("precision 'float16' needs a CUDA device; the CPU runs float32")
    reference = CpuEngine("torch", checkpoint)
    if engine == "torch":
        return reference
    if engine != "auto":
        _require(engine)
    names = [name for name in PACKAGES if installed(name)] if engine == "auto" else [engine]
    return agreeing([partial(CpuEngine, name, checkpoint) for name in names], reference)


def agreeing(candidates: list[Callable[[], Engine]], reference: Engine) -> Engine:
    """The first candidate that loads and agrees with `reference`; `reference` if none does."""
    for make in candidates:
        try:
            engine = make()
            same, cosine, radius = LIMITS[engine.precision]
            parity = check(engine, reference, radius)
        except Exception as error:
            # whatever a library raises that is broken, or built for another processor
            logger.warning("An engine does not load (%s: %s).", type(error).__name__, first_line(error))
            continue
        if parity.holds(same, cosine):
            return engine
        logger.warning(
            "Engine %s %s%s finds %.1f %% of the keypoints that %s %s finds, descriptors' cosine %.4f; it is not used.",
            engine.name,
            engine.precision,
            " with Triton" if getattr(engine, "triton", False) else "",
            100 * parity.same,
            reference.name,
            reference.precision,
            parity.cosine,
        )
    return reference


def installed(name: str) -> bool:
    """Whether a CPU engine's packages are there."""
    return all(find_spec(package) is not None for package in PACKAGES[name])


def has_triton() -> bool:
    """Whether Triton is there, as it is with torch for CUDA on most machines; its kernels may not compile yet."""
    return find_spec("triton") is not None


def _make_on_cuda(checkpoint: Checkpoint, device: torch.device, engine: str, precision: str) -> Engine:
    if engine in PACKAGES:
        choice = f"auto, torch, {', '.join(CUDA_ENGINES)}"
        raise ValueError(f"engine '{engine}' runs on the CPU only; device {str(device)!r} has {choice}")
    if engine == "tensorrt":
        _require_tensorrt()

    def makers(name: str) -> Sequence[Callable[[], Engine]]:
        if engine == "torch":
            return [lambda: TorchEngine(checkpoint, device, name)]
        if engine == "tensorrt":
            return [lambda: TorchEngine(checkpoint, device, name, engine, load_tensorrt(checkpoint, device, name))]
        graph = partial(TorchEngine, checkpoint, device, name, "cudagraph", captures=partial(GraphCapture, device))
        return [partial(graph, triton=True), graph] if has_triton() else [graph]

    names = ("float16", "float32") if precision == "auto" else (precision,)
    require_usable(device)
    reference = TorchEngine(checkpoint, device, "float32")
    try:
        built_in_extraction(reference)
    except Exception as error:  # a library that does not load, or was not built for this GPU
        raise DeviceUnusable(f"GPU {device} does not run the network: {first_line(error)}") from error
    made = agreeing([make for name in names for make in makers(name)], reference)
    assert isinstance(made, TorchEngine)
    try:
        made.free()  # what the built-in picture needed
    except Exception as error:
        require_alive(device, error)  # a check that failed may have cost the GPU
        raise
    return ShelteredEngine(made, lambda: make_engine(checkpoint, torch.device("cpu")))


def _require(name: str) -> None:
    missing = [package for package in PACKAGES[name] if find_spec(package) is None]
    if missing:
        raise RuntimeError(
            f"engine '{name}' needs the package{'s' * (len(missing) > 1)} "
            f"{' and '.join(missing)}: pip install {' '.join(missing)}"
        )


def _require_tensorrt() -> None:
    try:
        import onnx  # noqa: F401
        import onnxruntime

        providers = onnxruntime.get_available_providers()
    except ImportError:
        providers = []
    if "TensorrtExecutionProvider" not in providers:
        raise RuntimeError(
            "engine 'tensorrt' needs the packages onnx and onnxruntime-gpu and the TensorRT libraries: "
            f"ONNX Runtime has {', '.join(providers) or 'not been installed'}"
        )
