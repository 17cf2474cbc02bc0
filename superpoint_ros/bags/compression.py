"""zstd and lz4, also of data that is cut off or damaged: what comes before the damage is kept."""

from __future__ import annotations

import importlib
from typing import Any

import lz4.frame

ZSTD_MAGIC, LZ4_MAGIC = b"\x28\xb5\x2f\xfd", b"\x04\x22\x4d\x18"
"""First bytes of a frame. CDR begins with a zero, mcap and sqlite3 files with letters."""

PIECE = 1 << 14
"""Bytes that damaged data is fed in: no more than what these hold is lost."""


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


def decompress(data: bytes, compression: str) -> tuple[bytes, str]:
    """The bytes, and what is wrong with them in a few words; empty if nothing is.

    compression  "", "zstd" or "lz4"
    """
    if not compression:
        return bytes(data), ""
    if compression not in ("zstd", "lz4"):
        return b"", f"compression '{compression[:20]}' is unknown"
    try:
        whole = zstd.decompress(data) if compression == "zstd" else lz4.frame.decompress(data)
        return bytes(whole), ""
    except Exception:
        # ZstdError, RuntimeError or EOFError
        return _decompress_damaged(data, compression)


def _decompress_damaged(data: bytes, compression: str) -> tuple[bytes, str]:
    stream = zstd.ZstdDecompressor() if compression == "zstd" else lz4.frame.LZ4FrameDecompressor()
    found = []
    try:
        for begin in range(0, len(data), PIECE):
            found.append(stream.decompress(data[begin : begin + PIECE]))
            if stream.eof:
                return b"".join(found), f"{compression} data is followed by something else"
    except Exception:
        return b"".join(found), f"{compression} data is damaged"
    return b"".join(found), f"{compression} data is cut off"
