"""superpoint_ros/features/encoded.py"""

import struct
import zlib

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from superpoint_ros.features.encoded import decode_encoded, read_picture_file
from superpoint_ros.features.image import BadImage
from superpoint_ros.features.intensity import FixedRange

ALL = [".jpg", ".png", ".webp", ".bmp", ".tiff"]


def scene(height=120, width=160, channels=1):
    shape = (height, width) if channels == 1 else (height, width, channels)
    noise = np.random.default_rng(3).integers(0, 256, shape, np.uint8)
    return cv2.normalize(cv2.GaussianBlur(noise, (0, 0), 2), None, 0, 255, cv2.NORM_MINMAX)


def encode(pixels, suffix=".jpg", *options):
    return cv2.imencode(suffix, pixels, options)[1]


def array(data):
    return np.frombuffer(bytes(data), np.uint8)


def png_bomb(width, height):
    """A PNG of a few bytes that says it has so many pixels."""
    head = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    chunks = [head, b"IDAT" + zlib.compress(bytes(1000)), b"IEND"]
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(chunk) - 4) + chunk + struct.pack(">I", zlib.crc32(chunk)) for chunk in chunks
    )


@pytest.mark.parametrize("suffix", ALL)
@pytest.mark.parametrize("colour", [False, True])
def test_pictures_are_decoded_as_opencv_decodes_them(suffix, colour):
    data = encode(scene(channels=3), suffix)
    expected = cv2.imdecode(data, cv2.IMREAD_COLOR if colour else cv2.IMREAD_GRAYSCALE)
    np.testing.assert_array_equal(decode_encoded(data, colour=colour), expected)


def test_deep_colour_keeps_its_channels_and_one_range_for_all():
    pixels = scene(channels=3).astype(np.uint16) * 100
    found = decode_encoded(encode(pixels, ".png"), FixedRange(0, 25500), colour=True)
    np.testing.assert_array_equal(found, pixels // 100)


@pytest.mark.parametrize("suffix", ALL)
def test_the_bound_of_pixels_is_checked_before_decoding(suffix, monkeypatch):
    data = encode(scene(), suffix)
    assert decode_encoded(data, max_pixels=120 * 160).shape == (120, 160)
    monkeypatch.setattr(cv2, "imdecode", lambda *_: pytest.fail("it is decoded"))
    with pytest.raises(BadImage, match="160×120 = .* more than max_image_pixels"):
        decode_encoded(data, max_pixels=120 * 160 - 1)


def test_a_small_file_that_says_it_is_huge_is_refused():
    with pytest.raises(BadImage, match="100000×100000 = 10000000000 pixels"):
        decode_encoded(array(png_bomb(100_000, 100_000)))


JPEGS = {
    "grey": (scene(), ()),
    "colour": (scene(channels=3), ()),
    "restarts": (scene(channels=3), (cv2.IMWRITE_JPEG_RST_INTERVAL, 7)),
    "progressive": (scene(channels=3), (cv2.IMWRITE_JPEG_PROGRESSIVE, 1)),
    "of middle grey": (np.full((120, 160), 128, np.uint8), ()),
    "of odd size": (scene(117, 153, 3), ()),
}


@pytest.mark.parametrize("kind", JPEGS)
@pytest.mark.parametrize("colour", [False, True])
def test_a_jpeg_without_end_marker_is_whole_if_its_pixels_are(kind, colour):
    pixels, options = JPEGS[kind]
    data = encode(pixels, ".jpg", *options)
    expected = decode_encoded(data, colour=colour)
    for tail in (b"", bytes(500)):
        np.testing.assert_array_equal(decode_encoded(array(data.tobytes()[:-2] + tail), colour=colour), expected)


@pytest.mark.parametrize("kind", ["grey", "colour", "of odd size"])
@pytest.mark.parametrize("end", [b"", b"\xff\xd9", b"\xff\xd9" + bytes(100)])
@pytest.mark.parametrize("part", [0.3, 0.5, 0.9, 0.97])
def test_a_part_of_a_jpeg_is_refused_with_an_end_marker_and_without(kind, end, part):
    pixels, options = JPEGS[kind]
    data = encode(pixels, ".jpg", *options).tobytes()
    with pytest.raises(BadImage, match="damaged picture .jpeg"):
        decode_encoded(array(data[: int(part * len(data))] + end))


def test_a_whole_jpeg_without_end_marker_prints_nothing(capfd):
    decode_encoded(array(encode(scene()).tobytes()[:-2]))
    assert capfd.readouterr() == ("", "")


def chunk(kind, data):
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def test_the_name_of_a_pngs_colour_profile_reaches_no_terminal(capfd):
    pixels = scene(channels=3)
    png = encode(pixels, ".png").tobytes()
    named = chunk(b"iCCP", b"\x1b]0;owned\x07\x1b[31mRED\0\0" + zlib.compress(b"no profile"))
    found = decode_encoded(array(png[:33] + named + png[33:]), colour=True)
    np.testing.assert_array_equal(found, pixels)
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("colour", [False, True])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("extra", [(b"gAMA", struct.pack(">I", 45455)), (b"sRGB", b"\0"), (b"tEXt", b"a\0b")])
def test_what_else_a_png_holds_counts_as_for_opencv(extra, dtype, colour):
    pixels = np.random.default_rng(0).integers(0, np.iinfo(dtype).max, (20, 30, 3)).astype(dtype)
    png = encode(pixels, ".png").tobytes()
    data = array(png[:33] + chunk(*extra) + png[33:])
    flags = (cv2.IMREAD_COLOR if colour else cv2.IMREAD_GRAYSCALE) | cv2.IMREAD_ANYDEPTH
    expected, scale = cv2.imdecode(data, flags), FixedRange(0, 65535)
    np.testing.assert_array_equal(
        decode_encoded(data, scale, colour=colour), expected if dtype == np.uint8 else scale(expected)
    )


@pytest.mark.parametrize("suffix", [".png", ".webp", ".tiff"])
def test_half_a_picture_is_refused(suffix):
    data = encode(scene(), suffix).tobytes()
    with pytest.raises(BadImage):
        decode_encoded(array(data[: len(data) // 2]))


@given(st.sampled_from(ALL), st.integers(0, 30_000), st.binary(min_size=1, max_size=8))
def test_a_damaged_picture_gives_pixels_or_bad_image_and_nothing_else(suffix, position, damage):
    data = bytearray(encode(scene(40, 56), suffix).tobytes())
    position %= len(data)
    data[position : position + len(damage)] = damage
    try:
        assert decode_encoded(array(data), max_pixels=1 << 20).dtype == np.uint8
    except BadImage:
        pass


def test_a_file_is_named_in_what_is_wrong_with_it(tmp_path):
    path = tmp_path / "größe.png"
    path.write_bytes(encode(scene(), ".png").tobytes())
    assert read_picture_file(path).shape == (120, 160)
    with pytest.raises(BadImage, match=r"größe.png: image has 160×120"):
        read_picture_file(path, max_pixels=10_000)
    path.write_text("<html>")
    with pytest.raises(BadImage, match=r"größe.png: 6 bytes are not a readable picture"):
        read_picture_file(path)


def test_a_photograph_is_turned_as_exif_says_and_a_cameras_image_is_not(tmp_path):
    plain = encode(scene()).tobytes()
    entry = struct.pack("<HHIHH", 0x112, 3, 1, 6, 0)  # orientation: turn clockwise
    exif = b"Exif\0\0II*\0\x08\0\0\0\x01\0" + entry + bytes(4)
    data = plain[:2] + b"\xff\xe1" + struct.pack(">H", len(exif) + 2) + exif + plain[2:]
    path = tmp_path / "photo.jpg"
    path.write_bytes(data)
    pixels = decode_encoded(array(plain))
    np.testing.assert_array_equal(decode_encoded(array(data)), pixels)
    np.testing.assert_array_equal(read_picture_file(path), np.rot90(pixels, -1))
    path.write_bytes(data[:-2])
    np.testing.assert_array_equal(read_picture_file(path), np.rot90(pixels, -1))


def test_a_file_larger_than_any_picture_of_that_many_pixels_is_not_read(tmp_path):
    path = tmp_path / "large.png"
    with path.open("wb") as file:
        file.truncate(1 << 30)
    with pytest.raises(BadImage, match="1073741824 bytes are more than a picture of 1000000 pixels"):
        read_picture_file(path, max_pixels=1_000_000)
