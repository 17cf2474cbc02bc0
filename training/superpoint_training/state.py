"""The file that a run resumes from: weights, optimiser, random numbers and position, written whole
or not at all.
"""

from __future__ import annotations

import json
import os
import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

STATE_FILE = "state.pt"

FREE = ("steps",)
"""Last parts of keys that may be others when a run is resumed."""


def save_state(path: Path, state: Mapping[str, Any]) -> bool:
    """Replace the state file. Where that fails (a full disk, say), the old one stays, and a line
    says so.

    Returns whether it was written.
    """
    partial = path.with_name(f".{path.name}.partial")
    try:
        with partial.open("wb") as file:
            torch.save(dict(state), file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(partial, path)
    except (OSError, RuntimeError) as error:
        partial.unlink(missing_ok=True)
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
    except (pickle.UnpicklingError, RuntimeError, EOFError, ValueError, KeyError) as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise ValueError(f"{path}: not a state file ({reason})") from None
    if not isinstance(state, dict) or "task" not in state:
        raise ValueError(f"{path}: not the state of a training run")
    if task is not None and state["task"] != task:
        raise ValueError(f"{path}: expected the state of {task}, found that of {state['task']}")
    return state


def check_recipe(path: Path, state: Mapping[str, Any], recipe: Mapping[str, Any]) -> None:
    """Raise ValueError, naming the first key, where the run of a state file had another recipe or other pictures.

    recipe  key, as on the command line, -> value that JSON has
    """
    before = json.loads(state.get("recipe", "{}"))
    if not before:
        if recipe:
            tqdm.write(f"{path}: of an earlier version, which did not note recipe and pictures; they are not compared")
        return
    for key, now in json.loads(json.dumps(recipe)).items():
        if key in before and before[key] != now and key.rpartition(".")[2] not in FREE:
            raise ValueError(
                f"{path}: {key} was {json.dumps(before[key])} and is {json.dumps(now)}; a run goes on with what it "
                "began with, or begins in another folder (--start takes over its weights)"
            )
