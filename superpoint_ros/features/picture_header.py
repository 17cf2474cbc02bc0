"""Size and samples of an encoded picture, read from its first bytes before anything of it is decoded.

OpenCV allocates what a file says it is: a PNG of 50 bytes may be one of 4 gigapixels. It has no call that reads the
header alone, and others tell neither how many bits and channels there are, nor where a JPEG's pixels begin.

Formats: PNG (W3C, 11.2.2), JPEG (ITU-T T.81, annex B), WebP (RFC 9649), BMP, TIFF 6.0 and BigTIFF, PNM (Netpbm).
"""

from __future__ import annotations

import re
import struct
from dataclasses import dataclass, replace

PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
FORMATS = ("jpeg", "png", "webp", "bmp", "tiff", "pnm")


@dataclass(frozen=True)
class Header:
    """What an encoded picture says it is.

    format    of FORMATS
    channels  1 for grey, 3 for colour; those of a palette count as colour
    bits      of a sample
    scan      byte at which a JPEG's pixels begin, else 0
    block     (height, width) of the pixels that a JPEG codes at a time, else (0, 0)
    """

    format: str
    width: int
    height: int
    channels: int
    bits: int
    scan: int = 0
    block: tuple[int, int] = (0, 0)


def read_header(data: bytes | memoryview) -> Header | None:
    """The header of a picture of FORMATS; None for anything else, and for one that is cut off."""
    try:
        for begin, read in READERS.items():
            if bytes(data[: len(begin)]) == begin:
                header = read(data)
                return header if header is not None and header.width > 0 and header.height > 0 else None
        return _pnm(data)
    except (struct.error, LookupError, ValueError, OverflowError):
        return None  # it ends before its header does, or decoders may not agree on what it says


def _png(data: bytes | memoryview) -> Header | None:
    length, kind, width, height, bits, colour = struct.unpack_from(">I4sIIBB", data, 8)
    return Header("png", width, height, 1 if colour in (0, 4) else 3, bits) if kind == b"IHDR" else None


def _jpeg(data: bytes | memoryview) -> Header | None:
    position, found = 2, None
    while data[position] == 0xFF:
        while data[position] == 0xFF:  # any number of them comes before a marker
            position += 1
        marker = data[position]
        (length,) = struct.unpack_from(">H", data, position + 1)
        if marker < 0xC0 or 0xD0 <= marker < 0xDA or length < 2:
            return None  # what has no place before the pixels, or no length: libjpeg would look for the next 0xFF
        if 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):  # a frame header, SOF
            if found is not None:
                return None
            bits, height, width, channels = struct.unpack_from(">BHHB", data, position + 3)
            factors = [data[position + 10 + 3 * channel] for channel in range(channels)]
            block = (max(each & 15 for each in factors), max(each >> 4 for each in factors))
            block = block if channels > 1 else (1, 1)  # T.81, A.2.2
            found = Header("jpeg", width, height, channels, bits, 0, (8 * block[0], 8 * block[1]))
        position += 1 + length
        if marker == 0xDA:  # SOS
            return replace(found, scan=position) if found is not None else None
    return None


def _webp(data: bytes | memoryview) -> Header | None:
    if bytes(data[8:12]) != b"WEBP":
        return None
    kind = bytes(data[12:16])
    if kind == b"VP8 ":
        width, height = struct.unpack_from("<HH", data, 26)
        return Header("webp", width & 0x3FFF, height & 0x3FFF, 3, 8)
    if kind == b"VP8L":
        (packed,) = struct.unpack_from("<I", data, 21)
        return Header("webp", (packed & 0x3FFF) + 1, (packed >> 14 & 0x3FFF) + 1, 3, 8)
    if kind == b"VP8X":
        width, height = (int.from_bytes(data[begin : begin + 3], "little") + 1 for begin in (24, 27))
        return Header("webp", width, height, 3, 8) if len(data) >= 30 else None
    return None


def _bmp(data: bytes | memoryview) -> Header | None:
    (size,) = struct.unpack_from("<I", data, 14)
    if size == 12:
        width, height = struct.unpack_from("<HH", data, 18)
    else:
        width, height = struct.unpack_from("<ii", data, 18)
    return Header("bmp", width, abs(height), 3, 8)


def _tiff(data: bytes | memoryview) -> Header | None:
    order = "<" if data[0] == 0x49 else ">"
    big = struct.unpack_from(f"{order}H", data, 2)[0] == 43
    (directory,) = struct.unpack_from(f"{order}{'Q' if big else 'I'}", data, 8 if big else 4)
    (count,) = struct.unpack_from(f"{order}{'Q' if big else 'H'}", data, directory)
    values: dict[int, int] = {}
    entry, head, room = (20, 8, 8) if big else (12, 2, 4)
    for number in range(min(count, 4096)):
        at = directory + head + entry * number
        tag, kind = struct.unpack_from(f"{order}HH", data, at)
        if tag not in (256, 257, 258, 277, 322, 323):
            continue
        (many,) = struct.unpack_from(f"{order}{'Q' if big else 'I'}", data, at + 4)
        if tag in values or (tag != 258 and many != 1):
            raise ValueError("which of the values counts depends on who reads it")
        letter = TIFF_INTEGERS[kind]
        at += 12 if big else 8
        if many * struct.calcsize(letter) > room:  # they lie elsewhere; of BitsPerSample the first is that of all
            (at,) = struct.unpack_from(f"{order}{'Q' if big else 'I'}", data, at)
        (values[tag],) = struct.unpack_from(f"{order}{letter}", data, at)
    if 256 not in values or 257 not in values:
        return None
    if values.get(322, 1) * values.get(323, 1) > max(values[256] * values[257], LARGEST_TILE):
        return None
    return Header("tiff", values[256], values[257], values.get(277, 1), values.get(258, 1))


def _pnm(data: bytes | memoryview) -> Header | None:
    start = bytes(data[:1024])
    match = PNM.match(start)
    if match is None:
        return None
    kind, largest = int(match[1]), int(match[4] or 255)
    bits = 16 if kind not in (1, 4) and largest > 255 else 8
    return Header("pnm", int(match[2]), int(match[3]), 3 if kind in (3, 6) else 1, bits)


PNM = re.compile(rb"P([1-6])G+(\d{1,9})\sG*(\d{1,9})\sG*(\d{1,9})?".replace(b"G", rb"(?:\s|#[^\n\r]*[\n\r])"))
"""Gaps are white space and comments, which decoders take for one only after white space (or the first two letters)."""
LARGEST_TILE = 1 << 20
"""Pixels of a TIFF's tile that is larger than the picture; decoders have memory for one."""
TIFF_INTEGERS = {1: "B", 3: "H", 4: "I", 6: "b", 8: "h", 9: "i", 16: "Q", 17: "q"}
"""Types of TIFF 6.0, section 2, and BigTIFF, that libtiff takes for a size, as letters of `struct`."""
READERS = {
    PNG_SIGNATURE: _png,
    b"\xff\xd8\xff": _jpeg,
    b"RIFF": _webp,
    b"BM": _bmp,
    b"II*\0": _tiff,
    b"MM\0*": _tiff,
    b"II+\0": _tiff,
    b"MM\0+": _tiff,
}
