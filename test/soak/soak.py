"""A node in its own process for minutes, over DDS at full rate, while everything that can go wrong does.

python -m soak.soak [--minutes 10] [--seed 0], `make soak`

It fails unless the node lives and logs no exception, every image that came in is answered or counted, nothing is
answered that is broken, all that is published is valid, a good image is answered after every fault, and neither threads
nor memory grow. Prints what was tried as a table.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from collections import Counter, defaultdict
from pathlib import Path

import numpy as np

os.environ.setdefault("ROS_AUTOMATIC_DISCOVERY_RANGE", "LOCALHOST")

from soak.actions import ACTIONS, Action
from soak.broken import BROKEN, BROKEN_COMPRESSED, EMPTY
from soak.checks import Failure
from soak.pictures import CAMERAS, World
from soak.rig import SoakRig
from superpoint_ros.tools.session import private_domain

BURST = 20
"""Images of each camera between a fault and the count, at 30 Hz; one in four is broken."""
LONG = 300.0
"""Seconds after which memory is no longer that of the first time that something is done."""
GROWTH = 30.0
"""MB by which memory may lie higher in the last quarter of the time than in the second."""


class Soak:
    """One run: a shuffled deck of all kinds of faults, again and again."""

    def __init__(self, rig: SoakRig, seed: int) -> None:
        self.rig = rig
        self.random = np.random.default_rng(seed)
        self.world = World(self.random)
        self.tried = rig.tried
        self.totals: Counter[str] = Counter()
        self.memory: list[tuple[float, float]] = []
        self.growth: defaultdict[str, float] = defaultdict(float)
        self.threads: list[int] = []
        self._broken: dict[bool, list[str]] = {False: [], True: []}

    def run(self, seconds: float) -> None:
        """Failure with a sentence if the node did what it must not do."""
        self.rig.probe(lambda: self.world.image(CAMERAS[0]))
        begin = time.monotonic()
        while time.monotonic() - begin < seconds:
            for index in self.random.permutation(len(ACTIONS)):
                if time.monotonic() - begin >= seconds:
                    break
                before = self.rig.memory()
                self.round(ACTIONS[index])
                self.memory.append((time.monotonic() - begin, self.rig.memory()))
                self.growth[ACTIONS[index].__name__.replace("_", " ")] += self.memory[-1][1] - before
                self.threads.append(self.rig.threads())
        if (failed := self.totals["frames_failed"] + self.totals["frames_incomplete"]) > 0:
            raise Failure(f"{failed} images are lost to errors, or a part of what comes of them")
        self._check_growth(seconds)

    def round(self, action: Action) -> None:
        """One fault, a burst of images, and the count; Failure if anything is wrong after it."""
        name = action.__name__.replace("_", " ")
        before = self._counts()
        try:
            action(self.rig, self.world, self.random)
            self._burst()
            self.rig.settle()
            self.rig.probe(lambda: self.world.image(CAMERAS[0]))
        except Failure as error:
            raise Failure(f"after '{name}': {error}") from None
        self.tried[name] += 1
        after = self._counts()
        for key, count in after.items():
            self.totals[key] += count - before[key] if count >= before[key] else count  # anew since `configure`

    def _burst(self) -> None:
        compressed = self.rig.compressed
        kinds, word = (BROKEN_COMPRESSED, "compressed image") if compressed else (BROKEN, "image")
        for _ in range(BURST):
            for camera in CAMERAS:
                if self.random.random() < 0.25:
                    deck = self._broken[compressed] = self._broken[compressed] or list(kinds)
                    kind = deck.pop(self.random.integers(len(deck)))
                    self.rig.images[camera].publish(kinds[kind]())
                    self.tried[f"{word}: {kind}"] += 1
                elif self.random.random() < 0.1:
                    kind = str(self.random.choice(list(EMPTY)))
                    self.rig.send(camera, EMPTY[kind]())
                    self.tried[f"{word}: {kind}"] += 1
                else:
                    self.rig.send(camera, self.world.image(camera))
            self.rig.spin(1 / 30)

    def _counts(self) -> dict[str, int]:
        keys = (
            "frames_in",
            "frames_out",
            "frames_dropped",
            "frames_bad",
            "frames_unmasked",
            "frames_failed",
            "frames_incomplete",
            "frames_lost",
        )
        return {key: self.rig.counts(key) for key in keys}

    def _check_growth(self, seconds: float) -> None:
        if seconds < LONG:
            return  # too short to tell
        second = [value for when, value in self.memory if seconds / 4 < when < seconds / 2]
        last = [value for when, value in self.memory if when > 3 * seconds / 4]
        if (grown := float(np.median(last) - np.median(second))) > GROWTH:
            raise Failure(f"memory grew by {grown:.0f} MB from the second quarter to the last")
        if max(self.threads[-len(ACTIONS) :]) > max(self.threads[: 2 * len(ACTIONS)]):
            raise Failure(f"threads grew: {self.threads}")

    def table(self) -> str:
        """What was tried and what came of it, in Markdown."""
        rows = ["| what | times |", "|---|---|"]
        rows += [f"| {name} | {count} |" for name, count in sorted(self.tried.items())]
        rows += [f"| {key.replace('_', ' ')} | {count} |" for key, count in self.totals.items()]
        rows += [f"| features checked | {self.rig.checked} |"]
        values = [value for _, value in self.memory]
        quarter = max(len(values) // 4, 1)
        rows += [
            f"| memory, median of each quarter, MB | "
            f"{', '.join(f'{np.median(values[i : i + quarter]):.0f}' for i in range(0, 4 * quarter, quarter))} |",
            f"| memory, by what it grew in, MB | "
            f"{', '.join(f'{name} {grown:.0f}' for name, grown in self.growth.items() if grown >= 1)} |",
            f"| threads, least and most | {min(self.threads)}, {max(self.threads)} |",
        ]
        return "\n".join(rows)


def main(arguments: list[str] | None = None) -> int:
    """The exit status: 1 for a failure, which is told."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args(arguments)
    domain = private_domain()
    with tempfile.TemporaryDirectory() as folder:
        rig = SoakRig(domain, Path(folder))
        soak = Soak(rig, given.seed)
        try:
            soak.run(60 * given.minutes)
            rig.stop()
            verdict = ""
        except Failure as error:
            verdict = str(error)
        finally:
            if soak.threads:
                print(soak.table())
            rig.close()
    print(f"\nFailed: {verdict}" if verdict else f"\nPassed: {given.minutes:g} minutes, seed {given.seed}.")
    return int(bool(verdict))


if __name__ == "__main__":
    sys.exit(main())
