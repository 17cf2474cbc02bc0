"""The pose between two calibrated pictures with the least error over given matches."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

STEPS = 5
SMALL, ENOUGH, LARGEST = 1e-6, 1e-6, 0.5
"""Radians: over which slopes are taken, below which a step is the last, and beyond which it is none."""
TO_SIGMA = 1.4826
"""From the median of absolute values to the standard deviation of a normal distribution."""


@dataclass(frozen=True)
class Sights:
    """Matches as the directions in which two pictures show them.

    first, second  (M, 3) float64, z is 1
    focal          pixels to a unit of x/z
    """

    first: Floats
    second: Floats
    focal: float

    @staticmethod
    def of(rays0: Floats, rays1: Floats, focal: float) -> Sights:
        """From x/z and y/z, (M, 2) each."""
        ones = np.ones((len(rays0), 1))
        return Sights(np.hstack([rays0, ones]), np.hstack([rays1, ones]), focal)

    @property
    def plane0(self) -> Floats:
        """x/z and y/z in the first picture, (M, 2)."""
        return np.ascontiguousarray(self.first[:, :2])

    @property
    def plane1(self) -> Floats:
        """In the second."""
        return np.ascontiguousarray(self.second[:, :2])

    def some(self, chosen: NDArray[np.bool_]) -> Sights:
        """Those of an index."""
        return Sights(self.first[chosen], self.second[chosen], self.focal)

    def across(self, rotation: Floats, translation: Floats) -> Floats:
        """How far matches are from the epipolar geometry, (M,) pixels with a sign: Sampson's distance."""
        essential = cross(translation) @ rotation
        line1, line0 = self.first @ essential.T, self.second @ essential
        length = np.sqrt((line1[:, :2] ** 2).sum(axis=1) + (line0[:, :2] ** 2).sum(axis=1))
        return np.asarray(self.focal * (self.second * line1).sum(axis=1) / np.maximum(length, 1e-12))

    def off(self, rotation: Floats) -> Floats:
        """How far matches are from where a mere rotation takes them, (M,) pixels."""
        mapped = self.first @ rotation.T
        with np.errstate(divide="ignore", invalid="ignore"):
            apart = mapped[:, :2] / mapped[:, 2:] - self.second[:, :2]
        return np.asarray(np.where(mapped[:, 2] > 0, self.focal * np.hypot(*apart.T), np.inf))

    def in_front(self, rotation: Floats, translation: Floats) -> NDArray[np.bool_]:
        """Which matches lie before both cameras: z₀ and z₁ of z₁ x₁ = z₀ R x₀ + t, by least squares, are above 0."""
        turned_first = self.first @ rotation.T
        ff, fs = (turned_first**2).sum(axis=1), (turned_first * self.second).sum(axis=1)
        ss, ft, st = (self.second**2).sum(axis=1), turned_first @ translation, self.second @ translation
        return np.asarray((fs * st - ft * ss > 0) & (ff * st - fs * ft > 0))


def settled(rotation: Floats, translation: Floats, sights: Sights, threshold: float) -> tuple[Floats, Floats]:
    """The pose near this one of the least distance across epipolar lines, its translation of length 1.

    Gauss-Newton for three angles and the two of the direction, over the matches within `threshold` pixels, each
    weighted by how well it fits (Cauchy).
    """
    for _ in range(STEPS):
        now = sights.across(rotation, translation)
        near = np.abs(now) <= threshold
        if near.sum() < 5:
            break
        some, now = sights.some(near), now[near]
        sideways = np.asarray(np.linalg.svd(translation[None])[2][1:], np.float64)
        slopes = [
            (some.across(*_moved(rotation, translation, sideways, each)) - now) / SMALL
            for each in SMALL * np.eye(5, dtype=np.float64)
        ]
        weights = _weights(now)
        step = np.linalg.lstsq(np.stack(slopes, axis=1) * weights[:, None], -now * weights, rcond=1e-9)[0]
        if np.abs(step).max() > LARGEST:
            break
        rotation, translation = _moved(rotation, translation, sideways, step)
        if np.abs(step).max() < ENOUGH:
            break
    return rotation, translation


def turned(rotation: Floats, sights: Sights) -> Floats:
    """The rotation near this one that brings directions together best (Kabsch 1976), weighted as above."""
    first, second = (each / np.linalg.norm(each, axis=1, keepdims=True) for each in (sights.first, sights.second))
    for _ in range(STEPS):
        weights = _weights(np.minimum(sights.off(rotation), sights.focal))[:, None]
        u, _, vt = np.linalg.svd((weights * second).T @ first)
        rotation = u @ np.diag([1, 1, np.linalg.det(u @ vt)]) @ vt
    return rotation


def spread(errors: Floats) -> float:
    """The standard deviation that the median of their absolute values, (M,) with M above 0, stands for."""
    return TO_SIGMA * float(np.median(np.abs(errors)))


def angle(rotation: Floats) -> float:
    """Of a rotation, radians."""
    return float(np.linalg.norm(cv2.Rodrigues(rotation)[0]))


def quaternion(rotation: Floats) -> tuple[float, float, float, float]:
    """x, y, z, w of a rotation matrix, w at least 0; NaN of one that is not known."""
    if not np.isfinite(rotation).all():
        return (np.nan,) * 4
    turn = cv2.Rodrigues(rotation)[0][:, 0]
    half = np.linalg.norm(turn) / 2
    x, y, z = turn / 2 * np.sinc(half / np.pi)
    return float(x), float(y), float(z), float(np.cos(half))


def cross(vector: Floats) -> Floats:
    """The matrix (3, 3) whose product with another vector is the cross product."""
    x, y, z = vector
    return np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]])


def _moved(rotation: Floats, translation: Floats, sideways: Floats, step: NDArray[Any]) -> tuple[Floats, Floats]:
    direction = translation + step[3:] @ sideways
    turn = np.asarray(cv2.Rodrigues(step[:3])[0], np.float64)
    return turn @ rotation, direction / np.linalg.norm(direction)


def _weights(errors: Floats) -> Floats:
    return np.asarray(1 / (1 + (errors / max(2 * spread(errors), 1e-3)) ** 2))
