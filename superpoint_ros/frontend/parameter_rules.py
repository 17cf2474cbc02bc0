"""Which values the node's parameters may have together, and which changes are allowed."""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping, Sequence
from dataclasses import Field, replace
from typing import Any

from superpoint_ros.features.image import SMALLEST_SIDE
from superpoint_ros.features.intensity import AUTOMATIC
from superpoint_ros.features.pyramid import check_scales
from superpoint_ros.frontend.parameter_values import fitted
from superpoint_ros.frontend.parameters import PER_CAMERA, TABLE, Parameters

CONFIGURE = "takes effect with `configure`: deactivate and clean up first"
"""What is said of a parameter that does not change live."""

OTHERS = ("use_sim_time", "start_type_description_service")
"""Parameters of every rclpy node; `qos_overrides.…` comes on top."""

CAMERA_NAME = re.compile(r"[A-Za-z]\w*(/[A-Za-z]\w*)*", re.ASCII)


def change(current: Parameters, proposals: Sequence[Any], configured: bool) -> Parameters:
    """The values after a change that someone asks for, by rclpy Parameters.

    Raises ValueError with a sentence if a value is not allowed, or not while configured.
    """
    values = {}
    for each in proposals:
        if row := row_of(each.name):
            taken_away = each.value is None and each.name not in TABLE
            values[each.name] = None if taken_away else fitted(each.name, row, each.value)
    result = checked(current, values)
    for name, row in TABLE.items():
        if configured and not row.metadata["live"] and getattr(result, name) != getattr(current, name):
            raise ValueError(f"parameter '{name}' {CONFIGURE}")
    return result


def row_of(name: str) -> Field[Any] | None:
    """The row of the table that a parameter's value fits: for `CAMERA.NAME` that of NAME; None for others."""
    camera, dot, general = name.rpartition(".")
    if not dot:
        return TABLE.get(name)
    row = TABLE.get(general)
    return row if row and row.metadata["by_camera"] and CAMERA_NAME.fullmatch(camera) else None


def is_known(name: str) -> bool:
    """Whether it is in the table, or the name of a parameter that every node has."""
    return row_of(name) is not None or name in OTHERS or name.startswith("qos_overrides.")


def check_name(name: str) -> None:
    """Raise ValueError for a name that is not known."""
    if not is_known(name):
        camera, dot, general = name.rpartition(".")
        there = [each for each, row in TABLE.items() if not dot or row.metadata["by_camera"]]
        close = difflib.get_close_matches(general, there, n=1)
        nearest = f" (did you mean '{camera}{dot}{close[0]}'?)" if close else ""
        kind = " for one camera" if dot else ""
        raise ValueError(f"parameter '{name}' is unknown{nearest}; there are{kind} {', '.join(there)}")


def without_camera(name: str, cameras: Sequence[str]) -> str:
    """A sentence about a `CAMERA.NAME` that is for none of the cameras; empty for others."""
    camera, dot, _ = name.rpartition(".")
    if not dot or row_of(name) is None or camera in cameras:
        return ""
    return f"parameter '{name}' is for a camera '{camera}', but there are {list(cameras)}"


def checked(current: Parameters, values: Mapping[str, Any]) -> Parameters:
    """`current` with these values, whose types and numeric ranges have been checked.

    values  `CAMERA.NAME`, too; None takes that away. Raises ValueError with a sentence
    """
    held: dict[str, Any] = {name: tuple(value) if isinstance(value, list) else value for name, value in values.items()}
    general = {name: value for name, value in held.items() if name in TABLE}
    for name, value in general.items():
        choices = TABLE[name].metadata["choices"]
        if choices and value not in choices:
            raise ValueError(f"parameter '{name}' must be one of {', '.join(choices)}, got '{value}'")
    by_camera = {**current.by_camera, **{name: value for name, value in held.items() if name not in TABLE}}
    by_camera = {name: value for name, value in by_camera.items() if value is not None}
    result = replace(current, **general, by_camera=by_camera)
    for name in by_camera:  # those set before, too: they would have no effect any more
        if sentence := without_camera(name, result.cameras):
            raise ValueError(sentence)
    if result.track_cloud != "none" and not result.tracks:
        raise ValueError(f"parameter 'track_cloud' must be none without tracks, got '{result.track_cloud}'")
    _check_pictures(result, "")
    for camera in result.cameras:
        _check_pictures(result.of(camera), f"{camera}." if camera else "")
    try:
        check_scales(result.scales)
    except ValueError as error:
        raise ValueError(str(error).replace("scales", "parameter 'scales'", 1)) from None
    _check_cameras(result)
    _check_stereo_pairs(result)
    return result


def _check_pictures(values: Parameters, prefix: str) -> None:
    span = values.intensity_range
    if len(span) != 2 or (span != AUTOMATIC and not span[0] < span[1]):
        name = f"{prefix}intensity_range"
        raise ValueError(f"parameter '{name}' must be [low, high] with low below high, got {list(span)}")
    if 0 < values.resize < SMALLEST_SIDE:
        name = f"{prefix}resize"
        raise ValueError(f"parameter '{name}' must be 0 or at least {SMALLEST_SIDE} pixels, got {values.resize}")


def _check_cameras(values: Parameters) -> None:
    names = values.cameras
    allowed = names == ("",) or all(CAMERA_NAME.fullmatch(name) for name in names)
    if not names or not allowed or len(set(names)) != len(names):
        raise ValueError(
            "parameter 'cameras' must hold different names of letters, digits and _, as in "
            f"[left, right], or one empty name, got {list(names)}"
        )
    if values.synchronise != "none" and len(names) == 1:
        raise ValueError(f"parameter 'synchronise' must be none for a single camera, got '{values.synchronise}'")
    own_rates = [f"{name}.rate" for name in names if f"{name}.rate" in values.by_camera]
    if values.synchronise != "none" and own_rates:
        raise ValueError(f"parameter '{own_rates[0]}' cannot be: synchronised cameras have one rate for their sets")
    for parameter in PER_CAMERA:
        given = getattr(values, parameter)
        if given != TABLE[parameter].default and len(given) != len(names):
            raise ValueError(
                f"parameter '{parameter}' must hold one entry for each of the {len(names)} "
                f"cameras {list(names)}, got {list(given)}"
            )


def _check_stereo_pairs(values: Parameters) -> None:
    if values.stereo_pairs == TABLE["stereo_pairs"].default:
        return
    for given in values.stereo_pairs:
        pair = [name.strip() for name in given.split(",")]
        if len(pair) != 2 or pair[0] == pair[1] or not set(pair) <= set(values.cameras):
            raise ValueError(
                "parameter 'stereo_pairs' must hold two of the cameras for each pair, as in ['left,right'], got "
                f"'{given}'; the cameras are {list(values.cameras)}"
            )
    lefts = [left for left, _ in values.pairs()]
    if len(set(lefts)) != len(lefts):
        raise ValueError(f"parameter 'stereo_pairs' must have each left camera once, got {list(values.stereo_pairs)}")
    if values.synchronise == "none":
        raise ValueError(
            "parameter 'stereo_pairs' needs images of the same time: set 'synchronise' to exact or approximate"
        )
