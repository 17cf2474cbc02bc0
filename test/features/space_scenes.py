"""Rendered pictures of textured boards in space, for cameras whose poses are known."""

from dataclasses import dataclass

import cv2
import numpy as np

K = np.array([[280.0, 0, 160], [0, 280, 120], [0, 0, 1]])
SIZE = (240, 320)
DENSITY = 120.0
"""Pixels of a board's texture to a metre."""


@dataclass(frozen=True)
class Board:
    """A rectangle: its middle, metres, its two sides with their lengths, and the number of its texture."""

    middle: tuple
    right: tuple
    down: tuple
    seed: int


BOARDS = (
    Board((0, 0, 9), (24, 0, 0), (0, 14, 0), 0),  # a wall behind everything
    Board((-2.4, -0.6, 5.5), (2.2, 0, 0.6), (0, 2.4, 0), 1),
    Board((2.3, 0.7, 5.0), (2.0, 0, -0.5), (0, 2.2, 0), 2),
    Board((0.4, -1.4, 4.4), (2.4, 0, 0), (0, 1.2, 0.2), 3),
    Board((-0.9, 1.1, 3.9), (1.8, 0, 0.3), (0, 1.1, 0), 4),
)


def texture(board):
    """Random tiles of several sizes, slightly blurred: corners everywhere, nothing that repeats."""
    rng = np.random.default_rng(board.seed)
    width, height = (max(8, int(DENSITY * np.linalg.norm(side))) for side in (board.right, board.down))
    picture = np.zeros((height, width), np.float32)
    for tile, weight in ((9, 0.3), (17, 0.4), (41, 0.3)):
        tiles = rng.uniform(0, 255, (height // tile + 1, width // tile + 1)).astype(np.float32)
        picture += weight * cv2.resize(tiles, None, fx=tile, fy=tile, interpolation=cv2.INTER_NEAREST)[:height, :width]
    return cv2.GaussianBlur(picture, (0, 0), 0.8)


TEXTURES = {}


def render(rotation, place, k=K, size=SIZE, boards=BOARDS):
    """(H, W) uint8: what a camera at `place` in the world sees whose axes are the columns of `rotation`.

    World and camera: x right, y down, z forward; metres.
    """
    canvas = np.full(size, 60, np.float32)
    for board in boards:  # the far ones first
        picture = TEXTURES.setdefault(board, texture(board))
        height, width = picture.shape
        right, down = np.array(board.right, float), np.array(board.down, float)
        corner = np.array(board.middle, float) - right / 2 - down / 2
        onto = np.column_stack([right / width, down / height, corner - place])  # of pixels of the texture
        matrix = (k @ rotation.T @ onto) @ np.array([[1, 0, 0.5], [0, 1, 0.5], [0, 0, 1]])
        seen = cv2.warpPerspective(picture, matrix, size[::-1], flags=cv2.INTER_AREA)
        covers = cv2.warpPerspective(np.ones_like(picture), matrix, size[::-1])
        canvas = canvas * (1 - covers) + seen * covers
    return np.clip(np.rint(canvas), 0, 255).astype(np.uint8)


def depth(rotation, place, xy, k=K, boards=BOARDS):
    """z of what the camera sees at pixels (N, 2): the nearest board that each ray meets; NaN of none."""
    result = np.full(len(xy), np.inf)
    for i, (x, y) in enumerate(xy):
        ray = rotation @ np.linalg.inv(k) @ [x, y, 1]  # one metre deep
        for board in boards:
            right, down = np.array(board.right, float), np.array(board.down, float)
            a, b, z = np.linalg.solve(np.column_stack([right, down, -ray]), place - np.array(board.middle, float))
            if abs(a) <= 0.5 and abs(b) <= 0.5 and 0 < z < result[i]:
                result[i] = z
    return np.where(np.isfinite(result), result, np.nan)


def yawed(angle):
    """A rotation to the right by radians."""
    return cv2.Rodrigues(np.array([0.0, angle, 0.0]))[0]
