"""The steps behind the network as Triton kernels: `heatmap`, `dense_peaks` and `descriptors` in a dozen starts.

In torch's own steps suppression takes as long as the network: four max-pools over the whole map a
round, and a sort. Here only pixels above the threshold are looked at, a list of one in twenty or so.
Which keypoints are found, and their order, is the same.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from superpoint_ros.network.dense_peaks import Peaks, room
from superpoint_ros.network.descriptors import SHORTEST
from superpoint_ros.network.engines import dense_plan
from superpoint_ros.network.engines.dense_plan import Inputs, Kind, Steps
from superpoint_ros.network.peaks import FLAT_RADIUS
from superpoint_ros.network.superpoint import CELL

BLOCK = 256
PROGRAMS = 1024
"""At most, of those that share a list whose length only the GPU knows; enough to keep it busy."""
WIDEST = 32
"""Radius of suppression up to which a candidate's whole window is looked at in one go."""
TRIES = 16
"""Looks at the same candidates in one start of `_settle`."""
MOST_RANKED = 1 << 16
"""So many keypoints that there can be in a picture are compared each with each; of more the first are sorted out."""


def masked_heatmap(logits: Tensor, inputs: Inputs) -> Tensor:
    """As `dense_plan.masked_heatmap`."""
    batch, _, rows, columns = logits.shape
    height, width = inputs.grey.shape[1:]
    nowhere = torch.empty_like(inputs.blocked)
    _nowhere[triton.cdiv(height * width, BLOCK), batch](
        inputs.grey, inputs.sizes, inputs.blocked, nowhere, height, width, RADIUS=FLAT_RADIUS, BLOCK=BLOCK
    )
    heatmap, cells = torch.empty(inputs.grey.shape, device=logits.device), 16
    _heatmap[triton.cdiv(rows * columns, cells), batch](
        logits, *logits.stride(), nowhere, heatmap, rows, columns, CELL=CELL, CELLS=cells
    )
    return heatmap


def strongest(heatmap: Tensor, inputs: Inputs, kind: Kind, rounds: int) -> Peaks:
    """As `dense_plan.strongest`; a round is at least half of one there, mostly more."""
    if kind.radius > WIDEST:
        return dense_plan.strongest(heatmap, inputs, kind, rounds)
    batch, height, width = heatmap.shape
    pixels, most = height * width, room((height, width), kind.radius)
    state, listed = torch.empty_like(heatmap), torch.empty((batch, pixels), dtype=torch.int32, device=heatmap.device)
    candidates, kept, undecided = torch.zeros((3, batch), dtype=torch.int32, device=heatmap.device).unbind()
    grid = triton.cdiv(pixels, BLOCK), batch
    _candidates[grid](heatmap, inputs.threshold, state, listed, candidates, pixels, BLOCK=BLOCK)
    window = int(triton.next_power_of_2((2 * kind.radius + 1) ** 2))
    some = max(1, 2048 // window)
    for _ in range(rounds):
        _settle[min(triton.cdiv(pixels, some), PROGRAMS), batch](
            state, listed, candidates, height, width, RADIUS=kind.radius, SOME=some, WINDOW=window, TRIES=TRIES
        )
    ranked = most <= MOST_RANKED
    keys = (torch.empty if ranked else torch.zeros)((batch, most), dtype=torch.int64, device=heatmap.device)
    _kept[grid](state, listed, candidates, inputs.dropped, keys, kept, undecided, pixels, most, BLOCK=BLOCK)
    limit = min(kind.keypoints, most)
    xy, scores = (
        torch.zeros((batch, limit, 2), dtype=torch.int64, device=heatmap.device),
        heatmap.new_zeros(batch, limit),
    )
    if not ranked:
        keys = keys.topk(limit, dim=1).values
        kept.clamp_max_(limit)
    some = 16
    _ranked[min(triton.cdiv(keys.shape[1], some), PROGRAMS), batch](
        keys, kept, xy, scores, pixels, width, keys.shape[1], limit, SORTED=not ranked, SOME=some, OTHERS=128
    )
    return Peaks(xy, scores, undecided.view(torch.float32))


def sampled(dense: Tensor, xy: Tensor, inputs: Inputs, dtype: torch.dtype) -> Tensor:
    """As `dense_plan.sampled`."""
    batch, channels, rows, columns = dense.shape
    count = xy.shape[1]
    out = torch.empty((batch, count, channels), dtype=dtype, device=dense.device)
    _sampled[count, batch](
        dense, *dense.stride(), xy.contiguous(), out, count, rows, columns,
        CELL=CELL, SHORTEST=SHORTEST, CHANNELS=channels, WIDE=int(triton.next_power_of_2(channels)),
    )  # fmt: skip
    return out


STEPS = Steps(masked_heatmap, strongest, sampled, rounds=4)


@triton.jit
def _nowhere(grey, sizes, blocked, nowhere, height, width, RADIUS: tl.constexpr, BLOCK: tl.constexpr):
    """Blocked, or a window of one single value."""
    picture = tl.program_id(1).to(tl.int64) * height * width
    pixel = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    there = pixel < height * width
    y, x = pixel // width, pixel % width
    bottom, right = tl.load(sizes + 2 * tl.program_id(1)), tl.load(sizes + 2 * tl.program_id(1) + 1)
    high, low = _extremes(grey + picture, y, x, there, bottom, right, width, 1)
    if tl.max((high + low == 255).to(tl.int32), 0) > 0:  # in most blocks three rows tell
        high, low = _extremes(grey + picture, y, x, there, bottom, right, width, RADIUS)
    flat = high + low == 255
    value = tl.load(blocked + picture + pixel, there, 0).to(tl.int1) | flat
    tl.store(nowhere + picture + pixel, value, there)


@triton.jit
def _extremes(grey, y, x, there, bottom, right, width, RADIUS: tl.constexpr):
    high, low = tl.zeros_like(y), tl.zeros_like(y)
    for dy in range(-RADIUS, RADIUS + 1):
        for dx in tl.static_range(-RADIUS, RADIUS + 1):
            row, column = y + dy, x + dx
            seen = there & (row >= 0) & (row < bottom) & (column >= 0) & (column < right)
            value = tl.load(grey + row * width + column, seen, 0).to(tl.int32)
            high = tl.maximum(high, tl.where(seen, value, 0))
            low = tl.maximum(low, tl.where(seen, 255 - value, 0))
    return high, low


@triton.jit
def _heatmap(
    logits, picture_stride, channel_stride, row_stride, column_stride, nowhere, heatmap, rows, columns,
    CELL: tl.constexpr, CELLS: tl.constexpr,
):  # fmt: skip
    """Softmax over a cell's pixels and its dustbin, depth to space."""
    picture = tl.program_id(1).to(tl.int64)
    cell = tl.program_id(0) * CELLS + tl.arange(0, CELLS)
    there = cell < rows * columns
    row, column = cell // columns, cell % columns
    part = tl.arange(0, CELL * CELL)
    logits += picture * picture_stride + row * row_stride + column * column_stride
    dustbin = tl.load(logits + CELL * CELL * channel_stride, there, 0.0).to(tl.float32)
    values = tl.load(logits[:, None] + part[None, :] * channel_stride, there[:, None], 0.0).to(tl.float32)
    most = tl.maximum(tl.max(values, 1), dustbin)
    values = tl.exp(values - most[:, None])
    total = tl.sum(values, 1) + tl.exp(dustbin - most)
    place = (row[:, None] * CELL + (part // CELL)[None, :]) * (columns * CELL) + column[:, None] * CELL
    place += (part % CELL)[None, :] + picture * rows * columns * CELL * CELL
    free = tl.load(nowhere + place, there[:, None], 1) == 0
    tl.store(heatmap + place, tl.where(free, values / total[:, None], 0.0), there[:, None])


@triton.jit
def _candidates(heatmap, threshold, state, listed, count, pixels, BLOCK: tl.constexpr):
    """Scores above the threshold, others 0, and a list of where they are."""
    picture = tl.program_id(1)
    start = picture.to(tl.int64) * pixels
    pixel = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    there = pixel < pixels
    score = tl.load(heatmap + start + pixel, there, 0.0)
    above = there & (score > tl.load(threshold))
    tl.store(state + start + pixel, tl.where(above, score, 0.0), there)
    place = _places(above, count + picture)
    tl.store(listed + start + place, pixel, above)


@triton.jit
def _places(chosen, count):
    """Where in a list what is chosen goes, behind what others have put there."""
    ones = chosen.to(tl.int32)
    return tl.atomic_add(count, tl.sum(ones, 0)) + tl.cumsum(ones, 0) - 1


@triton.jit
def _settle(
    state, listed, count, height, width,
    RADIUS: tl.constexpr, SOME: tl.constexpr, WINDOW: tl.constexpr, TRIES: tl.constexpr,
):  # fmt: skip
    """Greedy suppression in place. A candidate is its score; once kept its negative, once suppressed 0.

    One is suppressed that has a kept one in its window, and kept if no other there is higher. Both are final, so that
    it does not matter in which order programs look, or whether they see what others have just written.
    """
    picture = tl.program_id(1)
    start, number = picture.to(tl.int64) * height * width, tl.load(count + picture)
    side: tl.constexpr = 2 * RADIUS + 1
    look = tl.arange(0, WINDOW)
    down, across = look // side - RADIUS, look % side - RADIUS
    earlier = (look < side * side // 2)[None, :]
    first = tl.program_id(0) * SOME
    while first < number:
        item = first + tl.arange(0, SOME)
        pixel = tl.load(listed + start + item, item < number, 0)
        own = tl.load(state + start + pixel, item < number, 0.0)
        row, column = (pixel // width)[:, None] + down[None, :], (pixel % width)[:, None] + across[None, :]
        inside = (row >= 0) & (row < height) & (column >= 0) & (column < width) & (look < side * side)[None, :]
        undecided = own > 0
        tries = 0
        while (tl.max(undecided.to(tl.int32), 0) > 0) & (tries < TRIES):
            seen = inside & undecided[:, None]
            other = tl.load(state + start + row * width + column, seen, 0.0, volatile=True)
            waits = (other > own[:, None]) | ((other == own[:, None]) & earlier)
            beaten = tl.max((other < 0).to(tl.int32), 1) > 0
            decided = undecided & (beaten | (tl.max(waits.to(tl.int32), 1) == 0))
            tl.store(state + start + pixel, tl.where(beaten, 0.0, -own), decided)
            undecided = undecided & (decided == 0)
            tries += 1
            tl.debug_barrier()
        first += tl.num_programs(0) * SOME


@triton.jit
def _kept(state, listed, count, dropped, keys, kept, undecided, pixels, most, BLOCK: tl.constexpr):
    """Keys of the kept, which sort as their scores do, of equal ones the first in row order first."""
    picture = tl.program_id(1)
    start, number = picture.to(tl.int64) * pixels, tl.load(count + picture)
    first = tl.program_id(0) * BLOCK
    if first < number:
        item = first + tl.arange(0, BLOCK)
        listing = item < number
        pixel = tl.load(listed + start + item, listing, 0)
        value = tl.load(state + start + pixel, listing, 0.0)
        # floats that are not negative sort as the integers of their bits
        open_bits = tl.where(value > 0, value, 0.0).to(tl.int32, bitcast=True)
        tl.atomic_max(undecided + picture, tl.max(open_bits, 0))
        chosen = (value < 0) & (tl.load(dropped + start + pixel, listing, 1) == 0)
        bits = tl.where(chosen, -value, 0.0).to(tl.int32, bitcast=True).to(tl.int64)
        place = _places(chosen, kept + picture)
        key = (bits << 32) | (pixels - 1 - pixel).to(tl.int64)
        tl.store(keys + picture.to(tl.int64) * most + place, key, chosen)


@triton.jit
def _ranked(
    keys, kept, xy, scores, pixels, width, most, limit,
    SORTED: tl.constexpr, SOME: tl.constexpr, OTHERS: tl.constexpr,
):  # fmt: skip
    """Places and scores of the highest keys in order: the rank of each is how many are higher."""
    picture = tl.program_id(1)
    number = tl.load(kept + picture)
    keys += picture.to(tl.int64) * most
    first = tl.program_id(0) * SOME
    while first < number:
        item = first + tl.arange(0, SOME)
        own = tl.load(keys + item, item < number, 0)
        if SORTED:
            rank = item
        else:
            higher = tl.zeros((SOME, OTHERS), tl.int32)
            start = number * 0
            while start < number:
                beside = start + tl.arange(0, OTHERS)  # a name of its own, or Triton before 3.5 takes it for `place`
                other = tl.load(keys + beside, beside < number, 0)
                higher += (other[None, :] > own[:, None]).to(tl.int32)
                start += OTHERS
            rank = tl.sum(higher, 1)
        among = (item < number) & (rank < limit)
        pixel = pixels - 1 - (own & 0xFFFFFFFF)
        place = picture.to(tl.int64) * limit + rank
        tl.store(xy + 2 * place, pixel % width, among)
        tl.store(xy + 2 * place + 1, pixel // width, among)
        tl.store(scores + place, (own >> 32).to(tl.int32).to(tl.float32, bitcast=True), among)
        first += tl.num_programs(0) * SOME


@triton.jit
def _sampled(
    dense, picture_stride, channel_stride, row_stride, column_stride, xy, out, count, rows, columns,
    CELL: tl.constexpr, SHORTEST: tl.constexpr, CHANNELS: tl.constexpr, WIDE: tl.constexpr,
):  # fmt: skip
    picture = tl.program_id(1).to(tl.int64)
    item = picture * count + tl.program_id(0)
    channel = tl.arange(0, WIDE)
    there = channel < CHANNELS
    x, left = _cell(tl.load(xy + 2 * item), columns, CELL)
    y, top = _cell(tl.load(xy + 2 * item + 1), rows, CELL)
    dense += picture * picture_stride + channel * channel_stride
    mixed = tl.zeros((WIDE,), tl.float32)
    for corner in tl.static_range(4):
        row, column = top + corner // 2, left + corner % 2
        # of a map of one row or column the next counts nothing
        row, column = tl.minimum(row, rows - 1), tl.minimum(column, columns - 1)
        share = (y if corner // 2 else 1 - y) * (x if corner % 2 else 1 - x)
        value = tl.load(dense + row * row_stride + column * column_stride, there, 0.0).to(tl.float32)
        mixed += value * (share / _length(value, SHORTEST))
    mixed = mixed / _length(mixed, SHORTEST)
    tl.store(out + item * CHANNELS + channel, mixed.to(out.dtype.element_ty), there)


@triton.jit
def _cell(pixel, cells, CELL: tl.constexpr):
    """How far beyond the centre of which cell."""
    position = tl.minimum(tl.maximum(pixel * (1 / CELL) + (0.5 / CELL - 0.5), 0.0), cells * 1.0 - 1)
    first = tl.minimum(tl.floor(position), tl.maximum(cells * 1.0 - 2, 0.0))
    return position - first, first.to(tl.int32)


@triton.jit
def _length(vector, SHORTEST: tl.constexpr):
    return tl.sqrt(tl.maximum(tl.sum(vector * vector, 0), SHORTEST * SHORTEST))
