"""What `superpoint extract` does, and what it costs, beside the network."""

from __future__ import annotations

import time
from collections import Counter

import numpy as np

from bag_samples import SECOND, image_bytes
from superpoint_ros.bags.content import IMAGE
from superpoint_ros.features.extractor import Features
from superpoint_ros.frontend import tracker
from superpoint_ros.frontend.parameters import Parameters
from superpoint_ros.tools.extract import input as extract_input
from superpoint_ros.tools.extract.bag import extract_bag
from superpoint_ros.tools.extract.task import Task

EXTRACTION = 0.02


class Steady:
    """An extractor that always takes as long, and leaves the processor to the others as one on a GPU does."""

    device, engine, weights_id = "cpu", "steady", "steady"

    def __init__(self):
        self.images = 0
        random = np.random.default_rng(0)
        descriptors = random.standard_normal((200, 256)).astype(np.float32)
        self._descriptors = descriptors / np.linalg.norm(descriptors, axis=1, keepdims=True)
        self._xy = (random.random((200, 2)) * (639, 479)).astype(np.float32)

    def batch(self, images, masks=None):
        time.sleep(EXTRACTION * len(images))
        self.images += len(images)
        return [Features(self._xy, np.ones(200, np.float32), self._descriptors, image.shape) for image in images]


def test_each_frame_is_decoded_extracted_and_matched_once(make_bag, tmp_path, monkeypatch, capsys):
    """And what it takes beside extraction is printed, not judged: that depends on who else uses the machine."""
    done = Counter()

    def counting(module, name):
        original = getattr(module, name)

        def count(*arguments, **options):
            done[name] += 1
            return original(*arguments, **options)

        monkeypatch.setattr(module, name, count)

    counting(extract_input, "grey_picture")
    counting(tracker, "estimate_homography")
    picture = image_bytes(SECOND, np.random.default_rng(0).integers(0, 256, (480, 640), np.uint8))
    seconds = {}
    for count in (10, 110):
        messages = [("/image", SECOND + number, picture) for number in range(count)]
        bag = make_bag(f"bag{count}", {"/image": IMAGE}, messages)
        extractor = Steady()
        done.clear()
        report = extract_bag(Task(bag, tmp_path / f"out{count}", (), Parameters()), extractor, lambda number: None)
        assert report.frames == count and not report.problems
        assert (done, extractor.images) == ({"grey_picture": count, "estimate_homography": count - 1}, count)
        seconds[count] = report.seconds - report.extracting
    each = 1e3 * (seconds[110] - seconds[10]) / 100
    with capsys.disabled():
        print(f"\nsuperpoint extract: {each:.2f} ms a frame beside extraction, {1e3 * seconds[10]:.0f} ms a bag")
