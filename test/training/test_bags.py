import os
import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest
from rosbags.rosbag2 import StoragePlugin
from training_scenes import scene, write_bag

from superpoint_training.bags import extract_frames, frames_folder, is_bag, moment
from superpoint_training.config import InputConfig

STORAGES = [StoragePlugin.SQLITE3, StoragePlugin.MCAP]
ALL = InputConfig(min_change=0.0)


def frames_of(paths: list[Path]) -> list[np.ndarray]:
    return [cv2.imread(str(path), cv2.IMREAD_GRAYSCALE) for path in paths]


@pytest.mark.parametrize("storage", STORAGES)
def test_raw_and_compressed_topics_are_read_in_order_of_time(tmp_path, storage) -> None:
    raw, compressed = [scene(i) for i in range(3)], [scene(10 + i) for i in range(2)]
    bag = write_bag(tmp_path / "drive", storage, raw, compressed, padding=5)
    assert is_bag(bag)
    found = frames_of(extract_frames(bag, tmp_path / "frames", ALL))
    assert len(found) == 5
    for frame, expected in zip(found, [*raw, *compressed], strict=True):
        assert np.array_equal(frame, expected)


@pytest.mark.parametrize("storage", STORAGES)
def test_a_single_storage_file_is_a_bag_too(tmp_path, storage) -> None:
    bag = write_bag(tmp_path / "drive", storage, [scene(0)])
    file = next(path for path in bag.iterdir() if path.suffix in (".mcap", ".db3"))
    assert is_bag(file)
    assert len(extract_frames(file, tmp_path / "frames", ALL)) == 1


def test_every_kth_frame_is_taken(tmp_path) -> None:
    raw = [scene(i) for i in range(7)]
    bag = write_bag(tmp_path / "drive", StoragePlugin.MCAP, raw)
    found = frames_of(extract_frames(bag, tmp_path / "frames", InputConfig(every=3, min_change=0)))
    assert [next(i for i in range(7) if np.array_equal(f, raw[i])) for f in found] == [0, 3, 6]


def test_frames_that_repeat_the_last_one_kept_are_left_out(tmp_path) -> None:
    still = scene(0)
    flicker = np.clip(still.astype(int) + 1, 0, 255).astype(np.uint8)
    bag = write_bag(tmp_path / "drive", StoragePlugin.MCAP, [still, flicker, still, scene(1), scene(1)])
    found = frames_of(extract_frames(bag, tmp_path / "frames", InputConfig()))
    assert len(found) == 2
    assert np.array_equal(found[0], still) and np.array_equal(found[1], scene(1))


def test_colour_becomes_grey_and_large_frames_shrink(tmp_path) -> None:
    colour = np.stack([scene(0, (200, 300)), scene(1, (200, 300)), scene(2, (200, 300))], axis=2)
    bag = write_bag(tmp_path / "drive", StoragePlugin.MCAP, [colour], encoding="rgb8")
    (frame,) = frames_of(extract_frames(bag, tmp_path / "frames", InputConfig(longer_side=150)))
    grey = cv2.cvtColor(colour, cv2.COLOR_RGB2GRAY)
    assert np.array_equal(frame, cv2.resize(grey, (150, 100), interpolation=cv2.INTER_AREA))


def test_frames_that_cannot_be_decoded_are_skipped_and_counted(tmp_path, capfd) -> None:
    bag = write_bag(tmp_path / "drive", StoragePlugin.MCAP, compressed=[b"not a picture", scene(1)])
    assert len(extract_frames(bag, tmp_path / "frames", ALL)) == 1
    assert "1 frames skipped: format 'png': 13 bytes are not a readable picture" in capfd.readouterr().out


def test_an_unknown_encoding_names_the_known_ones(tmp_path, capfd) -> None:
    bag = write_bag(tmp_path / "drive", StoragePlugin.MCAP, [scene(0)], encoding="hsv8")
    assert extract_frames(bag, tmp_path / "frames", ALL) == []
    said = capfd.readouterr().out
    assert "1 frames skipped: encoding 'hsv8'" in said and "expected one of mono8" in said


def thermal(index: int) -> np.ndarray:
    """A scene as a radiometric camera gives it: 600 counts somewhere in 65536."""
    return (7000 + scene(index).astype(np.float32) / 255 * 600).astype(np.uint16)


def test_frames_of_sixteen_bits_have_contrast_and_are_told_apart(tmp_path) -> None:
    deep = [thermal(i) for i in range(4)]
    bag = write_bag(tmp_path / "drive", StoragePlugin.MCAP, deep, encoding="mono16")
    found = frames_of(extract_frames(bag, tmp_path / "frames", InputConfig()))
    assert len(found) == 4 and min(np.ptp(frame) for frame in found) > 150


def test_frames_of_sixteen_bits_are_scaled_by_the_range_that_is_set(tmp_path) -> None:
    bag = write_bag(tmp_path / "drive", StoragePlugin.MCAP, [thermal(0)], encoding="mono16")
    settings = InputConfig(intensity_range=(7000, 7600))
    (frame,) = frames_of(extract_frames(bag, tmp_path / "frames", settings))
    assert np.abs(frame.astype(int) - scene(0)).max() <= 1
    with pytest.raises(ValueError, match="low below high"):
        InputConfig(intensity_range=(2, 1))


def test_a_topic_that_is_empty_does_not_cost_the_others_of_a_damaged_bag(tmp_path, capfd) -> None:
    bag = write_bag(tmp_path / "drive", StoragePlugin.MCAP, [scene(i) for i in range(3)])
    from superpoint_ros.bags.writer import BagWriter, offered_qos

    with BagWriter(tmp_path / "other") as writer:
        writer.add_topic("/a/empty", "sensor_msgs/msg/Image", offered_qos(False, 5))
    next((tmp_path / "other").glob("*.mcap")).rename(bag / "drive_1.mcap")
    (bag / "drive_2.mcap").write_bytes(b"")
    (bag / "metadata.yaml").unlink()
    assert len(extract_frames(bag, tmp_path / "frames", ALL)) == 3
    assert "drive_2.mcap: not a readable bag" in capfd.readouterr().out
    next(each for each in bag.glob("*.mcap") if each.name not in ("drive_1.mcap", "drive_2.mcap")).unlink()
    with pytest.raises(ValueError, match="drive_2.mcap: not a readable bag"):
        extract_frames(bag, tmp_path / "nothing", ALL)


def test_a_bag_of_ros_1_is_refused_with_what_converts_it(tmp_path) -> None:
    bag = tmp_path / "drive.bag"
    bag.write_bytes(b"#ROSBAG V2.0\n")
    assert is_bag(bag)
    with pytest.raises(ValueError, match="a bag of ROS 1; `rosbags-convert"):
        extract_frames(bag, tmp_path / "frames", ALL)


def test_a_bag_is_read_once(tmp_path) -> None:
    bag = write_bag(tmp_path / "drive", StoragePlugin.MCAP, [scene(0), scene(1)])
    first = extract_frames(bag, tmp_path / "frames", ALL)
    times = [path.stat().st_mtime_ns for path in first]
    second = extract_frames(bag, tmp_path / "frames", ALL)
    assert second == first and [path.stat().st_mtime_ns for path in second] == times
    # other settings are another extraction
    assert extract_frames(bag, tmp_path / "frames", InputConfig(every=2)) != first


def test_only_the_topics_asked_for_are_read(tmp_path) -> None:
    bag = write_bag(tmp_path / "drive", StoragePlugin.MCAP, [scene(0)], [scene(1)])
    chosen = InputConfig(topics=("/camera/image/compressed",), min_change=0)
    (frame,) = frames_of(extract_frames(bag, tmp_path / "frames", chosen))
    assert np.array_equal(frame, scene(1))
    with pytest.raises(ValueError, match="no topic /rear.*/camera/image "):
        extract_frames(bag, tmp_path / "frames", InputConfig(topics=("/rear",)))


def test_a_recording_that_was_cut_off_is_used_up_to_there(tmp_path, capfd) -> None:
    bag = write_bag(tmp_path / "drive", StoragePlugin.MCAP, [scene(i) for i in range(20)])
    file = next(bag.glob("*.mcap"))
    file.write_bytes(file.read_bytes()[:-2000])
    try:
        found = extract_frames(bag, tmp_path / "frames", ALL)
    except ValueError as error:  # rosbags may refuse it outright; then in a sentence
        assert str(bag) in str(error)
    else:
        assert len(found) > 0


def test_frames_of_the_same_time_are_all_kept_and_in_order(tmp_path) -> None:
    raw = [scene(i) for i in range(13)]
    same = write_bag(tmp_path / "same", StoragePlugin.MCAP, raw, times=[5] + 11 * [7] + [9])
    found = extract_frames(same, tmp_path / "frames", ALL)
    assert [moment(path) for path in found] == [f"{time:020d}" for time in [5] + 11 * [7] + [9]]
    for frame, expected in zip(frames_of(found), raw, strict=True):
        assert np.array_equal(frame, expected)
    assert [path.name for path in found[:2]] == [f"{5:020d}.png", f"{7:020d}.png"]  # as ever


def test_a_topic_that_is_asked_for_twice_is_read_once(tmp_path) -> None:
    bag = write_bag(tmp_path / "drive", StoragePlugin.MCAP, [scene(0), scene(1)])
    twice = InputConfig(topics=("/camera/image", "camera/image"), min_change=0)
    assert len(extract_frames(bag, tmp_path / "frames", twice)) == 2


def test_a_bag_that_was_recorded_anew_under_its_name_is_read_anew(tmp_path) -> None:
    bag = write_bag(tmp_path / "drive", StoragePlugin.MCAP, [scene(i) for i in range(3)])
    first = extract_frames(bag, tmp_path / "frames", ALL)
    shutil.rmtree(bag)
    write_bag(bag, StoragePlugin.MCAP, [scene(i + 10) for i in range(2)])
    second = extract_frames(bag, tmp_path / "frames", ALL)
    assert second == first[:2]
    for number, frame in enumerate(frames_of(second)):
        assert np.array_equal(frame, scene(number + 10))


def test_a_bag_that_was_cut_off_is_read_anew_once_it_is_repaired_and_until_then_says_so(tmp_path, capfd) -> None:
    bag = write_bag(tmp_path / "drive", StoragePlugin.SQLITE3, [scene(i) for i in range(20)])
    file = next(bag.glob("*.db3"))
    whole = file.read_bytes()
    file.write_bytes(whole[: len(whole) // 2])
    first = extract_frames(bag, tmp_path / "frames", ALL)
    assert 0 < len(first) < 20
    for _ in range(2):
        assert "messages on /camera/image are used" in capfd.readouterr().out
        assert extract_frames(bag, tmp_path / "frames", ALL) == first
    file.write_bytes(whole)
    assert len(extract_frames(bag, tmp_path / "frames", ALL)) == 20


def test_frames_that_were_skipped_are_told_again_whenever_they_are_missed(tmp_path, capfd) -> None:
    bag = write_bag(tmp_path / "drive", StoragePlugin.MCAP, compressed=[b"not a picture"])
    for _ in range(2):
        assert extract_frames(bag, tmp_path / "frames", ALL) == []
        assert "1 frames skipped: format 'png': 13 bytes are not a readable picture" in capfd.readouterr().out


@pytest.mark.parametrize("note", ["", "{", "[]", "{}"])
def test_frames_whose_note_is_damaged_or_of_an_earlier_version_are_extracted_anew(tmp_path, note) -> None:
    bag = write_bag(tmp_path / "drive", StoragePlugin.MCAP, [scene(0), scene(1)])
    first = extract_frames(bag, tmp_path / "frames", ALL)
    first[1].unlink()
    (frames_folder(first[0]) / "frames.json").write_text(note)
    assert extract_frames(bag, tmp_path / "frames", ALL) == first


def test_a_bag_that_cannot_be_read_any_more_leaves_the_frames_of_before(tmp_path) -> None:
    bag = write_bag(tmp_path / "drive", StoragePlugin.MCAP, [scene(0)])
    (frame,) = extract_frames(bag, tmp_path / "frames", ALL)
    next(bag.glob("*.mcap")).write_bytes(b"")
    with pytest.raises(ValueError, match="not a readable bag"):
        extract_frames(bag, tmp_path / "frames", ALL)
    assert frame.is_file() and list((tmp_path / "frames").iterdir()) == [frames_folder(frame)]


def test_a_bag_whose_name_no_list_can_hold_is_refused(tmp_path) -> None:
    bag = write_bag(tmp_path / "drive", StoragePlugin.MCAP, [scene(0)])
    odd = bag.rename(tmp_path / os.fsdecode(b"caf\xe9"))
    with pytest.raises(ValueError, match="lists cannot hold its path"):
        extract_frames(odd, tmp_path / "frames", ALL)
