from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from superpoint_ros.features.image import (
    as_grey,
    check_resize,
    resize_image,
    target_size,
    to_source_pixels,
)


def noise(*shape, seed=0):
    return np.random.default_rng(seed).integers(0, 256, shape, np.uint8)


# Accepting


def test_a_grey_image_is_taken_without_a_copy():
    image = noise(20, 30)
    assert np.shares_memory(as_grey(image), image)


def test_colour_is_weighted_as_blue_green_red():
    image = noise(20, 30, 3)
    expected = image @ np.array([0.114, 0.587, 0.299])
    assert as_grey(image).dtype == np.uint8
    np.testing.assert_allclose(as_grey(image), expected, atol=0.51)


def test_a_grey_image_stored_as_colour_stays_as_it_is():
    grey = noise(20, 30)
    np.testing.assert_array_equal(as_grey(np.dstack([grey] * 3)), grey)


VIEWS = {
    "transposed": lambda image: image.swapaxes(0, 1),
    "every second": lambda image: image[::2, ::2],
    "mirrored": lambda image: image[:, ::-1],
    "upside down": lambda image: image[::-1],
    "a part": lambda image: image[3:33, 5:45],
    "Fortran order": np.asfortranarray,
}


@pytest.mark.parametrize("view", VIEWS.values(), ids=VIEWS)
@pytest.mark.parametrize("shape", [(48, 64), (48, 64, 3)], ids=["grey", "colour"])
def test_a_view_gives_what_its_copy_gives(view, shape):
    image = view(noise(*shape))
    assert not image.flags.c_contiguous
    np.testing.assert_array_equal(as_grey(image), as_grey(image.copy(order="C")))
    resized = resize_image(as_grey(image), (21, 27))
    np.testing.assert_array_equal(resized, resize_image(as_grey(image.copy(order="C")), (21, 27)))


def test_a_read_only_image_is_accepted():
    image = noise(20, 30, 3)
    image.flags.writeable = False
    assert as_grey(image).shape == (20, 30)


# Refusing


@pytest.mark.parametrize(
    "image, given",
    [
        (np.zeros((20, 30), np.float32), "shape (20, 30) and dtype float32"),
        (np.full((20, 30), np.nan), "shape (20, 30) and dtype float64"),
        (np.zeros((20, 30), np.uint16), "shape (20, 30) and dtype uint16"),
        (np.zeros((20, 30), np.int8), "shape (20, 30) and dtype int8"),
        (np.zeros((20, 30), bool), "shape (20, 30) and dtype bool"),
        (np.full((20, 30), None), "shape (20, 30) and dtype object"),
        (np.zeros((20, 30, 1), np.uint8), "shape (20, 30, 1) and dtype uint8"),
        (np.zeros((20, 30, 4), np.uint8), "shape (20, 30, 4) and dtype uint8"),
        (np.zeros((3, 20, 30), np.uint8), "shape (3, 20, 30) and dtype uint8"),
        (np.zeros((1, 20, 30, 3), np.uint8), "shape (1, 20, 30, 3) and dtype uint8"),
        (np.zeros(600, np.uint8), "shape (600,) and dtype uint8"),
        (np.zeros((), np.uint8), "shape () and dtype uint8"),
        (None, "image is a NoneType"),
        ([[0] * 30] * 20, "image is a list"),
        ("photo.jpg", "image is a str"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_is_no_uint8_image_is_refused_with_what_was_given(image, given):
    with pytest.raises(ValueError) as error:
        as_grey(image)
    assert given in str(error.value)
    assert "expected a uint8 array of shape (H, W), grey, or (H, W, 3), BGR" in str(error.value)


@pytest.mark.parametrize("shape", [(0, 0), (0, 30), (15, 30), (30, 15), (15, 30, 3), (0, 0, 3)])
def test_a_small_or_empty_image_is_refused_with_its_shape(shape):
    with pytest.raises(ValueError) as error:
        as_grey(np.zeros(shape, np.uint8))
    assert f"shape {shape}" in str(error.value)
    assert "both sides must have at least 16 pixels" in str(error.value)


def test_sixteen_pixels_are_enough():
    assert as_grey(noise(16, 16)).shape == (16, 16)


# Resizing


@pytest.mark.parametrize("resize", [None, 16, 640, (16, 16), (240, 320)])
def test_a_valid_resize_is_returned(resize):
    assert check_resize(resize) == resize


def test_a_list_of_two_sides_becomes_a_tuple():
    assert check_resize([240, 320]) == (240, 320)


@pytest.mark.parametrize("resize", [15, 0, -320, 320.0, True, "320", (240,), (240, 320, 3), (240, 8), (240.0, 320), ()])
def test_an_invalid_resize_is_refused_with_what_was_given(resize):
    with pytest.raises(ValueError) as error:
        check_resize(resize)
    assert str(error.value).startswith("resize must be None, the longer side or (height, width)")
    assert str(error.value).endswith(f"got {resize!r}")


@pytest.mark.parametrize(
    "size, resize, expected",
    [
        ((480, 640), None, (480, 640)),
        ((480, 640), 320, (240, 320)),
        ((640, 480), 320, (320, 240)),
        ((480, 640), 1280, (960, 1280)),
        ((100, 333), 320, (96, 320)),
        ((480, 640), (100, 200), (100, 200)),
    ],
)
def test_the_size_at_the_network(size, resize, expected):
    assert target_size(size, resize) == expected


def test_a_resize_that_leaves_too_little_is_refused_with_the_sizes():
    with pytest.raises(ValueError, match="640×40 resized to a longer side of 160 is 160×10 pixels"):
        target_size((40, 640), 160)


def test_an_image_that_has_the_size_is_not_copied():
    image = noise(20, 30)
    assert resize_image(image, (20, 30)) is image


@pytest.mark.parametrize("factor", [2, 3, 5])
def test_shrinking_averages(factor):
    image = noise(20 * factor, 30 * factor)
    blocks = image.reshape(20, factor, 30, factor).mean(axis=(1, 3))
    np.testing.assert_allclose(resize_image(image, (20, 30)), blocks, atol=0.51)


@pytest.mark.parametrize("transpose", [False, True])
def test_shrinking_one_side_averages_even_if_the_other_grows(transpose):
    row = noise(1, 160)
    resized = resize_image(
        np.repeat(row, 40, axis=0).T if transpose else np.repeat(row, 40, axis=0),
        (40, 80) if transpose else (80, 40),
    )
    expected = np.tile(row.reshape(40, 4).mean(axis=1), (80, 1))
    np.testing.assert_allclose(resized.T if transpose else resized, expected, atol=0.51)


def test_growing_keeps_a_ramp_in_its_place():
    ramp = np.tile(np.arange(10, 210, 5, dtype=np.uint8), (20, 1))
    grown = resize_image(ramp, (40, 120))
    source = to_source_pixels(np.array([[x, 20] for x in range(3, 117)], np.float32), (20, 40), (40, 120))
    np.testing.assert_allclose(grown[20, 3:117], 10 + 5 * source[:, 0], atol=0.7)


@given(
    scale_x=st.sampled_from([0.25, 0.5, 2, 3]),
    scale_y=st.sampled_from([0.5, 1, 2]),
    x=st.floats(-0.5, 31.5),
    y=st.floats(-0.5, 23.5),
)
def test_pixels_go_back_to_the_source_by_their_centres(scale_x, scale_y, x, y):
    source = (int(24 * scale_y), int(32 * scale_x))
    [got] = to_source_pixels(np.array([[x, y]], np.float32), source, (24, 32))
    centred = ((x + 0.5) * scale_x - 0.5, (y + 0.5) * scale_y - 0.5)
    same = source == (24, 32)  # nothing was resized, nothing is moved
    expected = centred if same else np.clip(centred, 0, (source[1] - 1, source[0] - 1))
    assert got == pytest.approx(expected, abs=1e-4)
    assert got.dtype == np.float32
