"""A made-up plane and exact views of it: blobs of a few pixels, whose interpolation is nearly exact."""

import cv2
import numpy as np

HEIGHT, WIDTH = SIZE = (360, 480)


def smooth_noise(seed=0, size=(3 * HEIGHT, 3 * WIDTH)):
    """Blobs of a few pixels' size, three times as large as SIZE: (H, W) float32 in 20 … 230."""
    noise = np.random.default_rng(seed).normal(size=size).astype(np.float32)
    picture = cv2.GaussianBlur(noise, (0, 0), 6) * 3 + cv2.GaussianBlur(noise, (0, 0), 20) * 6
    return np.clip(125 + 45 * picture / picture.std(), 20, 230)


LARGE = smooth_noise()
SHRINK = np.array([[1 / 3, 0, -1 / 3], [0, 1 / 3, -1 / 3], [0, 0, 1]])


def seen(matrix, size=SIZE):
    """The scene through a homography of pixels of the reference, (H, W) float32."""
    return cv2.warpPerspective(
        LARGE, matrix @ SHRINK, size[::-1], flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT
    )


def motion(angle=0.0, zoom=1.0, shift=(0, 0), perspective=(0, 0)):
    """A homography about the picture's centre."""
    cos, sin = zoom * np.cos(np.radians(angle)), zoom * np.sin(np.radians(angle))
    there = np.array([[1, 0, -(WIDTH - 1) / 2], [0, 1, -(HEIGHT - 1) / 2], [0, 0, 1]])
    turn = np.array([[cos, -sin, shift[0]], [sin, cos, shift[1]], [*perspective, 1]])
    return np.linalg.inv(there) @ turn @ there


def as_picture(values, noise=0.0, seed=0):
    values = values + np.random.default_rng(seed).normal(size=values.shape) * noise
    return np.rint(values).clip(0, 255).astype(np.uint8)
