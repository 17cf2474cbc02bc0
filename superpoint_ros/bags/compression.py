"""zstd and lz4, also of data that is cut off or damaged: what comes before the damage is kept."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

import lz4.frame

ZSTD_MAGIC, LZ4_MAGIC = b"\x28\xb5\x2f\xfd", b"\x04\x22\x4d\x18"
"""First bytes of a frame. CDR begins with a zero, mcap and sqlite3 files with letters."""

PIECE = 1 << 14
"""Bytes that damaged data is fed in: no more than what these hold is lost."""

LARGE_PIECE = 1 << 24
"""Bytes of good data that are made at a time where it does not say how many they are."""
UNPACKED = 1 << 20
"""Bytes that are made at a time on the way to a file."""
LARGEST = 1 << 30
"""Bytes of a message or a chunk, as far as nothing else is known: twenty images of 50 million pixels."""


def _zstd() -> Any:
    for name in ("compression.zstd", "backports.zstd"):  # the standard library has it from Python 3.14 on
        try:
            return importlib.import_module(name)
        except ImportError:
            continue
    raise ImportError("zstd is not installed: pip install backports.zstd")


zstd = _zstd()


def compression_of(data: bytes) -> str:
    """ "zstd", "lz4", or "" for bytes that are not a frame of either."""
    return {ZSTD_MAGIC: "zstd", LZ4_MAGIC: "lz4"}.get(bytes(data[:4]), "")


def decompress(data: bytes, compression: str, most: int = LARGEST) -> tuple[bytes, str]:
    """The bytes, and what is wrong with them in a few words; empty if nothing is.

    compression  "", "zstd" or "lz4"
    most         bytes that may come of it; of what would grow beyond nothing is kept
    """
    if not compression:
        return bytes(data), ""
    if compression not in ("zstd", "lz4"):
        return b"", f"compression '{compression[:20]}' is unknown"
    try:
        size = _told_size(data, compression)
        if size > most:
            return b"", f"{compression} data says that it has {size} bytes, more than {most}"
        stream = _stream(compression)
        found = [stream.decompress(data, max_length=size + 1 if size else PIECE)]
        total = len(found[0])
        while not (stream.eof or stream.needs_input or total > most):
            found.append(stream.decompress(b"", max_length=LARGE_PIECE))
            total += len(found[-1])
        if total > most:
            return b"", f"{compression} data has more than {most} bytes"
        if stream.eof and not stream.unused_data:
            return b"".join(found), ""
    except Exception:
        # ZstdError, RuntimeError or EOFError
        pass
    return _decompress_damaged(data, compression, most)


def unpack(source: Path, target: Path, compression: str, most: int) -> str:
    """Decompress a file into another, of which little is in memory at a time; returns what is wrong as above.

    most  bytes that may come of it; of what would grow beyond nothing is kept

    Raises OSError.
    """
    stream, total = _stream(compression), 0
    with source.open("rb") as packed, target.open("wb") as file:
        while not stream.eof:
            fed = packed.read(PIECE) if stream.needs_input else b""
            if stream.needs_input and not fed:
                return f"{compression} data is cut off"
            try:
                found = stream.decompress(fed, max_length=UNPACKED)
            except Exception:
                return f"{compression} data is damaged"
            total += len(found)
            if total > most:
                file.truncate(0)
                return f"{compression} data has more than the {most} bytes that there is room for"
            file.write(found)
        return f"{compression} data is followed by something else" if stream.unused_data or packed.read(1) else ""


def _stream(compression: str) -> Any:
    return zstd.ZstdDecompressor() if compression == "zstd" else lz4.frame.LZ4FrameDecompressor()


def _told_size(data: bytes, compression: str) -> int:
    """How many bytes a frame says it holds; 0 if it does not."""
    if compression == "zstd":
        return int(zstd.get_frame_info(data).decompressed_size or 0)
    return int(lz4.frame.get_frame_info(data)["content_size"])


def _decompress_damaged(data: bytes, compression: str, most: int) -> tuple[bytes, str]:
    stream = _stream(compression)
    found: list[bytes] = []
    total = 0
    try:
        for begin in range(0, len(data), PIECE):
            found.append(stream.decompress(data[begin : begin + PIECE]))
            total += len(found[-1])
            if stream.eof:
                return b"".join(found), f"{compression} data is followed by something else"
            if total > most:
                return b"", f"{compression} data has more than {most} bytes"
    except Exception:
        return b"".join(found), f"{compression} data is damaged"
    return b"".join(found), f"{compression} data is cut off"
