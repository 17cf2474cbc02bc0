"""Synthetic Shapes: pictures whose corners are known, drawn on the fly.

DeTone et al. 2018, section 4 and figure 4: quadrilaterals, triangles, lines, cubes, checkerboards,
stripes, stars with their L-, T- and Y-junctions and line ends as keypoints; ellipses and plain
noise have none. A scene is geometry: a homography moves its vertices, not its pixels, so labels
stay exact and edges stay sharp. It is rendered at eight times the size and averaged down, as a
camera's pixels do.
"""

from __future__ import annotations

from collections.abc import Callable

import cv2
import numpy as np
from numpy.typing import NDArray

from superpoint_training.figures import Figure, render, segment_gap, visible_corners

Array = NDArray[np.float64]

MIN_CONTRAST = 24.0  # grey levels between touching areas
MIN_ANGLE = 18.0  # degrees; a vertex this near to straight on or straight back is no clear corner
MIN_SIDE = 5.0  # pixels; nearer vertices cannot both be found after non-maximum suppression


def draw_shape(
    rng: np.random.Generator, kind: str, size: tuple[int, int] = (120, 160), homography: Array | None = None
) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
    """Draw one picture of a kind in `SHAPES`.

    size        (height, width) in pixels
    homography  (3, 3), moves the scene before it is rendered; None leaves it

    Returns the image (H, W) uint8 and its corners (N, 2) float32, x right, y down, (0, 0) the
    centre of the first pixel, each inside the picture. Raises ValueError for an unknown kind.
    """
    if kind not in SHAPES:
        raise ValueError(f"unknown shape {kind!r}; expected one of {', '.join(SHAPES)}")
    if kind == "noise":
        return _gaussian_noise(rng, size), np.zeros((0, 2), np.float32)
    levels = _levels(rng, 6)
    figures = _DRAWERS[kind](rng, size, levels[1:])
    if homography is not None:
        moved = (figure.warp(homography) for figure in figures)
        figures = [figure for figure in moved if figure.in_sight()]
    return render(figures, _background(rng, levels[0], size)), visible_corners(figures, size)


def _lines(rng: np.random.Generator, size: tuple[int, int], levels: Array) -> list[Figure]:
    figures: list[Figure] = []
    segments: list[Array] = []
    for _ in range(int(rng.integers(1, 9))):
        ends = rng.uniform((0, 0), (size[1], size[0]), (2, 2))
        long_enough = np.hypot(*(ends[1] - ends[0])) > 0.15 * min(size)
        if long_enough and all(segment_gap(ends, other) > 2 * MIN_SIDE for other in segments):
            segments.append(ends)
            figures.append(_stroke(ends, rng.uniform(1.0, 0.025 * min(size) + 0.6), float(rng.choice(levels))))
    return figures


def _triangle(rng: np.random.Generator, size: tuple[int, int], levels: Array) -> list[Figure]:
    return _random_polygons(rng, size, levels, sides=(3, 3), count=1)


def _quadrilateral(rng: np.random.Generator, size: tuple[int, int], levels: Array) -> list[Figure]:
    return _random_polygons(rng, size, levels, sides=(4, 4), count=1)


def _polygon(rng: np.random.Generator, size: tuple[int, int], levels: Array) -> list[Figure]:
    return _random_polygons(rng, size, levels, sides=(5, 8), count=1)


def _polygons(rng: np.random.Generator, size: tuple[int, int], levels: Array) -> list[Figure]:
    return _random_polygons(rng, size, levels, sides=(3, 6), count=int(rng.integers(2, len(levels) + 1)))


def _star(rng: np.random.Generator, size: tuple[int, int], levels: Array) -> list[Figure]:
    count = int(rng.integers(3, 7))
    centre = _centre(rng, size)
    angles = _spread_angles(rng, count, smallest=30.0)
    ends = centre + rng.uniform(0.15, 0.45, (count, 1)) * min(size) * np.column_stack([np.cos(angles), np.sin(angles)])
    thickness = rng.uniform(1.0, 0.02 * min(size) + 0.6)
    arms = [_stroke(np.stack([centre, end]), thickness, float(levels[0])).polygons[0] for end in ends]
    return [Figure(arms, np.concatenate([centre[None], ends]))]


def _checkerboard(rng: np.random.Generator, size: tuple[int, int], levels: Array) -> list[Figure]:
    rows, columns = rng.integers(2, 7, 2)
    nodes = _board(rng, size, np.arange(columns + 1.0), np.arange(rows + 1.0))
    polygons = []
    for row in range(rows):
        for column in range(columns):
            level = levels[(row + column) % 2] + rng.uniform(-0.3, 0.3) * MIN_CONTRAST
            polygons.append((_quad(nodes, row, column), float(level)))
    return [Figure(polygons, nodes.reshape(-1, 2))]


def _stripes(rng: np.random.Generator, size: tuple[int, int], levels: Array) -> list[Figure]:
    count = int(rng.integers(3, 11))
    across = np.cumsum(rng.uniform(0.5, 1.5, count + 1))
    nodes = _board(rng, size, across, np.array([0.0, 0.5 * count]))
    steps = rng.integers(1, len(levels), count)  # never 0: neighbours differ
    chosen = levels[np.cumsum(steps) % len(levels)]
    polygons = [(_quad(nodes, 0, k), float(level)) for k, level in enumerate(chosen)]
    return [Figure(polygons, nodes.reshape(-1, 2))]


def _cube(rng: np.random.Generator, size: tuple[int, int], levels: Array) -> list[Figure]:
    """A box in perspective: three faces and the seven corners that are seen."""
    yaw, pitch, roll = np.radians([rng.uniform(20, 70), rng.uniform(20, 60), rng.uniform(0, 360)])
    turn = _rotation(2, roll) @ _rotation(0, pitch) @ _rotation(1, yaw)
    half_sides = rng.uniform(0.6, 1.0, 3) * rng.uniform(0.12, 0.3) * min(size)
    nearest = np.where(turn[2] > 0, -1.0, 1.0)  # vertex, seen by a camera that looks along +z
    distance = rng.uniform(2.5, 8.0) * min(size)

    def project(flips: Array) -> Array:
        x, y, z = turn @ (half_sides * nearest * flips)
        return centre + np.array([x, y]) * distance / (distance + z)

    centre = _centre(rng, size)
    order = rng.permutation(3)
    faces, corners = [], [project(np.ones(3))]
    for axis in range(3):
        ring = []
        for a, b in ((1.0, 1.0), (-1.0, 1.0), (-1.0, -1.0), (1.0, -1.0)):
            flips = np.ones(3)
            flips[(axis + 1) % 3], flips[(axis + 2) % 3] = a, b
            ring.append(project(flips))
        faces.append((np.array(ring), float(levels[order[axis]])))
        corners += [ring[1], ring[2]]
    return [Figure(faces, np.array(corners))]


def _ellipses(rng: np.random.Generator, size: tuple[int, int], levels: Array) -> list[Figure]:
    figures: list[Figure] = []
    placed: list[tuple[Array, float]] = []
    around = np.linspace(0, 2 * np.pi, 48, endpoint=False)
    for _ in range(int(rng.integers(1, 12))):
        centre, axes = _centre(rng, size), rng.uniform(0.03, 0.2, 2) * min(size)
        axes = np.maximum(axes, 0.35 * axes.max())  # a sliver's ends would be corners
        if all(np.hypot(*(centre - other)) > axes.max() + radius + 3 for other, radius in placed):
            placed.append((centre, axes.max()))
            ring = (
                np.column_stack([np.cos(around), np.sin(around)]) * axes @ _rotation(2, rng.uniform(0, np.pi))[:2, :2]
            )
            figures.append(Figure([(centre + ring, float(rng.choice(levels)))], np.zeros((0, 2))))
    return figures


_DRAWERS: dict[str, Callable[[np.random.Generator, tuple[int, int], Array], list[Figure]]] = {
    "lines": _lines,
    "triangle": _triangle,
    "quadrilateral": _quadrilateral,
    "polygon": _polygon,
    "polygons": _polygons,
    "star": _star,
    "checkerboard": _checkerboard,
    "stripes": _stripes,
    "cube": _cube,
    "ellipses": _ellipses,
}
SHAPES: tuple[str, ...] = (*_DRAWERS, "noise")


def _random_polygons(
    rng: np.random.Generator, size: tuple[int, int], levels: Array, sides: tuple[int, int], count: int
) -> list[Figure]:
    largest = 0.6 if count == 1 else 0.35
    figures = []
    for level in levels[:count]:
        for _ in range(20):
            corners = int(rng.integers(sides[0], sides[1] + 1))
            angles = _spread_angles(rng, corners, smallest=25.0)
            radii = rng.uniform(0.5, 1.0, (corners, 1)) * rng.uniform(0.12, largest) * min(size)
            area = _centre(rng, size) + radii * np.column_stack([np.cos(angles), np.sin(angles)])
            if _has_clear_corners(area):
                figures.append(Figure([(area, float(level))], area, [area]))
                break
    return figures


def _has_clear_corners(polygon: Array) -> bool:
    sides = np.roll(polygon, -1, axis=0) - polygon
    lengths = np.hypot(sides[:, 0], sides[:, 1])
    if lengths.min() < MIN_SIDE:
        return False
    directions = sides / lengths[:, None]
    cosine = np.sum(np.roll(directions, 1, axis=0) * directions, axis=1)  # 1: straight on
    return bool(np.all(np.abs(cosine) < np.cos(np.radians(MIN_ANGLE))))


def _spread_angles(rng: np.random.Generator, count: int, smallest: float) -> Array:
    """`count` ascending angles round the circle, in radians, neighbours at least `smallest` degrees
    apart.
    """
    shares = rng.dirichlet(np.full(count, 2.0))
    gaps = np.radians(smallest) + shares * (2 * np.pi - count * np.radians(smallest))
    return np.asarray(rng.uniform(0, 2 * np.pi) + np.cumsum(gaps))


def _centre(rng: np.random.Generator, size: tuple[int, int]) -> Array:
    return np.array([rng.uniform(0.15, 0.85) * size[1], rng.uniform(0.15, 0.85) * size[0]])


def _board(rng: np.random.Generator, size: tuple[int, int], across: Array, down: Array) -> Array:
    """A grid of nodes (rows, columns, 2) with the given spacings, tilted in perspective and turned
    at random.
    """
    x, y = np.meshgrid((across - across.mean()) / np.ptp(across), (down - down.mean()) / np.ptp(across))
    tilt = rng.uniform(-0.5, 0.5, 2)
    x, y = x / (1 + tilt[0] * x + tilt[1] * y), y / (1 + tilt[0] * x + tilt[1] * y)
    turn = _rotation(2, rng.uniform(0, 2 * np.pi))[:2, :2] + rng.uniform(-0.15, 0.15, (2, 2))
    scale = max(rng.uniform(0.5, 1.1) * min(size), 1.6 * MIN_SIDE * len(across))
    return np.asarray(_centre(rng, size) + np.stack([x, y], axis=-1) @ turn * scale)


def _quad(nodes: Array, row: int, column: int) -> Array:
    return np.array([nodes[row, column], nodes[row, column + 1], nodes[row + 1, column + 1], nodes[row + 1, column]])


def _stroke(ends: Array, thickness: float, level: float) -> Figure:
    along = (ends[1] - ends[0]) / np.hypot(*(ends[1] - ends[0]))
    side = np.array([-along[1], along[0]]) * thickness / 2
    area = np.array([ends[0] + side, ends[1] + side, ends[1] - side, ends[0] - side])
    return Figure([(area, level)], ends, [area])


def _rotation(axis: int, angle: float) -> Array:
    a, b = [i for i in range(3) if i != axis]
    matrix = np.eye(3)
    matrix[[a, b], [a, b]] = np.cos(angle)
    matrix[a, b], matrix[b, a] = -np.sin(angle), np.sin(angle)
    return matrix


def _levels(rng: np.random.Generator, count: int) -> Array:
    """`count` grey levels in random order, at least MIN_CONTRAST apart."""
    span = rng.uniform(MIN_CONTRAST * count, 255)
    return np.asarray(rng.permutation(rng.uniform(0, 255 - span) + np.linspace(0, span, count)))


def _gaussian_noise(rng: np.random.Generator, size: tuple[int, int]) -> NDArray[np.uint8]:
    noise = rng.standard_normal(size, dtype=np.float32) * rng.uniform(5, 60) + rng.uniform(60, 200)
    return np.clip(noise, 0, 255).astype(np.uint8)


def _background(rng: np.random.Generator, level: float, size: tuple[int, int]) -> NDArray[np.uint8]:
    """Soft blobs around a grey level, weak enough to keep every figure apart from it."""
    blobs = rng.uniform(-1, 1, (int(rng.integers(2, 9)), int(rng.integers(2, 11))))
    coarse = np.clip(level + 0.4 * MIN_CONTRAST * rng.uniform(0, 1) * blobs, 0, 255).astype(np.uint8)
    return np.asarray(cv2.resize(coarse, (size[1], size[0]), interpolation=cv2.INTER_CUBIC), np.uint8)
