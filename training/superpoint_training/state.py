"""The file that a run resumes from: weights, optimiser, random numbers and position, written whole
or not at all.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

from superpoint_training.recipe import default_values
from superpoint_training.whole_files import whole_file

STATE_FILE = "state.pt"

FREE = ("steps",)
"""Last parts of keys that may be others when a run is resumed."""
NOTED_LATER = ("held_out", "run.validation_samples")
"""Keys that states of an earlier version lack; where `best` is the same, nothing else tells them apart."""


def save_state(path: Path, state: Mapping[str, Any]) -> bool:
    """Replace the state file. Where that fails (a full disk, say), the old one stays, and a line
    says so.

    Returns whether it was written.
    """
    try:
        with whole_file(path) as file:
            torch.save(dict(state), file)
    except (OSError, RuntimeError) as error:
        kept = "the one before is kept" if path.exists() else "there is none yet"
        tqdm.write(f"{path}: this checkpoint could not be written ({error}); {kept}, and training goes on")
        return False
    return True


def load_state(path: Path, task: str | None = None) -> dict[str, Any]:
    """Read a state file onto the CPU. Raises ValueError, naming the file, if it is none or another
    task's.
    """
    if not path.is_file():
        raise ValueError(f"{path}: nothing to resume; expected the state file of an earlier run")
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except (OSError, MemoryError):
        raise
    except Exception:
        # broken files fail in many ways, and torch's own text goes on with how to unpickle it all the same
        found = "not a state file: it is damaged, or something else"
        raise ValueError(f"{path}: {found}; expected what a run left there, or begin in another folder") from None
    if not isinstance(state, dict) or "task" not in state:
        raise ValueError(f"{path}: not the state of a training run")
    if task is not None and state["task"] != task:
        raise ValueError(f"{path}: expected the state of {task}, found that of {state['task']}")
    return state


def check_recipe(
    path: Path, state: Mapping[str, Any], recipe: Mapping[str, Any], elsewhere: Collection[str] = ()
) -> None:
    """Raise ValueError, naming the first key, where the run of a state file had another recipe or other pictures. A key
    that one of them lacks, as earlier versions did not know it, stands for its default; none for data is another.

    recipe     key, as on the command line, -> value that JSON has
    elsewhere  keys that are not compared
    """
    before, now = json.loads(state.get("recipe", "{}")), json.loads(json.dumps(recipe))
    if not before:
        if recipe:
            tqdm.write(f"{path}: of an earlier version, which did not note recipe and pictures; they are not compared")
        return
    usual = default_values()
    # Data first, which have no dot: with labels instead of shapes many keys differ.
    for key in sorted({**now, **before}, key=lambda key: "." in key):
        later = key in NOTED_LATER and not (key in before and key in now)
        if later or key in elsewhere or key.rpartition(".")[2] in FREE:
            continue
        if before.get(key, usual.get(key)) != now.get(key, usual.get(key)):
            was, given = (json.dumps(each[key]) if key in each else "nothing" for each in (before, now))
            raise ValueError(
                f"{path}: {key} was {was} and is {given}; a run goes on with what it "
                "began with, or begins in another folder (--start takes over its weights)"
            )
