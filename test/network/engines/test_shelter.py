from __future__ import annotations

import logging

import numpy as np
import pytest
import torch

from superpoint_ros.network.engines import shelter
from superpoint_ros.network.engines.cpu_engine import CpuEngine
from superpoint_ros.network.engines.devices import DeviceLost
from superpoint_ros.network.engines.parity import built_in_picture
from superpoint_ros.network.engines.shelter import PATIENCE, ShelteredEngine
from superpoint_ros.network.engines.torch_engine import TorchEngine
from superpoint_ros.network.heatmap import DetectionSettings

CPU = torch.device("cpu")
ARGUMENTS = [built_in_picture()], [(120, 160)], DetectionSettings()


class Gpu(TorchEngine):
    """Fails as it is told."""

    error: Exception | None = None
    freed = 0

    def __call__(self, *arguments):
        if self.error is not None:
            raise self.error
        return super().__call__(*arguments)

    def free(self):
        self.freed += 1
        super().free()


@pytest.fixture
def gpu(random_checkpoint):
    return Gpu(random_checkpoint(), CPU, "float32", "cudagraph")


@pytest.fixture
def clock():
    return [0.0]


@pytest.fixture
def engine(gpu, clock, random_checkpoint):
    return ShelteredEngine(gpu, lambda: CpuEngine("torch", random_checkpoint()), lambda: clock[0])


def test_while_the_gpu_works_it_is_the_engine(engine, gpu):
    [one], [other] = engine(*ARGUMENTS), gpu(*ARGUMENTS)
    np.testing.assert_array_equal(one.xy, other.xy)
    assert (engine.name, engine.precision, engine.device, engine.trouble) == ("cudagraph", "float32", CPU, "")


def test_while_the_gpu_lacks_memory_the_cpu_works_and_then_the_gpu_again(engine, gpu, clock, caplog):
    [before] = engine(*ARGUMENTS)
    gpu.error = torch.cuda.OutOfMemoryError("Tried to allocate 2 GiB.")
    with caplog.at_level(logging.WARNING, "superpoint_ros"):
        for clock[0] in (1.0, 2.0, PATIENCE + 1.5):  # tried in vain the first and the last time
            [meanwhile] = engine(*ARGUMENTS)
            np.testing.assert_array_equal(meanwhile.xy, before.xy)
            assert engine.name == "torch"
            assert engine.trouble == "cpu lacks memory (Tried to allocate 2 GiB)"
        assert gpu.freed == 2
        gpu.error = None
        engine(*ARGUMENTS)
        assert engine.name == "torch"
        clock[0] += PATIENCE
        engine(*ARGUMENTS)
    assert (engine.name, engine.trouble) == ("cudagraph", "")
    assert [record.getMessage() for record in caplog.records] == [
        "cpu lacks memory (Tried to allocate 2 GiB): the CPU does its work, and it is tried again every 30 s.",
        "cpu has memory again, and does its work again.",
    ]


def test_a_lack_of_memory_while_preparing_is_not_an_error(engine, gpu, monkeypatch):
    def lacking(*_):
        raise torch.cuda.OutOfMemoryError("Tried to allocate 2 GiB")

    assert engine.prepare((64, 80), 1, DetectionSettings()) > 0
    monkeypatch.setattr(gpu, "prepare", lacking)
    assert engine.prepare((64, 80), 2, DetectionSettings()) == 0
    assert engine.trouble
    [found] = engine(*ARGUMENTS)
    assert len(found.xy) > 10


def test_another_error_is_raised_as_it_is(engine, gpu):
    gpu.error = ValueError("no such shape")
    with pytest.raises(ValueError, match="^no such shape$"):
        engine(*ARGUMENTS)


def test_an_error_after_which_the_gpu_answers_no_more_is_told_from_others(engine, gpu, monkeypatch):
    gpu.error = RuntimeError("CUDA error: an illegal memory access was encountered")

    def lost(device, error):
        raise DeviceLost("gone") from error

    monkeypatch.setattr(shelter, "require_alive", lost)
    with pytest.raises(DeviceLost):
        engine(*ARGUMENTS)
