"""superpoint_ros/features/decode.py, on stand-ins for messages: no ROS needed."""

import sys
from array import array
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from superpoint_ros.features.decode import BAYER as CONVERSIONS
from superpoint_ros.features.decode import decode_compressed, decode_image
from superpoint_ros.features.image import BadImage
from superpoint_ros.features.intensity import FixedRange


def image_message(pixels, encoding, padding=0, is_bigendian=0):
    """What a camera driver sends: rows of `pixels`, each followed by `padding` bytes of rubbish."""
    rows = np.ascontiguousarray(pixels).reshape(pixels.shape[0], -1).view(np.uint8)
    padded = np.pad(rows, ((0, 0), (0, padding)), constant_values=0xAA)
    return SimpleNamespace(
        height=pixels.shape[0],
        width=pixels.shape[1],
        encoding=encoding,
        is_bigendian=is_bigendian,
        step=padded.shape[1],
        data=array("B", padded.tobytes()),
    )


def random_pixels(height, width, channels=1, dtype=np.uint8, seed=0):
    shape = (height, width) if channels == 1 else (height, width, channels)
    high = np.iinfo(dtype).max
    return np.random.default_rng(seed).integers(0, high, shape, dtype, endpoint=True)


GREY = {
    "mono8": (1, lambda p: p),
    "8UC1": (1, lambda p: p),
    "bgr8": (3, lambda p: cv2.cvtColor(p, cv2.COLOR_BGR2GRAY)),
    "8UC3": (3, lambda p: cv2.cvtColor(p, cv2.COLOR_BGR2GRAY)),
    "rgb8": (3, lambda p: cv2.cvtColor(p[..., ::-1].copy(), cv2.COLOR_BGR2GRAY)),
    "bgra8": (4, lambda p: cv2.cvtColor(p[..., :3].copy(), cv2.COLOR_BGR2GRAY)),
    "8UC4": (4, lambda p: cv2.cvtColor(p[..., :3].copy(), cv2.COLOR_BGR2GRAY)),
    "rgba8": (4, lambda p: cv2.cvtColor(p[..., 2::-1].copy(), cv2.COLOR_BGR2GRAY)),
}


@given(
    encoding=st.sampled_from(sorted(GREY)),
    height=st.integers(1, 40),
    width=st.integers(1, 40),
    padding=st.integers(0, 9),
)
def test_eight_bit_encodings_become_grey_whatever_the_row_padding(encoding, height, width, padding):
    channels, to_grey = GREY[encoding]
    pixels = random_pixels(height, width, channels)
    grey = decode_image(image_message(pixels, encoding, padding))
    assert grey.dtype == np.uint8
    np.testing.assert_array_equal(grey, to_grey(pixels))


def test_grey_images_are_not_copied():
    message = image_message(random_pixels(24, 30), "mono8", padding=2)
    grey = decode_image(message)
    assert np.shares_memory(grey, np.frombuffer(message.data, np.uint8))


@pytest.mark.parametrize("encoding", ["mono16", "16UC1"])
@pytest.mark.parametrize("order", ["<", ">"])
def test_sixteen_bit_images_are_read_in_their_byte_order(encoding, order):
    pixels = random_pixels(20, 31, dtype=np.uint16)
    message = image_message(pixels.astype(order + "u2"), encoding, padding=3, is_bigendian=int(order == ">"))
    np.testing.assert_array_equal(decode_image(message, FixedRange(0, 65535)), np.rint(pixels / 65535 * 255))


def test_intensity_range_stretches_a_thermal_image_and_clips():
    pixels = np.array([[7000, 8000, 8500, 9000, 20000]], np.uint16)
    grey = decode_image(image_message(pixels, "mono16"), FixedRange(8000, 9000))
    np.testing.assert_array_equal(grey, [[0, 0, 128, 255, 255]])


def test_float_images_map_zero_to_one_and_nan_to_black():
    pixels = np.array([[0, 0.5, 1, 2, -1, np.nan, np.inf, -np.inf]], np.float32)
    with np.errstate(invalid="raise"):
        grey = decode_image(image_message(pixels, "32FC1"), FixedRange(0, 1))
    np.testing.assert_array_equal(grey, [[0, 128, 255, 255, 0, 0, 255, 0]])


def test_data_may_be_array_bytes_list_or_numpy():
    pixels = random_pixels(5, 6)
    message = image_message(pixels, "mono8")
    for data in (
        message.data,
        bytes(message.data),
        list(message.data),
        np.frombuffer(message.data, np.uint8),
    ):
        message.data = data
        np.testing.assert_array_equal(decode_image(message), pixels)


def broken(**changes):
    message = image_message(random_pixels(24, 32, 3), "bgr8")
    for name, value in changes.items():
        setattr(message, name, value)
    return message


@pytest.mark.parametrize(
    ("message", "complaint"),
    [
        (broken(height=0), "no pixels"),
        (broken(width=0), "no pixels"),
        (broken(height=0, width=0, step=0, data=array("B"), encoding=""), "no pixels"),
        (broken(data=array("B")), "data has 0 bytes, expected 2304"),
        (broken(data=array("B", bytes(2303))), "data has 2303 bytes, expected 2304"),
        (broken(data=array("B", bytes(2305))), "data has 2305 bytes, expected 2304"),
        (broken(step=95), "step is 95 bytes, but a row of 32 bgr8 pixels has 96"),
        (broken(step=0), "step is 0 bytes"),
        (broken(encoding=""), "no encoding"),
        (
            broken(encoding="16UC1", step=64, data=array("B", bytes(64 * 24 - 1))),
            "data has 1535 bytes",
        ),
    ],
)
def test_a_broken_message_is_refused_with_what_was_found_and_expected(message, complaint):
    with pytest.raises(BadImage, match=complaint):
        decode_image(message)


@pytest.mark.parametrize("encoding", ["bgr9", "8UC2", "32SC4"])
def test_an_encoding_without_cv_bridge_names_itself_and_what_is_known(encoding, monkeypatch):
    monkeypatch.setitem(sys.modules, "cv_bridge", None)
    with pytest.raises(BadImage, match=f"'{encoding}' .*cv_bridge.* expected one of mono8"):
        decode_image(broken(encoding=encoding))


# pattern: the colour channel (of BGR) at even and odd columns of even rows, then of odd rows
BAYER = {
    "rggb": ((2, 1), (1, 0)),
    "bggr": ((0, 1), (1, 2)),
    "gbrg": ((1, 0), (2, 1)),
    "grbg": ((1, 2), (0, 1)),
}


@pytest.mark.parametrize("pattern", BAYER)
def test_bayer_mosaics_become_the_grey_of_their_colour(pattern):
    colour = np.full((24, 32, 3), (30, 90, 200), np.uint8)
    mosaic = np.empty((24, 32), np.uint8)
    for row, channels in enumerate(BAYER[pattern]):
        for column, channel in enumerate(channels):
            mosaic[row::2, column::2] = colour[row::2, column::2, channel]
    grey = decode_image(image_message(mosaic, f"bayer_{pattern}8", padding=4))
    expected = cv2.cvtColor(colour, cv2.COLOR_BGR2GRAY).astype(int)
    assert np.abs(grey.astype(int) - expected)[2:-2, 2:-2].max() <= 1


@pytest.mark.parametrize(("encoding", "luma"), [("yuv422", 1), ("uyvy", 1), ("yuv422_yuy2", 0), ("yuyv", 0)])
def test_yuv_images_give_their_luma(encoding, luma):
    pixels = random_pixels(12, 16, channels=2)
    grey = decode_image(image_message(pixels, encoding, padding=3))
    np.testing.assert_array_equal(grey, pixels[..., luma])


@pytest.mark.parametrize("encoding", ["nv12", "nv21", "yuv420", "i420", "nv24"])
@pytest.mark.parametrize(("height", "width", "padding"), [(12, 16, 0), (12, 16, 4), (13, 17, 0)])
def test_planar_images_give_their_luma(encoding, height, width, padding):
    luma = random_pixels(height, width)
    message = image_message(luma, encoding, padding)
    chroma = 2 * height * (width + padding) if encoding == "nv24" else -(-height // 2) * (width + padding)
    if padding == 0 and encoding != "nv24":
        chroma = 2 * -(-height // 2) * -(-width // 2)
    message.data.extend(bytes(chroma))
    np.testing.assert_array_equal(decode_image(message), luma)


def test_a_planar_image_may_count_all_planes_in_its_step():
    luma = random_pixels(12, 16)
    message = image_message(luma, "nv12")
    message.data.extend(bytes(6 * 16))
    message.step = 24
    np.testing.assert_array_equal(decode_image(message), luma)


def test_a_planar_image_without_its_chroma_is_refused():
    with pytest.raises(BadImage, match=r"data has 192 bytes, expected 288 \(16×12 nv12"):
        decode_image(image_message(random_pixels(12, 16), "nv12"))


DEEP_COLOUR = {
    "bgr16": (3, cv2.COLOR_BGR2GRAY),
    "16UC3": (3, cv2.COLOR_BGR2GRAY),
    "rgb16": (3, cv2.COLOR_RGB2GRAY),
    "bgra16": (4, cv2.COLOR_BGRA2GRAY),
    "rgba16": (4, cv2.COLOR_RGBA2GRAY),
}


@pytest.mark.parametrize("encoding", DEEP_COLOUR)
@pytest.mark.parametrize("order", ["<", ">"])
def test_deep_colour_images_become_grey(encoding, order):
    channels, conversion = DEEP_COLOUR[encoding]
    pixels = random_pixels(12, 15, channels, np.uint16)
    message = image_message(pixels.astype(order + "u2"), encoding, is_bigendian=int(order == ">"))
    expected = FixedRange(0, 65535)(cv2.cvtColor(pixels, conversion))
    np.testing.assert_array_equal(decode_image(message, FixedRange(0, 65535)), expected)


@pytest.mark.parametrize(("encoding", "dtype"), [("16SC1", np.int16), ("32SC1", np.int32), ("64FC1", np.float64)])
def test_signed_and_double_images_are_read(encoding, dtype):
    pixels = np.array([[-300, 0, 300]]).astype(dtype)
    grey = decode_image(image_message(pixels, encoding), FixedRange(-300, 300))
    np.testing.assert_array_equal(grey, [[0, 128, 255]])


@pytest.mark.parametrize("pattern", BAYER)
def test_sixteen_bit_mosaics_become_the_grey_of_their_colour(pattern):
    mosaic = np.full((24, 32), 40000, np.uint16)
    grey = decode_image(image_message(mosaic, f"bayer_{pattern}16"), FixedRange(0, 65535))
    assert grey.shape == (24, 32)
    assert np.abs(grey.astype(int) - 156).max() <= 1


def test_a_picture_of_too_many_pixels_is_refused_before_anything_is_done_with_it():
    message = image_message(random_pixels(24, 32), "mono8")
    with pytest.raises(BadImage, match="32×24 = 768 pixels, more than max_image_pixels"):
        decode_image(message, max_pixels=32 * 24 - 1)
    assert decode_image(message, max_pixels=32 * 24).shape == (24, 32)


def test_other_encodings_are_decoded_by_cv_bridge():
    pytest.importorskip("cv_bridge.boost.cv_bridge_boost", reason="needs ROS 2's cv_bridge")
    grey = decode_image(image_message(np.full((24, 32, 2), 156, np.uint8), "8UC2"))
    assert grey.shape == (24, 32)


@given(
    st.binary(max_size=64),
    st.integers(0, 9),
    st.integers(0, 9),
    st.integers(0, 40),
    st.text(max_size=8),
)
def test_random_messages_give_a_picture_or_bad_image_and_nothing_else(data, height, width, step, encoding):
    message = SimpleNamespace(
        height=height,
        width=width,
        step=step,
        encoding=encoding,
        is_bigendian=0,
        data=array("B", data),
    )
    for name in (encoding, "mono8", "rgb8", "mono16", "32FC1", "bayer_rggb8", "yuyv"):
        message.encoding = name
        try:
            assert decode_image(message).shape == (height, width)
        except BadImage:
            pass


def compressed(data, format="jpeg"):
    return SimpleNamespace(format=format, data=array("B", data))


@pytest.mark.parametrize("suffix", [".png", ".jpg"])
def test_compressed_images_are_decoded(suffix):
    pixels = cv2.GaussianBlur(random_pixels(40, 50, 3), (0, 0), 3)
    encoded = cv2.imencode(suffix, pixels)[1].tobytes()
    expected = cv2.cvtColor(pixels, cv2.COLOR_BGR2GRAY).astype(int)
    assert np.abs(decode_compressed(compressed(encoded, f"bgr8; {suffix[1:]} compressed")) - expected).max() <= 6


@pytest.mark.parametrize(("suffix", "dtype", "high"), [(".png", np.uint16, 65535), (".tiff", np.float32, 1)])
def test_deep_compressed_images_go_through_the_scale_as_raw_ones_do(suffix, dtype, high):
    pixels = (cv2.GaussianBlur(random_pixels(40, 50), (0, 0), 2) / 255 * high).astype(dtype)
    encoded = cv2.imencode(suffix, pixels)[1].tobytes()
    encoding = {np.uint16: "mono16", np.float32: "32FC1"}[dtype]
    for scale in (None, FixedRange(0.3 * high, 0.6 * high)):
        found = decode_compressed(compressed(encoded, f"{encoding}; {suffix[1:]} compressed "), scale)
        np.testing.assert_array_equal(found, decode_image(image_message(pixels, encoding), scale))


@pytest.mark.parametrize("pattern", BAYER)
@pytest.mark.parametrize("bits", [8, 16])
def test_a_compressed_mosaic_becomes_the_picture_that_the_raw_one_gives(pattern, bits):
    dtype = np.uint8 if bits == 8 else np.uint16
    mosaic = cv2.GaussianBlur(random_pixels(40, 50, dtype=dtype), (0, 0), 1)
    encoded = cv2.imencode(".png", mosaic)[1].tobytes()
    found = decode_compressed(compressed(encoded, f"bayer_{pattern}{bits}; png compressed "))
    np.testing.assert_array_equal(found, decode_image(image_message(mosaic, f"bayer_{pattern}{bits}")))


@pytest.mark.parametrize(
    ("format", "is_mosaic"),
    [
        ("bayer_rggb8; jpeg compressed ", True),
        ("bayer_rggb8; jpeg compressed bayer_rggb8", True),
        ("bayer_rggb8; jpeg compressed bgr8", False),  # made a picture before it was compressed
        ("mono8; jpeg compressed ", False),
        ("jpeg", False),
    ],
)
def test_a_grey_jpeg_is_a_mosaic_only_if_its_format_says_that_one_was_compressed(format, is_mosaic):
    mosaic = cv2.GaussianBlur(random_pixels(40, 50), (0, 0), 1)
    encoded = np.frombuffer(cv2.imencode(".jpg", mosaic)[1].tobytes(), np.uint8)
    plain = cv2.imdecode(encoded, cv2.IMREAD_GRAYSCALE)
    expected = cv2.cvtColor(plain, CONVERSIONS["bayer_rggb"]) if is_mosaic else plain
    np.testing.assert_array_equal(decode_compressed(compressed(encoded.tobytes(), format)), expected)


def test_a_colour_jpeg_is_no_mosaic_whatever_its_format_says():
    encoded = cv2.imencode(".jpg", cv2.GaussianBlur(random_pixels(40, 50, 3), (0, 0), 2))[1].tobytes()
    plain = decode_compressed(compressed(encoded))
    np.testing.assert_array_equal(decode_compressed(compressed(encoded, "bayer_rggb8; jpeg compressed ")), plain)


@pytest.mark.parametrize(
    ("data", "format", "complaint"),
    [
        (b"", "jpeg", "format 'jpeg': 0 bytes are not a readable picture"),
        (b"\xff\xd8\xff\xe0 no picture", "jpeg", "not a readable picture"),
        (b"whatever", "16UC1; compressedDepth png", "is a depth image"),
    ],
)
def test_unreadable_compressed_data_is_refused(data, format, complaint):
    with pytest.raises(BadImage, match=complaint):
        decode_compressed(compressed(data, format))
