import os
import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest
from rosbags.rosbag2 import StoragePlugin
from training_scenes import scene, write_bag, write_scenes

from superpoint_ros.bags.writer import BagWriter, offered_qos
from superpoint_training.config import InputConfig
from superpoint_training.pictures import BadPicture, PictureFolder, find_pictures, read_picture, shrink_to_cover


def test_folders_lists_files_and_bags_add_up_each_picture_once(tmp_path) -> None:
    first = write_scenes(tmp_path / "a" / "deep", 2)
    second = write_scenes(tmp_path / "b", 2)
    (tmp_path / "a" / "notes.md").write_text("no picture")
    listed = tmp_path / "list.txt"
    listed.write_text("# mine\nb/000.png\n\nb/001.png\n")
    bag = write_bag(tmp_path / "drive", StoragePlugin.MCAP, [scene(5)])
    sources = [tmp_path / "a", listed, second[1], bag]
    found = find_pictures(sources, tmp_path / "frames", InputConfig())
    assert found[:4] == [*first, *second] and len(found) == 5


def test_a_bag_inside_a_folder_is_found(tmp_path) -> None:
    write_scenes(tmp_path / "all", 1)
    write_bag(tmp_path / "all" / "drive", StoragePlugin.SQLITE3, [scene(5), scene(6)])
    assert len(find_pictures([tmp_path / "all"], tmp_path / "frames", InputConfig())) == 3


def test_a_source_without_pictures_is_refused_by_name(tmp_path) -> None:
    with pytest.raises(ValueError, match=f"{tmp_path}: no pictures found"):
        find_pictures([tmp_path], tmp_path / "frames", InputConfig())
    with pytest.raises(ValueError, match="gone: no such folder"):
        find_pictures([tmp_path / "gone"], tmp_path / "frames", InputConfig())


def test_colour_pictures_are_read_as_grey(tmp_path) -> None:
    colour = np.stack([scene(0), scene(1), scene(2)], axis=2)
    cv2.imwrite(str(tmp_path / "colour.png"), colour)
    grey = cv2.cvtColor(colour, cv2.COLOR_BGR2GRAY).astype(int)
    assert np.abs(read_picture(tmp_path / "colour.png") - grey).max() <= 1


def test_bad_pictures_are_refused_by_name(tmp_path) -> None:
    broken, small = tmp_path / "broken.png", tmp_path / "small.png"
    broken.write_bytes(b"\x89PNG nonsense")
    cv2.imwrite(str(small), np.zeros((20, 100), np.uint8))
    for path, reason in (
        (broken, "not a readable picture"),
        (small, "100×20 pixels"),
        (tmp_path / "gone", "cannot be read"),
    ):
        with pytest.raises(BadPicture, match=f"{path.name}.*{reason}"):
            read_picture(path)


def test_files_of_sixteen_bits_have_contrast_by_their_own_range_or_the_one_that_is_set(tmp_path) -> None:
    deep = (7000 + scene(0).astype(np.float32) / 255 * 600).astype(np.uint16)
    for suffix in (".png", ".tiff"):
        cv2.imwrite(str(tmp_path / f"thermal{suffix}"), deep)
    cv2.imwrite(str(tmp_path / "plain.png"), scene(1))
    for path in find_pictures([tmp_path], tmp_path / "frames", InputConfig()):
        assert np.ptp(read_picture(path)) > 150
    settings = InputConfig(intensity_range=(7000, 7600))
    plain, *thermal = find_pictures([tmp_path], tmp_path.parent / "frames", settings)
    assert plain == tmp_path / "plain.png" and len(thermal) == 2
    for path in thermal:
        assert np.abs(read_picture(path).astype(int) - scene(0)).max() <= 1


def test_a_bad_picture_is_skipped_counted_and_named_once(tmp_path, capfd) -> None:
    paths = write_scenes(tmp_path, 4)
    paths[1].write_bytes(b"damaged")
    folder = PictureFolder(paths)
    for _ in range(3):
        number, picture = folder.read(1)
        assert number == 2 and np.array_equal(picture, scene(2))
    assert list(folder.bad) == [paths[1]]
    assert capfd.readouterr().out.count("001.png") == 1


def test_nothing_but_bad_pictures_is_an_error(tmp_path) -> None:
    paths = write_scenes(tmp_path, 3)
    for path in paths:
        path.write_bytes(b"damaged")
    with pytest.raises(ValueError, match="cannot be read"):
        PictureFolder(paths).read(0)


@pytest.mark.parametrize(
    ("size", "expected"), [((48, 64), (48, 64)), ((48, 32), (48, 64)), ((0, 0), (96, 128)), ((200, 200), (96, 128))]
)
def test_pictures_shrink_until_they_just_cover_the_size(size, expected) -> None:
    assert shrink_to_cover(scene(0), size).shape == expected


def ros1(path: Path) -> Path:
    path.write_bytes(b"#ROSBAG V2.0\n")
    return path


def empty(path: Path) -> Path:
    path.with_suffix(".mcap").write_bytes(b"")
    return path.with_suffix(".mcap")


def without_images(path: Path) -> Path:
    with BagWriter(path.with_suffix("")) as writer:
        writer.add_topic("/chatter", "std_msgs/msg/String", offered_qos(False, 5))
    return path.with_suffix("")


def with_other_topics(path: Path) -> Path:
    return write_bag(path.with_suffix(""), StoragePlugin.MCAP, compressed=[scene(0)])


@pytest.mark.parametrize("made", [ros1, empty, without_images, with_other_topics])
def test_a_bag_in_a_folder_that_cannot_be_used_is_skipped_and_named(tmp_path, capfd, made) -> None:
    folder = tmp_path / "all"
    folder.mkdir()
    bad = made(folder / "bad.bag")
    settings = InputConfig(topics=("/camera/image",), min_change=0)
    with pytest.raises(ValueError, match=rf"{folder}: no pictures found, and none of its 1 bags can be used \(.*bad"):
        find_pictures([folder], tmp_path / "frames", settings)
    with pytest.raises(ValueError, match=str(bad)):
        find_pictures([bad], tmp_path / "frames", settings)
    capfd.readouterr()
    write_bag(folder / "good", StoragePlugin.MCAP, [scene(1), scene(2)])
    assert len(find_pictures([folder], tmp_path / "frames", settings)) == 2
    said = capfd.readouterr().out
    assert str(bad) in said and "; skipped, 1 bags so far" in said


def test_hidden_files_of_a_folder_are_neither_pictures_nor_bags(tmp_path, capfd) -> None:
    paths = write_scenes(tmp_path / "pictures", 2)
    for name in ("._000.png", ".thumbnail.jpg", "._drive.mcap", "._old.bag"):
        (tmp_path / "pictures" / name).write_bytes(b"\0\5\x16\7")
    assert find_pictures([tmp_path / "pictures"], tmp_path / "frames", InputConfig()) == paths
    assert capfd.readouterr().out == ""


def test_a_picture_whose_name_no_list_can_hold_is_skipped_and_named(tmp_path, capfd) -> None:
    paths = write_scenes(tmp_path / "pictures", 2)
    for name in (b"caf\xe9.png", b"two\nlines.png"):
        shutil.copy(paths[0], tmp_path / "pictures" / os.fsdecode(name))
    settings = InputConfig(intensity_range=(0, 1000))
    assert find_pictures([tmp_path / "pictures"], tmp_path / "frames", settings) == paths
    said = capfd.readouterr().out
    assert "2 pictures skipped, as lists cannot hold their paths" in said and "caf�.png, two�lines.png" in said
    for path in paths:
        path.unlink()
    with pytest.raises(ValueError, match="no pictures found"):
        find_pictures([tmp_path / "pictures"], tmp_path / "frames", settings)


def test_a_picture_of_sixteen_bits_that_was_replaced_is_scaled_anew(tmp_path) -> None:
    settings = InputConfig(intensity_range=(7000, 7600))
    for seed in (0, 1):
        deep = (7000 + scene(seed).astype(np.float32) / 255 * 600).astype(np.uint16)
        cv2.imwrite(str(tmp_path / "thermal.png"), deep)
        (found,) = find_pictures([tmp_path / "thermal.png"], tmp_path / "frames", settings)
        assert np.abs(read_picture(found).astype(int) - scene(seed)).max() <= 1
    written = found.stat().st_ino
    find_pictures([tmp_path / "thermal.png"], tmp_path / "frames", settings)
    assert found.stat().st_ino == written
