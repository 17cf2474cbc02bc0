"""Run one SuperPoint node on the cameras of a stereo pair or a larger rig.

ros2 launch superpoint_ros rig.launch.py cameras:='[left, right]' synchronise:=approximate
"""

from __future__ import annotations

import yaml
from launch.actions import DeclareLaunchArgument, OpaqueFunction
from launch.substitutions import LaunchConfiguration, PathJoinSubstitution
from launch_ros.actions import Node
from launch_ros.substitutions import FindPackageShare

from launch import LaunchContext, LaunchDescription

PARAMETERS = PathJoinSubstitution([FindPackageShare("superpoint_ros"), "config", "superpoint.yaml"])

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
    DeclareLaunchArgument("namespace", default_value="", description="Namespace of the node."),
    DeclareLaunchArgument("params_file", default_value=PARAMETERS, description="YAML file of the other parameters."),
    DeclareLaunchArgument(
        "use_sim_time",
        default_value="",
        choices=["", "true", "false"],
        description="Take the time from /clock; empty: as in params_file.",
    ),
    DeclareLaunchArgument(
        "device",
        default_value="",
        description="Where the network runs: auto, cpu, cuda, cuda:1; empty: as in params_file.",
    ),
]


def generate_launch_description() -> LaunchDescription:
    """One node for all cameras."""
    return LaunchDescription([*ARGUMENTS, OpaqueFunction(function=make_node)])


def make_node(context: LaunchContext) -> list[Node]:
    """The node, with the arguments on top of the parameter file."""
    given = {argument.name: LaunchConfiguration(argument.name).perform(context) for argument in ARGUMENTS}
    overrides: dict[str, bool | float | str | list[str]] = {
        "cameras": names("cameras", given["cameras"]),
        "synchronise": given["synchronise"],
        "sync_slop": seconds("sync_slop", given["sync_slop"]),
    }
    for name in ("image_topics", "frame_ids"):
        if found := names(name, given[name]):
            overrides[name] = found
    if given["use_sim_time"]:
        overrides["use_sim_time"] = given["use_sim_time"] == "true"
    if given["device"]:
        overrides["device"] = given["device"]
    node = Node(
        package="superpoint_ros",
        executable="superpoint_node",
        name="superpoint",
        namespace=given["namespace"],
        output="screen",
        parameters=[given["params_file"], overrides],
    )
    return [node]


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
