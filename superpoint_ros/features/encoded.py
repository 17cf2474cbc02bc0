"""Encoded pictures, of CompressedImage messages and of files, to pixels: JPEG, PNG, WebP, BMP, TIFF, PNM."""

from __future__ import annotations

import struct
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from superpoint_ros.features.image import MAX_PIXELS, BadImage, check_pixels
from superpoint_ros.features.intensity import FoundRange, Scale
from superpoint_ros.features.picture_header import FORMATS, PNG_SIGNATURE, Header, read_header

END = b"\xff\xd9"
"""A JPEG's last marker, EOI."""
LARGEST_PIXEL = 32
"""Bytes of a picture file for a pixel: four channels of float64."""
EXIF_WITHIN = 4096
"""Bytes at the beginning of a file in which EXIF begins, if there is any."""
PNG_NAMED = (b"iCCP", b"sPLT")
"""Chunks that begin with a name, which ends at a zero."""
OTHER_BITS = b"\xfe" * 64
"""What missing pixels would be decoded from: libjpeg itself makes up zeros."""


def decode_encoded(
    data: NDArray[np.uint8],
    scale: Scale | None = None,
    max_pixels: int = MAX_PIXELS,
    colour: bool = False,
    mosaic: int | None = None,
    upright: bool = False,
) -> NDArray[np.uint8]:
    """The picture as (H, W) grey, or (H, W, 3) BGR, uint8.

    data     (N,) uint8, contiguous
    scale    of samples with more than eight bits, see `intensity`; None: the range of this picture
    mosaic   OpenCV's conversion (COLOR_Bayer…2GRAY) of what is a Bayer mosaic, if it has one channel
    upright  turn it as EXIF says; else pixels are as the sensor delivered them

    A JPEG without an end is taken if all its pixels are there. Raises BadImage for one that isn't whole, for what is no
    picture of FORMATS, and, before anything is decoded, for one of more than `max_pixels`.
    """
    header = read_header(memoryview(data.data))
    if header is None:
        raise BadImage(f"{len(data)} bytes are not a readable picture; expected one of {', '.join(FORMATS)}")
    check_pixels(header.height, header.width, max_pixels)
    flags = cv2.IMREAD_COLOR if colour else cv2.IMREAD_GRAYSCALE
    flags |= cv2.IMREAD_ANYDEPTH | cv2.IMREAD_IGNORE_ORIENTATION
    data = _without_odd_names(data) if header.format == "png" else data
    samples = _jpeg(data, header, flags) if header.format == "jpeg" else _decoded(data, flags)
    if upright and samples is not None and b"Exif" in data[:EXIF_WITHIN].tobytes():
        whole = _array(data.tobytes() + END) if header.format == "jpeg" else data
        samples = _decoded(whole, flags & ~cv2.IMREAD_IGNORE_ORIENTATION)
        header = header if samples is None else replace(header, height=samples.shape[0], width=samples.shape[1])
    if samples is None or samples.shape[:2] != (header.height, header.width):
        raise BadImage(
            f"{len(data)} bytes are a damaged picture ({header.format}, {header.width}×{header.height}, "
            f"{header.bits} bits); expected a whole one"
        )
    if mosaic is not None and header.channels == 1 and not colour and samples.dtype in (np.uint8, np.uint16):
        try:
            samples = np.asarray(cv2.cvtColor(samples, mosaic))
        except cv2.error as error:
            raise BadImage(
                f"a mosaic of {header.width}×{header.height} pixels gives no picture ({error.err})"
            ) from None
    if samples.dtype != np.uint8:
        samples = (scale or FoundRange())(samples)
    return np.asarray(samples, np.uint8)


def read_picture_file(
    path: Path, scale: Scale | None = None, max_pixels: int = MAX_PIXELS, colour: bool = False
) -> NDArray[np.uint8]:
    """A picture file as `decode_encoded` gives it, upright. Raises BadImage, naming the file, or OSError."""
    size = path.stat().st_size
    if size > LARGEST_PIXEL * max_pixels + (1 << 20):
        raise BadImage(f"{path}: {size} bytes are more than a picture of {max_pixels} pixels (max_image_pixels)")
    # not imread: it prints its own complaints, and cannot read names beyond ASCII everywhere
    data = np.fromfile(path, np.uint8)
    try:
        return decode_encoded(data, scale, max_pixels, colour, upright=True)
    except BadImage as error:
        raise BadImage(f"{path}: {error}") from None


def _without_odd_names(data: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """A PNG without chunks whose names are no plain text: libpng complains of profiles by their names on the terminal,
    which may obey them.
    """
    view, begin, kept, last = memoryview(data.data), len(PNG_SIGNATURE), [], 0
    while begin + 8 <= len(view):
        length, kind = struct.unpack_from(">I4s", view, begin)
        end = begin + 12 + length
        name = bytes(view[begin + 8 : end - 4]).split(b"\0", 1)[0] if kind in PNG_NAMED else b""
        if not all(32 <= letter < 127 for letter in name):
            kept.append(view[last:begin])
            last = end
        begin = end
    return _array(b"".join([*kept, view[last:]])) if last else data


def _decoded(data: NDArray[np.uint8], flags: int) -> NDArray[Any] | None:
    try:
        return np.asarray(picture) if (picture := cv2.imdecode(data, flags)) is not None else None
    except cv2.error:
        return None


def _jpeg(data: NDArray[np.uint8], header: Header, flags: int) -> NDArray[Any] | None:
    """The picture if no pixel of it is missing; some cameras send JPEGs without END, which not every OpenCV reads.

    Of a picture that is cut off libjpeg makes the rest grey: all coefficients zero. Where the last pixels are that
    grey, other bits tell whether any were needed. (A cut within the last pixels that are coded together, 8×8 to 16×16
    in the corner, is not noticed.)
    """
    whole = data.tobytes()
    end = whole.find(END, header.scan)  # within the pixels' data 0xFF comes before 0 and RST only
    pixels = whole[:end].rstrip(b"\xff") if end >= 0 else whole.rstrip(b"\xff")
    picture = _decoded(data if end >= 0 else _array(pixels + END), flags)
    if picture is None:
        return None
    sides = zip((header.height, header.width), header.block, strict=True)
    top, left = ((side - 1) // block * block for side, block in sides)
    if (picture[top:, left:] != 128).any():
        return picture
    other = _decoded(_array(pixels + OTHER_BITS + END), flags)
    return picture if other is not None and np.array_equal(picture, other) else None


def _array(data: bytes) -> NDArray[np.uint8]:
    return np.frombuffer(data, np.uint8)
