"""A COLMAP project of an extracted bag: its pictures, and a database of cameras, keypoints and verified matches."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from superpoint_ros.bags.content import BagError, Message, stamp_nanoseconds
from superpoint_ros.bags.reader import BagReader
from superpoint_ros.features.adjustment import Matches, adjust_keypoints
from superpoint_ros.features.colmap import PICTURES, Database
from superpoint_ros.features.extractor import Features
from superpoint_ros.features.levels import Levels, levels_for
from superpoint_ros.features.matching import match
from superpoint_ros.features.places import neighbours, same_places
from superpoint_ros.features.rectification import Calibration
from superpoint_ros.frontend.messages import decode_descriptors
from superpoint_ros.tools.extract.input import Camera, Images, choose_cameras
from superpoint_ros.tools.extract.output import output_topic
from superpoint_ros.tools.extract.task import Task

Found = defaultdict[tuple[Camera, int, int], list[Features]]
"""By camera, time of recording and stamp, nanoseconds: what waits for its picture. Not every camera sets stamps."""
WINDOW = 10
"""Pictures after each with which it is matched, as COLMAP's sequential matcher does."""
MINIMUM_MATCHES = 15
"""Of a pair that is written: COLMAP's mapper wants as many inliers."""


@dataclass(frozen=True)
class View:
    """A picture of the project.

    stamp  nanoseconds; of a camera that sets none, when it was recorded
    path   of its file
    lens   what the database calls its camera
    found  what was found in it
    mask   eight pixels a byte, where it may be looked at; None: everywhere
    """

    camera: Camera
    stamp: int
    path: Path
    lens: int
    found: Features
    mask: NDArray[np.uint8] | None

    def levels(self) -> Levels:
        """Read back from the file."""
        picture = cv2.imdecode(np.frombuffer(self.path.read_bytes(), np.uint8), cv2.IMREAD_GRAYSCALE)
        (height, width), mask = self.found.size, None
        if self.mask is not None:
            mask = np.unpackbits(self.mask, count=height * width).reshape(height, width) > 0
        return levels_for(self.found, np.asarray(picture, np.uint8), mask)


def write_project(task: Task, folder: Path, every: int, say: Callable[[str], object]) -> str:
    """Make the project of a bag whose features are in the task's output; returns what was made, a sentence.

    every  take each so-manieth image of a camera
    say    called with sentences about what is amiss

    Raises BagError, RuntimeError (pycolmap is absent), ValueError or OSError with a sentence.
    """
    values = replace(task.values, rectify=True)  # for the calibrations
    with BagReader(task.bag) as bag:
        cameras = choose_cameras(bag, task.topics, values)
        images = Images(bag, cameras, values)
        found = _features(task.output, cameras, every)
        with Database(folder) as database:
            views = list(_views(images, found, database, folder))
            if not views:
                raise BagError(f"{folder}: none of the images of {task.bag} has features in {task.output}")
            matches = _matched(views, values.tracking())
            features = [view.found for view in views]
            if values.refine:
                # of a camera as many as its pairs go back to, and as many again for loops
                held = lru_cache(2 * WINDOW * len(cameras))(lambda index: views[index].levels())
                features, matches = adjust_keypoints(features, matches, held)
            matches = {pair: rows for pair, rows in matches.items() if len(rows) >= MINIMUM_MATCHES}
            _write(database, views, features, matches, folder / PICTURES)
            database.verify()
    for problem in images.problems:
        say(f"{task.bag}: {problem.replace('are not rectified', 'have a lens that COLMAP guesses')}")
    return f"{folder}: {len(views)} pictures, {len(matches)} pairs of them matched"


def _features(path: Path, cameras: Sequence[Camera], every: int) -> Found:
    """Of each so-manieth image of a camera."""
    topics = {output_topic(camera, "features"): camera for camera in cameras}
    counts, found = dict.fromkeys(cameras, 0), Found(list)
    with BagReader(path) as bag:
        for message in bag.readable(topics):
            camera = topics[message.topic.name]
            counts[camera] += 1
            if (counts[camera] - 1) % every == 0:
                decoded = bag.decode(message)
                stamp = stamp_nanoseconds(decoded.header.stamp)
                found[camera, message.time, stamp].append(_read(decoded))
    return found


def _read(message: Any) -> Features:
    descriptors = decode_descriptors(message.descriptors, message.descriptor_dim, message.descriptor_type)
    xy = np.column_stack([message.x, message.y]).astype(np.float32).reshape(-1, 2)
    size, scales = (int(message.height), int(message.width)), np.asarray(message.scale, np.float32)
    return Features(xy, np.asarray(message.scores, np.float32), descriptors, size, scales=scales)


def _views(images: Images, found: Found, database: Database, folder: Path) -> Iterator[View]:
    lenses: dict[tuple[Camera, tuple[int, int], bytes], int] = {}
    names: Counter[tuple[Camera, int]] = Counter()
    for message in _readable(images.messages()):
        camera = images.cameras[message.topic.name]
        try:
            picture = images.decode(message)
        except Exception:  # whatever is wrong with it, extraction has told of it
            continue
        stamp = stamp_nanoseconds(picture.header.stamp)
        waiting = found[camera, message.time, stamp]
        if not waiting:
            continue
        features, stamp = waiting.pop(0), stamp or message.time
        names[camera, stamp] += 1
        again = f"_{names[camera, stamp]}" if names[camera, stamp] > 1 else ""
        path = folder / PICTURES / (camera.name or "camera") / f"{stamp}{again}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(cv2.imencode(".png", picture.pixels)[1].tobytes())
        mask = None if picture.mask is None else np.packbits(picture.mask)
        key = camera, features.size, _values(picture.calibration)
        if key not in lenses:
            lenses[key] = database.add_camera(picture.calibration, features.size)
        yield View(camera, stamp, path, lenses[key], features, mask)


def _readable(messages: Iterator[Message]) -> Iterator[Message]:
    """Those of a bag that can be read; extraction has told of the others."""
    with suppress(BagError):
        yield from messages


def _values(camera: Calibration | None) -> bytes:
    """Equal for equal calibrations."""
    return b"" if camera is None else repr((camera.model, camera.k, camera.d, camera.binning, camera.offset)).encode()


def _matched(views: list[View], tracking: dict[str, Any]) -> Matches:
    """Match each view with its neighbours, those taken at the same time, and others of the same place."""
    cameras = {view.camera: number for number, view in enumerate(views)}
    sequences = [cameras[view.camera] for view in views]
    stamps: dict[int, list[int]] = {}
    for index, view in enumerate(views):
        stamps.setdefault(view.stamp, []).append(index)
    together = {
        (a, b)
        for each in stamps.values()
        for k, a in enumerate(each)
        for b in each[k + 1 :]
        if views[a].camera != views[b].camera
    }
    loops = same_places([view.found for view in views], sequences, WINDOW)
    options = {name: tracking[name] for name in ("ratio", "min_similarity")}
    pairs = sorted({*neighbours(sequences, WINDOW), *together, *loops})
    return {(i, j): match(views[i].found, views[j].found, **options) for i, j in pairs}


def _write(
    database: Database, views: Sequence[View], features: Sequence[Features], matches: Matches, pictures: Path
) -> None:
    identities = [
        database.add_picture(view.path.relative_to(pictures).as_posix(), view.lens, found)
        for view, found in zip(views, features, strict=True)
    ]
    for (i, j), rows in matches.items():
        database.add_matches(identities[i], identities[j], rows)
