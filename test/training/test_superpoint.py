from dataclasses import replace

import numpy as np
import pytest
import torch
from torch.utils.data import Dataset
from training_scenes import write_scenes

from superpoint_ros.network.descriptors import sample_descriptors
from superpoint_ros.network.superpoint import Architecture, SuperPoint
from superpoint_training.augmentation import Photometric
from superpoint_training.config import Config, PairsConfig, RunConfig
from superpoint_training.evaluation.benchmark import evaluate_pairs
from superpoint_training.homography import HomographyRange
from superpoint_training.losses import LossConfig, Share
from superpoint_training.optimisation import Optimisation
from superpoint_training.pairs import PairSamples
from superpoint_training.processes import Processes
from superpoint_training.pseudo_labels import LabelFolder, Labels
from superpoint_training.samples import Batch
from superpoint_training.superpoint import superpoint_loss, superpoint_task
from superpoint_training.task import as_network_input
from superpoint_training.training import train

ALONE = Processes(0, 1, torch.device("cpu"))
SLIM = Architecture((4, 8, 8, 16), 16, 16, batch_norm=True)
PAIRS = PairsConfig(
    size=(64, 80),
    second=HomographyRange(crop=0.95, perspective=0.05, rotation=10, translation=0.05),
    photometric=Photometric(share=0.0),
    correspondences=48,
)


@pytest.fixture
def labelled(tmp_path):
    """Three pictures with random labels: (pictures, folder of labels)."""
    paths = write_scenes(tmp_path / "pictures", 3, darkest=40)
    folder = LabelFolder(tmp_path / "labels")
    folder.open({})
    for number, path in enumerate(paths):
        xy = np.random.default_rng(number).uniform(4, (123, 91), (60, 2)).astype(np.float32)
        folder.write(path, Labels(xy, np.ones(60, np.float32), (96, 128)))
    return paths, tmp_path / "labels"


class OneSample(Dataset[Batch]):
    def __init__(self, sample: Batch) -> None:
        self.sample = sample

    def __getitem__(self, index: int) -> Batch:
        return self.sample


def batch_of(samples: PairSamples, count: int) -> Batch:
    return torch.utils.data.default_collate([samples[index] for index in range(count)])


@pytest.mark.parametrize("descriptor", ["hinge", "infonce"])
def test_the_joint_loss_is_two_detector_losses_and_a_weighted_descriptor_loss(labelled, descriptor) -> None:
    batch = batch_of(PairSamples(*labelled, PAIRS, seed=0), 2)
    batch["image"] = as_network_input(batch["image"])
    assert batch["image"].shape == (4, 1, 64, 80)  # both first views, then both second ones
    torch.manual_seed(0)
    settings = LossConfig(descriptor=descriptor, weight=0.3)
    shares = superpoint_loss(SuperPoint(SLIM), batch, settings)
    weights = {name: weight for name, (weight, _) in shares.items()}
    assert weights == {"detector": 1.0, "detector_warped": 1.0, "descriptor": 0.3}
    assert int(shares["detector"][1].count) == int(batch["valid"][:, 0].sum())
    assert int(shares["detector_warped"][1].count) == int(batch["valid"][:, 1].sum())
    for _, share in shares.values():
        assert share.total.isfinite() and share.total.requires_grad and share.count > 0


def test_a_reprojection_loss_is_added_where_it_has_a_weight(labelled) -> None:
    batch = batch_of(PairSamples(*labelled, PAIRS, seed=0), 2)
    batch["image"] = as_network_input(batch["image"])
    shares = superpoint_loss(SuperPoint(SLIM), batch, LossConfig(reprojection=0.5))
    weight, share = shares["reprojection"]
    assert weight == 0.5
    assert share.total.isfinite() and share.total.requires_grad


def test_views_and_targets_keep_their_partners(labelled) -> None:
    """If views were mixed up, pictures without labels would spoil the loss of those with."""
    samples = PairSamples(*labelled, PAIRS, seed=0)
    batch = batch_of(samples, 3)
    image = as_network_input(batch["image"])
    for index in range(3):
        assert torch.equal(image[index, 0], samples[index]["image"][0].float() / 255)
        assert torch.equal(image[3 + index, 0], samples[index]["image"][1].float() / 255)


@pytest.mark.parametrize(("descriptor", "weight"), [("infonce", 1.0), ("hinge", 1.0)], ids=["infonce", "hinge"])
def test_descriptors_of_one_pair_learn_to_match(labelled, tmp_path, descriptor, weight) -> None:
    sample = PairSamples(*labelled, PAIRS, seed=0)[0]
    config = Config(network=SLIM, pairs=PAIRS, loss=LossConfig(descriptor=descriptor, weight=weight))
    pictures, labels = labelled
    task = superpoint_task(config, pictures, [], labels, None)
    task = replace(task, samples=OneSample(sample), pictures=lambda _: {})
    settings = Optimisation(steps=60, batch_size=2, learning_rate=1e-2, schedule="cosine")
    model = train(task, settings, RunConfig(workers=0), tmp_path, ALONE).model
    with torch.no_grad():
        _, dense = model(as_network_input(sample["image"][None]))
    assert dense is not None
    first, second = sample_descriptors(dense, sample["points"])
    known = sample["matched"]
    nearest = (first[known] @ second[known].T).argmax(dim=1)
    apart = sample["points"][1][known][nearest] - sample["points"][1][known]
    share = (apart.norm(dim=1) < 8).float().mean()
    assert share > 0.8, share


def test_the_radius_of_the_reprojection_loss_falls_over_training(labelled, monkeypatch) -> None:
    given = []

    def spy(first, second, homographies, valid, near, place, by_score):
        given.append((near, place, by_score))
        return Share(first.sum() * 0, torch.tensor(1.0))

    monkeypatch.setattr("superpoint_training.superpoint.reprojection_loss", spy)
    batch = batch_of(PairSamples(*labelled, PAIRS, seed=0), 2)
    batch["image"] = as_network_input(batch["image"])
    settings = LossConfig(
        reprojection=1.0, reprojection_place="parabola", reprojection_radius=(3.0, 1.5), reprojection_by_score=True
    )
    for progress in (0.0, 0.5, 1.0):
        superpoint_loss(SuperPoint(SLIM), batch, settings, progress)
    assert given == [(radius, "parabola", True) for radius in (3.0, 2.25, 1.5)]


@pytest.mark.parametrize(("fit", "size"), [("cover", (60, 80)), ("native", (96, 128))])
def test_validation_is_at_the_size_of_training(labelled, monkeypatch, fit, size) -> None:
    pictures, labels = labelled
    seen = set()

    def watched(detectors, pairs, protocol, **options):
        seen.update(pair.load().reference.shape for pair in pairs)
        return evaluate_pairs(detectors, pairs, protocol, **options)

    monkeypatch.setattr("superpoint_training.superpoint.evaluate_pairs", watched)
    config = Config(network=SLIM, pairs=replace(PAIRS, fit=fit), run=RunConfig(validation_samples=2))
    task = superpoint_task(config, pictures[:2], pictures[2:], labels, None)
    assert task.validate(SuperPoint(SLIM).eval())["pairs"] == 2
    assert seen == {size}
