"""Messages with any fields end in a picture or in BadImage, within the bound of pixels."""

from __future__ import annotations

from array import array
from types import SimpleNamespace

import cv2
import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from damage import FUZZ, damaged
from superpoint_ros.features.decode import DEEP, EIGHT_BIT, PLANAR, decode_compressed, decode_image
from superpoint_ros.features.image import BadImage

MOST = 1 << 16
SIZES = st.one_of(st.integers(0, 40), st.sampled_from([0, 1, 2, 65535, 1 << 31, (1 << 32) - 1]))


def check(picture):
    assert picture.dtype == np.uint8 and picture.ndim == 2 and 0 < picture.size <= MOST


@FUZZ
@given(
    st.sampled_from([*EIGHT_BIT, *DEEP, *PLANAR]), SIZES, SIZES, st.one_of(st.none(), SIZES), st.booleans(), st.data()
)
def test_raw_images(encoding, height, width, step, big, data):
    channels, size = 1, 1
    if encoding in EIGHT_BIT:
        channels = EIGHT_BIT[encoding][0]
    elif encoding in DEEP:
        size, channels = np.dtype(DEEP[encoding][0]).itemsize, DEEP[encoding][1]
    step = min(width * channels * size, (1 << 32) - 1) if step is None else step
    whole = min(step * height * (3 if encoding in PLANAR else 2) // 2, 1 << 16)
    length = data.draw(st.sampled_from([step * height, whole, whole + 1, 0]).filter(lambda n: n <= 1 << 16))
    content = np.random.default_rng(length).integers(0, 256, length, np.uint8).tobytes()
    message = SimpleNamespace(
        height=height, width=width, step=step, encoding=encoding, is_bigendian=int(big), data=array("B", content)
    )
    try:
        picture = decode_image(message, max_pixels=MOST)
    except BadImage:
        return
    check(picture)
    assert picture.shape == (height, width)


@FUZZ
@given(st.text(max_size=24), st.integers(0, 3), st.binary(max_size=32))
def test_raw_images_of_any_encoding(encoding, size, content):
    message = SimpleNamespace(
        height=size, width=size, step=size, encoding=encoding, is_bigendian=0, data=array("B", content)
    )
    try:
        check(decode_image(message, max_pixels=MOST))
    except BadImage as error:
        assert str(error).isprintable()


PICTURE = cv2.GaussianBlur(np.random.default_rng(0).integers(0, 256, (40, 56, 3), np.uint8), (0, 0), 1.5)
FILES = {
    ".jpg": cv2.imencode(".jpg", PICTURE)[1].tobytes(),
    ".jpeg": cv2.imencode(".jpg", PICTURE, [cv2.IMWRITE_JPEG_PROGRESSIVE, 1])[1].tobytes(),
    ".png": cv2.imencode(".png", PICTURE.astype(np.uint16) * 200)[1].tobytes(),
    ".webp": cv2.imencode(".webp", PICTURE)[1].tobytes(),
    ".bmp": cv2.imencode(".bmp", PICTURE)[1].tobytes(),
    ".tiff": cv2.imencode(".tiff", PICTURE[..., 0].astype(np.float32))[1].tobytes(),
    ".pgm": cv2.imencode(".pgm", PICTURE[..., 0])[1].tobytes(),
}
FORMATS = st.one_of(
    st.sampled_from(
        ["jpeg", "mono16; png compressed ", "bayer_rggb8; jpeg compressed ", "bayer_grbg16; png compressed"]
    ),
    st.text(max_size=30),
)


@FUZZ
@given(st.sampled_from(sorted(FILES)).flatmap(lambda suffix: damaged(FILES[suffix])), FORMATS)
def test_compressed_images(content, described):
    try:
        check(decode_compressed(SimpleNamespace(format=described, data=array("B", content)), max_pixels=MOST))
    except BadImage as error:
        assert str(error).isprintable()
