from __future__ import annotations

import logging

import pytest
import torch
import torch.nn.functional as F

from superpoint_ros.network.checkpoint import Checkpoint
from superpoint_ros.network.engines.torch_network import TorchNetwork

CPU = torch.device("cpu")
KINDS = pytest.mark.parametrize(
    "options", [{}, {"batch_norm": True}, {"batch_norm": True, "norm_first": True}, {"stem": 2}], ids=str
)


def grey(height=40, width=56):
    return torch.randint(256, (2, height, width), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


def assert_equal_to_the_model(network, checkpoint):
    with torch.inference_mode():
        logits, dense = network(grey())
        expected_logits, expected = checkpoint.build()(grey()[:, None].float() / 255)
    torch.testing.assert_close(logits, expected_logits, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(F.normalize(dense, dim=1), expected, rtol=1e-4, atol=1e-4)


@KINDS
def test_it_answers_as_the_model_does_and_leaves_lengths_to_sampling(random_checkpoint, options):
    checkpoint = random_checkpoint(**options)
    assert_equal_to_the_model(TorchNetwork(checkpoint, CPU, torch.float32), checkpoint)


@pytest.mark.parametrize("layer", ["bn1a", "bn1b", "bn3b", "bn4b"])
def test_a_batch_norm_that_turns_a_channel_around_stays_before_the_max_pool(random_checkpoint, layer):
    checkpoint = random_checkpoint(batch_norm=True)
    state = dict(checkpoint.state)
    state[f"{layer}.weight"] = (
        state[f"{layer}.weight"] * torch.tensor([-1.0, 1, 0, 1]).repeat(2)[: len(state[f"{layer}.weight"])]
    )
    turned = Checkpoint(checkpoint.architecture, state, {"name": "turned"})
    assert_equal_to_the_model(TorchNetwork(turned, CPU, torch.float32), turned)


@KINDS
def test_every_map_lies_in_memory_pixel_by_pixel_so_that_none_is_turned(random_checkpoint, options):
    seen = []

    def convolve(x, weight, bias):
        seen.append(x.stride())
        assert x.permute(0, 2, 3, 1).is_contiguous() and x.stride(1) == 1
        return F.conv2d(x, weight, bias, padding=weight.shape[-1] // 2).relu()

    network = TorchNetwork(random_checkpoint(**options), CPU, torch.float32, convolve)
    with torch.inference_mode():
        for answer in network(grey()):
            assert answer.permute(0, 2, 3, 1).is_contiguous()
    assert len(seen) == 10


def test_a_fused_convolution_that_fails_is_given_up_with_one_warning(random_checkpoint, caplog):
    tried = []

    def convolve(x, weight, bias):
        tried.append(x)
        raise RuntimeError("GET was unable to find an engine to execute this computation\nadvice")

    network = TorchNetwork(random_checkpoint(), CPU, torch.float32, convolve)
    with caplog.at_level(logging.WARNING, "superpoint_ros"):
        assert_equal_to_the_model(network, random_checkpoint())
    assert len(tried) == 1
    assert [record.getMessage() for record in caplog.records] == [
        "Convolution 1a has no bias and ReLU in one kernel (GET was unable to find an engine to execute this "
        "computation); they are steps of their own."
    ]


def test_a_fused_convolution_that_lacks_memory_is_not_given_up(random_checkpoint):
    def convolve(x, weight, bias):
        raise torch.cuda.OutOfMemoryError("Tried to allocate 2 GiB")

    network = TorchNetwork(random_checkpoint(), CPU, torch.float32, convolve)
    for _ in range(2):
        with pytest.raises(torch.cuda.OutOfMemoryError):
            network(grey())
