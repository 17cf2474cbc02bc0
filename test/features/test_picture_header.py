"""superpoint_ros/features/picture_header.py"""

import struct

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from superpoint_ros.features.picture_header import read_header

SUFFIXES = {
    ".jpg": "jpeg",
    ".png": "png",
    ".webp": "webp",
    ".bmp": "bmp",
    ".tiff": "tiff",
    ".pgm": "pnm",
    ".ppm": "pnm",
}


BEGINNINGS = [b"", b"\xff\xd8\xff\xc0", b"II*\0\x08\0\0\0", b"RIFF\0\0\0\0WEBP", b"BM", b"P5 "]


def encoded(suffix, height=37, width=53, channels=3, dtype=np.uint8, *options):
    shape = (height, width, 3) if channels == 3 else (height, width)
    pixels = (np.random.default_rng(0).random(shape) * 255).astype(dtype)
    return cv2.imencode(suffix, pixels, options)[1].tobytes()


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize("channels", [1, 3])
def test_the_header_has_the_size_and_samples_that_opencv_decodes(suffix, channels):
    if (suffix, channels) in ((".pgm", 3), (".ppm", 1)):
        pytest.skip("the format has another number of channels")
    header = read_header(encoded(suffix, channels=channels))
    assert (header.format, header.height, header.width, header.bits) == (SUFFIXES[suffix], 37, 53, 8)
    if suffix in (".jpg", ".png", ".tiff", ".pgm"):
        assert header.channels == channels


@pytest.mark.parametrize(("suffix", "dtype", "bits"), [(".png", "u2", 16), (".tiff", "u2", 16), (".tiff", "f4", 32)])
def test_deep_samples_are_told(suffix, dtype, bits):
    header = read_header(encoded(suffix, channels=1, dtype=np.dtype(dtype)))
    assert (header.height, header.width, header.channels, header.bits) == (37, 53, 1, bits)


def test_a_lossless_webp_is_read():
    header = read_header(encoded(".webp", 37, 53, 3, np.uint8, cv2.IMWRITE_WEBP_QUALITY, 101))
    assert (header.height, header.width) == (37, 53)


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("big", [False, True])
def test_tiff_directories_of_either_byte_order_and_size_are_read(order, big):
    entries = [(256, 4, 530), (257, 3, 37), (258, 3, 16), (277, 3, 1)]
    head = (b"II" if order == "<" else b"MM") + struct.pack(f"{order}H", 43 if big else 42)
    head += struct.pack(f"{order}HHQ", 8, 0, 16) if big else struct.pack(f"{order}I", 8)
    body = struct.pack(f"{order}{'Q' if big else 'H'}", len(entries))
    for tag, kind, value in entries:
        body += struct.pack(f"{order}HH{'Q' if big else 'I'}", tag, kind, 1)
        body += struct.pack(f"{order}{'H' if kind == 3 else 'I'}", value).ljust(8 if big else 4, b"\0")
    header = read_header(head + body)
    assert (header.width, header.height, header.bits, header.channels) == (530, 37, 16, 1)


def tiff_of(*entries):
    """A little-endian TIFF's header and directory: (tag, type, value) each."""
    body = b"".join(struct.pack("<HHIi", tag, kind, 1, value) for tag, kind, value in entries)
    return b"II*\0" + struct.pack("<IH", 8, len(entries)) + body


@pytest.mark.parametrize("kind", [4, 9])
def test_a_tiff_whose_size_is_of_a_rarer_type_is_not_taken_for_a_small_one(kind):
    header = read_header(tiff_of((256, kind, 70000), (257, kind, 80000), (258, 3, 8)))
    assert (header.width, header.height) == (70000, 80000)


@pytest.mark.parametrize(
    "data",
    [
        tiff_of((256, 11, 1), (257, 4, 1)),  # floats, which nobody takes for a size
        tiff_of((256, 4, 70000), (257, 4, 80000), (256, 4, 1), (257, 4, 1)),  # libtiff takes the first of each
        tiff_of((256, 4, 64), (257, 4, 64), (322, 4, 70000), (323, 4, 80000)),  # its tiles are what takes memory
        b"II+\0" + struct.pack("<HHQ", 8, 0, 2**64 - 1),  # a directory beyond any file
        b"P5\n# c\r70000 80000\n1 1 255\n",  # a comment ends at a carriage return, too
        b"P5 70000#80000\n1 255\n",  # OpenCV skips one byte after a number, whatever it is
    ],
)
def test_what_another_reader_may_take_for_a_larger_picture_is_not_taken_for_a_small_one(data):
    header = read_header(data)
    assert header is None or header.width * header.height > 1 << 30


@pytest.mark.parametrize(
    "hidden", [b"\xff\x00", b"\xff\xd0\xfe", b"\xff\xd9\xfe", b"\xff\x01\xfe", b"\xff\xfe\0\2\xfe"]
)
def test_a_jpeg_within_what_another_reader_skips_is_not_passed_over(hidden):
    """libjpeg looks for the next marker after what has no place before the pixels: it finds the large picture."""
    large, small = encoded(".jpg", 400, 600), encoded(".jpg", 16, 16)
    data = b"\xff\xd8" + hidden + struct.pack(">H", min(len(large), 65000)) + large + small
    header = read_header(data)
    assert header is None or (header.height, header.width) == (400, 600)


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".webp", ".bmp", ".tiff", ".pgm", ".ppm"])
def test_a_changed_header_says_the_size_that_opencv_decodes(suffix):
    random, whole = np.random.default_rng(7), encoded(suffix, channels=1 if suffix == ".pgm" else 3)
    begin, end = (int.from_bytes(whole[4:8], "little"), len(whole)) if suffix == ".tiff" else (0, 64)
    decoded = 0
    for _ in range(400):
        data = bytearray(whole)
        place = int(random.integers(begin, end))
        if random.random() < 0.3:
            data[place:place] = bytes(random.choice(list(b"\n\r# 19"), 2))
        else:
            data[place] = random.choice([0, 1, 2, 3, 4, 9, 16, *b"\n\r#1", random.integers(256)])
        header = read_header(data)
        if header is None or header.width * header.height > 1 << 20:
            continue
        picture = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_GRAYSCALE | cv2.IMREAD_IGNORE_ORIENTATION)
        if picture is not None:
            decoded += 1
            assert picture.shape == (header.height, header.width), bytes(data[begin : begin + 100])
    assert decoded > 0


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_header_that_is_cut_off_is_none(suffix):
    whole = encoded(suffix, channels=1 if suffix == ".pgm" else 3)
    assert read_header(whole[:6]) is None
    assert read_header(b"") is None


@given(st.binary(max_size=64), st.sampled_from(BEGINNINGS))
def test_random_bytes_give_a_header_or_none_and_nothing_else(data, begin):
    header = read_header(begin + data)
    assert header is None or (header.width > 0 and header.height > 0)
