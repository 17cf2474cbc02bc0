"""Pairs of views of one plane whose homography is known: HPatches and the like, read from disk.

Balntas et al., "HPatches: A benchmark and evaluation of handcrafted and learned local descriptors",
CVPR 2017.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from itertools import combinations
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from superpoint_ros.features.image import Resize, resize_image, target_size
from superpoint_training.homography import scaling
from superpoint_training.pictures import EXTENSIONS, read_picture

HPATCHES = {"i_": 57, "v_": 59}
"""Sequences of the whole benchmark."""
HPATCHES_KINDS = {"i_": "illumination", "v_": "viewpoint"}


@dataclass(frozen=True)
class Views:
    """Two pictures and the true homography between them.

    reference, current  (H, W) uint8 grey
    homography          (3, 3) float64, pixels of the reference to pixels of the current picture
    changes             what was done to get from one to the other, where that is known
    """

    reference: NDArray[np.uint8]
    current: NDArray[np.uint8]
    homography: NDArray[np.float64]
    changes: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Pair:
    """A pair before its pictures are read.

    name                unique in its set
    group               pairs of a group follow each other and share pictures
    kind                what differs between the views, as in "viewpoint"
    reference, current  names of the two pictures, unique in the group: equal names are equal
                        pictures
    load                reads or makes the pictures; ValueError if that fails
    """

    name: str
    group: str
    kind: str
    reference: str
    current: str
    load: Callable[[], Views]


def hpatches_pairs(directory: Path, size: Resize, all_pairs: bool = False) -> list[Pair]:
    """The pairs of a directory in HPatches layout.

    directory  holds folders i_* (illumination changes) and v_* (viewpoint changes), each with
               pictures 1, 2 … of any usual suffix and a homography H_1_k, nine numbers, from
               picture 1 to each other picture k
    size       to which every picture is resized: the longer side or (height, width) in pixels, None: as it is
    all_pairs  every two pictures of a folder, instead of the first with each other

    Raises ValueError that names what is missing or malformed.
    """
    folders = [path for path in sorted(directory.glob("*")) if path.is_dir() and path.name[:2] in HPATCHES_KINDS]
    if not folders:
        raise ValueError(f"{directory}: no sequence folder found; expected i_* or v_* (HPatches layout)")
    return [pair for folder in folders for pair in _sequence(folder, size, all_pairs)]


def check_complete(directory: Path) -> None:
    """Raise ValueError unless a directory holds all of HPatches, 6 pictures a sequence."""
    whole = [path.name for path in directory.glob("*") if len(list(path.glob("H_1_?"))) == 5]
    found = {prefix: sum(name.startswith(prefix) for name in whole) for prefix in HPATCHES}
    if found != HPATCHES:
        raise ValueError(
            f"{directory}: the paper's protocol is of all of HPatches, 57 sequences i_* and 59 v_* with five "
            f"homographies each; found {found['i_']} and {found['v_']} of them"
        )


def read_resized(path: Path, size: Resize) -> tuple[NDArray[np.uint8], NDArray[np.float64]]:
    """A picture, resized as in `target_size`, and the (3, 3) map from the file's pixels.

    Raises ValueError that names the file, also for a picture too narrow for this size.
    """
    image = read_picture(path)
    try:
        target = target_size((image.shape[0], image.shape[1]), size)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None
    return resize_image(image, target), scaling((image.shape[0], image.shape[1]), target)


def _sequence(folder: Path, size: Resize, all_pairs: bool) -> list[Pair]:
    pictures = {int(path.stem): path for path in sorted(folder.glob("*")) if _is_numbered_picture(path)}
    if 1 not in pictures or len(pictures) < 2:
        raise ValueError(f"{folder}: expected pictures 1, 2 … (png, ppm, jpg …), found {sorted(pictures)}")
    from_first = {k: np.eye(3) if k == 1 else _read_homography(folder / f"H_1_{k}") for k in sorted(pictures)}
    kind = HPATCHES_KINDS[folder.name[:2]]
    pairs = []
    for a, b in combinations(sorted(pictures), 2):
        if a == 1 or all_pairs:
            homography = from_first[b] @ np.linalg.inv(from_first[a])
            load = partial(_load, pictures[a], pictures[b], homography, size)
            pairs.append(Pair(f"{folder.name} {a}-{b}", folder.name, kind, str(a), str(b), load))
    return pairs


def _load(reference: Path, current: Path, homography: NDArray[np.float64], size: Resize) -> Views:
    first, first_scaling = read_resized(reference, size)
    second, second_scaling = read_resized(current, size)
    return Views(first, second, second_scaling @ homography @ np.linalg.inv(first_scaling))


def _is_numbered_picture(path: Path) -> bool:
    return path.stem.isdecimal() and path.suffix.lower() in EXTENSIONS


def _read_homography(path: Path) -> NDArray[np.float64]:
    if not path.is_file():
        raise ValueError(f"{path}: no such file; each picture after the first needs its homography")
    try:
        matrix = np.array(path.read_text().split(), np.float64).reshape(3, 3)
    except ValueError:
        raise ValueError(f"{path}: expected nine numbers, the rows of a 3×3 homography") from None
    if not np.isfinite(matrix).all() or abs(np.linalg.det(matrix)) < 1e-12:
        raise ValueError(f"{path}: the matrix is singular or not finite, so it is no homography")
    return matrix
