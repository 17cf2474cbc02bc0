"""Run one SuperPoint node on the cameras of a stereo pair or a larger rig.

ros2 launch superpoint_ros rig.launch.py cameras:='[left, right]' synchronise:=approximate
"""

from __future__ import annotations

from typing import Any

import yaml
from launch import Action, LaunchContext, LaunchDescription
from launch.actions import DeclareLaunchArgument, LogInfo, OpaqueFunction

from superpoint_ros.node.launch_arguments import (
    SHARED,
    node_in,
    parameters_in,
    shared_arguments,
    superpoint_node,
    values_of,
)

DEFAULTS: dict[str, Any] = {"cameras": ["left", "right"], "synchronise": "approximate", "sync_slop": 0.01}
"""Of a rig, where neither the arguments nor a params_file of the user's say otherwise."""

ARGUMENTS = [
    DeclareLaunchArgument(
        "cameras",
        default_value="[]",
        description="Names of the cameras: NAME/image in, superpoint/NAME/features out; "
        "[]: as in params_file, or [left, right].",
    ),
    DeclareLaunchArgument(
        "image_topics", default_value="[]", description="In place of NAME/image, one for each camera; []: as they are."
    ),
    DeclareLaunchArgument(
        "frame_ids",
        default_value="[]",
        description="In place of the frame in the images' headers, one for each camera; []: theirs.",
    ),
    DeclareLaunchArgument(
        "camera_info_topics",
        default_value="[]",
        description="Topics of the calibrations, one for each camera; []: camera_info beside the images.",
    ),
    DeclareLaunchArgument(
        "mask_topics",
        default_value="[]",
        description="Topics of the masks (parameter use_mask_topic), one for each camera; []: NAME/mask.",
    ),
    DeclareLaunchArgument(
        "synchronise",
        default_value="",
        choices=["", "none", "exact", "approximate"],
        description="Process frames of all cameras as one set: with the same stamp, or at most sync_slop apart; "
        "empty: as in params_file, or approximate.",
    ),
    DeclareLaunchArgument(
        "sync_slop",
        default_value="",
        description="Seconds; keep it below half the frame period; empty: as in params_file, or 0.01.",
    ),
    *shared_arguments("namespace", "node_name", "params_file", "use_sim_time", "device", "respawn"),
]


def generate_launch_description() -> LaunchDescription:
    """One node for all cameras."""
    return LaunchDescription([*ARGUMENTS, OpaqueFunction(function=make_node)])


def make_node(context: LaunchContext) -> list[Action]:
    """The node, with the arguments on top of the parameter file, and that on top of a rig's defaults."""
    given = values_of(ARGUMENTS, context)
    arguments: dict[str, Any] = {}
    if cameras := names("cameras", given["cameras"]):
        arguments["cameras"] = cameras
    if given["synchronise"]:
        arguments["synchronise"] = given["synchronise"]
    if given["sync_slop"]:
        arguments["sync_slop"] = seconds("sync_slop", given["sync_slop"])
    in_file = parameters_in(given["params_file"], node_in(given, context))
    if in_file.get("cameras") in ([], [""]):
        del in_file["cameras"]  # a rig has names
    if given["params_file"] == SHARED["params_file"]["default_value"].perform(context):
        in_file = {}  # it holds the defaults of a single camera
    overrides, told = {}, []
    for name, default in DEFAULTS.items():
        value, source = (arguments[name], "argument") if name in arguments else (default, "default")
        if source == "default" and name in in_file:
            value, source = in_file[name], "params_file"
        else:
            overrides[name] = value
        told.append(f"{name} {value} ({source})")
    for name in ("image_topics", "frame_ids"):
        if found := names(name, given[name]):
            overrides[name] = found
    cameras = overrides.get("cameras") or in_file["cameras"]
    remappings = [
        (f"{camera}/{kind}", topic)
        for kind in ("camera_info", "mask")
        for camera, topic in pairs(f"{kind}_topics", given[f"{kind}_topics"], cameras)
    ]
    return [LogInfo(msg=f"Rig: {', '.join(told)}."), *superpoint_node(given, overrides, remappings)]


def names(argument: str, text: str) -> list[str]:
    """The names in "[left, right]", or in "left, right". Raises ValueError with a sentence."""
    try:
        found = yaml.safe_load(text if text.lstrip().startswith("[") else f"[{text}]")
    except yaml.YAMLError:
        found = None
    if not isinstance(found, list) or any(isinstance(name, (list, dict)) for name in found):
        raise ValueError(f"argument '{argument}' must be a list of names, as in [left, right], got '{text}'")
    return [str(name or "") for name in found]


def pairs(argument: str, text: str, cameras: list[str]) -> list[tuple[str, str]]:
    """Each camera and what the list has for it, but for what is empty. Raises ValueError with a sentence."""
    found = names(argument, text)
    if found and len(found) != len(cameras):
        raise ValueError(
            f"argument '{argument}' must hold one entry for each of the {len(cameras)} cameras {cameras}, got {found}"
        )
    return [pair for pair in zip(cameras, found, strict=False) if pair[1]]


def seconds(argument: str, text: str) -> float:
    """A number. Raises ValueError with a sentence."""
    try:
        return float(text)
    except ValueError:
        raise ValueError(f"argument '{argument}' must be a number of seconds, got '{text}'") from None
