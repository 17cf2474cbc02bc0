"""What ncnn's network has beside what every CPU engine has; `test_cpu_engines` compares it with torch, too."""

from __future__ import annotations

import numpy as np
import pytest
import torch

pytest.importorskip("ncnn", reason="ncnn is not installed")

from superpoint_ros.network.checkpoint import DEFAULT_WEIGHTS, load_checkpoint
from superpoint_ros.network.engines import ncnn_network
from superpoint_ros.network.engines.ncnn_network import NcnnNetwork
from superpoint_ros.network.superpoint import Architecture, SuperPoint


@pytest.mark.parametrize("stem", [1, 2])
def test_logits_and_descriptors_are_those_of_torch(random_checkpoint, stem):
    checkpoint = random_checkpoint(stem=stem)
    picture = np.random.default_rng(0).integers(0, 256, (72, 104), np.uint8)
    found = NcnnNetwork(checkpoint.build(), 2).logits_and_descriptors(picture)
    with torch.inference_mode():
        expected = checkpoint.build()(torch.from_numpy(picture)[None, None].float() / 255)
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_allclose(one, other[0].numpy(), rtol=1e-3, atol=1e-4)


# Widths of which ncnn lays 16, 8, 4 or 1 channels side by side; tiles small enough for every kind of edge.
@pytest.mark.parametrize("channels", [(16, 32, 64, 64), (4, 8, 12, 16), (3, 5, 6, 7)], ids=str)
@pytest.mark.parametrize("tile", [300, 3000])
@pytest.mark.parametrize("stem", [1, 2])
@torch.no_grad()
def test_tiles_leave_no_seam_at_any_width(monkeypatch, channels, tile, stem):
    monkeypatch.setattr(ncnn_network, "TILE_FLOATS", tile)
    torch.manual_seed(0)
    model = SuperPoint(Architecture(channels, 16, 24, stem=stem)).eval()
    picture = np.random.default_rng(0).integers(0, 256, (88, 120), np.uint8)
    expected, dense = model(torch.from_numpy(picture)[None, None].float() / 255)
    logits, descriptors = NcnnNetwork(model, 1).logits_and_descriptors(picture)
    np.testing.assert_allclose(logits, expected[0].numpy(), rtol=1e-3, atol=1e-5)
    np.testing.assert_allclose(descriptors, dense[0].numpy(), atol=1e-4)


def test_buffers_of_many_large_sizes_stay_within_their_bytes(random_checkpoint, monkeypatch):
    monkeypatch.setattr(ncnn_network, "MEMORY", 1 << 20)
    network = NcnnNetwork(random_checkpoint().build(), 1)
    before = [network(np.zeros((240, 320 + 8 * step), np.uint8)) for step in range(8)]
    assert 0 < network._workspaces.bytes <= 1 << 20
    large = network(np.zeros((800, 1200), np.uint8))  # more by itself: works, and is not kept
    assert large[0].shape == (800, 1200)
    assert len(before) == 8 and network._workspaces.bytes <= 1 << 20


def test_a_result_does_not_change_when_the_network_runs_again():
    network = NcnnNetwork(load_checkpoint(DEFAULT_WEIGHTS).build(), 2)
    random = np.random.default_rng(0)
    first = network(random.integers(0, 256, (48, 64), np.uint8))
    kept = [array.copy() for array in first]
    network(random.integers(0, 256, (48, 64), np.uint8))
    for array, copy in zip(first, kept, strict=True):
        np.testing.assert_array_equal(array, copy)
