"""Maps cut into tiles that overlap by what convolutions reach, and the memory for them.

Unpadded convolutions make tiles exact: a tile is read with the pixels around it that its
convolutions reach, and what they compute outside the picture is set to the zeros that their padding
would have been.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Map = NDArray[np.float32]

ASPECT = 2.5
"""Width of a tile over its height: long rows are copied faster, narrow strips overlap more."""


Margins = tuple[int, int, int, int]
"""Rows above and below, columns left and right."""


@dataclass(frozen=True)
class Part:
    """A stretch of a network between two max-pools, as far as its tiles are concerned.

    channels  of its input; of which
    pack      lie side by side for each pixel
    shift     its input is the picture halved so many times
    reach     3×3 convolutions in it, one after the other: pixels that they see beyond a tile
    pooled    1 if it ends in a 2×2 max-pool, else 0
    area      pixels of its input that a tile has, about
    """

    channels: int
    pack: int
    shift: int
    reach: int
    pooled: int
    area: int


@dataclass(frozen=True)
class Tile:
    """A part of a map.

    source   what the convolutions see of the padded map: (…, h + 2·reach, w + 2·reach, p)
    outside  for each convolution but the last: how much of what it computes is not of the picture
    where    rows and columns of its place in the output
    """

    source: NDArray[Any]
    outside: list[Margins]
    where: tuple[slice, slice]


@dataclass(frozen=True)
class Workspace:
    """Buffers for one picture size: fresh memory costs a page fault every 4 KB.

    picture  (H, W) uint8, where it is to be written
    inputs   of each part but the first, what is not padding: (C / p, H, W, p) float32
    tiles    of each part
    bytes    what it takes
    """

    picture: NDArray[np.uint8]
    inputs: list[Map]
    tiles: list[list[Tile]]
    bytes: int

    @staticmethod
    def of(shape: tuple[int, int], parts: Sequence[Part], workers: int) -> Workspace:
        """Buffers for a picture of (height, width)."""
        first, *others = parts
        block = 1 << first.shift
        margin = first.reach * block
        whole = np.zeros((shape[0] + 2 * margin, shape[1] + 2 * margin), np.uint8)
        # A block's pixels are channels: (block, block, H / block, W / block, 1).
        blocks = whole.reshape(whole.shape[0] // block, block, -1, block).transpose(1, 3, 0, 2)[..., None]
        inputs, tiles, total = [], [list(cut(blocks, first, workers))], whole.nbytes
        for part in others:
            height, width = (side >> part.shift for side in shape)
            reach, pack = part.reach, part.pack
            padded = np.zeros((part.channels // pack, height + 2 * reach, width + 2 * reach, pack), np.float32)
            inputs.append(padded[:, reach:-reach, reach:-reach])
            tiles.append(list(cut(padded, part, workers)))
            total += padded.nbytes
        return Workspace(whole[margin:-margin, margin:-margin], inputs, tiles, total)


class Workspaces:
    """Makes workspaces, and keeps those used last as long as all together stay under `limit` bytes.

    One that is larger than the limit by itself is not kept: at that size its memory is the least of the time.
    """

    def __init__(self, make: Callable[[tuple[int, int]], Workspace], limit: int) -> None:
        self._make, self._limit = make, limit
        self._kept: dict[tuple[int, int], Workspace] = {}

    @property
    def bytes(self) -> int:
        """Of all that are kept."""
        return sum(work.bytes for work in self._kept.values())

    def __call__(self, shape: tuple[int, int]) -> Workspace:
        """The one for a picture of (height, width); for one thread at a time."""
        work = self._kept.pop(shape, None) or self._make(shape)
        if work.bytes > self._limit:
            return work
        while self.bytes + work.bytes > self._limit:
            del self._kept[next(iter(self._kept))]
        self._kept[shape] = work  # the last used comes last
        return work


def cut(padded: NDArray[Any], part: Part, workers: int) -> Iterator[Tile]:
    """A part's padded input, (…, H, W, p), in tiles of about equal size, row by row; as many in a column as leave no
    worker without."""
    reach, pooled = part.reach, part.pooled
    height, width = (side - 2 * reach for side in padded.shape[-3:-1])
    # in pixels of the output, so that tiles begin at even pixels where a max-pool follows
    bottom_edge, right_edge = height >> pooled, width >> pooled
    across = max(1, round(width / (part.area * ASPECT) ** 0.5))
    down = max(1, round(height * width / (across * part.area)))
    down = min(-(-down // workers) * workers, bottom_edge)
    rows, columns = (
        np.linspace(0, edge, count + 1).astype(int).tolist()
        for edge, count in ((bottom_edge, down), (right_edge, min(across, right_edge)))
    )
    for top, bottom in zip(rows, rows[1:], strict=False):
        for left, right in zip(columns, columns[1:], strict=False):
            y0, y1, x0, x1 = (edge << pooled for edge in (top, bottom, left, right))
            ends = y0, height - y1, x0, width - x1
            yield Tile(
                padded[..., y0 : y1 + 2 * reach, x0 : x1 + 2 * reach, :],
                [_beyond(ends, reach - step) for step in range(1, reach)],
                np.s_[top:bottom, left:right],
            )


def _beyond(ends: Margins, margin: int) -> Margins:
    """What of a margin around a tile is outside of a map whose ends are so far away."""
    above, below, left, right = (max(0, margin - end) for end in ends)
    return above, below, left, right
