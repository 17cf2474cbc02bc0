"""The node under test, in a process of its own."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

TAIL = 15
"""Lines of the log that an error quotes."""

PATIENCE = 10.0
"""Seconds that the node has to end after an interrupt."""


class NodeDied(RuntimeError):
    """The node's process ended by itself; the text has its exit status and the end of its log."""


class NodeProcess:
    """`python -m superpoint_ros.node`, running within a `with` block.

    remappings  name -> name
    parameters  name -> value; text, or true or false
    log         file that its output goes to
    """

    def __init__(
        self,
        remappings: Mapping[str, str],
        parameters: Mapping[str, str | bool],
        domain_id: int,
        log: Path,
    ) -> None:
        self._command = [sys.executable, "-m", "superpoint_ros.node", "--ros-args"]
        for name, target in remappings.items():
            self._command += ["-r", f"{name}:={target}"]
        for name, value in parameters.items():
            # YAML reads the value: quoted, a path that looks like a number stays a string
            self._command += ["-p", f"{name}:={json.dumps(value)}"]
        self._environment = {**os.environ, "ROS_DOMAIN_ID": str(domain_id)}
        self._log = log

    def __enter__(self) -> NodeProcess:
        with self._log.open("wb") as output:
            self._process = subprocess.Popen(
                self._command,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env=self._environment,
            )
        return self

    def __exit__(self, *error: object) -> None:
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGINT)
        try:
            self._process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def check(self) -> None:
        """Raise NodeDied if the process has ended."""
        status = self._process.poll()
        if status is not None:
            raise NodeDied(f"the node ended by itself with status {status}; its last words:\n{self.tail()}")

    def tail(self) -> str:
        """The last lines of its output."""
        lines = self._log.read_text(encoding="utf-8", errors="replace").splitlines()
        return "\n".join(f"  {line}" for line in lines[-TAIL:]) or "  (none)"
