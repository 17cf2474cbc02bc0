"""With a clock that stands still but for what the extractors say they take."""

from __future__ import annotations

import numpy as np
import pytest

from superpoint_ros.frontend import advice
from superpoint_ros.frontend.advice import WINDOW, Advice

PICTURE = np.zeros((480, 640), np.uint8)
DEFAULT_SECONDS, FAST_SECONDS = 0.19, 0.04
OTHER = 0.01
"""Seconds for a picture beside its extraction."""


class Timed:
    """An extractor that takes a time in proportion to its pixels."""

    settings, scales = object(), (1.0,)
    engine = "ncnn float32"

    def __init__(self, robot, seconds=DEFAULT_SECONDS, device="cpu"):
        self.robot, self.seconds, self.device, self.resize = robot, seconds, device, None

    def __call__(self, picture):
        share = 1 if self.resize is None else (self.resize / max(picture.shape)) ** 2
        self.robot.clock += share * self.seconds
        self.robot.extracted.append((self.seconds, self.resize))


class Robot:
    """A camera of 30 Hz and a worker that takes 0.2 s a picture."""

    def __init__(self, weights="", device="cpu", drops=5 / 6):
        self.clock, self.images, self.dropped, self.drops, self.extracted = 0.0, 0, 0, drops, []
        self.extractor = Timed(self, device=device)
        self.advice = Advice(weights, lambda: (self.images, self.dropped), lambda: self.clock)

    def run(self, seconds):
        """What is said meanwhile."""
        said = []
        for _ in range(round(5 * seconds)):
            self.clock += 0.2
            self.images += 6
            self.dropped += round(6 * self.drops)
            said.append(self.advice.after(self.extractor, PICTURE, DEFAULT_SECONDS + OTHER, DEFAULT_SECONDS))
        return [sentence for sentence in said if sentence]


@pytest.fixture
def robot(monkeypatch):
    """A robot that has the fast weights, and counts how often they are loaded."""
    robot, robot.loaded = Robot(), []

    def load(*arguments):
        robot.loaded.append(arguments)
        return Timed(robot, FAST_SECONDS)

    monkeypatch.setattr(advice, "Extractor", load)
    return robot


def test_a_cpu_that_is_too_slow_is_told_once_what_would_help_by_how_much(robot):
    assert robot.run(3 * WINDOW) == []
    assert robot.run(10 * WINDOW) == [
        "Of 30 images a second 5.0 are extracted: the CPU is slower than the camera. By what was measured just now "
        "it would extract 20 a second with `weights: fast`, 17 with `resize: 320`, 50 with both."
    ]
    assert robot.loaded == [("fast", "cpu", "ncnn")]


def test_measuring_takes_no_more_than_the_time_of_three_pictures(robot):
    robot.run(5 * WINDOW)
    assert robot.extracted == [(FAST_SECONDS, None)] * 3 + [(DEFAULT_SECONDS, 320)] * 3 + [(FAST_SECONDS, 320)] * 3
    assert sum(seconds * (0.25 if resize else 1) for seconds, resize in robot.extracted) < 3 * DEFAULT_SECONDS
    assert robot.extractor.resize is None, "the node's own extractor is left as it was"


def test_a_cpu_that_keeps_up_is_told_nothing(robot):
    robot.drops = 1 / 6
    assert robot.run(10 * WINDOW) == []
    assert robot.extracted == []


def test_a_gpu_is_told_nothing(robot):
    robot.extractor.device = "cuda:0"
    assert robot.run(10 * WINDOW) == []
    assert robot.extracted == []


def test_drops_that_pass_are_no_reason(robot):
    for _ in range(5):
        robot.drops = 5 / 6
        robot.run(1.2 * WINDOW)
        robot.drops = 0
        robot.run(2.8 * WINDOW)
    assert robot.extracted == []


@pytest.mark.parametrize("weights", ["fast", "/home/me/mine.safetensors"])
def test_with_other_weights_than_the_default_ones_only_a_smaller_size_is_offered(weights):
    [sentence] = Robot(weights).run(4 * WINDOW)
    assert sentence.endswith("it would extract 17 a second with `resize: 320`.")


def test_weights_that_do_not_load_are_not_offered(monkeypatch):
    def fail(*arguments):
        raise RuntimeError("engine 'ncnn' needs the package ncnn")

    monkeypatch.setattr(advice, "Extractor", fail)
    [sentence] = Robot().run(4 * WINDOW)
    assert sentence.endswith("it would extract 17 a second with `resize: 320`.")


def test_nothing_is_said_where_nothing_would_help():
    robot = Robot("fast")
    robot.extractor.resize = 300
    assert robot.run(4 * WINDOW) == []
