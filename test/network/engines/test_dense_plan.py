"""That a graph can hold the steps: none waits for the device, none mixes it with the CPU, by tensors without values."""

from __future__ import annotations

from contextlib import contextmanager, nullcontext
from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from superpoint_ros.features.device_matching import nearest_on_device
from superpoint_ros.network.engines.dense_plan import FEWEST, TORCH_STEPS, Inputs, Kind, Plan, extract, packed
from superpoint_ros.network.engines.torch_network import TorchNetwork
from superpoint_ros.network.heatmap import DetectionSettings

CPU, CUDA = torch.device("cpu"), torch.device("cuda:0")
SHAPE = (64, 80)


LINKED = pytest.param(
    CUDA, marks=pytest.mark.skipif(torch.version.cuda is None, reason="this torch is not linked with CUDA"), id="CUDA"
)
DEVICES = pytest.mark.parametrize("device", [torch.device("meta"), LINKED], ids=str)
"""Tensors without values: there is nothing to wait for, so they refuse; and they do not mix with the CPU's."""


@contextmanager
def without_values(device):
    with FakeTensorMode(allow_non_fake_inputs=True) if device == CUDA else nullcontext(), torch.inference_mode():
        yield


def moved(layer, device):
    def there(part):
        return torch.empty_strided(part.shape, part.stride(), dtype=part.dtype, device=device)

    norm = layer.norm and tuple(there(part) for part in layer.norm)
    return replace(layer, weight=there(layer.weight), bias=there(layer.bias), norm=norm)


class OneDevice(TorchDispatchMode):
    """Refuses steps that would copy a number from the host, which no graph can hold: tensors of different devices, and
    `torch.where` with a number, which makes a tensor of it."""

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        devices = {leaf.device for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, torch.Tensor)}
        assert len(devices) <= 1, f"{function} mixes {devices}"
        assert not str(function).startswith("aten.where.Scalar"), f"{function} copies a number"
        return function(*args, **(kwargs or {}))


def in_steps(x, weight, bias):
    return F.conv2d(x, weight, bias, padding=weight.shape[-1] // 2).relu_()


@DEVICES
@pytest.mark.parametrize("subpixel", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16], ids=str)
@pytest.mark.parametrize("options", [{"batch_norm": True}, {"stem": 2}], ids=str)
def test_no_step_waits_for_a_result_or_leaves_the_device(random_checkpoint, options, dtype, subpixel, device):
    kind = Kind.of(SHAPE, DetectionSettings(subpixel=subpixel))
    network = TorchNetwork(random_checkpoint(**options), CPU, dtype, in_steps)  # reads weights, which must have values
    with without_values(device):
        network._layers = {name: moved(layer, device) for name, layer in network._layers.items()}
        inputs = Inputs.zeros(2, SHAPE, device)
        with OneDevice():
            result = extract(network, inputs, kind, dtype)
        width = 16 * (1 if dtype == torch.float16 else 2)
        assert result.packed.shape == (2, kind.keypoints * (6 + width) + 2)
        assert {each.device for each in vars(result).values()} == {device}


@DEVICES
def test_matching_on_a_gpu_waits_only_for_its_result(device):
    with without_values(device):
        found = nearest_on_device(torch.empty(100, 16, device=device), torch.empty(90, 16, device=device))
    assert found.shape == (4, 100) and found.device == device


@DEVICES
def test_such_tensors_do_refuse_to_be_waited_for_and_to_be_mixed(device):
    kind = Kind.of(SHAPE, DetectionSettings())
    with without_values(device):
        heatmap, dense = torch.empty(1, *SHAPE, device=device), torch.empty(1, 16, 8, 10, device=device)
        packed(heatmap, dense, Inputs.zeros(1, SHAPE, device), kind, torch.float32, TORCH_STEPS, 2)
        with pytest.raises(RuntimeError):
            packed(heatmap, dense, Inputs.zeros(1, SHAPE, CPU), kind, torch.float32, TORCH_STEPS, 2)
        with pytest.raises(RuntimeError):
            bool(heatmap.any())
        with OneDevice(), pytest.raises(AssertionError, match="copies a number"):
            torch.where(heatmap > 0, heatmap, 0)


@pytest.mark.parametrize(
    "limit, shape, expected",
    [(1, (480, 640), FEWEST), (FEWEST + 1, (480, 640), 2 * FEWEST), (1024, (480, 640), 1024), (1024, (16, 24), 4 * 5)],
)
def test_a_plan_has_room_for_a_few_numbers_of_keypoints_and_never_for_more_than_there_can_be(limit, shape, expected):
    assert Kind.of(shape, DetectionSettings(limit, nms_radius=4)).keypoints == expected


def test_a_plan_uploads_where_keypoints_may_be_only_when_that_changes(random_checkpoint):
    network = TorchNetwork(random_checkpoint(), CPU, torch.float32)
    settings = DetectionSettings()
    plan = Plan(network, 1, Kind.of(SHAPE, settings), CPU, torch.float32)
    picture, mask = np.random.default_rng(0).integers(0, 256, SHAPE, np.uint8), np.ones(SHAPE, bool)
    mask[:30] = False

    def run(border, mask):
        with torch.inference_mode():
            plan.run([picture], [SHAPE], DetectionSettings(border=border), [mask])
        places = plan._places[0]
        return places

    first = run(4, mask)
    assert run(4, mask.copy()) is first
    mask[:] = True  # the plan's own copy is another
    second = run(4, mask)
    assert second is not first
    assert run(5, mask) is not second
    assert run(5, None)[2] is None
