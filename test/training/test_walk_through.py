"""docs/recipes/train_on_your_bags.md, word for word, on a small drive with a thermal camera."""

import json
import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest
from click.testing import CliRunner
from rosbags.rosbag2 import StoragePlugin, Writer
from rosbags.typesys import Stores, get_typestore

from superpoint_ros import Extractor, estimate_homography, match
from superpoint_training.cli import main
from superpoint_training.lists import read_list

ROOT = Path(__file__).parents[2]
SIZE = (96, 128)
NETWORK = ["network.channels=[8, 8, 16, 32]", "network.head_channels=32", "network.descriptor_dim=32"]
SMALL = {
    "adapt": [*NETWORK, "inputs.every=2", "inputs.held_out=0.25", "adaptation.min_points=50", "adaptation.contrast=0"],
    "preview": [],
    "superpoint": [
        *NETWORK,
        "pairs.size=[64, 80]",
        "superpoint.steps=150",
        "superpoint.batch_size=4",
        "superpoint.learning_rate=3e-3",
        "superpoint.warmup=5",
        "superpoint.average=0.9",
        "superpoint.freeze_stages=0",
        "superpoint.freeze_norms=false",
        "superpoint.best=repeatability_nms4",
        "run.workers=0",
        "run.validation_samples=12",
        "run.validate_minutes=1000",  # the first and the last weights, whatever else keeps the machine busy
    ],
    "evaluate": shlex.split(
        "--pairs 14 --baselines none --rotation none --nms 4 --keypoints 150 --size 96 --device cpu"
    ),
}
"""What makes a night's work a matter of seconds."""


def commands() -> list[list[str]]:
    """The walk-through's own commands, without those of ROS."""
    text = (ROOT / "docs" / "recipes" / "train_on_your_bags.md").read_text()
    block = re.search(r"^```sh\n(.*?)^```", text, re.M | re.S)
    assert block
    lines = block.group(1).replace("\\\n", " ").splitlines()
    return [shlex.split(line, comments=True)[1:] for line in lines if line.startswith("superpoint-train")]


def drive(count: int) -> Iterator[np.ndarray]:
    """A camera that sways along a wall of boxes."""
    rng = np.random.default_rng(0)
    wall = np.full((300, 700), 110, np.uint8)
    for _ in range(350):
        centre, sides, turn = rng.uniform((0, 0), (700, 300)), rng.uniform(6, 40, 2), rng.uniform(0, 180)
        box = cv2.boxPoints((tuple(centre), tuple(sides), float(turn))).astype(int)
        cv2.fillPoly(wall, [box], int(rng.integers(20, 235)))
    for number in range(count):
        turn, zoom = np.radians(10 * np.sin(number / 5)), 1 + 0.15 * np.sin(number / 7)
        move = np.array([[np.cos(turn), -np.sin(turn), 0], [np.sin(turn), np.cos(turn), 0]]) / zoom
        centre = [80 + 540 * number / count, 150 + 60 * np.sin(number / 6)]
        move[:, 2] = centre - move[:, :2] @ [SIZE[1] / 2, SIZE[0] / 2]
        yield cv2.warpAffine(wall, move, SIZE[::-1], flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP)


def record(path: Path, count: int = 40) -> None:
    """A bag of a grey camera and of a thermal one: 16 bits, 300 counts of them used, blurred and noisy."""
    store, kind, rng = get_typestore(Stores.ROS2_HUMBLE), "sensor_msgs/msg/Image", np.random.default_rng(1)
    header, time = store.types["std_msgs/msg/Header"], store.types["builtin_interfaces/msg/Time"]
    with Writer(path, version=9, storage_plugin=StoragePlugin.MCAP) as writer:
        topics = [writer.add_connection(f"/{name}/image_raw", kind, typestore=store) for name in ("camera", "thermal")]
        for number, view in enumerate(drive(count)):
            grey = np.clip(view + rng.normal(0, 4, SIZE), 0, 255).astype(np.uint8)
            warm = cv2.GaussianBlur(255 - view, (0, 0), 1.3) / 255 * 300 + rng.normal(0, 18, SIZE)
            deep = (7000 + warm).astype(np.uint16)
            stamp = number * 100_000_000
            head = header(time(*divmod(stamp, 10**9)), "camera")
            for topic, image, encoding in zip(topics, (grey, deep), ("mono8", "mono16"), strict=True):
                rows = image.view(np.uint8).ravel()
                message = store.types[kind](head, *SIZE, encoding, 0, image.strides[0], rows)
                writer.write(topic, stamp, store.serialize_cdr(message, kind))


def run(*arguments: object) -> str:
    result = CliRunner().invoke(main, [str(argument) for argument in arguments])
    assert result.exit_code == 0, result.output
    return result.output


@pytest.fixture(scope="module")
def start(tmp_path_factory) -> Path:
    """A MagicPoint of a quarter of a minute: the weights to begin with."""
    out = tmp_path_factory.mktemp("magicpoint")
    shapes = ["shapes.size=[64, 80]", "shapes.homography.rotation=180", "run.validation_samples=22", "run.workers=0"]
    steps = ["steps=250", "batch_size=4", "learning_rate=5e-3", "schedule=cosine"]
    run("magicpoint", "--recipe", "robot", "--out", out, *NETWORK, *shapes, *(f"magicpoint.{each}" for each in steps))
    return out / "magicpoint.safetensors"


def test_the_walk_through_ends_in_weights_that_beat_the_start_on_held_out_frames(start, tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    record(tmp_path / "drive")
    assert [line[0] for line in commands()] == list(SMALL)
    for line in commands():
        run(*(str(start) if word == "default" else word for word in line), *SMALL[line[0]])
    training, held_out = read_list(Path("adapted/pictures.txt")), read_list(Path("adapted/held_out.txt"))
    for lists in (training, held_out):  # of both cameras
        assert {path.parent.name for path in lists} == {"camera-image_raw", "thermal-image_raw"}
    report = json.loads(Path("report/report.json").read_text())["results"]
    for which in ("warped", "warped native"):
        trained, before = (figures["all"] for figures in report[which].values())
        assert trained["repeatability_nms4"] > before["repeatability_nms4"] + 0.05
        assert trained["matching_score"] > 0  # the start has no descriptors
    extractor = Extractor("trained/superpoint.safetensors", device="cpu", subpixel=True)
    thermal = next(path for path in held_out if "thermal" in path.parent.name)
    features = extractor(cv2.imread(str(thermal), cv2.IMREAD_GRAYSCALE))
    found = estimate_homography(features, features, match(features, features))
    assert len(features) > 20 and found.status.name == "OK"
