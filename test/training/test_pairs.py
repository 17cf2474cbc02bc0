import hashlib
import os
from collections.abc import Sequence
from dataclasses import replace

import cv2
import numpy as np
import pytest
import torch
from training_scenes import scene, write_scenes

from superpoint_training.augmentation import Photometric
from superpoint_training.config import Config, PairsConfig
from superpoint_training.homography import HomographyRange, sample_homography, warp_points
from superpoint_training.labels import cell_mask
from superpoint_training.pairs import PairSamples, turn, view
from superpoint_training.preview import labels_sheet, target_points, write_sheet
from superpoint_training.pseudo_labels import LabelFolder, Labels
from superpoint_training.recipe import load_config
from superpoint_training.samples import TRAINING

SIZE = (64, 80)
TURNED = HomographyRange(crop=0.9, scale=(0.8, 1.3), rotation=180, distribution="uniform")
CONFIG = PairsConfig(
    size=SIZE,
    first=HomographyRange(crop=0.9, perspective=0.1, rotation=15),
    second=TURNED,
    photometric=Photometric(share=0.0),
    correspondences=40,
)


@pytest.fixture
def samples(tmp_path) -> PairSamples:
    paths = write_scenes(tmp_path / "pictures", 5, darkest=40)
    folder = LabelFolder(tmp_path / "labels")
    folder.open({})
    for number, path in enumerate(paths):
        xy = np.random.default_rng(number).uniform(0, (127, 95), (30, 2)).astype(np.float32)
        folder.write(path, Labels(xy, np.ones(30, np.float32), (96, 128)))
    return PairSamples(paths, tmp_path / "labels", CONFIG, seed=0)


def test_a_sample_depends_on_seed_and_index_alone(samples) -> None:
    samples[3]
    again = PairSamples(samples.pictures, samples.labels, CONFIG, seed=0)
    for name, tensor in samples[7].items():
        assert torch.equal(tensor, again[7][name])
    assert not torch.equal(samples[7]["image"], replace(samples, seed=1)[7]["image"])


def test_every_picture_comes_once_a_round() -> None:
    for lap in range(3):
        turns = [turn(5 * lap + i, 5, 0, TRAINING) for i in range(5)]
        assert sorted(turns) == [0, 1, 2, 3, 4]


def test_corresponding_points_show_the_same_grey(samples) -> None:
    differences = []
    for index in range(20):
        sample = samples[index]
        matched = sample["matched"].numpy()
        assert matched.sum() > 5
        first, second = sample["points"].numpy()
        moved = warp_points(first[matched], sample["homography"].numpy().astype(float))
        assert np.allclose(moved, second[matched], atol=0.01)
        greys = []
        for picture, points in zip(sample["image"].numpy(), (first, second), strict=True):
            x, y = np.rint(points[matched]).astype(int).T
            assert np.all((x >= 0) & (x < 80) & (y >= 0) & (y < 64))
            greys.append(picture[y, x].astype(float))
        differences.append(np.abs(greys[0] - greys[1]))
    assert np.median(np.concatenate(differences)) < 4


def test_labelled_points_come_first_and_at_their_exact_place(samples) -> None:
    sample = replace(samples, config=replace(CONFIG, nms_radius=0))[0]
    targets = sample["targets"][0].numpy()
    labelled = {tuple(p) for p in target_points(targets)}
    first = np.rint(sample["points"][0][sample["matched"]].numpy()).astype(int)
    # A cell keeps one of its labels, so not every labelled correspondence is a target; but most
    # are.
    assert np.mean([tuple(p) in labelled for p in first[:8]]) > 0.5


def test_targets_and_valid_cells_lie_in_the_picture(samples) -> None:
    """Pictures of the fixture are nowhere black; what a view does not show is."""
    for index in range(10):
        sample = samples[index]
        images, masks = sample["image"].numpy(), sample["valid"].numpy()
        for image, targets, valid in zip(images, sample["targets"].numpy(), masks, strict=True):
            assert not np.any(valid & cell_mask(image == 0))
            x, y = target_points(targets).astype(int).T
            assert len(x) > 0 and np.all(image[y, x] > 0)


def test_a_shrunk_view_is_averaged_and_stays_in_place() -> None:
    picture = scene(1, (240, 320))
    move = np.diag([0.25, 0.25, 1.0])
    move[:2, 2] = -0.375  # pixel centres: x' = (x + 0.5) / 4 - 0.5
    found, valid = view(picture, move, (60, 80))
    blocks = picture.reshape(60, 4, 80, 4).mean(axis=(1, 3))
    assert np.abs(found.astype(float) - blocks)[2:-2, 2:-2].max() <= 1
    assert valid[5:-5, 5:-5].all() and not valid[:3].any()


def test_a_picture_that_went_bad_is_replaced_by_the_next(samples) -> None:
    damaged = samples.pictures[turn(2, 5, 0, TRAINING)]
    damaged.write_bytes(b"damaged")
    fresh = PairSamples(samples.pictures, samples.labels, CONFIG, seed=0)
    assert fresh[2]["image"].shape == (2, *SIZE)


def test_labels_that_a_small_view_crowds_leave_the_strongest(tmp_path) -> None:
    """Five pixels apart in the picture, two and a half in the view."""
    (picture,) = write_scenes(tmp_path / "pictures", 1)
    folder = LabelFolder(tmp_path / "labels")
    folder.open({})
    x, y = np.meshgrid(np.arange(20, 110, 5), np.arange(20, 80, 5))
    xy = np.column_stack([x.ravel(), y.ravel()]).astype(np.float32)
    folder.write(picture, Labels(xy, np.linspace(1, 0.1, len(xy), dtype=np.float32), (96, 128)))
    half = HomographyRange(crop=1.0, perspective=0.0, scale=(0.5, 0.5), rotation=0, translation=0)
    config = replace(CONFIG, size=(96, 128), first=half, second=half)
    for radius, apart in ((4, 4), (0, 0)):
        sample = PairSamples([picture], tmp_path / "labels", replace(config, nms_radius=radius), seed=0)[0]
        points = target_points(sample["targets"][0].numpy())
        gaps = np.abs(points[:, None] - points[None]).max(axis=2) + 1000 * np.eye(len(points))
        assert (gaps.min() > apart) and len(points) > 5
        if not radius:
            assert gaps.min() <= 4


def test_views_at_the_cameras_resolution_are_parts_of_the_picture(samples) -> None:
    still = HomographyRange(crop=1.0, perspective=0.0, scale=(1, 1), rotation=0, translation=0)
    native = replace(samples, config=replace(CONFIG, fit="native", first=still, second=still))
    corners = set()
    for index in range(10):
        view_of = native[index]["image"][0].numpy()
        picture = scene(turn(index, 5, 0, TRAINING), (96, 128), darkest=40)
        found = cv2.matchTemplate(picture, view_of, cv2.TM_SQDIFF_NORMED)
        assert found.min() < 0.01  # at a fraction of a pixel
        corners.add(cv2.minMaxLoc(found)[2])
    assert len(corners) > 5


def test_second_views_of_the_gpu_recipe_keep_labels_and_correspondences(tmp_path) -> None:
    """Where the first pixel lies beyond the horizon all labels were lost, and asked for as negatives."""
    config = load_config("gpu").pairs
    (picture,) = write_scenes(tmp_path / "pictures", 1)
    folder = LabelFolder(tmp_path / "labels")
    folder.open({})
    x, y = np.meshgrid(np.arange(4, 124, 6), np.arange(4, 92, 6))
    xy = np.column_stack([x.ravel(), y.ravel()]).astype(np.float32)
    folder.write(picture, Labels(xy, np.ones(len(xy), np.float32), (96, 128)))
    steep = steep_index(config)
    sample = PairSamples([picture], tmp_path / "labels", config, seed=0)[steep]
    assert sample["valid"][1].float().mean() > 0.3
    assert len(target_points(sample["targets"][1].numpy())) > 10
    assert sample["matched"].sum() > 100
    moved = warp_points(sample["points"][0].numpy(), sample["homography"].numpy().astype(float))
    assert np.isfinite(moved[sample["matched"].numpy()]).all()


def steep_index(config: PairsConfig) -> int:
    """The first sample whose second view has the first pixel of the first one beyond the horizon."""
    for index in range(20000):
        rng = np.random.default_rng((0, TRAINING, index))
        sample_homography(rng, config.size, config.first)
        if sample_homography(rng, config.size, config.second)[2, 2] < 0:
            return index
    raise AssertionError("there is none")


def damage(samples: PairSamples, numbers: Sequence[int]) -> None:
    for number in numbers:
        content = samples.pictures[number].read_bytes()
        (samples.labels / f"{hashlib.sha256(content).hexdigest()[:16]}.npz").write_bytes(b"PK")


def test_a_picture_whose_labels_cannot_be_read_is_skipped_counted_and_named_once(samples, capfd) -> None:
    damage(samples, [1, 2])
    for index in range(10):
        samples[index]
    said = capfd.readouterr().out
    assert said.count("no readable labels of") == 2 and "skipped, 2 so far" in said
    for number in (1, 2):
        assert said.count(samples.pictures[number].name) == 1


def test_labels_none_of_which_can_be_read_are_an_error(samples) -> None:
    damage(samples, range(5))
    with pytest.raises(ValueError, match=r"cannot be read or used \(.*npz: no readable labels of"):
        samples[0]


def test_a_preview_leaves_out_pictures_whose_labels_cannot_be_read(samples, capfd) -> None:
    damage(samples, [0])
    labels_sheet(Config(pairs=CONFIG), samples.pictures, samples.labels, 4)
    assert "no readable labels of" in capfd.readouterr().out


def test_a_sheet_may_have_a_name_in_latin_1(tmp_path) -> None:
    path = tmp_path / os.fsdecode(b"caf\xe9.png")
    write_sheet(path, np.zeros((8, 8, 3), np.uint8))
    assert path.read_bytes().startswith(b"\x89PNG")
