"""Contact sheets of what each stage learns from, labels drawn: the first thing to look at."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from superpoint_ros.network.superpoint import CELL
from superpoint_training.config import Config
from superpoint_training.pairs import PairSamples
from superpoint_training.pictures import read_picture, shrink_to_cover
from superpoint_training.pseudo_labels import LabelFolder
from superpoint_training.samples import Batch, ShapeSamples
from superpoint_training.sheet import BLUE, GREEN, RED, Picture, annotate, tile
from superpoint_training.stages import LABELS, labelled
from superpoint_training.whole_files import whole_file


def stage_sheet(config: Config, stage: str, data: Path | None, count: int, images: Sequence[Path] = ()) -> Picture:
    """The sheet of "shapes", "labels" or "pairs"; the last two of what `superpoint-train adapt`
    left in `data`, with pictures that are now among `images`.

    Raises ValueError if `data` is missing or holds no labels.
    """
    if images and data is None:
        raise ValueError(f"--images {images[0]}: says where labelled pictures are now; expected --labels, too")
    if stage == "shapes":
        return shapes_sheet(config, count)
    if data is None:
        raise ValueError(f"preview {stage} needs --labels, the folder that `superpoint-train adapt` wrote")
    pictures = labelled(data, images, config.inputs).training
    sheet = labels_sheet if stage == "labels" else pairs_sheet
    return sheet(config, pictures, data / LABELS, count)


def shapes_sheet(config: Config, count: int, columns: int = 6) -> Picture:
    """The first samples that MagicPoint is trained on; rings are its targets."""
    samples = ShapeSamples(config.shapes, config.run.seed)
    return tile([_labelled(samples[index], 0) for index in range(count)], columns)


def pairs_sheet(config: Config, pictures: Sequence[Path], labels: Path, count: int, columns: int = 4) -> Picture:
    """The first samples that SuperPoint is trained on, one view above the other.

    Red rings are targets, green ones the correspondences among them, blue areas don't count.
    """
    samples = PairSamples(pictures, labels, config.pairs, config.run.seed)
    stacked = []
    for index in range(count):
        sample = samples[index]
        stacked.append(np.concatenate([_labelled(sample, 0), _labelled(sample, 1)]))
    return tile(stacked, columns)


def labels_sheet(config: Config, pictures: Sequence[Path], labels: Path, count: int, columns: int = 4) -> Picture:
    """Pictures with their pseudo-labels, cropped to one size."""
    folder = LabelFolder(labels)
    drawn: list[Picture] = []
    height, width = config.pairs.size
    for path in pictures:
        if len(drawn) == count:
            break
        try:
            picture = read_picture(path)
            found = folder.read(path, picture.shape)
        except (ValueError, OSError) as error:
            tqdm.write(f"{error}; left out")
            continue
        shrunk = shrink_to_cover(picture, config.pairs.size)
        canvas = np.zeros(config.pairs.size, np.uint8)
        shown = shrunk[:height, :width]
        canvas[: shown.shape[0], : shown.shape[1]] = shown
        scale = np.array(shrunk.shape[::-1]) / np.array(picture.shape[::-1])
        xy = (found.xy + 0.5) * scale - 0.5
        drawn.append(annotate(canvas, xy, RED, title=path.stem))
    if not drawn:
        raise ValueError(f"{labels}: none of the {len(pictures)} pictures can be read with its labels")
    return tile(drawn, columns)


def write_sheet(path: Path, sheet: Picture) -> None:
    """Write a sheet, RGB, as PNG. Raises OSError."""
    path.parent.mkdir(parents=True, exist_ok=True)
    data = cv2.imencode(".png", cv2.cvtColor(sheet, cv2.COLOR_RGB2BGR))[1]
    with whole_file(path) as file:  # not imwrite: a name in Latin-1 ends the process
        file.write(data.tobytes())


def target_points(targets: NDArray[np.float32]) -> NDArray[np.float64]:
    """The pixels (N, 2) that targets (65, Hc, Wc) ask for, whatever their certainty."""
    _, rows, columns = targets.shape
    heatmap = targets[:-1].reshape(CELL, CELL, rows, columns).transpose(2, 0, 3, 1)
    y, x = np.nonzero(heatmap.reshape(rows * CELL, columns * CELL))
    return np.column_stack([x, y]).astype(np.float64)


def _labelled(sample: Batch, view: int) -> Picture:
    targets, valid = sample["targets"].numpy(), sample["valid"].numpy()
    if targets.ndim == 4:
        targets, valid = targets[view], valid[view]
    pixels = np.kron(valid, np.ones((CELL, CELL), bool))
    picture = annotate(sample["image"][view].numpy(), target_points(targets), RED, pixels)
    if "points" in sample:
        points = sample["points"][view][sample["matched"]].numpy()
        labelled = {(round(float(x)), round(float(y))) for x, y in target_points(targets)}
        for x, y in points:
            known = (round(float(x)), round(float(y))) in labelled
            centre = (round(2 * float(x) + 0.5), round(2 * float(y) + 0.5))
            cv2.drawMarker(picture, centre, GREEN if known else BLUE, cv2.MARKER_CROSS, 5)
    return picture
