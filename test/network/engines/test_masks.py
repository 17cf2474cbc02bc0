"""Masks in every engine: what is outside is never a keypoint and takes none's place."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from superpoint_ros.network.engines.choice import installed
from superpoint_ros.network.engines.cpu_engine import PACKAGES, CpuEngine
from superpoint_ros.network.engines.parity import built_in_picture
from superpoint_ros.network.engines.torch_engine import TorchEngine
from superpoint_ros.network.heatmap import DetectionSettings

CPU = torch.device("cpu")
SIZE = (120, 160)
EVERYTHING = DetectionSettings(100_000, detection_threshold=0.0, nms_radius=0)
# the steps that a GPU runs, on the CPU
STEPS = "a GPU's steps"


@pytest.fixture(params=["torch", *PACKAGES, STEPS])
def engine(request, random_checkpoint, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    checkpoint = random_checkpoint()
    if request.param == STEPS:
        return TorchEngine(checkpoint, CPU)
    if request.param != "torch" and not installed(request.param):
        pytest.skip(f"not installed: {' and '.join(PACKAGES[request.param])}")
    return CpuEngine(request.param, checkpoint)


@pytest.fixture
def mask():
    mask = np.zeros(SIZE, bool)
    mask[60:, :100] = True
    return mask


def pixels(found):
    return found.xy.astype(int).T[::-1]


def test_a_masked_area_does_not_eat_the_keypoint_budget(engine, mask):
    pictures, settings = [built_in_picture(SIZE)], DetectionSettings(40, detection_threshold=0.0)
    (free,) = engine(pictures, [SIZE], settings)
    (found,) = engine(pictures, [SIZE], settings, [mask])
    row, column = pixels(found)
    assert mask[row, column].all()
    assert len(found.xy) == len(free.xy) == 40
    assert not mask[tuple(pixels(free))].all()


def test_the_keypoints_are_the_strongest_of_those_inside(engine, mask):
    picture, count = built_in_picture(SIZE), 25
    (all_pixels,) = engine([picture], [SIZE], EVERYTHING)
    inside = mask[tuple(pixels(all_pixels))]
    settings = DetectionSettings(count, detection_threshold=0.0, nms_radius=0)
    (found,) = engine([picture], [SIZE], settings, [mask])
    np.testing.assert_array_equal(found.xy, all_pixels.xy[inside][:count])
    np.testing.assert_allclose(found.descriptors, all_pixels.descriptors[inside][:count], atol=1e-5)


def test_what_is_masked_suppresses_no_neighbour(engine):
    picture = built_in_picture(SIZE)
    settings = DetectionSettings(1, detection_threshold=0.0, nms_radius=8)
    (best,) = engine([picture], [SIZE], settings)
    mask = np.ones(SIZE, bool)
    (row,), (column,) = pixels(best)
    mask[row, column] = False
    (found,) = engine([picture], [SIZE], DetectionSettings(1000, detection_threshold=0.0, nms_radius=8), [mask])
    distance = np.abs(found.xy - best.xy).max(axis=1).min()
    assert 0 < distance <= 8


def test_each_picture_of_a_batch_has_its_own_mask_or_none(engine, mask):
    other = (96, 128)
    pictures = [built_in_picture(SIZE), built_in_picture(other, seed=1), built_in_picture(SIZE, seed=2)]
    sizes, settings = [picture.shape for picture in pictures], DetectionSettings(30, detection_threshold=0.0)
    small = np.zeros(other, bool)
    small[:, 64:] = True
    found = engine(pictures, sizes, settings, [mask, small, None])
    for one, picture, allowed in zip(found, pictures, [mask, small, None], strict=True):
        alone = None if allowed is None else [allowed]
        (expected,) = engine([picture], [picture.shape], settings, alone)
        np.testing.assert_array_equal(one.xy, expected.xy)
        np.testing.assert_allclose(one.scores, expected.scores, rtol=1e-4)


def test_a_mask_of_one_call_is_gone_in_the_next(engine, mask):
    pictures, settings = [built_in_picture(SIZE)], DetectionSettings(40, detection_threshold=0.0)
    (before,) = engine(pictures, [SIZE], settings)
    engine(pictures, [SIZE], settings, [mask])
    (after,) = engine(pictures, [SIZE], settings)
    np.testing.assert_array_equal(before.xy, after.xy)


def test_a_mask_of_nothing_finds_nothing(engine):
    (found,) = engine([built_in_picture(SIZE)], [SIZE], DetectionSettings(), [np.zeros(SIZE, bool)])
    assert found.xy.shape == (0, 2) and found.scores.shape == (0,) and len(found.descriptors) == 0
