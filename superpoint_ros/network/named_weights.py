"""The weights files that come with the package, by name."""

from __future__ import annotations

import os
from pathlib import Path

FOLDER = Path(__file__).parent / "weights"

DEFAULT, FAST = "default", "fast"
SHORT_NAMES = {DEFAULT: "superpoint_ros_3", FAST: "superpoint_ros_fast_2"}
"""What stays when better files come: default, the most accurate; fast, for a CPU, taught by it."""


def packaged_weights() -> dict[str, Path]:
    """Every name with its file: the short ones, and what the files are called."""
    files = {path.stem: path for path in sorted(FOLDER.glob("*.safetensors"))}
    return {short: files[name] for short, name in SHORT_NAMES.items() if name in files} | files


def find_weights(weights: str | os.PathLike[str] | None) -> Path:
    """The file that is meant: a name, else a path; None or "" is the default.

    A name wins over a file of that name; ./fast is the file. Raises FileNotFoundError, naming it and
    the names there are.
    """
    name = os.fspath(weights or DEFAULT)
    if name in SHORT_NAMES:
        path = FOLDER / f"{SHORT_NAMES[name]}.safetensors"
    else:
        path = packaged_weights().get(name) or Path(os.path.expanduser(name))
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such weights file; the package has {', '.join(packaged_weights())}")
    return path
