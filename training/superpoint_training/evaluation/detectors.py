"""What is evaluated: weights, run by the package's own extractor, and OpenCV's detectors.

All answer with `Features`, so that matching, estimation and metrics are the same code for all. Two
maps make that possible without changing any order of neighbours: SIFT's descriptors are scaled to
unit length, and ORB's 256 bits become 256 times ±1/16, where the cosine similarity is exactly 1 − 2
· Hamming distance / 256.
"""

from __future__ import annotations

import hashlib
import os
import zlib
from collections.abc import Callable
from functools import partial
from typing import Any, Protocol

import cv2
import numpy as np
import torch
from numpy.typing import NDArray

from superpoint_ros.features.extractor import Extractor, Features
from superpoint_ros.network.checkpoint import Checkpoint, load_checkpoint
from superpoint_ros.network.engines.devices import choose_device
from superpoint_ros.network.engines.engine import pad_to_cells
from superpoint_ros.network.heatmap import DetectionSettings, detect, flat, heatmap_from_logits
from superpoint_ros.network.named_weights import find_weights
from superpoint_ros.network.superpoint import SuperPoint

Image = NDArray[np.uint8]

MANY = 100_000
"""More keypoints than a picture has; where the strongest are chosen after suppression."""


class Detector(Protocol):
    """Anything that finds keypoints.

    name         as it stands in the report
    described    whether its features have descriptors
    matched_nms  the suppression radius with which its features are meant to be matched; 0: it has
                 its own
    protocol     what the report says about how it was run
    """

    name: str
    described: bool
    matched_nms: int
    protocol: dict[str, Any]

    def __call__(self, image: Image, settings: DetectionSettings) -> Features:
        """Features of a grey image. `detection_threshold` and `subpixel` are for networks only."""
        ...


class SuperPointDetector:
    """Weights with descriptors, run as the node runs them."""

    described = True

    def __init__(
        self, weights: Checkpoint, device: str = "auto", matched_nms: int = 4, scales: tuple[float, ...] = (1.0,)
    ) -> None:
        self._extractor = Extractor(weights, device=device, scales=scales)
        self.name = self._extractor.weights_id
        self.descriptor_dim = self._extractor.descriptor_dim
        self.matched_nms = matched_nms
        self.protocol: dict[str, Any] = {
            "weights_id": self._extractor.weights_id,
            "device": self._extractor.device,
            "engine": self._extractor.engine,
            "scales": self._extractor.scales,
        }

    def __call__(self, image: Image, settings: DetectionSettings) -> Features:
        self._extractor.settings = settings
        return self._extractor(image)


class CrossedDetectors:
    """Two networks whose features are matched with each other's: a map made with one, a robot that runs the other.

    The first picture of a pair is the map's.
    """

    described = True

    def __init__(self, of_map: Detector, of_robot: Detector) -> None:
        self.of_map, self.of_robot = of_map, of_robot
        self.name = f"{of_robot.name} in a map of {of_map.name}"
        self.matched_nms = of_robot.matched_nms
        self.protocol: dict[str, Any] = {"first picture": of_map.protocol, "second picture": of_robot.protocol}

    def __call__(self, image: Image, settings: DetectionSettings) -> Features:
        """The robot's, for who has one picture only."""
        return self.of_robot(image, settings)


class HeatmapDetector:
    """The detector of a network alone: MagicPoint, or any network in training (in eval mode)."""

    described = False

    def __init__(self, name: str, model: SuperPoint, device: str = "auto", matched_nms: int = 4) -> None:
        self._device = choose_device(device)
        self._model = model.to(self._device)
        self.name = name
        self.matched_nms = matched_nms
        self.protocol: dict[str, Any] = {
            "weights_id": name,
            "device": str(self._device),
            "engine": "torch float32",
        }

    @torch.inference_mode()
    def __call__(self, image: Image, settings: DetectionSettings) -> Features:
        grey = torch.from_numpy(pad_to_cells(np.ascontiguousarray(image))).to(self._device)
        logits, _ = self._model(grey[None, None].float() / 255)
        heatmap = heatmap_from_logits(logits).masked_fill(flat(grey[None]), 0)
        found = detect(heatmap, torch.tensor([image.shape], device=self._device), settings)
        count = int(found.count[0])
        xy, scores = found.xy[0, :count].cpu().numpy(), found.scores[0, :count].cpu().numpy()
        return Features(xy, scores, np.zeros((count, 0), np.float32), (image.shape[0], image.shape[1]))


class ClassicDetector:
    """A detector of OpenCV.

    find  (image, count) -> Features in any order, at least the `count` best where there are as many
    """

    matched_nms = 0

    def __init__(self, name: str, find: Callable[[Image, int], Features], protocol: dict[str, Any]) -> None:
        self._find = find
        self.name = name
        self.described = "SIFT" in name or "ORB" in name
        self.protocol = protocol

    def __call__(self, image: Image, settings: DetectionSettings) -> Features:
        # With suppression, more are needed to choose from; without, the detector's own choice is
        # the fairest.
        found = self._find(image, MANY if settings.nms_radius else settings.max_keypoints)
        return choose(found, settings)


def superpoint_detector(
    weights: str | os.PathLike[str] | None,
    device: str = "auto",
    matched_nms: int = 4,
    scales: tuple[float, ...] = (1.0,),
) -> SuperPointDetector | HeatmapDetector:
    """The detector of a weights file or name; None is the package's default. One without descriptors has no scales.

    Raises FileNotFoundError or ValueError for a bad file, RuntimeError for a missing device.
    """
    path = find_weights(weights)
    detector = network_detector(load_checkpoint(path), device, matched_nms, scales)
    detector.protocol |= {
        "file": path.name,
        "sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
    }
    return detector


def network_detector(
    checkpoint: Checkpoint, device: str = "auto", matched_nms: int = 4, scales: tuple[float, ...] = (1.0,)
) -> SuperPointDetector | HeatmapDetector:
    """The detector of a network's weights, as `superpoint_detector`."""
    if checkpoint.architecture.descriptor_dim:
        return SuperPointDetector(checkpoint, device, matched_nms, scales)
    return HeatmapDetector(checkpoint.weights_id, checkpoint.build(), device, matched_nms)


def classic_detector(key: str) -> ClassicDetector:
    """One of `CLASSIC`, with OpenCV's parameters unless `protocol` says more; else ValueError."""
    if key not in CLASSIC:
        raise ValueError(f"unknown baseline {key!r}; expected some of {', '.join(CLASSIC)}")
    name, find, protocol = CLASSIC[key]
    return ClassicDetector(name, find, {"OpenCV": protocol})


def choose(found: Features, settings: DetectionSettings) -> Features:
    """Suppress, leave out the border, keep the strongest: the rule of the network's own keypoints.

    found  in any order. Points are suppressed by the pixels they round to; a radius of 0 keeps even
           equal points.
    """
    height, width = found.size
    order = np.argsort(-found.scores, kind="stable")
    xy, border = found.xy[order], settings.border
    inside = np.all((xy >= border - 0.5) & (xy < (width - border - 0.5, height - border - 0.5)), axis=1)
    if settings.nms_radius:
        kept = _suppress(xy, inside, found.size, settings)
    else:
        kept = np.flatnonzero(inside)[: settings.max_keypoints]
    return found.rows(order[kept])


def _suppress(
    xy: NDArray[np.float32],
    inside: NDArray[np.bool_],
    size: tuple[int, int],
    settings: DetectionSettings,
) -> NDArray[np.intp]:
    """Visit points best first, keep those that no kept one is near; in the border they don't count.

    The same as `network.heatmap.detect` on a picture of scores, but done as soon as enough are
    kept.
    """
    radius, kept = settings.nms_radius, list[int]()
    free = np.ones(size, bool)
    columns, rows = np.rint(xy).astype(int).clip(0, (size[1] - 1, size[0] - 1)).T.tolist()
    for index, (row, column, counts) in enumerate(zip(rows, columns, inside.tolist(), strict=True)):
        if not free[row, column]:
            continue
        top, left = max(row - radius, 0), max(column - radius, 0)
        free[top : row + radius + 1, left : column + radius + 1] = False
        if counts:
            kept.append(index)
            if len(kept) == settings.max_keypoints:
                break
    return np.array(kept, np.intp)


def _sift(image: Image, count: int, precise: bool = False) -> Features:
    options = {"enable_precise_upscale": True} if precise else {}
    sift = cv2.SIFT.create(nfeatures=count, **options)  # type: ignore[call-overload]
    keypoints, descriptors = sift.detectAndCompute(image, None)
    rows = np.zeros((0, 128)) if descriptors is None else np.asarray(descriptors)
    length = np.linalg.norm(rows, axis=1, keepdims=True)
    return _features(image, keypoints, rows / np.maximum(length, 1e-9))


def _orb(image: Image, count: int) -> Features:
    keypoints, descriptors = cv2.ORB.create(nfeatures=count).detectAndCompute(image, None)
    octets = np.zeros((0, 32), np.uint8) if descriptors is None else np.asarray(descriptors)
    bits = np.unpackbits(octets.astype(np.uint8), axis=1)
    return _features(image, keypoints, (bits.astype(np.float32) * 2 - 1) / 16)


def _fast(image: Image, count: int) -> Features:
    return _features(image, cv2.FastFeatureDetector.create().detect(image), None)


def _random(image: Image, count: int) -> Features:
    """Pixels drawn from all, with scores as random: what chance alone finds again. The same picture has the same."""
    rng = np.random.default_rng(zlib.crc32(image.tobytes()))
    pixels = rng.permutation(image.size)[:count]
    xy = np.stack(np.divmod(pixels, image.shape[1])[::-1], axis=1).astype(np.float32)
    empty = np.zeros((len(xy), 0), np.float32)
    return Features(xy, rng.random(len(xy), np.float32), empty, (image.shape[0], image.shape[1]))


def _harris(image: Image, count: int) -> Features:
    return _peaks(image, cv2.cornerHarris(image, 3, 3, 0.04))


def _shi_tomasi(image: Image, count: int) -> Features:
    return _peaks(image, cv2.cornerMinEigenVal(image, 3, ksize=3))


CLASSIC: dict[str, tuple[str, Callable[[Image, int], Features], str]] = {
    "sift": ("SIFT", _sift, "SIFT"),
    # OpenCV's default puts every point a quarter of a pixel to the lower right, which costs a
    # turned pair half a pixel.
    "sift-precise": ("SIFT precise", partial(_sift, precise=True), "SIFT, enable_precise_upscale"),
    "orb": ("ORB", _orb, "ORB"),
    "harris": (
        "Harris",
        _harris,
        "cornerHarris, blockSize 3, ksize 3, k 0.04, local maxima of 3×3",
    ),
    "shi-tomasi": (
        "Shi-Tomasi",
        _shi_tomasi,
        "cornerMinEigenVal, blockSize 3, ksize 3, local maxima of 3×3",
    ),
    "fast": ("FAST", _fast, "FastFeatureDetector"),
    "random": ("random", _random, "none: pixels and scores drawn at random"),
}
if tuple(int(part) for part in cv2.__version__.split(".")[:2]) < (4, 8):
    del CLASSIC["sift-precise"]  # the option came with OpenCV 4.8; Ubuntu 22.04 has 4.5


def _features(image: Image, keypoints: Any, descriptors: NDArray[Any] | None) -> Features:
    xy = np.array([keypoint.pt for keypoint in keypoints], np.float32).reshape(-1, 2)
    scores = np.array([keypoint.response for keypoint in keypoints], np.float32)
    rows = np.zeros((len(xy), 0)) if descriptors is None else descriptors
    return Features(xy, scores, rows.astype(np.float32), (image.shape[0], image.shape[1]))


def _peaks(image: Image, response: NDArray[Any]) -> Features:
    local_maximum = response == cv2.dilate(response, np.ones((3, 3), np.uint8))
    row, column = np.nonzero(local_maximum & (response > 0))
    xy = np.column_stack([column, row]).astype(np.float32)
    empty = np.zeros((len(xy), 0), np.float32)
    return Features(xy, response[row, column], empty, (image.shape[0], image.shape[1]))
