import numpy as np
import pytest

from superpoint_training.augmentation import (
    Photometric,
    add_noise,
    lens_blur,
    motion_blur,
    photometric,
    sensor_noise,
    shade,
    tone,
)

GREY = np.full((120, 160), 128, np.uint8)


def test_every_effect_keeps_size_and_type() -> None:
    rng = np.random.default_rng(0)
    image = rng.integers(0, 256, (120, 160), dtype=np.uint8)
    for strength in (0.0, 0.5, 1.0, 2.0):
        noisy = add_noise(rng, image, strength)
        assert noisy.shape == image.shape and noisy.dtype == np.uint8
    for _ in range(50):
        changed = photometric(rng, image, Photometric(share=1.0, gamma=2.0))
        assert changed.shape == image.shape and changed.dtype == np.uint8


def test_noise_of_strength_zero_changes_nothing() -> None:
    assert np.array_equal(add_noise(np.random.default_rng(0), GREY, 0.0), GREY)


def test_no_share_changes_nothing() -> None:
    changed = photometric(np.random.default_rng(0), GREY, Photometric(share=0.0))
    assert np.array_equal(changed, GREY)


@pytest.mark.parametrize("angle", np.linspace(0, np.pi, 7))
@pytest.mark.parametrize("length", [2.0, 5.0, 9.0])
def test_motion_blur_moves_nothing(length: float, angle: float) -> None:
    dot = np.zeros((41, 41), np.uint8)
    dot[20, 20] = 255
    blurred = motion_blur(dot, length, angle).astype(float)
    y, x = np.mgrid[:41, :41]
    centre = np.array([(blurred * x).sum(), (blurred * y).sum()]) / blurred.sum()
    assert np.allclose(centre, 20, atol=0.05)


def test_sensor_noise_has_the_given_standard_deviations() -> None:
    rng = np.random.default_rng(0)
    assert np.std(sensor_noise(rng, GREY, 15.0, 0.0)) == pytest.approx(15, rel=0.05)
    assert np.std(sensor_noise(rng, GREY, 0.0, 0.1)) == pytest.approx(12.8, rel=0.05)


def test_tone_is_gamma_then_gain_about_the_mean_then_offset() -> None:
    image = np.arange(0, 200, dtype=np.uint8).reshape(10, 20)
    curved = 255 * (image / 255) ** 1.5
    expected = (curved - curved.mean()) * 1.3 + curved.mean() + 20
    found = tone(image, brightness=20, contrast=1.3, gamma=1.5)
    assert np.array_equal(found, np.clip(np.rint(expected), 0, 255))


def test_shade_changes_a_part_of_the_picture_by_at_most_its_amount() -> None:
    shaded = shade(np.random.default_rng(2), GREY, 0.4).astype(int)
    assert shaded.min() >= 128 * 0.6 - 1 and shaded.max() <= 128 * 1.4 + 1
    assert np.any(shaded != 128)


def test_blur_below_a_tenth_of_a_pixel_is_left_out() -> None:
    assert lens_blur(GREY, 0.05) is GREY


def test_strength_out_of_range_is_refused_by_name() -> None:
    with pytest.raises(ValueError, match="share must be between 0 and 1, got 1.5"):
        Photometric(share=1.5)
    with pytest.raises(ValueError, match="blur must be at least 0"):
        Photometric(blur=-1.0)
