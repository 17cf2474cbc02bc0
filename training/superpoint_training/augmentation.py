"""Photometric augmentation: what light, lens and sensor do to a picture.

DeTone et al. 2018, section 4 and appendix A: brightness, contrast, shade, Gaussian and speckle
noise and motion blur. Every effect takes and returns a grey image (H, W) uint8 and costs tens of
microseconds at 160×120.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

Image = NDArray[np.uint8]


@dataclass(frozen=True)
class Photometric:
    """How strong each effect is at most, and how often it happens.

    share       of pictures that each single effect is applied to, 0 to 1
    brightness  grey levels added or taken away
    contrast    (least, greatest) gain about the mean grey level
    gamma       greatest factor by which gamma goes up or down; 1 leaves it out
    shade       darkening or lightening inside random soft ellipses, as a share of the grey level
    blur        standard deviation of a Gaussian lens blur, pixels
    motion      length of a motion blur, pixels
    gaussian    standard deviation of additive noise, grey levels
    speckle     standard deviation of multiplicative noise, as a share of the grey level
    """

    share: float = 0.5
    brightness: float = 40.0
    contrast: tuple[float, float] = (0.5, 1.5)
    gamma: float = 1.0
    shade: float = 0.5
    blur: float = 1.2
    motion: float = 5.0
    gaussian: float = 20.0
    speckle: float = 0.15

    def __post_init__(self) -> None:
        if not 0 <= self.share <= 1:
            raise ValueError(f"share must be between 0 and 1, got {self.share!r}")
        if not 0 < self.contrast[0] <= self.contrast[1]:
            raise ValueError(f"contrast must be two gains above 0, the lower first, got {self.contrast!r}")
        if self.gamma < 1:
            raise ValueError(f"gamma must be at least 1, got {self.gamma!r}")
        for name in ("brightness", "shade", "blur", "motion", "gaussian", "speckle"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name} must be at least 0, got {getattr(self, name)!r}")


def photometric(rng: np.random.Generator, image: Image, limits: Photometric) -> Image:
    """Apply each effect with probability `limits.share` and a random strength, in the order light,
    lens, sensor.
    """
    chosen = rng.random(8) < limits.share
    strength = rng.random(8)
    if chosen[0] and limits.shade:
        image = shade(rng, image, float(strength[0]) * limits.shade)
    if chosen[1] or chosen[2] or chosen[3]:
        low, high = np.log(limits.contrast)
        image = tone(
            image,
            brightness=_offset(image, float(2 * strength[1] - 1) * limits.brightness) * chosen[1],
            contrast=float(np.exp(low + strength[2] * (high - low))) if chosen[2] else 1.0,
            gamma=limits.gamma ** float(2 * strength[3] - 1) if chosen[3] else 1.0,
        )
    if chosen[4] and limits.blur:
        image = lens_blur(image, float(strength[4]) * limits.blur)
    if chosen[5] and limits.motion:
        image = motion_blur(image, float(strength[5]) * limits.motion, float(rng.uniform(0, np.pi)))
    if (chosen[6] and limits.gaussian) or (chosen[7] and limits.speckle):
        gaussian = float(strength[6]) * limits.gaussian * chosen[6]
        image = sensor_noise(rng, image, gaussian, float(strength[7]) * limits.speckle * chosen[7])
    return image


def add_noise(rng: np.random.Generator, image: Image, strength: float = 1.0) -> Image:
    """The noisy condition of the detector evaluation: every effect at once, at `strength` times a
    fixed size.

    At 1: brightness ±25 grey levels, contrast 0.7 to 1.3, shade 0.4, lens blur 0.8 px, motion blur
    3 px, additive noise of 15 grey levels, speckle of 0.1. At 0 the picture is left as it is.
    """
    if strength <= 0:
        return image
    image = shade(rng, image, 0.4 * strength)
    contrast = float(np.exp(rng.uniform(-1, 1) * np.log(1.3) * strength))
    image = tone(image, brightness=_offset(image, float(rng.uniform(-25, 25)) * strength), contrast=contrast)
    image = lens_blur(image, float(rng.uniform(0, 0.8)) * strength)
    image = motion_blur(image, float(rng.uniform(0, 3.0)) * strength, float(rng.uniform(0, np.pi)))
    return sensor_noise(rng, image, 15.0 * strength, 0.1 * strength)


def shade(rng: np.random.Generator, image: Image, amount: float) -> Image:
    """Darken or lighten by up to `amount` of the grey level inside a few soft ellipses."""
    height, width = image.shape
    # The mask is smooth, so a quarter of the resolution does.
    small = np.zeros((max(height // 4, 1), max(width // 4, 1)), np.uint8)
    for _ in range(int(rng.integers(1, 6))):
        axes = np.maximum(rng.uniform(0.05, 0.35, 2) * min(small.shape), 1).astype(int)
        centre = (int(rng.integers(0, small.shape[1])), int(rng.integers(0, small.shape[0])))
        cv2.ellipse(small, centre, (int(axes[0]), int(axes[1])), float(rng.uniform(0, 180)), 0, 360, 255, -1)
    softness = rng.uniform(0.06, 0.25) * min(small.shape)
    mask = cv2.resize(cv2.GaussianBlur(small, (0, 0), softness), (width, height), interpolation=cv2.INTER_LINEAR)
    sign = 1.0 if rng.random() < 0.3 and image.mean() < 128 else -1.0
    gain = mask.astype(np.float32) * np.float32(sign * min(amount, 1.0) / 255) + np.float32(1)
    return np.asarray(cv2.multiply(image, gain, dtype=cv2.CV_8U), np.uint8)


def tone(image: Image, brightness: float = 0.0, contrast: float = 1.0, gamma: float = 1.0) -> Image:
    """Gamma, then gain about the mean grey level, then an offset; saturating."""
    table: NDArray[np.float64] = 255 * (np.arange(256, dtype=np.float64) / 255) ** gamma
    mean = float(table[image].mean()) if gamma != 1 else float(image.mean())
    table = (table - mean) * contrast + mean + brightness
    return np.asarray(cv2.LUT(image, np.clip(np.rint(table), 0, 255).astype(np.uint8)), np.uint8)


def _offset(image: Image, brightness: float) -> float:
    """Brightness turned round where it would push a dark or bright picture into saturation."""
    mean = float(image.mean())
    return -abs(brightness) if mean > 180 else abs(brightness) if mean < 75 else brightness


def lens_blur(image: Image, sigma: float) -> Image:
    """Gaussian blur of `sigma` pixels; below a tenth of a pixel nothing."""
    return image if sigma < 0.1 else np.asarray(cv2.GaussianBlur(image, (0, 0), sigma), np.uint8)


def motion_blur(image: Image, length: float, angle: float) -> Image:
    """Average along a line of `length` pixels at `angle` radians, centred so that nothing moves."""
    if length < 1.0:
        return image
    side = 2 * int(np.ceil(length / 2)) + 1
    kernel = np.zeros((side, side), np.float32)
    step = np.array([np.cos(angle), np.sin(angle)]) * length / 2
    centre = np.array([side // 2, side // 2])
    ends = np.rint(np.stack([centre - step, centre + step]) * 16).astype(int)
    cv2.line(kernel, tuple(ends[0].tolist()), tuple(ends[1].tolist()), 1.0, 1, cv2.LINE_8, 4)
    # A rasterised line can be lopsided, which would shift corners.
    kernel = np.asarray(kernel + kernel[::-1, ::-1], np.float32)
    return np.asarray(cv2.filter2D(image, -1, kernel / kernel.sum(), borderType=cv2.BORDER_REPLICATE), np.uint8)


def sensor_noise(rng: np.random.Generator, image: Image, gaussian: float, speckle: float) -> Image:
    """Noise of standard deviation `gaussian` grey levels, and of `speckle` times the grey level."""
    if gaussian <= 0 and speckle <= 0:
        return image
    result: NDArray[Any] = image.astype(np.float32)
    if speckle > 0:
        result *= 1 + np.float32(speckle) * rng.standard_normal(image.shape, dtype=np.float32)
    if gaussian > 0:
        result += np.float32(gaussian) * rng.standard_normal(image.shape, dtype=np.float32)
    return cv2.convertScaleAbs(np.maximum(result, 0, out=result))  # type: ignore[return-value]
