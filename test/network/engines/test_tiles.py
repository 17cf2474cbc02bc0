"""Tiles cover a map once, see what convolutions reach, and buffers stay within their bytes."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from superpoint_ros.network.engines.tiles import Part, Workspace, Workspaces, cut

PARTS = [Part(1, 1, 0, 2, 1, 500), Part(8, 4, 1, 4, 1, 200), Part(16, 8, 2, 3, 0, 60)]


def padded(part, size):
    height, width = (side + 2 * part.reach for side in size)
    return np.zeros((part.channels // part.pack, height, width, part.pack), np.float32)


@given(
    st.sampled_from(PARTS), st.integers(1, 30).map(lambda n: 2 * n), st.integers(1, 60).map(lambda n: 2 * n),
    st.integers(1, 4)
)  # fmt: skip
def test_every_pixel_is_in_one_tile_with_all_that_its_convolutions_reach(part, height, width, threads):
    image = padded(part, (height, width))
    inside = image[:, part.reach : -part.reach, part.reach : -part.reach]
    inside[:] = np.arange(1, height * width + 1).reshape(height, width, 1)
    seen = np.zeros((height >> part.pooled, width >> part.pooled), int)
    tiles = list(cut(image, part, threads))
    for tile in tiles:
        seen[tile.where] += 1
        rows, columns = (slice(span.start << part.pooled, span.stop << part.pooled) for span in tile.where)
        reach = part.reach
        np.testing.assert_array_equal(tile.source[:, reach:-reach, reach:-reach], inside[:, rows, columns])
        # what the first convolution computes, 1 pixel less on every side, and what of it is not of the picture
        outside = tile.source[0, :, :, 0] == 0
        for step, (above, below, left, right) in enumerate(tile.outside, start=1):
            computed = outside[step:-step, step:-step].copy()
            computed[above : computed.shape[0] - below, left : computed.shape[1] - right] ^= True
            assert computed.all()
    assert (seen == 1).all()
    assert len({tile.where[0].start for tile in tiles}) % threads == 0 or len(tiles) < threads or (
        len({tile.where[0].start for tile in tiles}) == height >> part.pooled
    )  # fmt: skip


@pytest.mark.parametrize("part", PARTS)
def test_tiles_are_about_as_large_as_asked_for(part):
    tiles = list(cut(padded(part, (120, 160)), part, 1))
    areas = [np.prod([span.stop - span.start for span in tile.where]) << 2 * part.pooled for tile in tiles]
    assert 0.5 * part.area < np.mean(areas) < 2 * part.area
    assert max(areas) < 3 * min(areas)


def test_buffers_of_a_size_are_used_again():
    made = []
    spaces = Workspaces(lambda shape: made.append(shape) or Workspace.of(shape, PARTS, 1), 1 << 30)
    assert spaces((48, 64)) is spaces((48, 64))
    assert spaces((64, 64)) is not spaces((48, 64))
    assert made == [(48, 64), (64, 64)]


def test_kept_buffers_stay_within_their_bytes_and_those_used_last_are_kept():
    one = Workspace.of((64, 64), PARTS, 1).bytes
    spaces = Workspaces(lambda shape: Workspace.of(shape, PARTS, 1), 5 * one)
    sizes = [(64, 64), (64, 128), (128, 64), (64, 80)]
    kept = {size: spaces(size) for size in sizes}
    assert spaces.bytes <= 5 * one
    assert spaces((64, 80)) is kept[64, 80]
    assert spaces((64, 64)) is not kept[64, 64]
    large = spaces((512, 512))
    assert large.bytes > 5 * one
    assert spaces.bytes <= 5 * one
    assert spaces((64, 80)) is kept[64, 80], "a picture too large to be kept for took the place of others"


def test_a_workspace_counts_all_that_it_takes():
    work = Workspace.of((64, 96), PARTS, 2)
    assert work.bytes == work.picture.base.nbytes + sum(inside.base.nbytes for inside in work.inputs)


@pytest.mark.parametrize("stem", [1, 2])
def test_the_pictures_blocks_become_channels_as_in_torch(stem):
    first = Part(stem**2, 1, stem - 1, 2, 1, 300)
    work = Workspace.of((48, 64), [first, *PARTS[1:]], 1)
    work.picture[:] = np.random.default_rng(0).integers(1, 256, (48, 64), np.uint8)
    expected = torch.nn.functional.pixel_unshuffle(torch.from_numpy(work.picture.copy())[None, None], stem)[0].numpy()
    for tile in work.tiles[0]:
        rows, columns = (slice(2 * span.start, 2 * span.stop) for span in tile.where)
        channels = tile.source.reshape(stem**2, *tile.source.shape[2:4])
        np.testing.assert_array_equal(channels[:, 2:-2, 2:-2], expected[:, rows, columns])
        assert channels.size - np.count_nonzero(channels) == stem**2 * (
            channels[0].size - np.count_nonzero(channels[0])
        ), "outside of the picture all channels are 0"
