"""superpoint_ros/tools/extract/mapping.py: a bag becomes a COLMAP project that COLMAP makes a map of."""

import os
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
from click.testing import CliRunner

from bag_samples import SECOND, image_bytes, message_bytes
from space_scenes import SIZE, K, render
from superpoint_ros.bags.content import IMAGE
from superpoint_ros.features.extractor import Extractor, Features
from superpoint_ros.features.levels import levels_for
from superpoint_ros.tools.extract.camera_infos import CAMERA_INFO
from superpoint_ros.tools.extract.command import extract_command
from superpoint_ros.tools.extract.input import Camera
from superpoint_ros.tools.extract.mapping import View

TOPIC, INFO = "/camera/image_raw", "/camera/camera_info"
FRAMES = 14
REAL = os.environ.get("REAL_SEQUENCE")
"""A folder of pictures of one camera, and their relative poses in SuperGlue's text format."""


def places():
    """Where the camera is: once around, looking ahead, so that the last pictures show what the first do."""
    turns = np.linspace(0, 2 * np.pi, FRAMES, endpoint=False)
    return np.stack([0.9 * np.cos(turns), 0.4 * np.sin(turns), 0.4 * np.sin(turns)], axis=1)


@pytest.fixture
def bag(make_bag):
    info = {
        "width": SIZE[1],
        "height": SIZE[0],
        "distortion_model": "plumb_bob",
        "d": np.zeros(5),
        "k": K.ravel(),
        "r": np.eye(3).ravel(),
        "p": np.column_stack([K, np.zeros(3)]).ravel(),
    }
    messages = [(INFO, SECOND, message_bytes(CAMERA_INFO, SECOND, **info))]
    for number, place in enumerate(places()):
        time = SECOND + number * SECOND // 10
        messages.append((TOPIC, time, image_bytes(time, render(np.eye(3), place))))
    return make_bag("drive", {TOPIC: IMAGE, INFO: CAMERA_INFO}, messages)


def run(*arguments, status=0):
    options = ["--topic", TOPIC, "--device", "cpu", "--max-keypoints", "400"]
    result = CliRunner().invoke(extract_command, [*options, *map(str, arguments)])
    assert result.exit_code == status, result.output
    return result.output


def mapped(colmap, project):
    """The map of a project, the largest if there are several, made as the recipe says."""
    options = colmap.IncrementalPipelineOptions()
    options.ba_refine_focal_length = options.ba_refine_extra_params = False
    (project / "sparse").mkdir()
    found = colmap.incremental_mapping(project / "database.db", project / "images", project / "sparse", options=options)
    return max(found.values(), key=lambda each: each.num_reg_images())


def test_colmap_makes_a_map_of_a_bag_whose_cameras_are_where_they_were(bag, tmp_path):
    colmap = pytest.importorskip("pycolmap", reason="needs pycolmap")
    said = run(bag, tmp_path / "out", "--colmap", tmp_path / "map", "--set", "subpixel=true")
    assert f"map: {FRAMES} pictures, " in said
    names = sorted(path.name for path in (tmp_path / "map" / "images" / "camera").iterdir())
    assert names[0] == f"{SECOND}.png" and len(names) == FRAMES
    first = cv2.imread(str(tmp_path / "map" / "images" / "camera" / names[0]), cv2.IMREAD_GRAYSCALE)
    np.testing.assert_array_equal(first, render(np.eye(3), places()[0]))

    scene = mapped(colmap, tmp_path / "map")
    assert scene.num_reg_images() == FRAMES
    assert scene.compute_mean_track_length() > 4
    assert scene.compute_mean_reprojection_error() < 0.1  # 0.43 with keypoints that are not adjusted
    (lens,) = scene.cameras.values()
    assert lens.model.name == "OPENCV"
    centres = np.array([image.projection_center() for _, image in sorted(scene.images.items())])
    truth = places()
    off = aligned(centres, truth) - truth
    assert np.linalg.norm(off, axis=1).max() < 0.0006 * np.linalg.norm(np.diff(truth, axis=0), axis=1).sum()


@pytest.mark.skipif(not REAL, reason="needs a real sequence: REAL_SEQUENCE=FOLDER with pictures and pairs_with_gt.txt")
def test_colmap_makes_a_map_of_a_real_sequence(make_bag, tmp_path):
    colmap = pytest.importorskip("pycolmap", reason="needs pycolmap")
    pairs = [line.split() for line in (Path(REAL) / "pairs_with_gt.txt").read_text().splitlines()]
    names = sorted({name for pair in pairs for name in pair[:2]})
    pictures = [cv2.imread(str(Path(REAL) / name), cv2.IMREAD_GRAYSCALE) for name in names]
    k = np.array(pairs[0][4:13], float)
    lens = {"distortion_model": "plumb_bob", "d": np.zeros(5), "k": k, "r": np.eye(3).ravel()}
    lens |= {"height": pictures[0].shape[0], "width": pictures[0].shape[1]}
    info = message_bytes(CAMERA_INFO, SECOND, p=np.column_stack([k.reshape(3, 3), np.zeros(3)]).ravel(), **lens)
    times = [SECOND + number * SECOND // 10 for number in range(len(names))]
    messages = [(TOPIC, time, image_bytes(time, each)) for time, each in zip(times, pictures, strict=True)]
    drive = make_bag("real", {TOPIC: IMAGE, INFO: CAMERA_INFO}, [(INFO, SECOND, info), *messages])
    run(drive, tmp_path / "out", "--colmap", tmp_path / "map", "--max-keypoints", 2048, "--set", "subpixel=true")
    scene = mapped(colmap, tmp_path / "map")
    assert scene.num_reg_images() >= len(names) - 1
    assert scene.compute_mean_track_length() > 3
    assert scene.compute_mean_reprojection_error() < 0.4
    seen = {image.name.rpartition("/")[2]: image.cam_from_world().matrix() for image in scene.images.values()}
    place = {name: seen.get(f"{time}.png") for name, time in zip(names, times, strict=True)}
    off = []
    for first, second, *_, t in ((*pair[:2], np.array(pair[22:38], float).reshape(4, 4)) for pair in pairs):
        if place[first] is not None and place[second] is not None:
            turn = place[second][:, :3] @ place[first][:, :3].T @ t[:3, :3].T
            off.append(np.degrees(np.linalg.norm(cv2.Rodrigues(turn)[0])))
    assert len(off) > 5 and np.median(off) < 0.5


def aligned(points, onto):
    """Turned, scaled and moved so that they fit best (Umeyama 1991)."""
    a, b = points - points.mean(axis=0), onto - onto.mean(axis=0)
    u, s, vt = np.linalg.svd(b.T @ a)
    flip = np.diag([1, 1, np.sign(np.linalg.det(u @ vt))])
    scale = (s * np.diag(flip)).sum() / (a**2).sum()
    return scale * a @ (u @ flip @ vt).T + onto.mean(axis=0)


def test_the_last_pictures_of_a_round_are_matched_with_the_first(bag, tmp_path):
    colmap = pytest.importorskip("pycolmap", reason="needs pycolmap")
    run(bag, tmp_path / "out", "--colmap", tmp_path / "map")
    with colmap.Database.open(tmp_path / "map" / "database.db") as database:
        assert database.num_images() == FRAMES
        assert database.num_cameras() == 1
        assert database.exists_matches(1, FRAMES)
        assert database.num_verified_image_pairs() > FRAMES


def test_each_so_manieth_image_and_a_bag_without_a_calibration(make_bag, tmp_path):
    colmap = pytest.importorskip("pycolmap", reason="needs pycolmap")
    messages = [
        (TOPIC, SECOND + n, image_bytes(SECOND + n, render(np.eye(3), place))) for n, place in enumerate(places()[:5])
    ]
    drive = make_bag("drive", {TOPIC: IMAGE}, messages)
    said = run(drive, tmp_path / "out", "--colmap", tmp_path / "map", "--colmap-every", 2)
    assert "map: 3 pictures, 3 pairs of them matched" in said
    assert f"no CameraInfo on {INFO}; keypoints of {TOPIC} have a lens that COLMAP guesses" in said
    with colmap.Database.open(tmp_path / "map" / "database.db") as database:
        assert database.read_all_cameras()[0].model.name == "SIMPLE_RADIAL"
    again = run(drive, tmp_path / "out", "--resume", "--colmap", tmp_path / "map", status=1)
    assert "no COLMAP project" in again and "database.db: exists already" in again


def test_a_damaged_bag_has_a_project_of_what_can_be_read(make_bag, tmp_path):
    pytest.importorskip("pycolmap", reason="needs pycolmap")
    messages = [
        (TOPIC, SECOND + n, image_bytes(SECOND + n, render(np.eye(3), place))) for n, place in enumerate(places()[:4])
    ]
    messages[1] = (*messages[1][:2], messages[1][2][:100])
    drive = make_bag("drive", {TOPIC: IMAGE, INFO: CAMERA_INFO}, messages)
    (drive / "drive_1.mcap").write_bytes(b"")
    said = run(drive, tmp_path / "out", "--set", "rectify=true", "--colmap", tmp_path / "map", status=1)
    assert "drive_1.mcap: not a readable bag" in said and "1 of 4 images are unreadable" in said
    assert "map: 3 pictures, " in said and "out: 3 frames" in said


def test_each_picture_of_a_camera_that_sets_no_stamps_keeps_its_own_features(make_bag, tmp_path):
    colmap = pytest.importorskip("pycolmap", reason="needs pycolmap")
    poses = places()[:4]
    messages = [(TOPIC, SECOND + n, image_bytes(0, render(np.eye(3), place))) for n, place in enumerate(poses)]
    said = run(make_bag("drive", {TOPIC: IMAGE}, messages), tmp_path / "out", "--colmap", tmp_path / "map")
    assert "map: 4 pictures, " in said
    extractor = Extractor(device="cpu", max_keypoints=400)
    with colmap.Database.open(tmp_path / "map" / "database.db") as database:
        for image, place in zip(sorted(database.read_all_images(), key=lambda each: each.name), poses, strict=True):
            found = database.read_keypoints(image.image_id)
            assert len(found) == len(extractor(render(np.eye(3), place)))


def test_pictures_of_another_size_are_another_camera_for_colmap(make_bag, tmp_path):
    colmap = pytest.importorskip("pycolmap", reason="needs pycolmap")
    picture = render(np.eye(3), places()[0])
    sizes = [picture, picture, picture[:120, :160], picture[:120, :160]]
    messages = [(TOPIC, SECOND + n, image_bytes(SECOND + n, each)) for n, each in enumerate(sizes)]
    run(make_bag("drive", {TOPIC: IMAGE}, messages), tmp_path / "out", "--colmap", tmp_path / "map")
    with colmap.Database.open(tmp_path / "map" / "database.db") as database:
        cameras = {each.camera_id: (each.height, each.width) for each in database.read_all_cameras()}
        seen = [cameras[each.camera_id] for each in sorted(database.read_all_images(), key=lambda each: each.name)]
    assert seen == [each.shape for each in sizes]


def test_a_view_is_read_back_as_it_was_with_its_mask(tmp_path):
    picture = render(np.eye(3), places()[0])
    mask = np.random.default_rng(0).random(SIZE) > 0.001
    (tmp_path / "view.png").write_bytes(cv2.imencode(".png", picture)[1].tobytes())
    parts = (np.ones(shape, np.float32) for shape in ((1, 2), 1, (1, 4)))
    found = Features(*parts, SIZE, scales=np.full(1, 2, np.float32))
    for packed, expected in (
        (None, levels_for(found, picture)),
        (np.packbits(mask), levels_for(found, picture, mask)),
    ):
        levels = View(Camera("", TOPIC), SECOND, tmp_path / "view.png", 1, found, packed).levels()
        np.testing.assert_array_equal(levels.pixels, expected.pixels)
        np.testing.assert_array_equal(levels.allowed, expected.allowed)


def test_what_makes_a_project_impossible_is_said_before_anything_is_extracted(bag, tmp_path, monkeypatch):
    said = run(bag, tmp_path / "out", "--colmap", tmp_path / "map", "--set", "publish_features=false", status=1)
    assert "--colmap needs publish_features" in said or "pip install pycolmap" in said
    monkeypatch.setitem(sys.modules, "pycolmap", None)
    assert "pip install pycolmap" in run(bag, tmp_path / "out", "--colmap", tmp_path / "map", status=1)
    assert not (tmp_path / "out").exists()
