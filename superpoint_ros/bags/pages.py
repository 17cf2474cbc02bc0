"""Rows of a damaged sqlite3 file, straight from its pages: what SQLite itself refuses to read.

Format: https://www.sqlite.org/fileformat2.html. Rows lie in table leaf pages; their trees, indices and counts, which
damage makes unusable, are not needed to find them.
"""

from __future__ import annotations

import mmap
import struct
from collections.abc import Iterator
from dataclasses import dataclass

LEAF = 0x0D
DEFAULT_PAGE = 4096
Value = int | float | str | bytes | None


@dataclass(frozen=True)
class Row:
    """A row whose values are read when they are asked for.

    types   serial types of its columns
    offset  of its cell's payload, in the file
    length  of the payload
    """

    rowid: int
    types: tuple[int, ...]
    offset: int
    length: int


class Pages:
    """The leaf pages of an sqlite3 file."""

    def __init__(self, data: bytes | mmap.mmap) -> None:
        self._data = data
        size = int.from_bytes(data[16:18], "big")
        self._page = 65536 if size == 1 else size if size >= 512 and not size & (size - 1) else DEFAULT_PAGE
        self._usable = self._page - (data[20] if len(data) > 20 and data[20] <= 32 else 0)

    def rows(self) -> Iterator[Row]:
        """All rows of all tables that look whole, in order of pages."""
        for begin in range(0, len(self._data), self._page):
            head = begin + (100 if begin == 0 else 0)
            if self._data[head : head + 1] != bytes([LEAF]) or begin + self._page > len(self._data):
                continue
            (cells,) = struct.unpack_from(">H", self._data, head + 3)
            if head + 8 + 2 * cells > begin + self._page:
                continue
            for offset in struct.unpack_from(f">{cells}H", self._data, head + 8):
                row = self._row(begin + offset, begin + self._page) if offset < self._page else None
                if row is not None:
                    yield row

    def values(self, row: Row, columns: int) -> list[Value] | None:
        """Its first so many values; None if they are not all there."""
        sizes = [_size(kind) for kind in row.types[:columns]]
        begin, _ = self._varint(row.offset)
        wanted = begin + sum(sizes)
        payload = self._payload(row, wanted)
        if len(payload) < wanted or len(sizes) < columns:
            return None
        found: list[Value] = []
        for kind, size in zip(row.types, sizes, strict=False):
            found.append(_value(kind, payload[begin : begin + size], row.rowid if not found else None))
            begin += size
        return found

    def _row(self, offset: int, end: int) -> Row | None:
        try:
            length, offset = self._varint(offset)
            rowid, offset = self._varint(offset)
            header, position = self._varint(offset)
            types = []
            while position < offset + header and position < end:
                kind, position = self._varint(position)
                types.append(kind)
        except IndexError:
            return None
        if position != offset + header or header + sum(map(_size, types)) != length:
            return None
        return Row(rowid, tuple(types), offset, length)

    def _payload(self, row: Row, wanted: int) -> bytes:
        """Its first bytes, from its page and those where it goes on."""
        most = self._usable - 35
        local = row.length
        if local > most:
            least = (self._usable - 12) * 32 // 255 - 23
            local = least + (row.length - least) % (self._usable - 4)
            local = least if local > most else local
        found = [bytes(self._data[row.offset : row.offset + local])]
        missing, link = wanted - local, row.offset + local
        while missing > 0:
            page = int.from_bytes(self._data[link : link + 4], "big")
            link = (page - 1) * self._page
            if page < 2 or link + self._page > len(self._data):
                break
            found.append(bytes(self._data[link + 4 : link + min(self._usable, 4 + missing)]))
            missing -= self._usable - 4
        return b"".join(found)[:wanted]

    def _varint(self, offset: int) -> tuple[int, int]:
        """A number of 1 to 9 bytes, big-endian, 7 bits each, and where it ends."""
        value = 0
        for position in range(offset, offset + 8):
            byte = self._data[position]
            value = value << 7 | byte & 0x7F
            if byte < 0x80:
                return value, position + 1
        return value << 8 | self._data[offset + 8], offset + 9


def _size(kind: int) -> int:
    """Bytes of a value of a serial type."""
    if kind >= 12:
        return (kind - 12) // 2
    return (0, 1, 2, 3, 4, 6, 8, 8, 0, 0, 0, 0)[kind]


def _value(kind: int, data: bytes, rowid: int | None) -> Value:
    """rowid stands for NULL in the first column, where an INTEGER PRIMARY KEY is kept."""
    if kind == 0:
        return rowid
    if kind == 7:
        return float(struct.unpack(">d", data)[0])
    if kind in (8, 9):
        return kind - 8
    if kind >= 12:
        return data.decode("utf-8", "replace") if kind % 2 else data
    return int.from_bytes(data, "big", signed=True)
