"""In which order numbers lie for training."""

from __future__ import annotations

import pytest
import torch

from superpoint_ros.network.superpoint import Architecture, SuperPoint
from superpoint_training.task import memory_format, to_device

CPU = torch.device("cpu")


@pytest.mark.parametrize(
    "capability, expected",
    [("AVX512", torch.channels_last), ("AVX2", torch.contiguous_format), ("DEFAULT", torch.contiguous_format)],
)
def test_on_a_cpu_it_is_what_the_instructions_are_fast_in(monkeypatch, capability, expected) -> None:
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: capability)
    assert memory_format(CPU) == expected
    network = to_device(SuperPoint(Architecture((8, 8, 8, 8), 8, 8, batch_norm=True)), CPU)
    assert network.get_parameter("conv1b.weight").is_contiguous(memory_format=expected)


def test_on_a_gpu_it_is_channels_last(monkeypatch) -> None:
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: "AVX2")
    assert memory_format(torch.device("cuda", 0)) == torch.channels_last
