"""The stages as a user runs them: each reads files, trains or labels, and leaves files for the next
one.
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from tqdm import tqdm

from superpoint_ros.network.checkpoint import load_checkpoint
from superpoint_ros.network.superpoint import Architecture, SuperPoint
from superpoint_training.adaptation import adapt, claim
from superpoint_training.config import Config, InputConfig
from superpoint_training.distillation import distillation_task
from superpoint_training.export import export_weights
from superpoint_training.initial import adoptable
from superpoint_training.lists import HELD_OUT, PICTURES, Lists, divide, names_digest, read_list, relocated
from superpoint_training.magicpoint import labelled_task, magicpoint_task
from superpoint_training.optimisation import Optimisation
from superpoint_training.pictures import find_pictures
from superpoint_training.processes import Processes
from superpoint_training.pseudo_labels import labelled_pictures
from superpoint_training.recipe import config_yaml
from superpoint_training.superpoint import superpoint_task
from superpoint_training.task import Outcome, Task
from superpoint_training.training import train
from superpoint_training.whole_files import read_json, write_text

LABELS, ADAPTATION = "labels", "adaptation.json"


class Stopped(RuntimeError):
    """A signal ended training; the message says how to go on."""


@dataclass(frozen=True)
class Budget:
    """Minutes for something, None for as long as it takes."""

    minutes: float | None

    def share(self, part: float) -> Budget:
        """A part of it."""
        return Budget(None if self.minutes is None else self.minutes * part)

    def less(self, minutes: float) -> Budget:
        """What is left of it."""
        return Budget(None if self.minutes is None else max(self.minutes - minutes, 0.0))


def run_magicpoint(
    config: Config,
    out: Path,
    here: Processes,
    budget: Budget,
    resume: bool,
    start: Path | None = None,
    data: Path | None = None,
    images: Sequence[Path] = (),
) -> Path:
    """Train MagicPoint on Synthetic Shapes; returns `out`/magicpoint.safetensors.

    data    what `run_adapt` left, to train the detector on those labels instead
    images  as for `run_superpoint`

    Raises ValueError for `images` without `data`.
    """
    if images and data is None:
        raise ValueError(f"--images {images[0]}: says where labelled pictures are now; expected --labels, too")
    initial = _start(start, replace(config.network, descriptor_dim=0), config.magicpoint, here)
    if data is None:
        facts = {"data": "Synthetic Shapes"}
        return _train(magicpoint_task(config, initial), config, out, here, budget, resume, facts)
    lists = labelled(data, images, config.inputs)
    task = labelled_task(config, lists.training, lists.held_out, data / LABELS, initial)
    return _train(task, config, out, here, budget, resume, {"data": f"{len(lists.training)} pictures"})


def run_adapt(
    config: Config,
    weights: Path,
    sources: Sequence[Path],
    out: Path,
    here: Processes,
    budget: Budget,
    held_out: Path | None = None,
) -> dict[str, float]:
    """Label pictures with a network: `out` gets pictures.txt, held_out.txt, labels/ and the frames
    of bags.

    held_out  as for `lists.divide`
    """
    checkpoint = load_checkpoint(weights)
    seed = config.run.seed
    lists = here.broadcast(divide(sources, out, config.inputs, seed, held_out) if here.leads else None)
    assert lists is not None
    if here.leads:
        claim(out / LABELS, checkpoint.weights_id, config.adaptation, seed)  # or refuse, before anything is replaced
        lists.write(out)
    model, folder, settings = checkpoint.build(), out / LABELS, config.adaptation
    spent, complete = adapted(out)
    earlier = 0.0 if complete else spent  # one that was interrupted goes on
    started, figures = time.monotonic(), dict[str, float]()
    try:
        figures = adapt(model, checkpoint.weights_id, lists.training, folder, settings, seed, here, budget.minutes)
    finally:
        if here.leads:
            took = earlier + (time.monotonic() - started) / 60
            done = {"weights_id": checkpoint.weights_id, "complete": bool(figures), "minutes": took, **figures}
            write_text(out / ADAPTATION, json.dumps(done, indent=1))
    return figures


def check_adapted(
    config: Config, weights: Path, sources: Sequence[Path], out: Path, here: Processes, held_out: Path | None = None
) -> None:
    """Raise ValueError, naming what differs, unless `run_adapt` with these arguments left what is in `out`."""
    if not here.leads:
        return
    claim(out / LABELS, load_checkpoint(weights).weights_id, config.adaptation, config.run.seed)
    lists = divide(sources, out, config.inputs, config.run.seed, held_out)
    for name, now in ((PICTURES, lists.training), (HELD_OUT, lists.held_out)):
        before = read_list(out / name)
        if (was := names_digest(before)) != names_digest(now):
            raise ValueError(
                f"{out / name}: has {was}, and these are {names_digest(now)}; a run goes on with what it began with, "
                "or begins in another folder"
            )


def run_superpoint(
    config: Config,
    data: Path,
    out: Path,
    here: Processes,
    budget: Budget,
    resume: bool,
    start: Path | None = None,
    images: Sequence[Path] = (),
) -> Path:
    """Train SuperPoint on what `run_adapt` left in `data`; returns `out`/superpoint.safetensors.

    images  where the pictures are now, if they are not where `data` says
    """
    lists = labelled(data, images, config.inputs)
    initial = _start(start, config.network, config.superpoint, here)
    task = superpoint_task(config, lists.training, lists.held_out, data / LABELS, initial)
    return _train(task, config, out, here, budget, resume, {"data": f"{len(lists.training)} pictures"})


def run_distill(
    config: Config,
    teacher: Path,
    sources: Sequence[Path],
    out: Path,
    here: Processes,
    budget: Budget,
    resume: bool,
    start: Path | None = None,
    held_out: Path | None = None,
) -> Path:
    """Teach a network what `teacher` answers on pictures; returns `out`/distill.safetensors. `out` also gets
    pictures.txt, held_out.txt and the frames of bags.

    held_out  as for `lists.divide`

    Raises ValueError for a teacher without descriptors, or with ones of another length than the student's.
    """
    checkpoint = load_checkpoint(teacher)
    given, asked = checkpoint.architecture.descriptor_dim, config.network.descriptor_dim
    if given != asked:
        found = f"descriptors of {given} dimensions" if given else "no descriptors"
        raise ValueError(f"{teacher}: has {found}; expected {asked}, as in network.descriptor_dim")
    initial = _start(start, config.network, config.distill, here)
    lists = here.broadcast(divide(sources, out, config.inputs, config.run.seed, held_out) if here.leads else None)
    assert lists is not None
    task = distillation_task(config, lists.training, lists.held_out, checkpoint, here, initial)
    facts = {"data": f"{len(lists.training)} pictures", "teacher": checkpoint.weights_id}
    return _train(task, config, out, here, budget, resume, facts, lists)


def labelled(data: Path, images: Sequence[Path], settings: InputConfig) -> Lists:
    """The pictures that have labels in what `run_adapt` left, and those held out.

    images  where the pictures are now, if they are not where `data` says

    Raises ValueError if none has labels.
    """
    training, held_out = read_list(data / PICTURES), read_list(data / HELD_OUT)
    if images:
        now = find_pictures(images, data / "frames", settings)
        training, held_out = relocated(training, now), relocated(held_out, now)
    found = Lists(labelled_pictures(training, data / LABELS), [path for path in held_out if path.is_file()])
    if gone := sum(not path.is_file() for path in (*training, *held_out)):
        tqdm.write(f"{data}: {gone} listed pictures are not there and left out; --images says where they are now")
    return found


def adapted(folder: Path) -> tuple[float, bool]:
    """Minutes that an adaptation took so far, and whether it came to its end. Raises ValueError, naming the file that
    says so, where it cannot be read.
    """
    if not (folder / ADAPTATION).is_file():
        return 0.0, False
    remedy = "delete it, and the adaptation goes on with the pictures that have no labels yet"
    done = read_json(folder / ADAPTATION, remedy)
    return done.get("minutes", 0.0), done.get("complete", True)


def _start(path: Path | None, architecture: Architecture, settings: Optimisation, here: Processes) -> SuperPoint | None:
    """The network to start from; says what is taken over. Raises ValueError, naming the file, if it does not fit, or
    if layers are frozen without one.
    """
    if path is None:
        if settings.freezes:
            raise ValueError("freeze_stages and freeze_norms keep what --start brings; expected a file or name there")
        return None
    checkpoint = load_checkpoint(path)
    try:
        *parts, last = adoptable(architecture, checkpoint.architecture)
    except ValueError as error:
        raise ValueError(f"{path}: cannot be started from, {error}") from None
    if here.leads:
        new = "; the descriptor head is new" if architecture.descriptor_dim and last == "detector" else ""
        tqdm.write(f"Starts from {checkpoint.weights_id}: {', '.join(parts)} and {last}{new}.")
    return checkpoint.build()


def _train(
    task: Task,
    config: Config,
    out: Path,
    here: Processes,
    budget: Budget,
    resume: bool,
    facts: Mapping[str, str],
    lists: Lists | None = None,
) -> Path:
    """Train, export, and write down with what; all of it only if nothing is in the way."""
    stage = {"magicpoint": config.magicpoint, "superpoint": config.superpoint, "distill": config.distill}[task.name]

    def begins() -> None:
        if here.leads:
            out.mkdir(parents=True, exist_ok=True)
            write_text(out / "config.yaml", config_yaml(config))
            if lists:
                lists.write(out)
        here.barrier()

    outcome = train(task, stage, config.run, out, here, budget.minutes, resume, begins)
    if outcome.why == "signal":
        raise Stopped(f"{task.name}: stopped at step {outcome.step}; the same command with --resume goes on")
    path = out / f"{task.name}.safetensors"
    if here.leads:
        export_weights(path, outcome.model, _facts(task, config, outcome, facts))
    here.barrier()
    return path


def _facts(task: Task, config: Config, outcome: Outcome, facts: Mapping[str, str]) -> dict[str, str]:
    about = config.about
    told = {
        **facts,
        "name": about.name or task.name,
        "steps": str(outcome.exported),
        "minutes": f"{outcome.seconds / 60:.1f}",
        "metrics": json.dumps({name: round(value, 4) for name, value in outcome.figures.items()}),
        "recipe": config_yaml(config),
        "data_licence": about.licence or "not stated",
    }
    return {**told, "data": about.data} if about.data else told
