"""What the extractor accepts as an image, and its preparation: grey, resize, pixels back."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from superpoint_ros.printable import printable

SMALLEST_SIDE = 16
"""Pixels: two cells, below which the network's receptive field sees mostly its own border."""

MAX_PIXELS = 50_000_000
"""Of a picture that is decoded, unless another bound is set: the largest cameras have so many."""

Resize = int | tuple[int, int] | None


class BadImage(ValueError):
    """An image, as a message or a file, that cannot be decoded; says what was found and what was expected.

    It may quote the message: nothing of it reaches a terminal as an escape sequence.
    """

    def __init__(self, text: str) -> None:
        super().__init__(printable(text))


def check_pixels(height: int, width: int, max_pixels: int) -> None:
    """Raise BadImage for a picture of no pixels, or of more than `max_pixels`, before it takes any memory."""
    if height <= 0 or width <= 0:
        raise BadImage(f"image has no pixels (width {width}, height {height})")
    if height * width > max_pixels:
        raise BadImage(
            f"image has {width}×{height} = {height * width} pixels, more than max_image_pixels allows ({max_pixels})"
        )


def as_grey(image: Any) -> NDArray[np.uint8]:
    """Check an image and make it grey.

    image  (H, W) grey or (H, W, 3) BGR, uint8, at least 16×16; any strides

    Returns (H, W) uint8, a view where the input is grey. Raises ValueError, saying what was given.
    """
    expected = "expected a uint8 array of shape (H, W), grey, or (H, W, 3), BGR"
    if not isinstance(image, np.ndarray):
        raise ValueError(f"image is a {type(image).__name__}; {expected}")
    given = f"image has shape {image.shape} and dtype {image.dtype}"
    if image.dtype != np.uint8 or not (image.ndim == 2 or (image.ndim == 3 and image.shape[2] == 3)):
        raise ValueError(f"{given}; {expected}")
    if min(image.shape[:2]) < SMALLEST_SIDE:
        raise ValueError(f"{given}; both sides must have at least {SMALLEST_SIDE} pixels")
    if image.ndim == 2:
        return image
    return np.asarray(cv2.cvtColor(np.ascontiguousarray(image), cv2.COLOR_BGR2GRAY), np.uint8)


def check_resize(resize: Any) -> Resize:
    """Check `resize`: None, the longer side in pixels, or (height, width); else ValueError."""
    sides = resize if isinstance(resize, (tuple, list)) else (resize,)
    whole = all(isinstance(side, int) and not isinstance(side, bool) and side >= SMALLEST_SIDE for side in sides)
    if resize is None:
        return None
    if not whole or (isinstance(resize, (tuple, list)) and len(sides) != 2):
        raise ValueError(
            "resize must be None, the longer side or (height, width), in pixels of at least "
            f"{SMALLEST_SIDE}, got {resize!r}"
        )
    return (sides[0], sides[1]) if len(sides) == 2 else sides[0]


def target_size(size: tuple[int, int], resize: Resize) -> tuple[int, int]:
    """Height and width at which an image of `size` (height, width) goes through the network."""
    if resize is None:
        return size
    if isinstance(resize, tuple):
        return resize
    scale = resize / max(size)
    height, width = (max(1, round(side * scale)) for side in size)
    if min(height, width) < SMALLEST_SIDE:
        raise ValueError(
            f"an image of {size[1]}×{size[0]} resized to a longer side of {resize} is "
            f"{width}×{height} pixels; both sides must have at least {SMALLEST_SIDE}"
        )
    return height, width


def resize_image(grey: NDArray[np.uint8], size: tuple[int, int]) -> NDArray[np.uint8]:
    """Resize to `size` (height, width), averaging where it shrinks; the same array if it fits."""
    # INTER_AREA averages only if no side grows, so what shrinks goes first.
    shrunk = (min(size[0], grey.shape[0]), min(size[1], grey.shape[1]))
    for (height, width), interpolation in ((shrunk, cv2.INTER_AREA), (size, cv2.INTER_LINEAR)):
        if grey.shape != (height, width):
            grey = np.asarray(cv2.resize(grey, (width, height), interpolation=interpolation))
    return grey


def to_source_pixels(xy: NDArray[np.float32], source: tuple[int, int], network: tuple[int, int]) -> NDArray[np.float32]:
    """From pixels of the resized image to the source's: x_src = (x_net + 0.5) · scale − 0.5.

    xy (N, 2) float32; sizes are (height, width). Pixel centres are whole numbers in both. What an
    enlarged image has beyond the centres of the source's outermost pixels is moved onto them.
    """
    if source == network:
        return xy
    scale = np.array([source[1] / network[1], source[0] / network[0]], np.float32)
    last = np.array([source[1] - 1, source[0] - 1], np.float32)
    return np.clip((xy + np.float32(0.5)) * scale - np.float32(0.5), 0, last)


def pixel_scale(source: tuple[int, int], network: tuple[int, int]) -> float:
    """Source pixels to a pixel of the resized image: the geometric mean of x and y; sizes (height, width)."""
    return float(np.sqrt(source[0] / network[0] * source[1] / network[1]))
