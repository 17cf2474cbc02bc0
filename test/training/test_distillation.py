import json
import os
import signal
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from click.testing import CliRunner, Result
from training_scenes import scene, write_scenes

from superpoint_ros import Extractor
from superpoint_ros.network.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from superpoint_ros.network.superpoint import Architecture, SuperPoint
from superpoint_training.adaptation import average_heatmap
from superpoint_training.augmentation import Photometric
from superpoint_training.cli import main
from superpoint_training.config import Config, DistillationConfig, RunConfig
from superpoint_training.distillation import (
    ViewSamples,
    distillation_loss,
    distillation_task,
    sample_view,
    teacher_answers,
)
from superpoint_training.homography import HomographyRange, warp_points
from superpoint_training.labels import cell_mask
from superpoint_training.optimisation import Optimisation
from superpoint_training.pictures import PictureFolder
from superpoint_training.processes import Processes
from superpoint_training.state import STATE_FILE
from superpoint_training.task import Forward, as_network_input
from superpoint_training.training import train

ALONE = Processes(0, 1, torch.device("cpu"))
VIEWS = DistillationConfig(size=(64, 80), scale=(0.5, 1.2), photometric=Photometric(share=1.0))
STUDENT = Architecture((4, 4, 8, 8), 16, 16, batch_norm=True, norm_first=True, stem=2)
TEACHER = Architecture((4, 8, 8, 16), 16, 16, batch_norm=True)


@pytest.fixture(scope="module")
def pictures(tmp_path_factory) -> list[Path]:
    return write_scenes(tmp_path_factory.mktemp("pictures"), 5)


def teacher(architecture: Architecture = TEACHER) -> SuperPoint:
    """Random weights large enough for answers that vary."""
    torch.manual_seed(1)
    model = SuperPoint(architecture)
    with torch.no_grad():
        for name, value in model.named_parameters():
            if name.startswith("conv") and name.endswith("weight"):
                value.mul_(3)
    return model.eval()


def batch_of(samples: ViewSamples, count: int) -> dict[str, torch.Tensor]:
    batch = torch.utils.data.default_collate([samples[index] for index in range(count)])
    return batch | {"image": as_network_input(batch["image"])}


# What they see


def test_a_sample_depends_on_seed_and_index_alone(pictures) -> None:
    samples = ViewSamples(pictures, VIEWS, seed=0)
    samples[3]
    again = ViewSamples(pictures, VIEWS, seed=0, memory=1)
    again[7]  # and not on what is in memory
    for name, tensor in samples[7].items():
        assert torch.equal(tensor, again[7][name])
    assert not torch.equal(samples[7]["image"], replace(samples, seed=1)[7]["image"])


def test_the_student_sees_a_worse_picture_of_the_same_view(pictures) -> None:
    clean = ViewSamples(pictures, replace(VIEWS, degraded=0.0), seed=0)
    worse = ViewSamples(pictures, replace(VIEWS, degraded=1.0), seed=0)
    for index in range(6):
        student, teachers = worse[index]["image"]
        assert torch.equal(teachers, clean[index]["image"][1])
        assert not torch.equal(student, teachers)
        student, teachers = clean[index]["image"]
        assert torch.equal(student, teachers)


def test_a_view_shows_the_picture_at_the_scale_that_is_asked_for() -> None:
    rng = np.random.default_rng(0)
    config = replace(VIEWS, scale=(0.35, 1.5), perspective=0.0)
    sides, angles = [], []
    for _ in range(300):
        move = sample_view(rng, (480, 640), config)
        corners = warp_points(np.array([[0, 0], [1, 0], [0, 1]]), np.linalg.inv(move))
        right, down = corners[1] - corners[0], corners[2] - corners[0]
        assert np.isclose(np.linalg.norm(right), np.linalg.norm(down))
        sides.append(np.linalg.norm(right))
        angles.append(np.arctan2(right[1], right[0]))
        centre = warp_points(np.array([[39.5, 31.5]]), np.linalg.inv(move))[0]
        assert np.all(centre >= 0.35 * np.array([40, 32]) - 1) and np.all(centre <= (640 - 14, 480 - 11.2))
    assert 0.35 <= min(sides) < 0.4 and 1.3 < max(sides) <= 1.5
    assert np.histogram(angles, 4, (-np.pi, np.pi))[0].min() > 45


def test_in_a_picture_too_small_for_the_scale_a_view_is_all_of_it() -> None:
    config = replace(VIEWS, scale=(3.0, 3.0), perspective=0.0, rotation=0.0)
    move = sample_view(np.random.default_rng(0), (64, 160), config)
    corners = warp_points(np.array([[-0.5, -0.5], [79.5, 63.5]]), np.linalg.inv(move))
    assert np.allclose(corners[:, 1], [-0.5, 63.5]) and np.isclose(corners[1, 0] - corners[0, 0], 80)


def test_cells_that_show_nothing_do_not_count(pictures) -> None:
    samples = ViewSamples(pictures, replace(VIEWS, degraded=0.0, scale=(1.5, 1.5), photometric=Photometric()), seed=0)
    empty = 0
    for index in range(12):
        sample = samples[index]
        shown = cell_mask(sample["image"][1].numpy() > 0)  # the scenes have no black
        assert not np.any(sample["valid"].numpy() & ~shown)
        empty += int((~sample["valid"]).sum())
    assert empty > 20


def test_pictures_are_kept_up_to_the_memory_that_is_given(pictures, tmp_path) -> None:
    large = tmp_path / "large.png"
    cv2.imwrite(str(large), scene(0, (800, 1000)))
    folder = PictureFolder([large, *pictures], memory=1)
    first = folder.read(0)[1]
    assert folder.read(0)[1] is first
    assert all(folder.read(n)[1] is folder.read(n)[1] for n in range(1, 6))  # 12 kB each
    other = PictureFolder([large, large], memory=1)
    assert other.read(0)[1] is other.read(0)[1]
    assert other.read(1)[1] is not other.read(1)[1]


# What is asked for


def test_the_loss_is_the_divergence_and_the_cosine_distance_cell_by_cell(pictures) -> None:
    batch = batch_of(ViewSamples(pictures, VIEWS, seed=0), 3)
    batch["valid"][0, :3] = False
    network, student = teacher(), teacher(replace(TEACHER, channels=(4, 4, 8, 8)))
    shares = distillation_loss(student, network, batch, replace(VIEWS, weight=0.3))
    assert {name: weight for name, (weight, _) in shares.items()} == {"detector": 1.0, "descriptor": 0.3}
    degraded, clean = batch["image"].chunk(2)
    with torch.no_grad():
        (ours, our_dense), (theirs, their_dense) = student(degraded), network(clean)
    p, q = theirs.double().softmax(dim=1), ours.double().softmax(dim=1)
    divergence, distance = 0.0, 0.0
    for index, row, column in batch["valid"].nonzero().tolist():
        at = (index, slice(None), row, column)
        divergence += float((p[at] * (p[at] / q[at]).log()).sum())
        distance += 1 - float(our_dense[at] @ their_dense[at])
    for name, expected in (("detector", divergence), ("descriptor", distance)):
        share = shares[name][1]
        assert float(share.count) == int(batch["valid"].sum())
        assert float(share.total.detach()) == pytest.approx(expected, rel=1e-4)
        assert share.total.requires_grad


def test_a_student_that_is_its_teacher_has_nothing_to_learn(pictures) -> None:
    batch = batch_of(ViewSamples(pictures, replace(VIEWS, degraded=0.0), seed=0), 2)
    shares = distillation_loss(teacher(), teacher(), batch, VIEWS)
    for _, share in shares.values():
        assert abs(float(share.total.detach() / share.count)) < 1e-5


def test_an_averaged_teacher_answers_with_its_averaged_heatmap(pictures) -> None:
    config = replace(VIEWS, views=3, homography=HomographyRange(rotation=20, translation=0.05))
    batch = batch_of(ViewSamples(pictures, config, seed=0), 2)
    clean = batch["image"].chunk(2)[1]
    network = teacher()
    answers, dense = teacher_answers(network, clean, batch["homographies"], config)
    assert torch.allclose(answers.sum(dim=1), torch.ones(2, 8, 10), atol=1e-4)
    for index in range(2):
        expected = average_heatmap(network, clean[index, 0], batch["homographies"][index], 25, config.border)
        for row in range(8):
            for column in range(10):
                cell = expected[8 * row : 8 * row + 8, 8 * column : 8 * column + 8].flatten()
                cell = cell / max(float(cell.sum()), 1.0)
                assert torch.allclose(answers[index, :64, row, column], cell, atol=1e-5)
    with torch.no_grad():
        assert torch.equal(dense, network(clean)[1])
    shares = distillation_loss(teacher(), network, batch, config)
    inner = batch["valid"][:, 1:-1, 1:-1].sum()  # at the edge no view counts
    assert shares["detector"][1].count == inner


# As a stage


def task_of(pictures: list[Path], loss=None):
    config = Config(network=STUDENT, distillation=VIEWS, run=RunConfig(validation_samples=3))
    network = teacher()
    checkpoint = Checkpoint(network.architecture, network.state_dict(), {"name": "teacher"})
    task = distillation_task(config, pictures[:4], pictures[4:], checkpoint, ALONE)
    return task if loss is None else replace(task, loss=loss(task.loss))


SETTINGS = Optimisation(steps=6, batch_size=2, learning_rate=1e-2, schedule="cosine", average=0.9)


def test_a_student_comes_nearer_to_its_teacher(pictures, tmp_path) -> None:
    task = task_of(pictures)
    batch = batch_of(ViewSamples(pictures, VIEWS, seed=5), 8)

    def distances(network: SuperPoint) -> dict[str, float]:
        with torch.no_grad():
            shares = distillation_loss(network, teacher(), batch, VIEWS)
        return {name: float(share.total / share.count) for name, (_, share) in shares.items()}

    before = distances(task.model.eval())
    settings = replace(SETTINGS, steps=80, batch_size=4)
    outcome = train(task, settings, RunConfig(workers=0), tmp_path, ALONE)
    after = distances(outcome.model)
    assert after["detector"] < 0.7 * before["detector"]
    assert after["descriptor"] < 0.8 * before["descriptor"]
    assert {"detector", "descriptor", "homography_3", "matching_score"} <= set(outcome.figures)


def test_a_resumed_run_ends_bit_for_bit_like_one_that_was_never_stopped(pictures, tmp_path) -> None:
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    for folder in (whole, parts):
        folder.mkdir()
    run = RunConfig(workers=0)
    train(task_of(pictures), SETTINGS, run, whole, ALONE)
    calls = []

    def stopping(loss):
        def stop_after_three(forward: Forward, batch, progress):
            calls.append(1)
            if len(calls) == 3:
                os.kill(os.getpid(), signal.SIGTERM)
            return loss(forward, batch, progress)

        return stop_after_three

    stopped = train(task_of(pictures, stopping), SETTINGS, run, parts, ALONE)
    assert stopped.why == "signal" and stopped.step == 3
    train(task_of(pictures), SETTINGS, run, parts, ALONE, resume=True)
    expected, found = (torch.load(folder / STATE_FILE, weights_only=True) for folder in (whole, parts))
    assert found["step"] == 6
    for part in ("model", "average"):
        for name, tensor in expected[part].items():
            assert torch.equal(tensor, found[part][name]), name


# As a command

TINY = [
    "network.channels=[4, 4, 8, 8]",
    "network.head_channels=16",
    "network.descriptor_dim=16",
    "distillation.size=[64, 80]",
    "distill.steps=3",
    "distill.batch_size=2",
    "run.validation_samples=3",
    "inputs.held_out=0.2",
]


def distill(*arguments: object) -> Result:
    return CliRunner().invoke(main, ["distill", *(str(argument) for argument in arguments)])


@pytest.fixture(scope="module")
def teachers_file(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("teacher") / "teacher.safetensors"
    save_checkpoint(path, Checkpoint(TEACHER, teacher().state_dict(), {"name": "teacher"}))
    return path


def test_the_command_leaves_weights_that_export_makes_plain(pictures, teachers_file, tmp_path) -> None:
    out = tmp_path / "out"
    arguments = ["--teacher", teachers_file, "--images", pictures[0].parent, "--out", out, *TINY]
    result = distill(*arguments)
    assert result.exit_code == 0, result.output
    assert len((out / "pictures.txt").read_text().splitlines()) == 4
    checkpoint = load_checkpoint(out / "distill.safetensors")
    assert checkpoint.architecture == STUDENT
    assert checkpoint.metadata["teacher"] == load_checkpoint(teachers_file).weights_id
    assert {"recipe", "data", "steps", "metrics"} <= set(checkpoint.metadata)
    assert "detector" in json.loads(checkpoint.metadata["metrics"])
    plain = tmp_path / "plain.safetensors"
    done = CliRunner().invoke(main, ["export", str(out / "distill.safetensors"), str(plain)])
    assert done.exit_code == 0, done.output
    assert load_checkpoint(plain).architecture == replace(STUDENT, batch_norm=False, norm_first=False)
    one, other = (
        Extractor(path, device="cpu", detection_threshold=0.0)(scene(7))
        for path in (plain, out / "distill.safetensors")
    )
    assert len(one.xy) > 20
    np.testing.assert_allclose(one.scores[:10], other.scores[:10], rtol=1e-3)
    # a student goes on from an earlier one, and says so
    result = distill(*arguments[: -len(TINY) - 1], tmp_path / "second", "--start", out / "distill.safetensors", *TINY)
    assert result.exit_code == 0, result.output
    assert f"Starts from {checkpoint.weights_id}: encoder, detector and descriptor head." in result.output


def test_a_budget_ends_the_command_with_weights_and_it_can_be_resumed(pictures, teachers_file, tmp_path) -> None:
    out = tmp_path / "out"
    arguments = [
        "--teacher",
        teachers_file,
        "--images",
        pictures[0].parent,
        "--out",
        out,
        *TINY,
        "distill.steps=1000000",
    ]
    result = distill(*arguments, "--budget", 0.02)
    assert result.exit_code == 0, result.output
    first = int(load_checkpoint(out / "distill.safetensors").metadata["steps"])
    assert 0 < first < 1000000
    assert distill(*arguments, "--budget", 0.02).exit_code == 1  # a run is there
    result = distill(*arguments, "--budget", 0.06, "--resume")
    assert result.exit_code == 0, result.output
    assert int(load_checkpoint(out / "distill.safetensors").metadata["steps"]) >= first


@pytest.mark.parametrize(("theirs", "found"), [(24, "descriptors of 24 dimensions"), (0, "no descriptors")])
def test_a_teacher_of_other_descriptors_is_refused(pictures, tmp_path, theirs, found) -> None:
    path = tmp_path / "other.safetensors"
    model = SuperPoint(replace(TEACHER, descriptor_dim=theirs))
    save_checkpoint(path, Checkpoint(model.architecture, model.state_dict()))
    result = distill("--teacher", path, "--images", pictures[0].parent, "--out", tmp_path / "out", *TINY)
    assert result.exit_code == 1
    assert f"{path}: has {found}; expected 16, as in network.descriptor_dim" in result.output
    assert not (tmp_path / "out").exists()


def test_a_teacher_that_is_not_there_is_named(pictures, tmp_path) -> None:
    result = distill("--teacher", "nowhere.pth", "--images", pictures[0].parent, "--out", tmp_path / "out", *TINY)
    assert result.exit_code == 2 and "nowhere.pth: no such weights file" in result.output


@pytest.mark.parametrize("stage", ["magicpoint", "superpoint", "distill"])
def test_no_stage_starts_from_a_network_of_another_width(pictures, teachers_file, tmp_path, stage) -> None:
    """The recipe's `network` decides; so the file is named with what would fit."""
    data = tmp_path / "data"
    made = {
        "magicpoint": [],
        "superpoint": ["--labels", data],
        "distill": ["--teacher", teachers_file, "--images", pictures[0].parent],
    }[stage]
    if stage == "superpoint":
        adapt = ["adapt", "--weights", teachers_file, "--images", pictures[0].parent, "--out", data]
        settings = ["adaptation.size=[64, 80]", "adaptation.views=1", "adaptation.threshold=0.0"]
        assert CliRunner().invoke(main, [str(a) for a in (*adapt, *settings)]).exit_code == 0
    arguments = [stage, *made, "--start", teachers_file, "--recipe", "fast", "--out", tmp_path / "out", *TINY]
    result = CliRunner().invoke(main, [str(argument) for argument in arguments])
    assert result.exit_code == 1
    assert (
        f"{teachers_file}: cannot be started from, its channels is (4, 8, 8, 16); expected (4, 4, 8, 8)"
        in result.output
    )
    assert not (tmp_path / "out" / STATE_FILE).exists()
