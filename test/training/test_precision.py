import pytest
import torch

from superpoint_training.precision import choose_dtype

CUDA = torch.device("cuda", 0)


@pytest.mark.parametrize(
    ("capability", "expected"), [((9, 0), torch.bfloat16), ((7, 5), torch.float16), ((6, 1), torch.float32)]
)
def test_a_card_gets_the_half_precision_that_it_has(monkeypatch, capability, expected) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
    assert choose_dtype("auto", CUDA) == expected


def test_bf16_is_refused_on_a_card_that_has_none(monkeypatch) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (7, 5))
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "Tesla T4")
    with pytest.raises(ValueError, match="run.precision is bf16, which Tesla T4 has not; expected auto, fp16 or fp32"):
        choose_dtype("bf16", CUDA)
    assert choose_dtype("fp16", CUDA) == torch.float16


def test_a_cpu_runs_in_full_precision_unless_told() -> None:
    assert choose_dtype("auto", torch.device("cpu")) == torch.float32
    assert choose_dtype("bf16", torch.device("cpu")) == torch.bfloat16
