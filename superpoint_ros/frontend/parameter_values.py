"""What someone gives for a parameter, from YAML, ROS or code, in the type that its row of the table has."""

from __future__ import annotations

import math
from dataclasses import Field
from pathlib import Path
from typing import Any

PATHS = ("weights", "mask_files")
"""Parameters in which `~` is the home folder, as nothing else expands it in a YAML file."""


def fitted(name: str, row: Field[Any], value: Any) -> Any:
    """The value in its row's type: whole numbers serve where doubles are wanted, [] is the default of a list of names.

    Raises ValueError with a sentence for one of another type or out of range.
    """
    default: Any = row.default
    if not isinstance(default, tuple):
        fitting = _scalar(default, value)
    elif default == ("",) and (value is None or hasattr(value, "__len__") and len(value) == 0):
        fitting = list(default)  # a list without entries has no type in ROS: it arrives as None, or as one of bytes
    elif isinstance(value, (str, bytes)) or not hasattr(value, "__iter__"):
        fitting = None
    else:
        fitting = [_scalar(default[0], each) for each in value]
    if fitting is None or isinstance(fitting, list) and None in fitting:
        kind = type(default[0] if isinstance(default, tuple) else default).__name__
        kind = f"a list of {kind}" if isinstance(default, tuple) else kind
        raise ValueError(f"parameter '{name}' must be {kind}, got {value!r}. {describe(row)}")
    limits = row.metadata["limits"]
    if limits and not limits[0] <= fitting <= limits[1]:
        raise ValueError(f"parameter '{name}' must lie in {limits[0]} to {limits[1]}, got {value!r}. {describe(row)}")
    if name in PATHS:
        fitting = [_at_home(each) for each in fitting] if isinstance(fitting, list) else _at_home(fitting)
    return fitting


def describe(row: Field[Any]) -> str:
    """What a parameter is and what it may be, in one or two sentences."""
    limits, choices = row.metadata["limits"], row.metadata["choices"]
    allowed = f"{limits[0]} to {limits[1]}" if limits else ", ".join(choices)
    own = f" CAMERA.{row.name} for one camera." if row.metadata["by_camera"] else ""
    return str(row.metadata["description"]) + own + (f" Allowed: {allowed}." if allowed else "")


def _scalar(default: Any, value: Any) -> Any:
    """The value in the type of the default, or None."""
    if isinstance(default, bool) or isinstance(value, bool):
        return value if type(default) is type(value) else None
    if isinstance(default, float):
        try:
            number = float(value)  # YAML 1.1 takes 1e-3 for a string
        except (TypeError, ValueError, OverflowError):
            return None
        return number if math.isfinite(number) else None
    if isinstance(default, str):
        return str(value) if isinstance(value, (str, int, float)) else "" if value is None else None
    return value if isinstance(value, int) else None


def _at_home(path: str) -> str:
    try:
        return str(Path(path).expanduser()) if path.startswith("~") else path
    except RuntimeError:  # no such user
        return path
