"""The node in a process of its own, with cameras and listeners in this one, for `bench --node`."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import click
from rclpy.node import Node
from rclpy.qos import QoSProfile, ReliabilityPolicy
from rclpy.time import Time
from sensor_msgs.msg import Image

from superpoint_ros.msg import Features
from superpoint_ros.tools.session import Timeout, private_domain, ros_session, wait_until

START = 120.0
"""Seconds for the node to come up, on a machine with other work."""


@dataclass(frozen=True)
class Extraction:
    """Begin and end in nanoseconds of the steady clock, and how many images it was of."""

    begin: int
    end: int
    images: int


@dataclass
class Listener:
    """What arrives on ~/features: when, in steady and in wall-clock nanoseconds, and the bytes."""

    arrivals: list[tuple[int, int, bytes]] = field(default_factory=list)

    def __call__(self, data: bytes) -> None:
        self.arrivals.append((time.monotonic_ns(), time.time_ns(), data))


class NodeUnderTest:
    """The node in its own process and domain; a camera and a listener for each of `names` here.

    names   of the cameras; one empty name is the node's default camera
    module  of `superpoint_ros.tools.bench`: what runs in the process
    """

    def __init__(
        self,
        device: str,
        engine: str,
        descriptor_type: str,
        names: tuple[str, ...] = ("",),
        module: str = "timed_node",
    ) -> None:
        parameters = {
            "device": device,
            "engine": engine,
            "descriptor_type": descriptor_type,
            # so that 1024 keypoints are found in any picture
            "detection_threshold": "0.0001",
        }
        if names != ("",):
            parameters["cameras"] = f"[{', '.join(names)}]"
        self._names = names
        self._folder = tempfile.TemporaryDirectory()
        self._clock = Path(self._folder.name, "clock.txt")
        self._log = Path(self._folder.name, "log.txt")
        self._domain = private_domain()
        whole = f"superpoint_ros.tools.bench.{module}"
        self._command = [sys.executable, "-m", whole, str(self._clock), "--ros-args"]
        for name, value in parameters.items():
            self._command += ["-p", f"{name}:={value}"]
        self.listeners = [Listener() for _ in names]

    @property
    def listener(self) -> Listener:
        """The first camera's."""
        return self.listeners[0]

    def __enter__(self) -> NodeUnderTest:
        environment = {
            **os.environ,
            "ROS_DOMAIN_ID": str(self._domain),
            "ROS_AUTOMATIC_DISCOVERY_RANGE": "LOCALHOST",
            "OMP_WAIT_POLICY": "PASSIVE",  # as the node's main has it, which here runs after torch is imported
        }
        os.environ["ROS_AUTOMATIC_DISCOVERY_RANGE"] = "LOCALHOST"
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                self._command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=environment
            )
        self._session = ros_session("bench", self._domain)
        ros: Node = self._session.__enter__()
        qos = QoSProfile(depth=1, reliability=ReliabilityPolicy.BEST_EFFORT)
        prefixes = [f"{name}/" if name else "" for name in self._names]
        self.cameras = [ros.create_publisher(Image, f"/{prefix}image", qos) for prefix in prefixes]
        outputs = [f"/superpoint/{prefix}features" for prefix in prefixes]
        for output, listener in zip(outputs, self.listeners, strict=True):
            ros.create_subscription(Features, output, listener, 10, raw=True)
        try:
            wait_until(
                lambda: (
                    all(camera.get_subscription_count() > 0 for camera in self.cameras)
                    and all(ros.count_publishers(output) > 0 for output in outputs)
                ),
                START,
                "node that listens",
                self.check,
            )
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *error: object) -> None:
        self._session.__exit__(None, None, None)
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGINT)
            try:
                self._process.wait(10)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
        self._folder.cleanup()

    def check(self) -> None:
        """Raise with the node's last words if it has ended."""
        if self._process.poll() is not None:
            words = self._log.read_text(errors="replace")[-1000:]
            raise click.ClickException(f"the node ended by itself; its last words:\n{words}")

    def extractions(self) -> list[Extraction]:
        """All so far; the first is a warm-up."""
        lines = [line.split() for line in self._clock.read_text(encoding="ascii").splitlines()]
        return [Extraction(*map(int, line)) for line in lines if len(line) == 3]

    def resident_mb(self) -> float:
        """Of the node's process; Linux only."""
        pages = int(Path(f"/proc/{self._process.pid}/statm").read_text().split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE") / 1e6

    def show(self, message: Image, camera: int = 0) -> int:
        """Publish an image stamped now; returns now, in nanoseconds of the steady clock."""
        message.header.stamp = Time(nanoseconds=time.time_ns()).to_msg()
        sent = time.monotonic_ns()
        self.cameras[camera].publish(message)
        return sent

    def wake(self, message: Image) -> None:
        """Show an image until features come: best effort loses what is sent before discovery is done."""
        for camera, listener in enumerate(self.listeners):
            deadline = time.monotonic() + 60
            while not listener.arrivals and time.monotonic() < deadline:
                self.show(message, camera)
                try:
                    wait_until(partial(bool, listener.arrivals), 3, "features", self.check)
                except Timeout:
                    continue
        self._settle()

    def _settle(self) -> None:
        """Wait until the node has nothing to do: what else was sent is on its way, too."""
        deadline, done = time.monotonic() + 60, -1
        while len(self.extractions()) > done and time.monotonic() < deadline:
            done = len(self.extractions())
            longest = max((one.end - one.begin for one in self.extractions()), default=0) / 1e9
            time.sleep(max(1.0, 3 * longest))
