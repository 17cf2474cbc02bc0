from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import slow
from superpoint_ros.network.descriptors import INTERPOLATION, gather_descriptors, sample_descriptors


def random_map(rows, columns, seed=0):
    dense = torch.randn(2, 6, rows, columns, generator=torch.Generator().manual_seed(seed))
    return torch.nn.functional.normalize(dense, dim=1)


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
@given(rows=st.integers(1, 5), columns=st.integers(1, 5), seed=st.integers(0, 99))
def test_sampling_equals_interpolation_between_cell_centres(interpolation, rows, columns, seed):
    dense = random_map(rows, columns, seed)
    size = torch.tensor([8 * columns, 8 * rows])
    # from edge to edge of the image, half a pixel beyond the outermost pixel centres
    xy = torch.rand(2, 30, 2, generator=torch.Generator().manual_seed(seed)) * size - 0.5
    sampled = sample_descriptors(dense, xy, interpolation)
    reference = slow.bilinear if interpolation == "bilinear" else slow.bicubic
    for b in range(2):
        expected = [reference(dense[b].numpy(), float(x), float(y)) for x, y in xy[b]]
        np.testing.assert_allclose(sampled[b].numpy(), expected, atol=2e-5)


@given(rows=st.integers(1, 5), columns=st.integers(1, 5), seed=st.integers(0, 99))
def test_gathering_equals_sampling(rows, columns, seed):
    dense = random_map(rows, columns, seed)
    size = torch.tensor([8 * columns, 8 * rows])
    xy = torch.rand(2, 30, 2, generator=torch.Generator().manual_seed(seed)) * size - 0.5
    for layout in (torch.contiguous_format, torch.channels_last):
        gathered = gather_descriptors(dense.contiguous(memory_format=layout), xy)
        torch.testing.assert_close(gathered, sample_descriptors(dense, xy), atol=1e-5, rtol=0)


def test_the_centre_of_a_cell_has_that_cells_descriptor():
    dense = random_map(3, 4)
    centres = torch.tensor([[8 * j + 3.5, 8 * i + 3.5] for i in range(3) for j in range(4)])
    sampled = sample_descriptors(dense, centres.expand(2, -1, -1))
    torch.testing.assert_close(sampled, dense.flatten(2).transpose(1, 2), atol=1e-5, rtol=0)


def test_sampled_descriptors_have_unit_length_in_float32_even_from_half_precision():
    dense = random_map(3, 4)
    xy = torch.rand(2, 50, 2) * 24
    sampled = sample_descriptors(dense.half(), xy)
    assert sampled.dtype == torch.float32
    torch.testing.assert_close(sampled.norm(dim=2), torch.ones(2, 50))
    torch.testing.assert_close(sampled, sample_descriptors(dense, xy), atol=3e-3, rtol=0)


def test_no_keypoints_give_no_descriptors():
    assert sample_descriptors(random_map(2, 2), torch.empty(2, 0, 2)).shape == (2, 0, 6)


def test_the_default_interpolation_is_bilinear():
    dense, xy = random_map(3, 4), torch.rand(2, 50, 2) * 24
    assert INTERPOLATION == "bilinear"
    assert torch.equal(sample_descriptors(dense, xy), sample_descriptors(dense, xy, "bilinear"))
    assert not torch.allclose(sample_descriptors(dense, xy, "bicubic"), sample_descriptors(dense, xy))
