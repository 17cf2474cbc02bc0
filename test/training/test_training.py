import os
import signal
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.utils.data import Dataset
from two_processes import slim_network, train_slim

from superpoint_ros.network.heatmap import DetectionSettings
from superpoint_ros.network.superpoint import Architecture
from superpoint_training.config import RunConfig, ShapesConfig
from superpoint_training.evaluation.detectors import HeatmapDetector
from superpoint_training.evaluation.metrics import average_precision, claim_corners
from superpoint_training.initial import new_network
from superpoint_training.journal import LOG_FILE, read_log
from superpoint_training.labels import cell_targets
from superpoint_training.losses import Share
from superpoint_training.magicpoint import magicpoint_loss
from superpoint_training.optimisation import Optimisation
from superpoint_training.processes import Processes
from superpoint_training.samples import Batch, ShapeSamples, StepIndices
from superpoint_training.shapes import draw_shape
from superpoint_training.state import STATE_FILE
from superpoint_training.stopping import TrainingDiverged
from superpoint_training.task import Forward, Task
from superpoint_training.training import train

ALONE = Processes(0, 1, torch.device("cpu"))
RUN = RunConfig(workers=0)
SETTINGS = Optimisation(steps=6, batch_size=4, learning_rate=1e-2, schedule="cosine", average=0.9)
SLIM = Architecture((4, 4, 8, 8), 16, 0, batch_norm=True)


def slim_task(loss=magicpoint_loss) -> Task:
    torch.manual_seed(0)
    samples = ShapeSamples(ShapesConfig(size=(64, 80)), seed=0)
    return Task(
        "magicpoint",
        new_network(SLIM),
        samples,
        lambda forward, batch, _: loss(forward, batch),
        lambda _: {"figure": 1.0},
        lambda _: {},
    )


def tensors_of(folder: Path) -> dict[str, torch.Tensor]:
    state = torch.load(folder / STATE_FILE, weights_only=True)
    flat = {f"model.{k}": v for k, v in state["model"].items()} | {
        f"average.{k}": v for k, v in state["average"].items()
    }
    for number, entries in state["optimiser"]["state"].items():
        flat |= {f"optimiser.{number}.{k}": v for k, v in entries.items()}
    return flat | {"random": state["random"], "step": torch.tensor(state["step"])}


def loss_of(forward: Forward, batch: Batch, progress: float) -> dict[str, tuple[float, Share]]:
    return magicpoint_loss(forward, batch)


class FixedSamples(Dataset[Batch]):
    """The same few labelled pictures over and over."""

    def __init__(self, pictures: list[tuple[np.ndarray, np.ndarray]]) -> None:
        self.pictures = pictures

    def __getitem__(self, index: int) -> Batch:
        image, corners = self.pictures[index % len(self.pictures)]
        targets = cell_targets(corners, image.shape, np.random.default_rng(index))
        return {
            "image": torch.from_numpy(image)[None],
            "targets": torch.from_numpy(targets),
            "valid": torch.ones(targets.shape[1:], dtype=torch.bool),
        }


def test_one_batch_is_overfitted_to_a_map_above_095(tmp_path) -> None:
    rng = np.random.default_rng(0)
    kinds = ("checkerboard", "cube", "polygon", "quadrilateral")
    pictures = [draw_shape(rng, kind, (64, 80)) for kind in kinds]
    model = new_network(Architecture((8, 16, 16, 32), 32, 0, batch_norm=True))
    task = Task("overfit", model, FixedSamples(pictures), loss_of, lambda _: {}, lambda _: {})
    settings = Optimisation(steps=250, batch_size=4, learning_rate=1e-2, schedule="cosine")
    detector = HeatmapDetector("overfit", train(task, settings, RUN, tmp_path, ALONE).model, device="cpu")
    precisions = []
    for image, corners in pictures:
        found = detector(image, DetectionSettings(300, 0.0, 4, border=0))
        correct, _ = claim_corners(found.xy, corners, 3.0)
        precisions.append(average_precision(found.scores, correct, len(corners)))
    assert np.mean(precisions) > 0.95


def test_a_resumed_run_ends_bit_for_bit_like_one_that_was_never_stopped(tmp_path) -> None:
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    for folder in (whole, parts):
        folder.mkdir()
    train(slim_task(), SETTINGS, RUN, whole, ALONE)

    def stop_after_three(forward: Forward, batch: Batch) -> dict[str, tuple[float, Share]]:
        stop_after_three.calls += 1
        if stop_after_three.calls == 3:
            os.kill(os.getpid(), signal.SIGTERM)
        return magicpoint_loss(forward, batch)

    stop_after_three.calls = 0
    stopped = train(slim_task(stop_after_three), SETTINGS, RUN, parts, ALONE)
    assert stopped.why == "signal" and stopped.step == 3
    torch.rand(5)  # whatever else happens to torch's random numbers
    resumed = train(slim_task(), SETTINGS, RUN, parts, ALONE, resume=True)
    assert resumed.why == "finished" and resumed.step == 6
    expected, found = tensors_of(whole), tensors_of(parts)
    assert expected.keys() == found.keys()
    for name, tensor in expected.items():
        assert torch.equal(tensor, found[name]), name


def test_workers_do_not_change_the_result(tmp_path) -> None:
    for workers in (0, 2):
        (tmp_path / str(workers)).mkdir()
        train(slim_task(), SETTINGS, replace(RUN, workers=workers), tmp_path / str(workers), ALONE)
    expected, found = tensors_of(tmp_path / "0"), tensors_of(tmp_path / "2")
    assert all(torch.equal(tensor, found[name]) for name, tensor in expected.items())


def test_two_processes_give_the_gradient_of_one(tmp_path, done_by_two) -> None:
    """After three steps of Adam, which amplifies any difference in a gradient."""
    train_slim(ALONE, tmp_path)
    one, two = (torch.load(folder / "weights.pt", weights_only=True) for folder in (tmp_path, done_by_two[1]))
    start = slim_network().state_dict()
    for name, tensor in one.items():
        assert (tensor - start[name]).abs().max() > 1e-3  # it did move
        assert torch.allclose(tensor, two[name], atol=2e-5), name


def test_processes_share_out_each_steps_indices() -> None:
    parts = [list(StepIndices(2, 4, 6, rank, 3)) for rank in range(3)]
    for step in range(2):
        dealt = sorted(index for part in parts for index in part[step])
        assert dealt == list(range((2 + step) * 6, (3 + step) * 6))


def test_a_budget_stops_with_a_state_and_figures(tmp_path) -> None:
    outcome = train(slim_task(), replace(SETTINGS, steps=10**6), RUN, tmp_path, ALONE, budget_minutes=0.02)
    assert outcome.why == "budget" and 0 < outcome.step < 10**6
    assert outcome.figures == {"figure": 1.0}
    assert int(tensors_of(tmp_path)["step"]) == outcome.step


def diverging(step: int, factor: float):
    def loss(forward: Forward, batch: Batch) -> dict[str, tuple[float, Share]]:
        loss.calls += 1
        weight, share = magicpoint_loss(forward, batch)["detector"]
        return {"detector": (weight, Share(share.total * (factor if loss.calls == step else 1), share.count))}

    loss.calls = 0
    return loss


def test_a_loss_that_is_no_number_stops_and_leaves_the_last_good_state(tmp_path) -> None:
    run = replace(RUN, checkpoint_minutes=0.0)  # after every step
    with pytest.raises(TrainingDiverged, match=r"loss is nan at step 5; the last good checkpoint is .*state\.pt"):
        train(slim_task(diverging(5, float("nan"))), SETTINGS, run, tmp_path, ALONE)
    kept = tensors_of(tmp_path)
    assert int(kept["step"]) == 4
    assert all(torch.isfinite(tensor).all() for tensor in kept.values())


def test_an_exploding_loss_stops_and_names_the_step(tmp_path) -> None:
    with pytest.raises(TrainingDiverged, match="at step 25, .* times its running mean"):
        train(slim_task(diverging(25, 1e5)), replace(SETTINGS, steps=40), RUN, tmp_path, ALONE)


def test_a_full_disk_costs_a_checkpoint_but_not_the_run(tmp_path, monkeypatch, capfd) -> None:
    saved = torch.save
    calls = []

    def full_disk(state, file) -> None:
        calls.append(state["step"])
        saved(state, file)
        if state["step"] == 3:
            raise OSError(28, "No space left on device")

    monkeypatch.setattr(torch, "save", full_disk)
    outcome = train(slim_task(), SETTINGS, replace(RUN, checkpoint_minutes=0.0), tmp_path, ALONE)
    assert outcome.why == "finished" and 3 in calls
    assert "could not be written" in capfd.readouterr().out
    assert int(tensors_of(tmp_path)["step"]) == 6
    assert [path.name for path in tmp_path.iterdir() if "partial" in path.name] == []


def test_a_finished_run_is_not_overwritten_by_accident(tmp_path) -> None:
    train(slim_task(), SETTINGS, RUN, tmp_path, ALONE)
    with pytest.raises(ValueError, match="a run is there already; resume it"):
        train(slim_task(), SETTINGS, RUN, tmp_path, ALONE)


def test_a_state_of_another_network_is_refused(tmp_path) -> None:
    train(slim_task(), SETTINGS, RUN, tmp_path, ALONE)
    other = replace(slim_task(), model=new_network(replace(SLIM, head_channels=8)))
    with pytest.raises(ValueError, match="another network or settings"):
        train(other, SETTINGS, RUN, tmp_path, ALONE, resume=True)
    with pytest.raises(ValueError, match="nothing to resume"):
        train(slim_task(), SETTINGS, RUN, tmp_path / "empty", ALONE, resume=True)


def test_the_log_has_every_figure_and_a_resumed_run_adds_to_it(tmp_path) -> None:
    train(slim_task(), replace(SETTINGS, steps=20), RUN, tmp_path, ALONE)
    train(slim_task(), replace(SETTINGS, steps=30), RUN, tmp_path, ALONE, resume=True)
    lines = read_log(tmp_path / LOG_FILE)
    assert [line["step"] for line in lines if line["kind"] == "train"] == [1, 10, 20, 30]
    assert {"loss", "detector", "gradient_norm", "learning_rate", "images_per_second"} <= lines[0].keys()
    assert any(line["kind"] == "validation" and line["figure"] == 1.0 for line in lines)
