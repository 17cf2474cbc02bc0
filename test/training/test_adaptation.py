from dataclasses import replace

import cv2
import numpy as np
import pytest
import torch
from torch import nn
from training_scenes import scene, write_scenes
from two_processes import adapt_slim, slim_network

from superpoint_ros.network.heatmap import heatmap_from_logits
from superpoint_ros.network.superpoint import Architecture, SuperPoint
from superpoint_training.adaptation import adapt, adapt_picture, average_heatmap, inference_network, localisable
from superpoint_training.config import AdaptationConfig
from superpoint_training.homography import HomographyRange, sample_homography
from superpoint_training.processes import Processes
from superpoint_training.pseudo_labels import LabelFolder

SIZE = (64, 80)
ALONE = Processes(0, 1, torch.device("cpu"))
SETTINGS = AdaptationConfig(size=(48, 64), views=4, threshold=0.0, max_points=20)


class Answering(nn.Module):
    """A detector that answers every pixel with a given function of the image, as logits."""

    def __init__(self, answer) -> None:
        super().__init__()
        self.answer = answer
        self.anchor = nn.Parameter(torch.zeros(1))

    def forward(self, image):
        heat = self.answer(image).clamp(1e-6, 1) / 64.0001  # 64 answers and the dustbin add up to 1
        cells = nn.functional.pixel_unshuffle(heat, 8)
        return torch.cat([cells, 1 - cells.sum(dim=1, keepdim=True)], dim=1).log(), None


def homographies(count: int) -> torch.Tensor:
    rng = np.random.default_rng(0)
    limits = HomographyRange(rotation=180, scale=(0.7, 1.4))
    return torch.from_numpy(np.array([sample_homography(rng, SIZE, limits) for _ in range(count)]))


@pytest.mark.parametrize("border", [0, 4])
def test_a_detector_that_answers_the_same_everywhere_leaves_no_rim(border: int) -> None:
    model = Answering(lambda image: torch.full_like(image, 0.5))
    found = average_heatmap(model, torch.rand(SIZE), homographies(20), batch=7, border=border)
    expected = np.zeros(SIZE)
    expected[border : SIZE[0] - border, border : SIZE[1] - border] = 0.5 / 64.0001
    assert np.allclose(found.numpy(), expected, atol=1e-6)


def test_answers_of_all_views_come_back_to_where_they_belong() -> None:
    smooth = cv2.GaussianBlur(np.random.default_rng(0).uniform(0, 1, SIZE), (0, 0), 4).astype(np.float32)
    image = torch.from_numpy((smooth - smooth.min()) / np.ptp(smooth)) * 0.8 + 0.1
    found = average_heatmap(Answering(lambda view: view), image, homographies(30), 8, border=2) * 64.0001
    inside = (slice(2, -2), slice(2, -2))
    assert (found - image)[inside].abs().max() < 0.02


def test_a_patch_that_is_liked_everywhere_has_no_labels_and_a_lone_peak_has_one() -> None:
    heatmap = np.zeros(SIZE, np.float32)
    heatmap[10, 10] = 0.1
    heatmap[30:60, 30:60] = 0.1 + 0.01 * np.random.default_rng(0).random((30, 30), np.float32)
    kept = localisable(heatmap, np.zeros(SIZE, np.float32), AdaptationConfig(contrast=4))
    assert kept[10, 10] and not kept[34:56, 34:56].any()


@pytest.mark.parametrize(("height", "kept"), [(100, True), (3, False)])
def test_labels_need_structure_in_two_directions(height: int, kept: bool) -> None:
    """A corner of 100 grey levels has it, one of 3 has too little, and an edge or a flat patch none."""
    image = np.full(SIZE, 0.2, np.float32)
    image[20:, 40:] += height / 255
    found = localisable(np.ones(SIZE, np.float32), image, AdaptationConfig(structure=2))
    assert found[20, 40] == kept
    assert not found[50, 40] and not found[20, 70] and not found[10, 10]


def test_on_a_cpu_ncnn_answers_as_torch_does() -> None:
    pytest.importorskip("ncnn")
    torch.manual_seed(0)
    model = SuperPoint(Architecture(channels=(8, 8, 16, 16), head_channels=16, descriptor_dim=16)).eval()
    network = inference_network(model, torch.device("cpu"))
    assert not isinstance(network, nn.Module)
    views = torch.stack([torch.from_numpy(scene(seed, SIZE)) for seed in range(2)])[:, None].float() / 255
    logits, _ = network(views)
    with torch.no_grad():
        expected, _ = model(views)
    assert torch.allclose(logits, expected, atol=1e-3 * float(expected.std()))


def test_views_are_averaged_as_in_a_slow_loop_over_pixels() -> None:
    """Each view's heatmap and mask, read at where each pixel of the picture lies in it."""
    model, image, views, border = (slim_network().eval(), torch.from_numpy(scene(0, SIZE)) / 255, homographies(3), 2)
    found = average_heatmap(model, image, views, batch=2, border=border).numpy()
    total, seen = np.zeros(SIZE), np.zeros(SIZE)
    for homography in [np.eye(3), *views.numpy()]:
        view = (
            cv2.warpPerspective(image.numpy(), homography, SIZE[::-1])
            if not np.allclose(homography, np.eye(3))
            else image.numpy()
        )
        with torch.no_grad():
            heat = heatmap_from_logits(model(torch.from_numpy(view)[None, None])[0])[0].numpy()
        mask = np.zeros(SIZE)
        for y in range(border, SIZE[0] - border):
            for x in range(border, SIZE[1] - border):
                u, v, w = np.linalg.inv(homography) @ (x, y, 1)
                mask[y, x] = border <= u / w <= SIZE[1] - 1 - border and border <= v / w <= SIZE[0] - 1 - border
        for y in range(SIZE[0]):
            for x in range(SIZE[1]):
                u, v, w = homography @ (x, y, 1)
                total[y, x] += bilinear(heat * mask, u / w, v / w)
                seen[y, x] += bilinear(mask, u / w, v / w)
    clear = np.abs(seen - 0.5) > 0.02
    expected = np.where(seen > 0.5, total / np.maximum(seen, 0.5), 0)
    assert np.abs(found - expected)[clear].max() < 0.05 * expected.max()
    assert np.median(np.abs(found - expected)) < 1e-4


def bilinear(image: np.ndarray, x: float, y: float) -> float:
    x0, y0 = int(np.floor(x)), int(np.floor(y))
    value = 0.0
    for px, py in ((x0, y0), (x0 + 1, y0), (x0, y0 + 1), (x0 + 1, y0 + 1)):
        if 0 <= px < image.shape[1] and 0 <= py < image.shape[0]:
            value += (1 - abs(x - px)) * (1 - abs(y - py)) * image[py, px]
    return value


def test_labels_are_in_the_pictures_own_pixels() -> None:
    """A picture of twice the size, resized for the network, with one bright spot."""
    picture = np.zeros((192, 256), np.uint8)
    picture[100:102, 60:62] = 255  # its centre is (60.5, 100.5)
    model = Answering(lambda view: view)
    labels = adapt_picture(
        model, picture, np.random.default_rng(0), AdaptationConfig(size=(96, 128), views=0, threshold=1e-4)
    )
    assert labels.size == (192, 256)
    assert np.allclose(labels.xy, [[60.5, 100.5]], atol=1e-4)


def test_at_least_the_wanted_number_of_peaks_is_kept() -> None:
    picture, rng = scene(0), np.random.default_rng(0)
    for least in (0, 7):
        blind = replace(SETTINGS, threshold=0.9, min_points=least)
        labels = adapt_picture(slim_network().eval(), picture, rng, blind)
        assert len(labels.xy) == least


def test_a_detector_that_finds_nothing_is_told_so(tmp_path) -> None:
    pictures = write_scenes(tmp_path / "pictures", 2)
    blind = replace(SETTINGS, threshold=0.9)
    with pytest.raises(ValueError, match="slim found no keypoint in 2 pictures; train it longer"):
        adapt(slim_network(), "slim", pictures, tmp_path / "labels", blind, 0, ALONE)


def test_a_second_run_labels_only_what_is_missing(tmp_path) -> None:
    pictures = write_scenes(tmp_path / "pictures", 4)
    folder = tmp_path / "labels"
    assert adapt(slim_network(), "slim", pictures[:3], folder, SETTINGS, 0, ALONE)["labelled"] == 3
    first = {path: path.stat().st_mtime_ns for path in folder.glob("*.npz")}
    pictures[3].with_suffix(".bad.png").write_bytes(b"nonsense")
    more = [*pictures, pictures[3].with_suffix(".bad.png")]
    figures = adapt(slim_network(), "slim", more, folder, SETTINGS, 0, ALONE)
    assert figures["labelled"] == 1 and figures["bad"] == 1
    assert {path: path.stat().st_mtime_ns for path in first} == first
    assert len(list(folder.glob("*.npz"))) == 4


def test_labels_of_another_network_are_not_mixed_in(tmp_path) -> None:
    pictures = write_scenes(tmp_path / "pictures", 1)
    adapt(slim_network(), "first", pictures, tmp_path / "labels", SETTINGS, 0, ALONE)
    with pytest.raises(ValueError, match='made otherwise, weights_id was "first", not "second"; choose'):
        adapt(slim_network(), "second", pictures, tmp_path / "labels", SETTINGS, 0, ALONE)


def test_a_budget_ends_the_labelling_but_not_before_the_first_picture(tmp_path) -> None:
    pictures = write_scenes(tmp_path / "pictures", 5)
    figures = adapt(slim_network(), "slim", pictures, tmp_path / "labels", SETTINGS, 0, ALONE, 0.0)
    assert figures["labelled"] == 1


def test_two_processes_give_the_labels_of_one(tmp_path, done_by_two) -> None:
    pictures, by_two = done_by_two
    adapt_slim(ALONE, pictures, tmp_path)
    for picture in pictures:
        one, two = (LabelFolder(folder).read(picture, (96, 128)) for folder in (tmp_path, by_two / "labels"))
        assert len(one.xy) == 20
        assert np.array_equal(one.xy, two.xy) and np.array_equal(one.scores, two.scores)


def test_a_peak_that_is_rejected_leaves_no_shoulder_as_a_label() -> None:
    """The peak stands in a dark patch, its slope reaches into the structured one beside it."""
    x, y = np.meshgrid(np.arange(128), np.arange(96))
    peak = np.exp(-((x - 58) ** 2 + (y - 48) ** 2) / (2 * 1.3**2)).astype(np.float32)
    picture = np.zeros((96, 128), np.uint8)
    picture[:, 64:] = np.random.default_rng(0).integers(0, 255, (96, 64), dtype=np.uint8)
    settings = AdaptationConfig(size=(96, 128), views=0, threshold=0.003 / 64, structure=5)
    kept = localisable(peak, picture.astype(np.float32) / 255, settings)
    assert not kept[48, 58] and kept[48, 62] and peak[48, 62] > 0.003 > peak[48, 63]
    model = Answering(lambda image: torch.from_numpy(peak)[None, None])
    assert len(adapt_picture(model, picture, np.random.default_rng(0), settings).xy) == 0


def test_a_picture_is_labelled_at_several_scales() -> None:
    """A detector of fine points only: those of the fine picture are found at the finer scale alone."""
    picture = np.full((192, 256), 40, np.uint8)
    picture[100:102, 60:62] = 255  # one pixel at half the size
    picture[60:64, 180:184] = 255  # one pixel at a quarter

    def lone(image):
        """Bright where a pixel is, and its neighbours two pixels away are not."""
        around = nn.functional.max_pool2d(image, 5, 1, 2)
        ring = nn.functional.avg_pool2d(image, 5, 1, 2, count_include_pad=False)
        return ((image == around) & (image > 0.9) & (ring < 0.22)).float()

    for scales, expected in (((1.0,), 1), ((0.5,), 1), ((1.0, 0.5), 2)):
        settings = AdaptationConfig(size=(96, 128), views=0, scales=scales, threshold=1e-4, nms_radius=2)
        found = adapt_picture(Answering(lone), picture, np.random.default_rng(0), settings)
        assert len(found.xy) == expected, scales
        places = np.array([[60.5, 100.5], [181.5, 61.5]])
        nearest = np.linalg.norm(found.xy[:, None] - places[None], axis=2).min(axis=1)
        assert nearest.max() < 2.5


def test_the_views_are_shared_out_among_the_scales() -> None:
    seen = []

    def count(image):
        seen.append((len(image), *image.shape[2:]))
        return image

    settings = AdaptationConfig(size=(96, 128), views=8, batch=100, scales=(1.0, 2.0), threshold=0.0)
    adapt_picture(Answering(count), scene(0, (192, 256)), np.random.default_rng(0), settings)
    assert seen == [(5, 96, 128), (5, 192, 256)]


def test_labels_that_cannot_be_read_are_made_anew(tmp_path) -> None:
    pictures = write_scenes(tmp_path / "pictures", 3)
    adapt(slim_network(), "slim", pictures, tmp_path / "labels", SETTINGS, 0, ALONE)
    first, *others = sorted((tmp_path / "labels").glob("*.npz"))
    before, times = first.read_bytes(), [path.stat().st_mtime_ns for path in others]
    first.write_bytes(before[:100])
    assert adapt(slim_network(), "slim", pictures, tmp_path / "labels", SETTINGS, 0, ALONE)["labelled"] == 1
    folder = LabelFolder(tmp_path / "labels")
    assert all(folder.has_readable(picture) for picture in pictures)
    assert [path.stat().st_mtime_ns for path in others] == times


def test_pictures_none_of_which_can_be_read_are_an_error(tmp_path) -> None:
    pictures = write_scenes(tmp_path / "pictures", 3)
    labels = tmp_path / "labels"
    for path in pictures[1:]:
        path.write_bytes(b"damaged")
    adapt(slim_network(), "slim", pictures, labels, SETTINGS, 0, ALONE)
    assert adapt(slim_network(), "slim", pictures, labels, SETTINGS, 0, ALONE)["bad"] == 2  # one is labelled
    with pytest.raises(ValueError, match=r"labels: nothing to train on, as none of 2 pictures, from .*001.png on"):
        adapt(slim_network(), "slim", pictures[1:], labels, SETTINGS, 0, ALONE)
