"""Play a bag, run the node on one of its topics, and record what it publishes into another bag.

ros2 launch superpoint_ros replay.launch.py bag:=drive image_topic:=/camera/image_raw output:=drive_features

Ends by itself when the bag has been played, with exit status 1 if that, the node or the recorder failed. `superpoint
extract` does the same faster and without losing a frame, but without a node.
"""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path

from launch import Action, LaunchContext, LaunchDescription
from launch.actions import (
    DeclareLaunchArgument,
    EmitEvent,
    ExecuteProcess,
    LogInfo,
    OpaqueFunction,
    RegisterEventHandler,
    TimerAction,
)
from launch.event_handlers import OnProcessExit, OnProcessIO
from launch.events import Shutdown
from launch.events.process import ProcessExited, ProcessIO

from superpoint_ros.bags.content import COMPRESSED_IMAGE, IMAGE, BagError
from superpoint_ros.bags.reader import BagReader
from superpoint_ros.node.launch_arguments import (
    mark_failed,
    node_in,
    parameters_in,
    shared_arguments,
    superpoint_node,
    values_of,
)

ARGUMENTS = [
    DeclareLaunchArgument("bag", description="The bag to play."),
    DeclareLaunchArgument("output", description="The bag to record features, matches and homographies into."),
    DeclareLaunchArgument("rate", default_value="1.0", description="Times the original speed."),
    *shared_arguments(
        "image_topic", "camera_info_topic", "mask_topic", "namespace", "node_name", "params_file", "device"
    ),
    DeclareLaunchArgument(
        "player",
        default_value="",
        description="Command that plays the bag and /clock; empty: ros2 bag play, or where that is not installed "
        "superpoint play.",
    ),
]

READY = (b"All requested topics are subscribed", b"Recording ")
"""What `ros2 bag record` and our recorder say once no message will be missed."""
LAST_FRAMES = 3.0
"""Seconds after the end of the bag in which frames that are still in work are recorded."""


def generate_launch_description() -> LaunchDescription:
    """Node and recorder; once the recorder has found the node's topics the player; then the end."""
    return LaunchDescription([*ARGUMENTS, OpaqueFunction(function=make_processes)])


def make_processes(context: LaunchContext) -> list[Action]:
    """The node and the recorder, and what is to happen next."""
    given = values_of(ARGUMENTS, context)
    given |= {name: str(Path(given[name]).expanduser()) for name in ("bag", "output")}
    started = superpoint_node(given, {"use_sim_time": True})
    node = started[0]
    if not given["player"]:
        check_topic(given, node_in(given, context))
    topics = [f"{node_in(given, context)}/{name}" for name in ("features", "matches", "homography")]
    record = ExecuteProcess(cmd=record_command(given["output"], topics), output="both", name="record")
    play = ExecuteProcess(cmd=play_command(given["player"], given["bag"], given["rate"]), output="screen", name="play")
    begun: list[Action] = []

    def begin_to_play(event: ProcessIO) -> list[Action]:
        if begun or not any(sign in event.text for sign in READY):
            return []
        begun.append(play)
        return begun

    def end(event: ProcessExited, context: LaunchContext) -> list[Action]:
        if context.is_shutdown:
            return []
        last: Action = EmitEvent(event=Shutdown(reason="the bag is played"))
        text = "The bag has been played."
        if event.returncode:
            text = f"The player ended with status {event.returncode}."
            last = failure(text)
        return [LogInfo(msg=text), TimerAction(period=LAST_FRAMES, actions=[last])]

    def on_recorded(event: ProcessExited, context: LaunchContext) -> list[Action]:
        if not context.is_shutdown:
            return [failure("The recorder ended by itself.")]
        if event.returncode > 0:
            mark_failed(context, f"The recorder ended with status {event.returncode}.")
        return []

    return [
        *started,
        record,
        RegisterEventHandler(OnProcessIO(target_action=record, on_stdout=begin_to_play, on_stderr=begin_to_play)),
        RegisterEventHandler(OnProcessExit(target_action=play, on_exit=end)),
        RegisterEventHandler(OnProcessExit(target_action=record, on_exit=on_recorded)),
        RegisterEventHandler(OnProcessExit(target_action=node, on_exit=[failure("The node ended by itself.")])),
    ]


def check_topic(given: Mapping[str, str], node: str) -> None:
    """Raise ValueError with a sentence if the bag has no images on the topic that the node is to listen to."""
    topic = given["image_topic"]
    topic = topic if topic.startswith("/") else f"{node.rpartition('/')[0]}/{topic}"
    kind, raw = IMAGE, topic.removesuffix("/compressed")
    if parameters_in(given["params_file"], node).get("image_transport") == "compressed":
        kind, topic = COMPRESSED_IMAGE, f"{raw}/compressed"
    try:
        with BagReader(Path(given["bag"])) as reader:
            images = [each.name for each in reader.image_topics()]
            if topic in images and reader.topics[topic].type == kind:
                return
    except BagError:
        return  # the player has a word for it
    hint = "; image_transport is raw, see params_file" if kind == IMAGE and f"{raw}/compressed" in images else ""
    raise ValueError(
        f"{given['bag']}: there are no messages of {kind} on {topic}; there are images on "
        f"{', '.join(images) or 'no topic'}{hint}"
    )


def failure(text: str) -> Action:
    """End everything, with exit status 1, unless it is ending already."""

    def fail(context: LaunchContext) -> None:
        if not context.is_shutdown:
            raise RuntimeError(text)

    return OpaqueFunction(function=fail)


def record_command(output: str, topics: list[str]) -> list[str]:
    """`ros2 bag record` where it is installed, else ours."""
    if find_spec("ros2bag"):
        option = [] if os.environ.get("ROS_DISTRO") == "humble" else ["--topics"]  # which Humble has not, Lyrical needs
        return ["ros2", "bag", "record", "--use-sim-time", "--output", output, *option, *topics]
    return [sys.executable, "-m", "superpoint_ros.tools.playback.record_command", "--header-times", output, *topics]


def play_command(player: str, bag: str, rate: str) -> list[str]:
    """The player asked for, or `ros2 bag play` where it is installed, or ours."""
    if player:
        return [*shlex.split(player), bag]
    if find_spec("ros2bag"):
        return ["ros2", "bag", "play", bag, "--clock", "100", "--rate", rate, "--delay", "1"]
    return [sys.executable, "-m", "superpoint_ros.tools.cli", "play", bag, "--clock", "--rate", rate]
