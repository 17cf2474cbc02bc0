"""The command line `superpoint`. Commands are imported when they run, as torch takes seconds."""

from __future__ import annotations

import importlib

import click

from superpoint_ros.interrupts import ending_at_once

# name: (module, the command in it, help)
COMMANDS = {
    "bench": (
        "superpoint_ros.tools.bench.command",
        "bench_command",
        "Measure the engines, or the node, on this machine.",
    ),
    "demo": (
        "superpoint_ros.tools.demo.command",
        "demo_command",
        "Watch the node work, on photographs or your own bag.",
    ),
    "extract": (
        "superpoint_ros.tools.extract.command",
        "extract_command",
        "Run the node's work over bags, without ROS.",
    ),
    "match": (
        "superpoint_ros.tools.match_command",
        "match_command",
        "Draw the matches of two photographs.",
    ),
    "play": (
        "superpoint_ros.tools.playback.play_command",
        "play_command",
        "Publish a bag over DDS, as it was recorded.",
    ),
    "weights": (
        "superpoint_ros.tools.weights_command",
        "weights_command",
        "Look into weights files, and convert them.",
    ),
}


class LazyGroup(click.Group):
    """A group that imports the module of a command only to run it."""

    def list_commands(self, context: click.Context) -> list[str]:
        """Names, for help and completion."""
        return list(COMMANDS)

    def get_command(self, context: click.Context, name: str) -> click.Command | None:
        """The command itself."""
        if name not in COMMANDS:
            return None
        module, attribute, _ = COMMANDS[name]
        with ending_at_once():
            command: click.Command = getattr(importlib.import_module(module), attribute)
        return command

    def format_commands(self, context: click.Context, formatter: click.HelpFormatter) -> None:
        """The list of commands, from the table instead of from the commands."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, text) for name, (_, _, text) in COMMANDS.items()])

    def resolve_command(
        self, context: click.Context, arguments: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """As click's, but an unknown command is told what commands there are."""
        if arguments and arguments[0] not in COMMANDS and not arguments[0].startswith("-"):
            context.fail(f"no command '{arguments[0]}'; there are {', '.join(COMMANDS)}")
        return super().resolve_command(context, arguments)


@click.group(cls=LazyGroup)
def cli() -> None:
    """SuperPoint features for robots."""


def main(arguments: list[str] | None = None) -> int:
    """Run a command; its exit status: 0, 1 if it failed, 2 if it was called wrongly."""
    status: int | None = cli.main(arguments, prog_name="superpoint")
    return status or 0


if __name__ == "__main__":
    main()
