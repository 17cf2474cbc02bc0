"""What the report says of how an evaluation was done: everything that somebody needs to get the same figures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import cv2
import numpy as np
import torch

from superpoint_ros.features.colmap import pycolmap
from superpoint_training.evaluation.benchmark import PairProtocol
from superpoint_training.evaluation.corners import CornerProtocol
from superpoint_training.evaluation.detectors import Detector
from superpoint_training.evaluation.request import Request
from superpoint_training.evaluation.warps import KINDS


def describe(
    request: Request,
    detectors: Sequence[Detector],
    sets: Mapping[str, tuple[PairProtocol, int]],
    corner_protocol: CornerProtocol,
) -> dict[str, Any]:
    """The protocol of a request.

    sets  name -> how the set of pairs is evaluated, and how many pairs it has

    Raises RuntimeError where maps are asked for and pycolmap is absent.
    """
    protocol: dict[str, Any] = {
        "seed": request.seed,
        "detectors": {
            detector.name: detector.protocol | {"nms_for_matching": detector.matched_nms} for detector in detectors
        },
        "pairs": request.protocol.describe(),
        "sets": {which: _described_set(*each) for which, each in sets.items()},
        "versions": {
            "superpoint_ros": _version(),
            "torch": torch.__version__,
            "opencv": cv2.__version__,
            "numpy": np.__version__,
        },
    }
    if request.hpatches:
        protocol["hpatches"] = {"directory": str(request.hpatches), "all_pairs": request.all_pairs}
    if request.pose:
        protocol["pose"] = {
            "directory": str(request.pose),
            "threshold": request.pose_threshold,
            "estimator": "OpenCV USAC MAGSAC++, then least squares weighted by the keypoints' scales",
        }
    if request.colmap:
        protocol["maps"] = {"directory": str(request.colmap), "pycolmap": pycolmap().__version__}
    if request.photos:
        protocol["photos"] = {
            "directory": str(request.photos),
            "list": request.names and str(request.names),
        }
    if "warped" in sets:
        ranges = {}
        for kind in request.kinds:
            motion, light = KINDS[kind]
            ranges[kind] = {"motion": asdict(motion), "light": asdict(light)}
        protocol["warped"] = {
            "kinds": ranges,
            "light_of": "the second view",
            "outside": "reflected",
        }
    if request.shapes:
        protocol["shapes"] = corner_protocol.describe()
    return protocol


def _version() -> str:
    try:
        return version("superpoint_ros")
    except PackageNotFoundError:  # run from a checkout that is not installed
        return "unknown"


def _described_set(protocol: PairProtocol, pairs: int) -> dict[str, Any]:
    names = ("size", "keypoints", "repeatability_nms")
    return {"pairs": pairs, **{name: getattr(protocol, name) for name in names}}
