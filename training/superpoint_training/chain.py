"""The stages as a user runs them: each reads files, trains or labels, and leaves files for the next
one.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from tqdm import tqdm

from superpoint_ros.network.checkpoint import load_checkpoint
from superpoint_ros.network.superpoint import Architecture, SuperPoint
from superpoint_training.adaptation import adapt
from superpoint_training.config import Config
from superpoint_training.distillation import distillation_task
from superpoint_training.evaluation.benchmark import PairProtocol
from superpoint_training.evaluation.report import tables
from superpoint_training.evaluation.run import ANGLES, Request, run_evaluation
from superpoint_training.export import export_weights
from superpoint_training.initial import adoptable
from superpoint_training.magicpoint import magicpoint_task
from superpoint_training.pictures import find_pictures, listed_names, split
from superpoint_training.processes import Processes
from superpoint_training.pseudo_labels import LabelFolder
from superpoint_training.recipe import config_yaml
from superpoint_training.state import STATE_FILE
from superpoint_training.superpoint import superpoint_task
from superpoint_training.training import Outcome, Task, train

PICTURES, HELD_OUT, LABELS = "pictures.txt", "held_out.txt", "labels"

SHARES = {"magicpoint": 0.3, "adapt": 0.2, "superpoint": 0.4}
"""Of the budget of the whole chain; the rest is for evaluation."""


class Stopped(RuntimeError):
    """A signal ended training; the message says how to go on."""


@dataclass(frozen=True)
class Budget:
    """Minutes for something, None for as long as it takes."""

    minutes: float | None

    def share(self, part: float) -> Budget:
        """A part of it."""
        return Budget(None if self.minutes is None else self.minutes * part)


def run_magicpoint(
    config: Config, out: Path, here: Processes, budget: Budget, resume: bool, start: Path | None = None
) -> Path:
    """Train MagicPoint on Synthetic Shapes; returns `out`/magicpoint.safetensors."""
    initial = _start(start, replace(config.network, descriptor_dim=0), here)
    return _train(magicpoint_task(config, initial), config, out, here, budget, resume, {"data": "Synthetic Shapes"})


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

    held_out  pictures that are left for evaluation: a folder, or a .txt list of paths or of their
              ends (file names will do); None takes a share of all (inputs.held_out)

    Raises ValueError, naming it, for a listed picture that is none of the sources'.
    """
    checkpoint = load_checkpoint(weights)
    if here.leads:
        out.mkdir(parents=True, exist_ok=True)
        _write_lists(config, sources, out, held_out)
    here.wait()
    figures = adapt(
        checkpoint.build(),
        checkpoint.weights_id,
        read_list(out / PICTURES),
        out / LABELS,
        config.adaptation,
        config.run.seed,
        here,
        budget.minutes,
    )
    if here.leads:
        (out / "adaptation.json").write_text(json.dumps({"weights_id": checkpoint.weights_id, **figures}, indent=1))
    return figures


def run_superpoint(
    config: Config, data: Path, out: Path, here: Processes, budget: Budget, resume: bool, start: Path | None = None
) -> Path:
    """Train SuperPoint on what `run_adapt` left in `data`; returns `out`/superpoint.safetensors."""
    pictures, labels = labelled_pictures(data)
    initial = _start(start, config.network, here)
    out.mkdir(parents=True, exist_ok=True)
    task = superpoint_task(config, pictures, read_list(data / HELD_OUT), labels, out, initial)
    return _train(task, config, out, here, budget, resume, {"data": f"{len(pictures)} pictures"})


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

    held_out  as for `run_adapt`

    Raises ValueError for a teacher without descriptors, or with ones of another length than the student's.
    """
    checkpoint = load_checkpoint(teacher)
    given, asked = checkpoint.architecture.descriptor_dim, config.network.descriptor_dim
    if given != asked:
        found = f"descriptors of {given} dimensions" if given else "no descriptors"
        raise ValueError(f"{teacher}: has {found}; expected {asked}, as in network.descriptor_dim")
    initial = _start(start, config.network, here)
    if here.leads and not (resume and (out / PICTURES).is_file()):
        out.mkdir(parents=True, exist_ok=True)
        _write_lists(config, sources, out, held_out)
    here.wait()
    pictures, kept = read_list(out / PICTURES), read_list(out / HELD_OUT)
    task = distillation_task(config, pictures, kept, checkpoint.build(), out, here, initial)
    facts = {"data": f"{len(pictures)} pictures", "teacher": checkpoint.weights_id}
    return _train(task, config, out, here, budget, resume, facts)


def run_all(
    config: Config,
    sources: Sequence[Path],
    out: Path,
    here: Processes,
    budget: Budget,
    resume: bool,
    held_out: Path | None = None,
) -> Path:
    """Shapes, MagicPoint, and then, round for round, adaptation and SuperPoint; returns the last
    weights file.

    With `resume`, finished stages are left alone and an unfinished one goes on.
    """
    weights = out / "magicpoint" / "magicpoint.safetensors"
    if not (resume and weights.is_file()):
        again = resume and (weights.parent / STATE_FILE).is_file()
        run_magicpoint(config, weights.parent, here, budget.share(SHARES["magicpoint"]), again)
    rounds = config.adaptation.rounds
    for number in range(1, rounds + 1):
        folder = out / f"round{number}"
        final = folder / "superpoint" / "superpoint.safetensors"
        if not (resume and final.is_file()):
            run_adapt(config, weights, sources, folder, here, budget.share(SHARES["adapt"] / rounds), held_out)
            again = resume and (final.parent / STATE_FILE).is_file()
            share = budget.share(SHARES["superpoint"] / rounds)
            run_superpoint(config, folder, final.parent, here, share, again, start=weights)
        weights = final
    return weights


def evaluate_chain(config: Config, weights: Path, out: Path) -> str:
    """Compare a run's weights with SIFT and ORB on its held-out pictures and on shapes; returns the
    tables.

    Copies them to `out`/superpoint.safetensors; the report goes to `out`/evaluation.
    """
    shutil.copyfile(weights, out / weights.name)
    held_out = weights.parent.parent / HELD_OUT
    listed = bool(read_list(held_out))
    if not (config.evaluation.shapes or listed):
        return "nothing evaluated: inputs.held_out leaves no picture, and evaluation.shapes is 0"
    request = Request(
        weights=(weights,),
        baselines=("sift", "orb", "harris", "shi-tomasi", "fast"),
        photos=out if listed else None,
        names=held_out if listed else None,
        pairs=config.evaluation.pairs,
        rotation=ANGLES if config.evaluation.rotation_photos else (),
        rotation_photos=max(config.evaluation.rotation_photos, 1),
        shapes=config.evaluation.shapes,
        seed=config.run.seed,
        protocol=PairProtocol(size=max(config.pairs.size)),
    )
    return tables(run_evaluation(request, out / "evaluation"))


def labelled_pictures(data: Path) -> tuple[list[Path], Path]:
    """The pictures that have labels in what `run_adapt` left, and the folder of the labels.
    ValueError without any.
    """
    labels = LabelFolder(data / LABELS)
    pictures = [picture for picture in read_list(data / PICTURES) if labels.has(picture)]
    if not pictures:
        raise ValueError(f"{data}: no labelled pictures; expected a folder that `superpoint-train adapt` wrote")
    return pictures, labels.folder


def read_list(path: Path) -> list[Path]:
    """The paths in a list file, one a line; [] if there is no such file."""
    return [Path(line) for line in path.read_text().splitlines()] if path.is_file() else []


def _write_lists(config: Config, sources: Sequence[Path], out: Path, held_out: Path | None) -> None:
    pictures = [path.resolve() for path in find_pictures(sources, out / "frames", config.inputs)]
    if held_out is not None:
        if held_out.suffix == ".txt":
            kept = _listed(held_out, pictures)
        else:
            kept = {path.resolve() for path in find_pictures([held_out], out / "frames", config.inputs)}
        training, validation = [p for p in pictures if p not in kept], sorted(kept)
    else:
        training, validation = split(pictures, config.inputs.held_out, config.run.seed)
    if not training:
        raise ValueError(f"{', '.join(map(str, sources))}: all {len(pictures)} pictures are held out")
    for name, paths in ((PICTURES, training), (HELD_OUT, validation)):
        (out / name).write_text("".join(f"{path}\n" for path in paths))


def _listed(names: Path, pictures: Sequence[Path]) -> set[Path]:
    """Those of the pictures whose path ends with a line of the file `names`."""
    wanted = {Path(name).parts for name in listed_names(names)}
    lengths = {len(parts) for parts in wanted}
    found = {path.parts[-n:]: path for path in pictures for n in lengths if path.parts[-n:] in wanted}
    if missing := sorted("/".join(parts) for parts in wanted - found.keys()):
        raise ValueError(f"{names}: {len(missing)} of {len(wanted)} listed pictures are not there: {missing[0]} …")
    return set(found.values())


def _start(path: Path | None, architecture: Architecture, here: Processes) -> SuperPoint | None:
    """The network to start from; says what is taken over. Raises ValueError, naming the file, if it does not fit."""
    if path is None:
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
    task: Task, config: Config, out: Path, here: Processes, budget: Budget, resume: bool, facts: Mapping[str, str]
) -> Path:
    stage = {"magicpoint": config.magicpoint, "superpoint": config.superpoint, "distill": config.distill}[task.name]
    if here.leads:
        out.mkdir(parents=True, exist_ok=True)
        (out / "config.yaml").write_text(config_yaml(config))
    here.wait()
    outcome = train(task, stage, config.run, out, here, budget.minutes, resume)
    if outcome.why == "signal":
        raise Stopped(f"{task.name}: stopped at step {outcome.step}; the same command with --resume goes on")
    path = out / f"{task.name}.safetensors"
    if here.leads:
        export_weights(path, outcome.model, _facts(task, config, outcome, facts))
    here.wait()
    return path


def _facts(task: Task, config: Config, outcome: Outcome, facts: Mapping[str, str]) -> dict[str, str]:
    about = config.about
    told = {
        **facts,
        "name": about.name or task.name,
        "steps": str(outcome.step),
        "minutes": f"{outcome.seconds / 60:.1f}",
        "metrics": json.dumps({name: round(value, 4) for name, value in outcome.figures.items()}),
        "recipe": config_yaml(config),
        "data_licence": about.licence or "not stated",
    }
    return {**told, "data": about.data} if about.data else told
