from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import slow
from superpoint_ros.network.descriptors import CellGrid, sample_descriptors


def random_map(rows, columns, seed=0):
    dense = torch.randn(2, 6, rows, columns, generator=torch.Generator().manual_seed(seed))
    return torch.nn.functional.normalize(dense, dim=1)


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@given(rows=st.integers(1, 5), columns=st.integers(1, 5), seed=st.integers(0, 99))
def test_sampling_equals_interpolation_between_cell_centres(layout, rows, columns, seed):
    dense = random_map(rows, columns, seed)
    size = torch.tensor([8 * columns, 8 * rows])
    # from edge to edge of the image, half a pixel beyond the outermost pixel centres
    xy = torch.rand(2, 30, 2, generator=torch.Generator().manual_seed(seed)) * size - 0.5
    lengths = torch.rand(2, 1, rows, columns) + 0.1  # which do not count
    sampled = sample_descriptors((dense * lengths).contiguous(memory_format=layout), xy)
    for b in range(2):
        expected = [slow.bilinear(dense[b].numpy(), float(x), float(y)) for x, y in xy[b]]
        np.testing.assert_allclose(sampled[b].numpy(), expected, atol=2e-5)


def test_a_grid_made_beforehand_gives_the_same():
    dense, xy = random_map(3, 4), torch.rand(2, 30, 2) * 24
    grid = CellGrid.of(3, 4, dense.device)
    assert torch.equal(sample_descriptors(dense, xy, grid), sample_descriptors(dense, xy))


def test_gradients_reach_the_map_and_stay_finite_where_it_is_blank():
    dense = random_map(3, 4)
    dense[:, :, :, :2] = 0
    dense.requires_grad_()
    sample_descriptors(dense, torch.rand(2, 50, 2) * torch.tensor([32, 24])).sum().backward()
    assert torch.isfinite(dense.grad).all()
    assert dense.grad[:, :, :, 2:].abs().sum() > 0


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
