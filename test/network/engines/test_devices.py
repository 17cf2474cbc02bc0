from __future__ import annotations

import pytest
import torch

from superpoint_ros.network.engines import devices
from superpoint_ros.network.engines.devices import (
    DeviceLost,
    DeviceUnusable,
    choose_device,
    first_line,
    out_of_memory,
    plain_float32,
    require_alive,
    require_usable,
)

CPU = torch.device("cpu")


def test_auto_is_the_first_cuda_device_or_else_the_cpu(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert str(choose_device("auto")) == "cpu"
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert [str(choose_device(name)) for name in ("auto", "cuda")] == ["cuda:0", "cuda:0"]
    assert [str(choose_device(name)) for name in ("cuda:1", "cpu")] == ["cuda:1", "cpu"]


def test_a_gpu_that_is_not_there_is_named(monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    with pytest.raises(DeviceUnusable, match="^device 'cuda:1' was asked for, but torch .* no such"):
        choose_device("cuda:1")


@pytest.mark.parametrize("name", ["gpu", "mps", "meta", "cuda:-1", "cuda:x", "", None, 0])
def test_another_device_is_refused_with_what_was_given(name):
    with pytest.raises(ValueError, match=f"^device must be auto, cpu, cuda or cuda:N, got {name!r}$"):
        choose_device(name)


def test_a_device_that_adds_is_usable_and_alive():
    require_usable(CPU)
    require_alive(CPU, ValueError("of another kind"))


def broken(device):
    raise RuntimeError("CUDA error: no kernel image is available\nCompile with TORCH_USE_CUDA_DSA")


def test_a_device_that_does_not_add_is_unusable_for_the_reason_that_it_gives(monkeypatch):
    monkeypatch.setattr(devices, "_add", broken)
    with pytest.raises(DeviceUnusable, match="^GPU cuda:0.* cannot be used: CUDA error: no kernel image is available$"):
        require_usable(torch.device("cuda:0"))


def test_a_device_that_does_not_add_after_an_error_is_lost_to_that_error(monkeypatch):
    monkeypatch.setattr(devices, "_add", broken)
    error = RuntimeError("CUDA error: an illegal memory access was encountered\nadvice")
    with pytest.raises(DeviceLost, match="answers no more .* an illegal memory access was encountered$") as raised:
        require_alive(torch.device("cuda:0"), error)
    assert raised.value.__cause__ is error


def test_a_gpu_that_is_not_there_cannot_be_used():
    if torch.cuda.is_available():
        pytest.skip("this machine has one")
    with pytest.raises(DeviceUnusable, match="^GPU cuda:0 cannot be used: "):
        require_usable(torch.device("cuda:0"))


@pytest.mark.parametrize(
    "error, lacks",
    [
        (torch.cuda.OutOfMemoryError("Tried to allocate 2 GiB"), True),
        (RuntimeError("CUDA error: out of memory"), True),
        (RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED"), True),
        (RuntimeError("GET was unable to find an engine to execute this computation"), True),
        (RuntimeError("CUDA error: an illegal memory access was encountered"), False),
        (ValueError("operands could not be broadcast"), False),
    ],
    ids=str,
)
def test_a_lack_of_memory_is_told_from_other_errors(error, lacks):
    assert out_of_memory(error) == lacks


def test_an_error_without_a_word_is_told_by_its_type():
    assert [first_line(error) for error in (RuntimeError(), RuntimeError(" a.\nb"))] == ["RuntimeError", "a"]


def test_tf32_stays_off_until_the_last_of_several_threads_leaves():
    cudnn = torch.backends.cudnn
    before = cudnn.allow_tf32
    first, second = plain_float32(), plain_float32()  # as two threads that take turns
    first.__enter__()
    second.__enter__()
    first.__exit__(None, None, None)
    assert not cudnn.allow_tf32
    second.__exit__(None, None, None)
    assert cudnn.allow_tf32 == before


def test_tf32_is_off_within_and_as_it_was_behind_even_after_an_error():
    cudnn, products = torch.backends.cudnn, torch.backends.cuda.matmul
    before = cudnn.allow_tf32, products.allow_tf32
    with pytest.raises(KeyError), plain_float32():
        assert (cudnn.allow_tf32, products.allow_tf32) == (False, False)
        raise KeyError
    assert (cudnn.allow_tf32, products.allow_tf32) == before
