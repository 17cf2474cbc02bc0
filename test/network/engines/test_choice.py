"""Which engine is taken on a GPU, with engines of the CPU in its place; on the CPU see test_cpu_engines."""

from __future__ import annotations

import logging
from dataclasses import replace

import numpy as np
import pytest
import torch

from superpoint_ros.network.engines import choice
from superpoint_ros.network.engines.choice import make_engine
from superpoint_ros.network.engines.devices import DeviceLost, DeviceUnusable
from superpoint_ros.network.engines.torch_engine import TorchEngine

CPU, CUDA = torch.device("cpu"), torch.device("cuda:0")
LOGGER = "superpoint_ros.network"


@pytest.fixture
def checkpoint(random_checkpoint):
    return random_checkpoint(batch_norm=True)


class Gpu(TorchEngine):
    """What `make_engine` makes for a GPU, run here; those in `wrong` find all keypoints elsewhere."""

    wrong: frozenset[str] = frozenset()
    broken: frozenset[str] = frozenset()

    def __init__(
        self, checkpoint, device, precision="float32", name="torch", network=None, captures=None, triton=False
    ):
        super().__init__(checkpoint, CPU, precision, name)
        self.kernels = triton

    def __call__(self, *arguments):
        name = f"{self.name} {self.precision}{' triton' * self.kernels}"
        if name in self.broken:
            raise RuntimeError("CUDA error: no kernel image is available\nadvice")
        shift = np.float32(3 if name in self.wrong else 0)
        return [replace(one, xy=one.xy + shift) for one in super().__call__(*arguments)]


@pytest.fixture
def gpu(monkeypatch):
    monkeypatch.setattr(choice, "TorchEngine", Gpu)
    monkeypatch.setattr(choice, "require_usable", lambda device: None)
    monkeypatch.setattr(choice, "has_triton", lambda: False)
    return monkeypatch


@pytest.mark.parametrize(
    "fail, expected",
    [
        ([], "cudagraph float16"),
        (["cudagraph float16"], "cudagraph float32"),
        (["cudagraph float16", "cudagraph float32"], "torch float32"),
    ],
    ids=["all agree", "half does not", "none does"],
)
def test_auto_on_cuda_is_the_fastest_graph_that_agrees(gpu, checkpoint, fail, expected, caplog):
    gpu.setattr(Gpu, "wrong", frozenset(fail))
    with caplog.at_level(logging.WARNING, LOGGER):
        engine = make_engine(checkpoint, CUDA)
    assert f"{engine.name} {engine.precision}" == expected
    assert len(caplog.records) == len(fail)


@pytest.mark.parametrize("asked", ["auto", "cudagraph"])
def test_a_graph_has_tritons_kernels_where_they_run(gpu, checkpoint, asked, caplog):
    gpu.setattr(choice, "has_triton", lambda: True)
    assert make_engine(checkpoint, CUDA, asked)._gpu.kernels
    gpu.setattr(Gpu, "broken", frozenset({"cudagraph float16 triton"}))
    with caplog.at_level(logging.WARNING, LOGGER):
        engine = make_engine(checkpoint, CUDA, asked)
    assert (engine.name, engine.precision, engine._gpu.kernels) == ("cudagraph", "float16", False)
    assert [record.getMessage() for record in caplog.records] == [
        "An engine does not load (RuntimeError: CUDA error: no kernel image is available)."
    ]


def test_what_the_check_needed_of_the_gpu_is_given_back(gpu, checkpoint):
    freed = []
    gpu.setattr(Gpu, "free", lambda self: freed.append(f"{self.name} {self.precision}"), raising=False)
    made = make_engine(checkpoint, CUDA)
    assert freed == [f"{made.name} {made.precision}"] == ["cudagraph float16"]


def test_a_check_that_costs_the_gpu_is_told_as_that(gpu, checkpoint):
    def broken(self):
        raise RuntimeError("CUDA error: an illegal memory access was encountered")

    def lost(device, error):
        raise DeviceLost("gone") from error

    gpu.setattr(Gpu, "free", broken)
    gpu.setattr(choice, "require_alive", lost)
    with pytest.raises(DeviceLost):
        make_engine(checkpoint, CUDA)


def test_a_precision_or_engine_that_is_asked_for_on_cuda_is_taken(gpu, checkpoint):
    for engine, precision, expected in (
        ("cudagraph", "float32", "cudagraph float32"),
        ("torch", "auto", "torch float16"),
        ("torch", "float32", "torch float32"),
    ):
        made = make_engine(checkpoint, CUDA, engine, precision)
        assert f"{made.name} {made.precision}" == expected


def test_an_engine_that_fails_in_the_check_is_left_with_a_warning(gpu, checkpoint, caplog):
    gpu.setattr(Gpu, "broken", frozenset({"cudagraph float16"}))
    with caplog.at_level(logging.WARNING, LOGGER):
        assert make_engine(checkpoint, CUDA).precision == "float32"
    assert "CUDA error: no kernel image is available" in caplog.records[0].getMessage()


def test_a_gpu_that_does_not_run_the_network_is_unusable_for_the_reason_it_gives(gpu, checkpoint):
    gpu.setattr(Gpu, "broken", frozenset({"torch float32"}))
    with pytest.raises(DeviceUnusable, match="^GPU cuda:0 does not run the network: CUDA error: .* available$"):
        make_engine(checkpoint, CUDA)


def test_a_gpu_that_cannot_add_is_unusable(checkpoint):
    if torch.cuda.is_available():
        pytest.skip("this machine has one")
    with pytest.raises(DeviceUnusable, match="^GPU cuda:0 cannot be used"):
        make_engine(checkpoint, CUDA)


@pytest.mark.parametrize("name", choice.CUDA_ENGINES)
def test_a_cuda_engine_on_the_cpu_is_refused(name, checkpoint):
    with pytest.raises(ValueError, match=f"^engine '{name}' needs a CUDA device"):
        make_engine(checkpoint, CPU, name)


def test_tensorrt_that_is_not_installed_is_refused_with_what_it_needs(gpu, checkpoint):
    if torch.cuda.is_available():
        pytest.skip("this machine may have it")
    with pytest.raises(RuntimeError, match="^engine 'tensorrt' needs the packages onnx and onnxruntime-gpu"):
        make_engine(checkpoint, CUDA, "tensorrt")
