"""Maps cut into tiles that overlap by what convolutions reach, and the memory for them.

Unpadded convolutions make tiles exact: a tile is read with the pixels around it that its
convolutions reach, and what they compute outside the picture is set to the zeros that their padding
would have been.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

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

    source   what the convolutions see of the padded map: (C / p, h + 2·reach, w + 2·reach, p)
    outside  for each convolution but the last: how much of what it computes is not of the picture
    where    rows and columns of its place in the output
    """

    source: Map
    outside: list[Margins]
    where: tuple[slice, slice]


@dataclass(frozen=True)
class Workspace:
    """Buffers for one picture size: fresh memory costs a page fault every 4 KB.

    inside  of each part's input, what is not padding: (C / p, H, W, p)
    tiles   of each part
    bytes   what it takes
    """

    inside: list[Map]
    tiles: list[list[Tile]]
    bytes: int

    @staticmethod
    def of(shape: tuple[int, int], parts: Sequence[Part], threads: int) -> Workspace:
        """Buffers for a picture of (height, width)."""
        inside, tiles, total = [], [], 0
        for part in parts:
            height, width = (side >> part.shift for side in shape)
            reach, pack = part.reach, part.pack
            padded = np.zeros((part.channels // pack, height + 2 * reach, width + 2 * reach, pack), np.float32)
            inside.append(padded[:, reach:-reach, reach:-reach])
            tiles.append(list(cut(padded, part, threads)))
            total += padded.nbytes
        return Workspace(inside, tiles, total)


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


def cut(padded: Map, part: Part, threads: int) -> Iterator[Tile]:
    """A part's padded input in tiles of about equal size, as many in a column as make no thread wait."""
    reach, pooled = part.reach, part.pooled
    size = padded.shape[1] - 2 * reach, padded.shape[2] - 2 * reach
    # in pixels of the output, so that tiles begin at even pixels where a max-pool follows
    bottom_edge, right_edge = size[0] >> pooled, size[1] >> pooled
    tile_height = (part.area / ASPECT) ** 0.5
    across = max(1, round(size[1] / (tile_height * ASPECT)))
    down = max(1, round(size[0] * size[1] / (across * part.area)))
    down = min(-(-down // threads) * threads, bottom_edge)
    rows, columns = (
        np.linspace(0, edge, count + 1).astype(int).tolist()
        for edge, count in ((bottom_edge, down), (right_edge, min(across, right_edge)))
    )
    for top, bottom in zip(rows, rows[1:], strict=False):
        for left, right in zip(columns, columns[1:], strict=False):
            y0, y1, x0, x1 = (edge << pooled for edge in (top, bottom, left, right))
            ends = y0, size[0] - y1, x0, size[1] - x1
            yield Tile(
                padded[:, y0 : y1 + 2 * reach, x0 : x1 + 2 * reach],
                [_beyond(ends, reach - step) for step in range(1, reach)],
                np.s_[top:bottom, left:right],
            )


def _beyond(ends: Margins, margin: int) -> Margins:
    """What of a margin around a tile is outside of a map whose ends are so far away."""
    above, below, left, right = (max(0, margin - end) for end in ends)
    return above, below, left, right
