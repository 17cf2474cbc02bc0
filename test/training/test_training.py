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
from superpoint_training.export import read_state
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


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_a_resumed_run_ends_bit_for_bit_like_one_that_was_never_stopped(tmp_path, precision) -> None:
    whole, parts, run = tmp_path / "whole", tmp_path / "parts", replace(RUN, precision=precision)
    for folder in (whole, parts):
        folder.mkdir()
    train(slim_task(), SETTINGS, run, whole, ALONE)

    def stop_after_three(forward: Forward, batch: Batch) -> dict[str, tuple[float, Share]]:
        stop_after_three.calls += 1
        if stop_after_three.calls == 3:
            os.kill(os.getpid(), signal.SIGTERM)
        return magicpoint_loss(forward, batch)

    stop_after_three.calls = 0
    stopped = train(slim_task(stop_after_three), SETTINGS, run, parts, ALONE)
    assert stopped.why == "signal" and stopped.step == 3
    torch.rand(5)  # whatever else happens to torch's random numbers
    resumed = train(slim_task(), SETTINGS, run, parts, ALONE, resume=True)
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


def test_the_best_weights_by_validation_are_exported_and_training_ends_when_it_gets_no_better(tmp_path) -> None:
    figures = iter([0.3, 0.5, 0.9, 0.4, 0.6, 0.7, 0.8])
    networks = []

    def validate(network) -> dict[str, float]:
        networks.append({name: tensor.clone() for name, tensor in network.state_dict().items()})
        return {"map": next(figures)}

    task = replace(slim_task(), validate=validate)
    settings = replace(SETTINGS, steps=100, best="map", patience=3)
    outcome = train(task, settings, replace(RUN, validate_minutes=0.0), tmp_path, ALONE)
    # before the first step, and after each
    assert (outcome.why, outcome.step, outcome.exported, outcome.figures) == ("patience", 5, 2, {"map": 0.9})
    assert all(torch.equal(tensor, networks[2][name]) for name, tensor in outcome.model.state_dict().items())
    exported = read_state(tmp_path / STATE_FILE)
    assert exported.metadata["steps"] == "2"
    assert all(torch.equal(tensor, networks[2][name]) for name, tensor in exported.state.items())


def test_a_run_that_was_stopped_remembers_its_best(tmp_path) -> None:
    figures = iter([0.1, 0.9, 0.2, 0.3])
    task = replace(slim_task(), validate=lambda _: {"map": next(figures)})
    settings = replace(SETTINGS, best="map", steps=1)
    train(task, settings, RUN, tmp_path, ALONE)
    outcome = train(task, replace(settings, steps=2), RUN, tmp_path, ALONE, resume=True)
    assert (outcome.step, outcome.exported, outcome.figures) == (2, 1, {"map": 0.9})


def test_a_run_that_ended_for_lack_of_patience_does_not_go_on(tmp_path) -> None:
    figures = iter([0.9, 0.1, 0.2])
    task = replace(slim_task(), validate=lambda _: {"map": next(figures)})
    settings, run = replace(SETTINGS, best="map", patience=2), replace(RUN, validate_minutes=0.0)
    first = train(task, settings, run, tmp_path, ALONE)
    again = train(task, settings, run, tmp_path, ALONE, resume=True)
    assert (first.why, first.step, again.why, again.step, again.exported) == ("patience", 2, "patience", 2, 0)


def test_without_pictures_to_judge_by_no_best_is_promised(tmp_path) -> None:
    task = replace(slim_task(), validate=lambda _: {})
    with pytest.raises(ValueError, match="it has none, as no picture is held out"):
        train(task, replace(SETTINGS, best="map"), RUN, tmp_path, ALONE)


@pytest.mark.parametrize("parts", [2, 4])
def test_a_batch_in_parts_has_the_gradient_of_the_whole(tmp_path, parts) -> None:
    """After three steps of Adam; without BatchNorm, which sees the parts."""
    moved = []
    for accumulate in (1, parts):
        folder = tmp_path / str(accumulate)
        folder.mkdir()
        task = replace(slim_task(), model=slim_network())
        settings = Optimisation(steps=3, batch_size=8, accumulate=accumulate, learning_rate=1e-2)
        moved.append(train(task, settings, RUN, folder, ALONE).model.state_dict())
    start = slim_network().state_dict()
    for name, tensor in moved[0].items():
        assert (tensor - start[name]).abs().max() > 1e-3
        assert torch.allclose(tensor, moved[1][name], atol=2e-5), name


def test_a_batch_that_parts_do_not_divide_is_refused(tmp_path) -> None:
    with pytest.raises(ValueError, match=r"batch_size 4 is not a multiple of 1 processes times 3 parts \(accumulate\)"):
        train(slim_task(), replace(SETTINGS, accumulate=3), RUN, tmp_path, ALONE)


def test_frozen_stages_end_as_they_began(tmp_path) -> None:
    task = slim_task()
    before = {name: tensor.clone() for name, tensor in task.model.state_dict().items()}
    settings = replace(SETTINGS, freeze_stages=2, weight_decay=0.1)
    after = train(task, settings, RUN, tmp_path, ALONE).model.state_dict()
    same = {name for name, tensor in after.items() if torch.equal(tensor, before[name])}
    assert {name for name in after if "1" in name or "2" in name} == {n for n in same if "num_batches" not in n} | {
        f"bn{layer}.num_batches_tracked" for layer in ("1a", "1b", "2a", "2b")
    }


def test_gradients_in_float16_are_scaled_and_a_step_that_overflows_is_left_out(tmp_path) -> None:
    # Weights of 1e9 on the loss overflow at the first scales, which are halved until they do not.
    def loud(forward: Forward, batch: Batch) -> dict[str, tuple[float, Share]]:
        return {"detector": (1e4, magicpoint_loss(forward, batch)["detector"][1])}

    start = slim_task().model.state_dict()
    run = replace(RUN, precision="fp16")
    outcome = train(slim_task(loud), replace(SETTINGS, steps=20, average=0.0), run, tmp_path, ALONE)
    norms = [line["gradient_norm"] for line in read_log(tmp_path / LOG_FILE) if line["kind"] == "train"]
    assert not np.isfinite(norms[0]) and np.isfinite(norms[-1])
    state = torch.load(tmp_path / STATE_FILE, weights_only=True)
    assert 1 <= state["scaler"]["scale"] < 65536
    learnt = outcome.model.state_dict()
    assert all(torch.isfinite(tensor).all() for tensor in learnt.values())
    assert not torch.equal(learnt["conv1a.weight"], start["conv1a.weight"])


def test_eps_reaches_the_optimiser(tmp_path) -> None:
    """With an eps far above every gradient, nothing moves."""
    start = slim_task().model.get_parameter("conv1a.weight").detach().clone()
    still = train(slim_task(), replace(SETTINGS, eps=1e6, average=0.0), RUN, tmp_path, ALONE).model
    assert torch.allclose(still.get_parameter("conv1a.weight"), start, atol=1e-6)


def test_the_host_asks_the_device_for_one_thing_a_step(tmp_path, monkeypatch) -> None:
    """Each question waits until the device has done all its work."""
    asked = []
    for name in ("tolist", "__float__", "__bool__"):
        before = getattr(torch.Tensor, name)
        monkeypatch.setattr(torch.Tensor, name, lambda self, before=before: asked.append(1) or before(self))
    marks: list[int] = []

    def marked(forward: Forward, batch: Batch) -> dict[str, tuple[float, Share]]:
        marks.append(len(asked))
        return magicpoint_loss(forward, batch)

    train(slim_task(marked), replace(SETTINGS, steps=8, average=0.0), RUN, tmp_path, ALONE)
    assert set(np.diff(marks).tolist()) == {1}


def test_a_run_is_not_resumed_with_another_recipe_or_other_pictures(tmp_path) -> None:
    recipe = {"run.seed": 0, "magicpoint.batch_size": 4, "magicpoint.steps": 6, "pictures": "5 pictures, abc"}
    train(replace(slim_task(), recipe=recipe), SETTINGS, RUN, tmp_path, ALONE)
    for key, value in (("run.seed", 1), ("magicpoint.batch_size", 8), ("pictures", "6 pictures, abd")):
        other = replace(slim_task(), recipe=recipe | {key: value})
        with pytest.raises(ValueError, match=rf"state.pt: {key} was .* and is .*; a run goes on with what it began"):
            train(other, SETTINGS, RUN, tmp_path, ALONE, resume=True)
    longer = replace(slim_task(), recipe=recipe | {"magicpoint.steps": 8})
    assert train(longer, replace(SETTINGS, steps=8), RUN, tmp_path, ALONE, resume=True).step == 8


def test_a_refused_run_does_not_begin(tmp_path) -> None:
    train(slim_task(), SETTINGS, RUN, tmp_path, ALONE)

    def begins() -> None:
        raise AssertionError("it began")

    with pytest.raises(ValueError, match="a run is there already"):
        train(slim_task(), SETTINGS, RUN, tmp_path, ALONE, begins=begins)
    other = replace(slim_task(), model=new_network(replace(SLIM, head_channels=8)))
    with pytest.raises(ValueError, match="another network"):
        train(other, SETTINGS, RUN, tmp_path, ALONE, resume=True, begins=begins)
