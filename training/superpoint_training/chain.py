"""The whole chain: shapes, MagicPoint, adaptation, SuperPoint, and what it was good for."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path

from superpoint_training.config import Config
from superpoint_training.evaluation.benchmark import PairProtocol
from superpoint_training.evaluation.report import tables
from superpoint_training.evaluation.request import ANGLES, Request
from superpoint_training.evaluation.run import run_evaluation
from superpoint_training.lists import DATA, HELD_OUT, read_list
from superpoint_training.processes import Processes
from superpoint_training.recipe import stage_recipe
from superpoint_training.stages import Budget, adapted, check_adapted, run_adapt, run_magicpoint, run_superpoint
from superpoint_training.state import STATE_FILE, check_recipe, load_state
from superpoint_training.whole_files import whole_file

SHARES = {"magicpoint": 0.3, "adapt": 0.2, "superpoint": 0.4}
"""Of the budget of the whole chain; the rest is for evaluation."""


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

    With `resume`, finished stages are left alone and an unfinished one goes on, in what is left of its budget.
    Raises ValueError where one was begun with another recipe or other pictures.
    """
    weights = out / "magicpoint" / "magicpoint.safetensors"
    if not (resume and _finished(weights, config, "magicpoint")):
        again = resume and (weights.parent / STATE_FILE).is_file()
        run_magicpoint(config, weights.parent, here, budget.share(SHARES["magicpoint"]), again)
    rounds = config.adaptation.rounds
    for number in range(1, rounds + 1):
        folder = out / f"round{number}"
        final = folder / "superpoint" / "superpoint.safetensors"
        spent, complete = adapted(folder) if resume else (0.0, False)
        if complete:
            check_adapted(config, weights, sources, folder, here, held_out)
        if not (resume and _finished(final, config, "superpoint")):
            if not complete:
                left = budget.share(SHARES["adapt"] / rounds).less(spent)
                run_adapt(config, weights, sources, folder, here, left, held_out)
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
    with weights.open("rb") as source, whole_file(out / weights.name) as target:
        shutil.copyfileobj(source, target)
    held_out = weights.parent.parent / HELD_OUT
    listed = bool(read_list(held_out))
    if not (config.evaluation.shapes or listed):
        return "nothing evaluated: inputs.held_out leaves no picture, and evaluation.shapes is 0"
    request = Request(
        weights=(weights,),
        baselines=("sift", "orb", "harris", "shi-tomasi", "fast", "random"),
        photos=held_out.parent if listed else None,
        names=held_out if listed else None,
        pairs=config.evaluation.pairs,
        rotation=ANGLES if config.evaluation.rotation_photos else (),
        rotation_photos=max(config.evaluation.rotation_photos, 1),
        shapes=config.evaluation.shapes,
        seed=config.run.seed,
        protocol=PairProtocol(size=max(config.pairs.size)),
    )
    return tables(run_evaluation(request, out / "evaluation"))


def _finished(weights: Path, config: Config, stage: str) -> bool:
    """Whether a stage has left its weights. Raises ValueError if that was by another recipe, or if MagicPoint's was
    trained on something else than shapes; of labelled pictures `check_adapted` knows.
    """
    state = weights.parent / STATE_FILE
    if weights.is_file() and state.is_file():
        elsewhere = () if stage == "magicpoint" else DATA
        check_recipe(state, load_state(state, stage), stage_recipe(config, stage), elsewhere)
    return weights.is_file()
