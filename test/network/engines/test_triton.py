"""Triton's kernels beside torch's own steps: on a GPU, or without one in Triton's interpreter."""

from __future__ import annotations

import os
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F

if not torch.cuda.is_available():
    os.environ["TRITON_INTERPRET"] = "1"  # read where a kernel is defined
pytest.importorskip("triton", reason="not installed: triton")

from superpoint_ros.network.dense_peaks import room
from superpoint_ros.network.engines import dense_plan, triton_layers, triton_peaks
from superpoint_ros.network.engines.dense_plan import Inputs, Kind
from superpoint_ros.network.engines.devices import plain_float32
from superpoint_ros.network.engines.torch_network import TorchNetwork

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
SIZE = (24, 40)


@pytest.fixture
def draw():
    generator = torch.Generator().manual_seed(0)
    return lambda *shape: torch.randn(shape, generator=generator).to(DEVICE)


def grey(batch=2, size=SIZE):
    generator = torch.Generator().manual_seed(1)
    return torch.randint(256, (batch, *size), dtype=torch.uint8, generator=generator).to(DEVICE)


@pytest.mark.parametrize(
    "options", [{}, {"batch_norm": True}, {"batch_norm": True, "norm_first": True}, {"stem": 2}], ids=str
)
def test_a_network_between_whose_convolutions_they_run_answers_as_the_model_does(random_checkpoint, options):
    checkpoint = random_checkpoint(**options)
    network = TorchNetwork(checkpoint, DEVICE, torch.float32, layers=triton_layers)
    with torch.inference_mode(), plain_float32():
        logits, dense = network(grey())
        expected_logits, expected = checkpoint.build().to(DEVICE)(grey()[:, None].float() / 255)
    torch.testing.assert_close(logits, expected_logits, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(F.normalize(dense, dim=1), expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("channels", [8, 12])
def test_a_batch_norm_that_turns_a_channel_around_comes_before_the_max_pool(draw, channels):
    x = draw(2, channels, 6, 10).contiguous(memory_format=torch.channels_last)
    norm = draw(1, channels, 1, 1), draw(1, channels, 1, 1)
    expected = torch.addcmul(norm[1], x, norm[0])
    torch.testing.assert_close(triton_layers.normed(x, norm), expected)
    torch.testing.assert_close(triton_layers.halved(x, norm), F.max_pool2d(expected, 2))
    torch.testing.assert_close(triton_layers.halved(x, None), F.max_pool2d(x, 2))


def inputs(size=SIZE, batch=2, threshold=0.2):
    made = Inputs.zeros(batch, size, DEVICE)
    made.threshold.fill_(threshold)
    made.sizes[:] = torch.tensor(size)
    made.within[:] = True
    return made


def test_a_heatmap_is_empty_where_a_picture_ends_is_masked_or_flat(draw):
    given = replace(inputs(), grey=grey())
    given.grey[0, 3:20, 5:24] = 77
    given.sizes[1] = torch.tensor([19, 33])
    given.within[1, 19:], given.within[1, :, 33:] = False, False
    given.blocked[:] = ~given.within
    given.blocked[0, :6, 30:] = True
    logits = draw(2, SIZE[0] // 8, SIZE[1] // 8, 65).permute(0, 3, 1, 2)
    found, expected = (each.masked_heatmap(logits, given) for each in (triton_peaks, dense_plan))
    torch.testing.assert_close(found, expected)
    assert ((found > 0) == (expected > 0)).all()
    assert (expected[0] == 0).sum() > 6 * 10  # some is flat


@pytest.mark.parametrize("most", [1, triton_peaks.MOST_RANKED], ids=["sorted", "ranked"])
@pytest.mark.parametrize("radius, limit", [(4, 100), (2, 9), (0, 1000), (triton_peaks.WIDEST + 1, 9)])
def test_peaks_are_the_same_in_the_same_order_of_equal_ones_too(radius, limit, most, monkeypatch):
    monkeypatch.setattr(triton_peaks, "MOST_RANKED", most)
    generator = torch.Generator().manual_seed(radius)
    scores = (torch.rand(2, *SIZE, generator=generator) * 8).floor() / 8
    scores *= torch.rand(2, *SIZE, generator=generator) < 0.4
    given, kind = inputs(), Kind(SIZE, min(limit, room(SIZE, radius)), radius, False)
    given.dropped[:, :4] = True
    found, expected = (each.strongest(scores.to(DEVICE), given, kind, 12) for each in (triton_peaks, dense_plan))
    assert not found.undecided.any() and not expected.undecided.any()
    torch.testing.assert_close(found.scores, expected.scores, rtol=0, atol=0)
    there = expected.scores > 0
    assert there.sum() > 15 or radius > 4
    assert (found.xy[there] == expected.xy[there]).all()


def test_what_is_not_settled_is_said():
    # each is suppressed by the one to its left, unless that is: who is kept is known from left to right only
    size, least = (8, 256), triton_peaks.TRIES // 2
    heatmap = torch.zeros(1, *size, device=DEVICE)
    heatmap[0, 0] = torch.linspace(1, 0.5, 256, device=DEVICE)
    given, kind = inputs(size, 1), Kind(size, 128, 1, False)
    few, many = (triton_peaks.strongest(heatmap, given, kind, rounds) for rounds in (1, 256))
    assert not many.undecided and not many.unfinished(128)
    assert many.xy[0, :, 0].tolist() == list(range(0, 256, 2))
    decided = few.scores > few.undecided
    assert decided.sum() >= least and (few.scores[decided] == many.scores[decided]).all()
    if few.undecided:  # unless the programs happened to run from left to right
        assert few.unfinished(128)


@pytest.mark.parametrize("size", [SIZE, (8, 40), (24, 8), (8, 8)])
def test_descriptors_are_the_same_at_every_place_of_maps_of_one_row_too(draw, size):
    rows, columns = size[0] // 8, size[1] // 8
    dense, given = draw(2, rows, columns, 12).permute(0, 3, 1, 2), inputs(size)
    last = torch.tensor([size[1] - 1.0, size[0] - 1.0], device=DEVICE)
    xy = torch.rand(2, 30, 2, generator=torch.Generator().manual_seed(0)).to(DEVICE) * last
    found, expected = (each.sampled(dense, xy, given, torch.float32) for each in (triton_peaks, dense_plan))
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)
    assert triton_peaks.sampled(dense, xy, given, torch.float16).dtype == torch.float16
