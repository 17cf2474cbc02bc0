"""A node with two cameras in a process of its own, publishers and checks of everything that it answers."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import rclpy
from diagnostic_msgs.msg import DiagnosticArray
from rclpy.executors import SingleThreadedExecutor
from rclpy.qos import DurabilityPolicy, QoSProfile
from sensor_msgs.msg import CameraInfo, CompressedImage, Image

from soak.checks import Failure, check_features, check_homography, check_mask, check_matches
from soak.pictures import CAMERAS, CODECS, Mask, compressed
from superpoint_ros.msg import FeatureMatches, Features, HomographyStamped

DEADLINE = 120.0
"""Seconds: a machine may be busy, but a node that has not answered by then never will."""
ACCOUNTED = (
    "frames_out",
    "frames_dropped",
    "frames_skipped",
    "frames_bad",
    "frames_failed",
    "frames_unmatched",
    "frames_unmasked",
)
LATCHED = QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL)
PARAMETERS = ("cameras:=[left, right]", "rectify:=true", "tracks:=true", "resize:=160", "device:=cpu")


@dataclass(frozen=True)
class Sent:
    """What is known of an image that was published.

    size   (height, width)
    masks  of those published for the configuration that it is for, the ones that may be in use: of one list for all
           its images; None if it is without masks
    """

    size: tuple[int, int]
    masks: list[Mask] | None


class SoakRig:
    """The node under test, and its two cameras.

    folder  for its log
    """

    def __init__(self, domain: int, folder: Path) -> None:
        self.log = folder / "node.txt"
        environment = {**os.environ, "ROS_DOMAIN_ID": str(domain), "RCUTILS_LOGGING_USE_STDOUT": "1"}
        environment["OMP_NUM_THREADS"] = "1"
        arguments = [word for each in PARAMETERS for word in ("-p", each)]
        with self.log.open("wb") as file:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "superpoint_ros.node", "--ros-args", *arguments],
                stdout=file,
                stderr=subprocess.STDOUT,
                env=environment,
            )
        self.context = rclpy.Context()
        rclpy.init(context=self.context, domain_id=domain)
        self.client = rclpy.create_node("soak", context=self.context)
        self.executor = SingleThreadedExecutor(context=self.context)
        self.executor.add_node(self.client)
        self.sent: dict[str, dict[int, Sent]] = {name: {} for name in CAMERAS}
        self.answered: dict[str, set[int]] = {name: set() for name in CAMERAS}
        self.statuses: dict[str, Any] = {}
        self.tried: Counter[str] = Counter()
        self.reports = self.reported = self.checked = 0
        self.stamp = 1000
        self.compressed = self.masked = False
        self.masks: dict[str, Any] = {}
        self.in_use: dict[str, list[Mask]] = {name: [] for name in CAMERAS}
        self.images: dict[str, Any] = {}
        self.infos = {name: self.client.create_publisher(CameraInfo, f"/{name}/camera_info", 5) for name in CAMERAS}
        self.subscriptions: dict[str, list[Any]] = {}
        for name in CAMERAS:
            self.renew(name, QoSProfile(depth=1))
            self.listen(name)
        self.client.create_subscription(DiagnosticArray, "/diagnostics", self._on_diagnostics, 10)

    # What goes in

    def renew(self, camera: str, profile: QoSProfile) -> None:
        """Another publisher of that camera's images, in place of the one before."""
        if camera in self.images:
            self.client.destroy_publisher(self.images[camera])
        kind, below = (CompressedImage, "/compressed") if self.compressed else (Image, "")
        self.images[camera] = self.client.create_publisher(kind, f"/{camera}/image{below}", profile)

    def expect(self, compressed: bool, masked: bool) -> None:
        """The node is about to be configured for such images, with masks or without: there are none yet."""
        self.compressed, self.masked = compressed, masked
        for name in CAMERAS:
            self.renew(name, QoSProfile(depth=1))
            self.in_use[name] = []
            if name in self.masks:
                self.client.destroy_publisher(self.masks.pop(name))

    def mask(self, camera: str, mask: Mask, encoding: str) -> None:
        """Publish a mask for that camera's images, for those who come later, too."""
        if camera not in self.masks:
            self.masks[camera] = self.client.create_publisher(Image, f"/{camera}/mask", LATCHED)
        self.in_use[camera].append(mask)
        self.masks[camera].publish(mask.message(encoding))

    def refused_mask(self, camera: str, message: Any) -> None:
        """Publish a mask that cannot be decoded, and wait until it is counted."""
        self.report()
        before = self.count(camera, "masks_bad")
        self.masks[camera].publish(message)
        self.until(lambda: self.count(camera, "masks_bad") > before, f"the mask of camera {camera} to be counted")

    def send(self, camera: str, message: Any) -> None:
        """Publish a good image under a new stamp, as the node is configured: compressed by each codec in turn."""
        self.stamp += 1
        message.header.stamp.sec, message.header.stamp.nanosec = divmod(self.stamp * 50_000_000, 10**9)
        message.header.frame_id = camera
        masks = self.in_use[camera] if self.masked else None
        self.sent[camera][self.stamp * 50_000_000] = Sent((message.height, message.width), masks)
        if self.compressed:
            message = compressed(message, CODECS[len(self.sent[camera]) % len(CODECS)])
        self.images[camera].publish(message)

    def spin(self, seconds: float) -> None:
        """Let callbacks run."""
        end = time.monotonic() + seconds
        while (left := end - time.monotonic()) > 0:
            self.executor.spin_once(timeout_sec=left)
        self._alive()

    def until(self, condition: Callable[[], bool], what: str, again: Callable[[], None] = lambda: None) -> None:
        """Let callbacks run until the condition holds, doing `again` every second; Failure after the deadline."""
        end, next_time = time.monotonic() + DEADLINE, 0.0
        while not condition():
            now = time.monotonic()
            if now > end:
                raise Failure(f"waited {DEADLINE:.0f} s for {what}")
            if now > next_time:
                again()
                next_time = now + 1.0
            self.executor.spin_once(timeout_sec=0.05)
            self._alive()

    # What comes out

    def listen(self, camera: str) -> None:
        """Subscribe to all that is checked of a camera."""
        deep, prefix = QoSProfile(depth=500), f"/superpoint/{camera}"
        self.subscriptions[camera] = [
            self.client.create_subscription(Features, f"{prefix}/features", self._checker(camera), deep),
            self.client.create_subscription(FeatureMatches, f"{prefix}/matches", check_matches, deep),
            self.client.create_subscription(HomographyStamped, f"{prefix}/homography", check_homography, deep),
        ]

    def ignore(self, camera: str) -> None:
        """Unsubscribe from it."""
        for subscription in self.subscriptions.pop(camera):
            self.client.destroy_subscription(subscription)

    def probe(self, make: Callable[[], Any]) -> None:
        """Every camera answers a good image: the first may be lost while the two find each other."""
        for name in CAMERAS:
            before = len(self.answered[name])
            self.until(
                lambda name=name, before=before: len(self.answered[name]) > before,
                f"an answer of camera {name}",
                again=lambda name=name: self.send(name, make()),
            )

    def settle(self) -> None:
        """Every image that came in is answered, or counted among those that were not."""
        before = self.reports

        def balanced() -> bool:
            if self.reports < before + 2:
                return False  # counted before the last image came in
            return all(self._balanced(name) for name in CAMERAS)

        try:
            self.until(balanced, "the counters to add up")
        except Failure as error:
            raise Failure(f"{error}: {self.statuses}") from None

    def report(self) -> None:
        """Wait for diagnostics that the node makes from now on."""
        now = self.client.get_clock().now().nanoseconds
        self.until(lambda: self.reported > now, "diagnostics")

    def count(self, camera: str, key: str) -> int:
        """As the diagnostics have it."""
        return int(self.statuses[camera][key]) if camera in self.statuses else 0

    def counts(self, key: str) -> int:
        """Of both cameras."""
        return sum(self.count(name, key) for name in CAMERAS)

    def memory(self) -> float:
        """Resident, MB."""
        return self._proc("VmRSS") / 1024

    def threads(self) -> int:
        """Of the node's process."""
        return self._proc("Threads")

    def stop(self) -> None:
        """End the node; Failure unless it does so cleanly, and has logged no exception."""
        self.process.send_signal(signal.SIGINT)
        try:
            status = self.process.wait(DEADLINE)
        except subprocess.TimeoutExpired:
            raise Failure("the node does not end") from None
        log = self.log.read_text(errors="replace")
        for word in ("Traceback", "is lost to", "An error in", "Error: "):
            if word in log:
                raise Failure(f"'{word}' in the log: {log[max(0, log.index(word) - 300) :][:1500]}")
        if status:
            raise Failure(f"the node ended with status {status}: {log[-1500:]}")

    def close(self) -> None:
        """Free everything, the node too."""
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        self.executor.shutdown()
        self.client.destroy_node()
        self.context.try_shutdown()

    def _balanced(self, camera: str) -> bool:
        """Whether every image of it that came in has been answered or counted."""
        accounted = sum(self.count(camera, key) for key in ACCOUNTED)
        return camera in self.statuses and self.count(camera, "frames_in") == accounted

    def _alive(self) -> None:
        if self.process.poll() is not None:
            raise Failure(f"the node is dead: {self.log.read_text(errors='replace')[-2000:]}")

    def _proc(self, key: str) -> int:
        lines = Path(f"/proc/{self.process.pid}/status").read_text().splitlines()
        return int(next(line.split()[1] for line in lines if line.startswith(f"{key}:")))

    def _on_diagnostics(self, message: DiagnosticArray) -> None:
        self.reports += 1
        self.reported = message.header.stamp.sec * 10**9 + message.header.stamp.nanosec
        for status in message.status:
            camera = status.name.split(": ")[-1].split("/")[0]
            if camera in CAMERAS:
                self.statuses[camera] = {pair.key: pair.value for pair in status.values}

    def _checker(self, camera: str) -> Callable[[Features], None]:
        def check(message: Features) -> None:
            stamp = message.header.stamp.sec * 10**9 + message.header.stamp.nanosec
            if stamp not in self.sent[camera] or message.header.frame_id != camera:
                raise Failure(f"{camera}: features of an image that was never sent, or is broken: {message.header}")
            sent = self.sent[camera][stamp]
            if sent.size != (message.height, message.width):
                raise Failure(f"{camera}: features of another size than the image's")
            if sent.masks is not None:
                check_mask(message, sent.masks)
            if stamp in self.answered[camera]:
                raise Failure(f"{camera}: an image is answered twice")
            check_features(message)
            self.answered[camera].add(stamp)
            self.checked += 1

        return check
