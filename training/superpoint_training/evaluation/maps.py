"""Maps that COLMAP makes of a folder of pictures, with each detector's keypoints and with its own SIFT.

Every two pictures are matched: COLMAP's exhaustive matcher for its SIFT, mutual nearest neighbours for the others,
whose keypoints may then be adjusted; then geometric verification and the incremental mapper, the same for all.
Needs pycolmap.
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

from superpoint_ros.features.adjustment import adjust_keypoints
from superpoint_ros.features.colmap import DATABASE, PICTURES, Database, camera_model, pycolmap
from superpoint_ros.features.levels import levels_for
from superpoint_ros.features.matching import match
from superpoint_ros.features.rectification import Calibration
from superpoint_ros.network.heatmap import DetectionSettings
from superpoint_training.evaluation.detectors import CrossedDetectors, Detector
from superpoint_training.evaluation.pose import LIST, PosePair, pose_errors, pose_pairs
from superpoint_training.evaluation.warps import list_photographs
from superpoint_training.pictures import BadPicture, read_picture

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
    rotation, translation  degrees, medians over the pairs whose relative pose is known, by which it and the
                direction of its translation are off; NaN without such a pair
    """

    detector: str
    pictures: int
    registered: int
    points: int
    track: float
    error: float
    rotation: float = np.nan
    translation: float = np.nan


def scene(folder: Path) -> tuple[list[Path], list[PosePair]]:
    """The pictures of a folder, and the pairs whose pose is known; ValueError for too few pictures or a bad list."""
    paths = list_photographs(folder)
    if len(paths) < FEWEST:
        raise ValueError(f"{folder}: {len(paths)} pictures; a map needs {FEWEST} at least")
    return paths, pose_pairs(folder) if (folder / LIST).is_file() else []


def evaluate_maps(
    detectors: Sequence[Detector],
    folder: Path,
    settings: Callable[[int], DetectionSettings],
    refine: bool = False,
    advance: Callable[[], object] = lambda: None,
    skip: Callable[[ValueError], object] | None = None,
    into: list[MapResult] | None = None,
) -> list[MapResult]:
    """Map the pictures of a folder with every detector that has descriptors, and with COLMAP's SIFT.

    settings  by suppression radius; COLMAP's SIFT has as many keypoints at most
    refine    adjust keypoints by the pictures, see `adjust_keypoints`; COLMAP's SIFT stays as it is
    skip      called for a picture that cannot be read, which is then left out; without it the error is raised
    into      what is returned, filled map by map

    Cameras are those of `pairs_with_gt.txt` where the folder has one, and stay so if they are all there, else COLMAP
    finds them out. Raises ValueError for a folder of too few pictures, RuntimeError without pycolmap.
    """
    colmap = pycolmap()
    listed, pairs = scene(folder)
    read = _read(listed, skip)
    if len(read) < FEWEST:
        raise ValueError(f"{folder}: {len(read)} pictures that can be read; a map needs {FEWEST} at least")
    paths, pictures = list(read), list(read.values())
    cameras = {path: k for pair in pairs for path, k in zip(pair.paths, pair.cameras, strict=True)}
    known = set(paths) <= set(cameras)
    lenses = [_calibration(cameras.get(path), picture) for path, picture in zip(paths, pictures, strict=True)]
    results = [] if into is None else into
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
                matches = {(i, j): match(found[i], found[j]) for i, j in combinations(range(len(found)), 2)}
                if refine:
                    levels = [levels_for(one, picture) for one, picture in zip(found, pictures, strict=True)]
                    found, matches = adjust_keypoints(found, matches, levels.__getitem__)
                with Database(place) as database:
                    ids = _written(database, lenses, names, found)
                    for (i, j), rows in matches.items():
                        database.add_matches(ids[i], ids[j], rows)
                    database.verify()
                results.append(_measured(detector.name, paths, _mapped(colmap, place, shown, known), pairs))
                advance()
        place = Path(temporary) / "own"
        place.mkdir()
        _own_features(colmap, place / DATABASE, shown, lenses, settings(0).max_keypoints)
        results.append(_measured(OWN, paths, _mapped(colmap, place, shown, known), pairs))
        advance()
    return results


def summarise_maps(results: Sequence[MapResult]) -> dict[str, dict[str, Any]]:
    """By detector."""
    return {each.detector: {key: value for key, value in asdict(each).items() if key != "detector"} for each in results}


def _read(paths: Sequence[Path], skip: Callable[[ValueError], object] | None) -> dict[Path, NDArray[np.uint8]]:
    read = {}
    for path in paths:
        try:
            read[path] = read_picture(path)
        except BadPicture as error:
            if skip is None:
                raise
            skip(error)
    return read


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


def _mapped(colmap: Any, place: Path, shown: Path, known: bool) -> Any:
    """COLMAP's map with the most pictures, or None; `known` cameras stay as they are."""
    out = place / "sparse"
    out.mkdir()
    colmap.set_random_seed(0)
    options = colmap.IncrementalPipelineOptions()
    if known:
        options.ba_refine_focal_length = options.ba_refine_extra_params = False
    maps = colmap.incremental_mapping(place / DATABASE, shown, out, options=options).values()
    return max(maps, key=lambda each: each.num_reg_images(), default=None)


def _measured(name: str, paths: Sequence[Path], found: Any, pairs: Sequence[PosePair]) -> MapResult:
    if found is None:
        return MapResult(name, len(paths), 0, 0, np.nan, np.nan)
    images = {image.name: image.cam_from_world().matrix() for image in found.images.values() if image.has_pose}
    poses = {path: images.get(f"{number:06}.png") for number, path in enumerate(paths)}
    errors = []
    for pair in pairs:
        first, second = (poses.get(path) for path in pair.paths)
        if first is not None and second is not None:
            rotation = second[:, :3] @ first[:, :3].T
            errors.append(pose_errors(rotation, second[:, 3] - rotation @ first[:, 3], pair.pose))
    figures = found.compute_mean_track_length(), found.compute_mean_reprojection_error()
    off = np.median(errors, axis=0).tolist() if errors else (np.nan, np.nan)
    return MapResult(name, len(paths), found.num_reg_images(), found.num_points3D(), *figures, *off)
