"""Made-up features of a moving camera, for whatever is drawn of them."""

import numpy as np

from superpoint_ros.features.extractor import Features
from superpoint_ros.frontend.tracker import Tracker

SIZE = (240, 320)


def scene(shift=(0.0, 0.0), wrong=0):
    """Thirty points moved by `shift`; the first `wrong` of them elsewhere."""
    rng = np.random.default_rng(1)
    xy = rng.uniform((60, 80), (300, 220), (30, 2)).astype(np.float32) + np.float32(shift)
    xy[:wrong] = np.stack([np.linspace(200, 280, wrong), np.full(wrong, 60)], axis=1)
    descriptors = rng.normal(size=(30, 16)).astype(np.float32)
    descriptors /= np.linalg.norm(descriptors, axis=1, keepdims=True)
    return Features(xy, np.linspace(0.9, 0.006, 30, dtype=np.float32), descriptors, SIZE)


def motion_of(*frames, **options):
    tracker = Tracker()
    for stamp, features in enumerate(frames):
        motion = tracker.advance(stamp * 10**9, features, 3.0, **options)
    return motion
