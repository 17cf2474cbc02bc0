"""What `superpoint extract` costs beside the network."""

from __future__ import annotations

import time

import numpy as np

from bag_samples import SECOND, image_bytes
from superpoint_ros.bags.content import IMAGE
from superpoint_ros.features.extractor import Features
from superpoint_ros.frontend.parameters import Parameters
from superpoint_ros.tools.extract.bag import extract_bag
from superpoint_ros.tools.extract.task import Task

EXTRACTION = 0.02


class Steady:
    """An extractor that always takes as long, and leaves the processor to the others as one on a GPU does."""

    device, engine, weights_id = "cpu", "steady", "steady"

    def __init__(self):
        random = np.random.default_rng(0)
        descriptors = random.standard_normal((200, 256)).astype(np.float32)
        self._descriptors = descriptors / np.linalg.norm(descriptors, axis=1, keepdims=True)
        self._xy = (random.random((200, 2)) * (639, 479)).astype(np.float32)

    def batch(self, images, masks=None):
        time.sleep(EXTRACTION * len(images))
        return [Features(self._xy, np.ones(200, np.float32), self._descriptors, image.shape) for image in images]


def test_reading_matching_and_writing_cost_less_than_a_millisecond_a_frame(make_bag, tmp_path, capsys):
    picture = image_bytes(SECOND, np.random.default_rng(0).integers(0, 256, (480, 640), np.uint8))
    seconds = {}
    for count in (10, 110):
        messages = [("/image", SECOND + number, picture) for number in range(count)]
        bag = make_bag(f"bag{count}", {"/image": IMAGE}, messages)
        for attempt in range(2):  # others use this machine, too
            task = Task(bag, tmp_path / f"out{count}_{attempt}", (), Parameters())
            report = extract_bag(task, Steady(), lambda number: None)
            assert report.frames == count and not report.problems
            beside = report.seconds - report.extracting
            seconds[count] = min(beside, seconds.get(count, beside))
    each = 1e3 * (seconds[110] - seconds[10]) / 100
    with capsys.disabled():
        print(f"\nsuperpoint extract: {each:.2f} ms a frame beside extraction, {1e3 * seconds[10]:.0f} ms a bag")
    assert each < 1.0
