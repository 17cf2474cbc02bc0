import cv2
import numpy as np
import pytest
import torch

from superpoint_training.homography import (
    HomographyRange,
    sample_homography,
    view_masks,
    warp_batch,
    warp_points,
    warp_points_batch,
)

SIZE = (64, 80)
STILL = HomographyRange(crop=1.0, perspective=0.0, scale=(1.0, 1.0), rotation=0.0, translation=0.0)


def some_homographies(count: int, limits: HomographyRange | None = None) -> np.ndarray:
    rng = np.random.default_rng(5)
    return np.array([sample_homography(rng, SIZE, limits or HomographyRange(rotation=180)) for _ in range(count)])


def test_a_range_of_nothing_gives_the_identity() -> None:
    assert np.allclose(sample_homography(np.random.default_rng(0), SIZE, STILL), np.eye(3), atol=1e-5)


@pytest.mark.parametrize("distribution", ["normal", "uniform"])
def test_rotation_and_scale_stay_in_range_and_reach_towards_its_ends(distribution: str) -> None:
    limits = HomographyRange(crop=0.8, perspective=0, scale=(0.5, 2.0), rotation=180, distribution=distribution)
    linear = some_homographies(400, limits)[:, :2, :2]
    scale = np.sqrt(np.linalg.det(linear)) * 0.8  # the crop alone magnifies by 1 / 0.8
    angle = np.degrees(np.arctan2(linear[:, 1, 0], linear[:, 0, 0]))
    assert scale.min() >= 0.5 - 1e-4 and scale.max() <= 2.0 + 1e-4
    assert scale.min() < 0.6 and scale.max() > 1.7
    assert angle.min() < -150 and angle.max() > 150


def test_what_fills_the_view_is_a_convex_part_of_the_picture() -> None:
    limits = HomographyRange(crop=1.0, perspective=0.4, scale=(1, 1), rotation=0, translation=0)
    corners = np.array([[-0.5, -0.5], [79.5, -0.5], [79.5, 63.5], [-0.5, 63.5]])
    for homography in some_homographies(100, limits):
        patch = warp_points(corners, np.linalg.inv(homography)).astype(np.float32)
        assert cv2.isContourConvex(patch) and cv2.contourArea(patch, oriented=True) > 0
        half = np.abs(patch - (39.5, 31.5)) / (40, 32)  # 1 at the picture's edge
        assert half.min() >= 0.6 - 1e-4 and half.max() <= 1.4 + 1e-4


def test_points_move_as_opencv_moves_them() -> None:
    points = np.random.default_rng(0).uniform(0, 60, (20, 2))
    for homography in some_homographies(10):
        expected = cv2.perspectiveTransform(points[None], homography)[0]
        assert np.allclose(warp_points(points, homography), expected, atol=1e-6)
        batch = warp_points_batch(torch.from_numpy(points)[None], torch.from_numpy(homography)[None])
        assert np.allclose(batch[0].numpy(), expected, atol=1e-6)


def test_points_beyond_the_horizon_are_not_numbers() -> None:
    homography = np.array([[1, 0, 0], [0, 1, 0], [-0.1, 0, 1.0]])
    points = np.array([[5.0, 0.0], [20.0, 0.0]])
    assert np.isnan(warp_points(points, homography)).tolist() == [[False] * 2, [True] * 2]


def test_pictures_are_warped_as_opencv_warps_them() -> None:
    image = cv2.GaussianBlur(np.random.default_rng(0).uniform(0, 255, SIZE).astype(np.float32), (0, 0), 2)
    homographies = some_homographies(6)
    batch = torch.from_numpy(image)[None, None].expand(6, -1, -1, -1)
    found = warp_batch(batch, torch.from_numpy(homographies).float())
    for view, homography in zip(found[:, 0].numpy(), homographies, strict=True):
        expected = cv2.warpPerspective(image, homography, (80, 64))
        whole = cv2.warpPerspective(np.full(SIZE, 255, np.uint8), homography, (80, 64))
        inside = cv2.erode((whole == 255).astype(np.uint8), np.ones((3, 3)))
        assert inside.sum() > 200
        assert np.abs(view - expected)[inside > 0].max() < 1.0  # OpenCV rounds to 1/32 of a pixel


@pytest.mark.parametrize("border", [0.0, 3.0])
def test_masks_are_right_at_every_pixel(border: float) -> None:
    homographies = some_homographies(4)
    found = view_masks(torch.from_numpy(homographies).float(), SIZE, border=border)[:, 0].numpy()
    for mask, homography in zip(found, homographies, strict=True):
        inverse = np.linalg.inv(homography)
        for y in range(SIZE[0]):
            for x in range(SIZE[1]):
                u, v, w = inverse @ (x, y, 1)
                margin = min(u / w - border, v / w - border, 79 - border - u / w, 63 - border - v / w)
                if w > 0 and abs(margin) > 1e-3:
                    assert mask[y, x] == (margin > 0), (x, y)


def test_limits_out_of_range_are_refused_by_name() -> None:
    for wrong in ({"crop": 0.0}, {"perspective": 0.5}, {"scale": (2.0, 1.0)}, {"rotation": 190.0}):
        with pytest.raises(ValueError, match=next(iter(wrong))):
            HomographyRange(**wrong)


def test_a_view_lies_on_this_side_of_the_horizon_wherever_its_first_pixel_is() -> None:
    limits = HomographyRange(
        crop=0.4, perspective=0.49, scale=(1, 2), rotation=180, translation=0.5, distribution="uniform"
    )
    homographies = some_homographies(300, limits)
    assert np.linalg.det(homographies).min() > 0
    assert homographies[:, 2, 2].min() < 0 < homographies[:, 2, 2].max()  # the first pixel is beyond for some
    for homography in homographies:
        middle = warp_points(np.array([[39.5, 31.5]]), np.linalg.inv(homography))
        assert np.allclose(warp_points(middle, homography), [[39.5, 31.5]], atol=1e-4)
