"""A COLMAP database of cameras, pictures, keypoints and matches, written by pycolmap (optional)."""

from __future__ import annotations

import importlib
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from superpoint_ros.features.extractor import Features
from superpoint_ros.features.rectification import Calibration

DATABASE = "database.db"
PICTURES = "images"
"""What a project's folder holds."""
GUESS = 1.2
"""Focal length by the longer side of the picture, where it is not known; COLMAP's own guess."""
CORNER = 0.5
"""COLMAP counts pixels from the corner of the first one, we from its centre."""


def pycolmap() -> Any:
    """The package. Raises RuntimeError with a sentence if it is absent."""
    try:
        return importlib.import_module("pycolmap")
    except ImportError:
        raise RuntimeError(
            "pycolmap, which writes COLMAP's databases, is not installed: pip install pycolmap"
        ) from None


def camera_model(camera: Calibration | None, size: tuple[int, int]) -> tuple[str, list[float]]:
    """COLMAP's name of the lens model and its parameters, for pictures of that size (height, width) as they came in.

    camera  None: a guess, SIMPLE_RADIAL

    Raises ValueError with a sentence for a lens that COLMAP has no model for.
    """
    if camera is None:
        return "SIMPLE_RADIAL", [GUESS * max(size), size[1] / 2, size[0] / 2, 0.0]
    fx, fy = camera.k[0, 0] / camera.binning[0], camera.k[1, 1] / camera.binning[1]
    cx, cy = ((camera.k[:2, 2] - camera.offset + 0.5) / camera.binning).tolist()
    pinhole, d = [float(fx), float(fy), cx, cy], camera.d.tolist() + [0.0] * (14 - len(camera.d))
    if camera.model == "equidistant":
        return "OPENCV_FISHEYE", [*pinhole, *d[:4]]
    if any(d[8:]):
        raise ValueError("COLMAP has no lens model with thin prisms or a tilted sensor; calibrate with 8 coefficients")
    if any(d[4:8]):
        return "FULL_OPENCV", [*pinhole, *d[:8]]
    return "OPENCV", [*pinhole, *d[:4]]


class Database:
    """A new database, within a `with` block.

    Raises FileExistsError if there is one, RuntimeError without pycolmap.
    """

    def __init__(self, folder: Path) -> None:
        self._colmap = pycolmap()
        self._path = folder / DATABASE
        if self._path.exists():
            raise FileExistsError(f"{self._path}: exists already; databases are never overwritten")
        folder.mkdir(parents=True, exist_ok=True)
        self._rigs: dict[int, int] = {}
        self._names: dict[int, str] = {}
        self._pairs: list[tuple[int, int]] = []
        self._database = self._colmap.Database.open(self._path)

    def __enter__(self) -> Database:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._database.close()
        if kind is not None:
            self._path.unlink()  # a part of one would be in the way of the next

    def add_camera(self, camera: Calibration | None, size: tuple[int, int]) -> int:
        """Returns its id. Raises ValueError as `camera_model`."""
        model, parameters = camera_model(camera, size)
        entry = self._colmap.Camera(model=model, width=size[1], height=size[0], params=parameters)
        entry.has_prior_focal_length = camera is not None
        entry.camera_id = self._database.write_camera(entry)
        rig = self._colmap.Rig()
        rig.add_ref_sensor(entry.sensor_id)
        self._rigs[entry.camera_id] = self._database.write_rig(rig)
        return int(entry.camera_id)

    def add_picture(self, name: str, camera: int, found: Features) -> int:
        """Returns its id.

        name    of the file, in the folder of pictures
        """
        picture = self._colmap.Image(name=name, camera_id=camera)
        picture.image_id = self._database.write_image(picture)
        frame = self._colmap.Frame()
        frame.rig_id = self._rigs[camera]
        frame.add_data_id(picture.data_id)
        self._database.write_frame(frame)
        rows = np.column_stack([found.xy + CORNER, found.scales, np.zeros(len(found))]).astype(np.float32)
        self._database.write_keypoints(picture.image_id, rows)
        self._names[picture.image_id] = name
        return int(picture.image_id)

    def add_matches(self, first: int, second: int, matches: NDArray[np.int32]) -> None:
        """Of two pictures: (M, 2) rows of their keypoints."""
        self._database.write_matches(first, second, matches.astype(np.uint32))
        self._pairs.append((first, second))

    def verify(self) -> None:
        """Have COLMAP find out which matches of each pair agree with one geometry, as its mapper wants to know."""
        if not self._pairs:
            return
        listed = self._path.with_name("pairs.txt")
        listed.write_text("".join(f"{self._names[a]} {self._names[b]}\n" for a, b in self._pairs), encoding="utf-8")
        self._database.close()
        self._colmap.verify_matches(self._path, listed)
        self._database = self._colmap.Database.open(self._path)
