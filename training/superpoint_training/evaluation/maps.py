"""Maps that COLMAP makes of a folder of pictures, with each detector's keypoints and with its own SIFT.

Every two pictures are matched: COLMAP's exhaustive matcher for its SIFT, mutual nearest neighbours for the others;
then geometric verification and the incremental mapper, the same for all. Needs pycolmap.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from itertools import combinations
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from superpoint_ros.features.colmap import DATABASE, PICTURES, Database, camera_model, pycolmap
from superpoint_ros.features.matching import match
from superpoint_ros.features.rectification import Calibration
from superpoint_ros.network.heatmap import DetectionSettings
from superpoint_training.evaluation.detectors import CrossedDetectors, Detector
from superpoint_training.evaluation.pose import LIST, pose_pairs
from superpoint_training.evaluation.warps import list_photographs
from superpoint_training.pictures import read_picture

OWN = "COLMAP's SIFT"
FEWEST = 3
"""Pictures of a folder, without which a map is none."""


@dataclass(frozen=True)
class MapResult:
    """The largest map of a folder's pictures.

    registered  of the pictures, those that have a pose
    points      in space
    track       pictures that see a point, mean
    error       pixels, mean reprojection error
    """

    detector: str
    pictures: int
    registered: int
    points: int
    track: float
    error: float


def evaluate_maps(
    detectors: Sequence[Detector],
    folder: Path,
    settings: Callable[[int], DetectionSettings],
    advance: Callable[[], object] = lambda: None,
) -> list[MapResult]:
    """Map the pictures of a folder with every detector that has descriptors, and with COLMAP's SIFT.

    settings  by suppression radius; COLMAP's SIFT has as many keypoints at most

    Cameras are those of `pairs_with_gt.txt` where the folder has one, else COLMAP finds them out. Raises ValueError for
    a folder of too few pictures, RuntimeError without pycolmap.
    """
    colmap = pycolmap()
    paths = list_photographs(folder)
    if len(paths) < FEWEST:
        raise ValueError(f"{folder}: {len(paths)} pictures; a map needs {FEWEST} at least")
    pictures, cameras = [read_picture(path) for path in paths], _cameras(folder)
    lenses = [_calibration(cameras.get(path), picture) for path, picture in zip(paths, pictures, strict=True)]
    results = []
    with tempfile.TemporaryDirectory() as temporary:
        shown = Path(temporary) / PICTURES
        shown.mkdir()
        names = [f"{number:06}.png" for number in range(len(pictures))]
        for name, picture in zip(names, pictures, strict=True):
            cv2.imwrite(str(shown / name), picture)
        for number, detector in enumerate(detectors):
            if detector.described and not isinstance(detector, CrossedDetectors):
                place = Path(temporary) / str(number)
                found = [detector(picture, settings(detector.matched_nms)) for picture in pictures]
                with Database(place) as database:
                    ids = _written(database, lenses, names, found)
                    for (i, one), (j, other) in combinations(zip(ids, found, strict=True), 2):
                        database.add_matches(i, j, match(one, other))
                    database.verify()
                results.append(_mapped(detector.name, colmap, place, shown, len(pictures)))
                advance()
        place = Path(temporary) / "own"
        place.mkdir()
        _own_features(colmap, place / DATABASE, shown, lenses, settings(0).max_keypoints)
        results.append(_mapped(OWN, colmap, place, shown, len(pictures)))
        advance()
    return results


def summarise_maps(results: Sequence[MapResult]) -> dict[str, dict[str, Any]]:
    """By detector."""
    return {each.detector: {key: value for key, value in asdict(each).items() if key != "detector"} for each in results}


def _cameras(folder: Path) -> dict[Path, NDArray[np.float64]]:
    if not (folder / LIST).is_file():
        return {}
    pairs = pose_pairs(folder)
    return {path: k for pair in pairs for path, k in zip(pair.paths, pair.cameras, strict=True)}


def _calibration(
    k: NDArray[np.float64] | None, picture: NDArray[np.uint8]
) -> tuple[Calibration | None, tuple[int, int]]:
    size = (picture.shape[0], picture.shape[1])
    if k is None:
        return None, size
    return Calibration("plumb_bob", k, np.zeros(0), np.eye(3), k, (1, 1), (0, 0), size), size


def _written(database: Database, lenses: Sequence[Any], names: Sequence[str], found: Sequence[Any]) -> list[int]:
    known: dict[str, int] = {}
    ids = []
    for (lens, size), name, features in zip(lenses, names, found, strict=True):
        key = repr(camera_model(lens, size)) + repr(size)
        if key not in known:
            known[key] = database.add_camera(lens, size)
        ids.append(database.add_picture(name, known[key], features))
    return ids


def _own_features(colmap: Any, database: Path, shown: Path, lenses: Sequence[Any], keypoints: int) -> None:
    """One camera for all pictures if all have the same, else one each, whose lens COLMAP finds out."""
    reader = colmap.ImageReaderOptions()
    model, parameters = camera_model(*lenses[0])
    same = all(camera_model(*each) == (model, parameters) for each in lenses)
    reader.camera_model = model
    if same and lenses[0][0] is not None:
        reader.camera_params = ",".join(str(value) for value in parameters)
    options = colmap.FeatureExtractionOptions()
    options.sift.max_num_features = keypoints
    mode = colmap.CameraMode.SINGLE if same else colmap.CameraMode.PER_IMAGE
    colmap.extract_features(database, shown, camera_mode=mode, reader_options=reader, extraction_options=options)
    colmap.match_exhaustive(database)


def _mapped(name: str, colmap: Any, place: Path, shown: Path, pictures: int) -> MapResult:
    out = place / "sparse"
    out.mkdir()
    colmap.set_random_seed(0)
    maps = colmap.incremental_mapping(place / DATABASE, shown, out).values()
    if not maps:
        return MapResult(name, pictures, 0, 0, np.nan, np.nan)
    best = max(maps, key=lambda each: each.num_reg_images())
    return MapResult(
        name,
        pictures,
        best.num_reg_images(),
        best.num_points3D(),
        best.compute_mean_track_length(),
        best.compute_mean_reprojection_error(),
    )
