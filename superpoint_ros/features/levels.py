"""A grey picture and its halves, from which patches are taken to align two pictures."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from superpoint_ros.features.extractor import Features
from superpoint_ros.features.image import as_grey

RADIUS = 6
"""Pixels: a patch is 13 × 13, about as much as the network's 8 × 8 cell and its nearest see."""
SMALLEST = 4 * RADIUS
"""Pixels: no level has a shorter side, but the first."""
LARGEST = 2**14
"""Pixels: OpenCV takes patches from pictures of at most 2^15 rows and columns, and there are two such side by side."""


@dataclass(frozen=True)
class Levels:
    """A grey picture and its halves, made ready to take patches from.

    pixels    (h, w) uint8: the levels side by side, each half as large as the one before
    size      (height, width) of the source image
    finest    level of the first: a pixel of level n is 2**n source pixels
    corners   (K, 2) float32, x and y of each level's first pixel in `pixels`
    extents   (K, 2) float32, width and height of each level
    allowed   (h, w) bool, where a patch sees nothing that is masked; None: everywhere
    """

    pixels: NDArray[np.uint8]
    size: tuple[int, int]
    finest: int
    corners: NDArray[np.float32]
    extents: NDArray[np.float32]
    allowed: NDArray[np.bool_] | None = None

    def level(self, scales: NDArray[np.floating]) -> NDArray[np.intp]:
        """The coarsest level whose pixels are no larger than (N,) scales, in source pixels, or the nearest there is."""
        wanted = np.floor(np.log2(np.maximum(scales, 1)) + 1e-3).astype(np.intp)
        return np.clip(wanted, self.finest, self.finest + len(self.extents) - 1)

    def fits(
        self, level: NDArray[np.intp], places: NDArray[np.float32], margin: NDArray[np.float32] | np.float32
    ) -> NDArray[np.bool_]:
        """Whether patches that reach `margin` around (N, 2) places of their levels lie in the picture, unmasked."""
        last = self.extents[level - self.finest] - 1
        inside = np.asarray(((places >= margin) & (places <= last - margin)).all(axis=1))
        if self.allowed is not None:
            column, row = np.rint(places[inside] + self.corners[level[inside] - self.finest]).astype(np.intp).T
            inside[inside] = self.allowed[row, column]
        return inside


def levels_of(
    image: NDArray[np.uint8], finest: int = 0, coarsest: int = 2, mask: NDArray[np.bool_] | None = None
) -> Levels:
    """The levels `finest` to `coarsest` of an image, as `Extractor` takes it; fewer where one is too small.

    mask  (H, W) bool, where the picture may be looked at; None: everywhere

    Raises ValueError for what is no image, or a mask of another shape.
    """
    grey = as_grey(image)
    size = (grey.shape[0], grey.shape[1])
    if mask is not None and mask.shape != size:
        raise ValueError(f"mask has shape {mask.shape}, its image {size}")
    while max(size) >> finest > LARGEST:
        finest, coarsest = finest + 1, max(coarsest, finest + 1)
    while min(size) >> finest < SMALLEST and finest > 0:
        finest -= 1
    pictures, level = _halved([grey], finest), finest
    while level < coarsest and min(pictures[-1].shape) // 2 >= SMALLEST:
        pictures, level = [*pictures, _half(pictures[-1])], level + 1
    extents = np.array([picture.shape[::-1] for picture in pictures])
    corners = np.stack([np.cumsum(extents[:, 0]) - extents[:, 0], np.zeros(len(extents), int)], axis=1)
    # two pictures are seldom equally sharp, and interpolation is nearly exact only for smooth ones
    pixels = _side_by_side([np.asarray(cv2.GaussianBlur(picture, (5, 5), 0.8)) for picture in pictures])
    allowed = None
    if mask is not None:
        masks = _halved([np.where(mask, np.uint8(255), np.uint8(0))], finest)
        while len(masks) < len(pictures):
            masks.append(_half(masks[-1]))
        patch = np.ones((2 * RADIUS + 1, 2 * RADIUS + 1), np.uint8)
        allowed = _side_by_side([np.asarray(cv2.erode(each, patch)) for each in masks]) == 255
    return Levels(pixels, size, finest, corners.astype(np.float32), extents.astype(np.float32), allowed)


def levels_for(features: Features, image: NDArray[np.uint8], mask: NDArray[np.bool_] | None = None) -> Levels:
    """The levels of an image that its features need: from their finest scale to their coarsest.

    Raises ValueError as `levels_of`, and if the image has not the size of its features.
    """
    levels = np.floor(np.log2(np.maximum(features.scales, 1)) + 1e-3).astype(int)
    finest, coarsest = (int(levels.min()), int(levels.max())) if len(levels) else (0, 0)
    found = levels_of(image, finest, coarsest, mask)
    if found.size != features.size:
        raise ValueError(f"the picture's size is {found.size}, that of its features {features.size}")
    return found


def _halved(pictures: list[NDArray[np.uint8]], times: int) -> list[NDArray[np.uint8]]:
    for _ in range(times):
        pictures = [_half(picture) for picture in pictures]
    return pictures


def _half(picture: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Whole pixels only: pixel x of the half is the mean of 2x and 2x + 1."""
    height, width = picture.shape[0] // 2, picture.shape[1] // 2
    whole = picture[: 2 * height, : 2 * width]
    return np.asarray(cv2.resize(whole, (width, height), interpolation=cv2.INTER_AREA))


def _side_by_side(pictures: list[NDArray[np.uint8]]) -> NDArray[np.uint8]:
    together = np.zeros((pictures[0].shape[0], sum(picture.shape[1] for picture in pictures)), np.uint8)
    x = 0
    for picture in pictures:
        together[: picture.shape[0], x : x + picture.shape[1]] = picture
        x += picture.shape[1]
    return together
