"""Run one SuperPoint node on the cameras of a stereo pair or a larger rig.

ros2 launch superpoint_ros rig.launch.py cameras:='[left, right]' synchronise:=approximate
"""

from __future__ import annotations

import yaml
from launch import LaunchContext, LaunchDescription
from launch.actions import DeclareLaunchArgument, OpaqueFunction
from launch_ros.actions import Node

from superpoint_ros.node.launch_arguments import shared_arguments, superpoint_node, values_of

ARGUMENTS = [
    DeclareLaunchArgument(
        "cameras",
        default_value="[left, right]",
        description="Names of the cameras: NAME/image in, superpoint/NAME/features out.",
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
        "synchronise",
        default_value="approximate",
        choices=["none", "exact", "approximate"],
        description="Process frames of all cameras as one set: with the same stamp, or at most sync_slop apart.",
    ),
    DeclareLaunchArgument(
        "sync_slop", default_value="0.01", description="Seconds; keep it below half the frame period."
    ),
    *shared_arguments("namespace", "params_file", "use_sim_time", "device"),
]


def generate_launch_description() -> LaunchDescription:
    """One node for all cameras."""
    return LaunchDescription([*ARGUMENTS, OpaqueFunction(function=make_node)])


def make_node(context: LaunchContext) -> list[Node]:
    """The node, with the arguments on top of the parameter file."""
    given = values_of(ARGUMENTS, context)
    overrides: dict[str, float | str | list[str]] = {
        "cameras": names("cameras", given["cameras"]),
        "synchronise": given["synchronise"],
        "sync_slop": seconds("sync_slop", given["sync_slop"]),
    }
    for name in ("image_topics", "frame_ids"):
        if found := names(name, given[name]):
            overrides[name] = found
    return [superpoint_node(given, overrides)]


def names(argument: str, text: str) -> list[str]:
    """The names in "[left, right]", or in "left, right". Raises ValueError with a sentence."""
    try:
        found = yaml.safe_load(text if text.lstrip().startswith("[") else f"[{text}]")
    except yaml.YAMLError:
        found = None
    if not isinstance(found, list) or any(isinstance(name, (list, dict)) for name in found):
        raise ValueError(f"argument '{argument}' must be a list of names, as in [left, right], got '{text}'")
    return [str(name or "") for name in found]


def seconds(argument: str, text: str) -> float:
    """A number. Raises ValueError with a sentence."""
    try:
        return float(text)
    except ValueError:
        raise ValueError(f"argument '{argument}' must be a number of seconds, got '{text}'") from None
