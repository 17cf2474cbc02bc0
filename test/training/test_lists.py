from pathlib import Path

import pytest
from rosbags.rosbag2 import StoragePlugin
from training_scenes import scene, write_bag, write_scenes

from superpoint_training.bags import moment
from superpoint_training.config import InputConfig
from superpoint_training.lists import HELD_OUT, PICTURES, Lists, divide, listed, read_list, relocated, split


def test_the_same_pictures_are_held_out_every_time(tmp_path) -> None:
    paths = [tmp_path / f"{i}.png" for i in range(50)]
    training, held_out = split(paths, 0.1, seed=3)
    assert len(held_out) == 5 and sorted(training + held_out) == sorted(paths)
    assert split(paths, 0.1, seed=3) == (training, held_out)
    assert split(paths, 0.0, seed=3) == (paths, [])
    assert split(paths[:1], 0.5, seed=3) == (paths[:1], [])


@pytest.mark.parametrize("topics", [1, 2])
def test_of_a_bag_a_stretch_of_time_is_held_out_and_its_neighbours_are_in_neither_list(tmp_path, topics) -> None:
    frames = [scene(i) for i in range(20)]
    bag = write_bag(tmp_path / "drive", StoragePlugin.MCAP, frames, frames if topics == 2 else ())
    lists = divide([bag], tmp_path, InputConfig(min_change=0, held_out=0.2), 1, None)
    trained, kept = ({int(path.stem) // 100_000_000 for path in paths} for paths in (lists.training, lists.held_out))
    assert len(lists.held_out) == 4 * topics
    assert sorted(kept) == list(range(min(kept), max(kept) + 1))
    assert not trained & {*kept, min(kept) - 1, max(kept) + 1}
    assert len(trained) >= 13


def test_of_topics_with_unequal_rates_the_frames_next_to_the_stretch_are_left_out_of_each(tmp_path) -> None:
    frames = [*((f"fast/{n:03}.png") for n in range(0, 400, 10)), *((f"slow/{n:03}.png") for n in range(0, 400, 100))]
    folder = tmp_path / "bag-1"
    folder.mkdir()
    (folder / "frames.json").write_text("{}")
    paths = [folder / frame for frame in frames]
    for seed in range(20):
        training, held_out = split(paths, 0.25, seed)
        kept = [int(path.stem) for path in held_out]
        assert len(held_out) == 11
        for topic, step in (("fast", 10), ("slow", 100)):
            near = {int(path.stem) for path in training if path.parent.name == topic}
            assert not near & {*range(min(kept), max(kept) + 1)}
            between = [n for n in range(0, 400, step) if min(kept) - step <= n <= max(kept) + step]
            assert not near & {*between}, (seed, topic)


@pytest.mark.parametrize("count", [2, 3, 4])
def test_of_a_bag_of_a_few_frames_some_are_left_to_train_with(tmp_path, count) -> None:
    folder = tmp_path / "bag-1"
    folder.mkdir()
    (folder / "frames.json").write_text("{}")
    for topics in ("a", "ab"):
        paths = [folder / topic / f"{n}.png" for topic in topics for n in range(count)]
        for seed in range(20):
            training, held_out = split(paths, 0.1, seed)
            assert len(held_out) == 1 and training and held_out[0] not in training


def test_every_bag_and_the_single_pictures_give_their_share(tmp_path) -> None:
    pictures = write_scenes(tmp_path / "single", 10)
    bags = [
        write_bag(tmp_path / name, StoragePlugin.MCAP, [scene(i + first) for i in range(10)])
        for first, name in ((20, "a"), (40, "b"))
    ]
    lists = divide([tmp_path / "single", *bags], tmp_path, InputConfig(min_change=0, held_out=0.2), 0, None)
    folders = [path.parent for path in lists.held_out]
    assert sorted(map(folders.count, set(folders))) == [2, 2, 2]
    assert not set(lists.training) & set(lists.held_out) and sum(path in lists.training for path in pictures) == 8


def test_a_name_that_two_pictures_have_is_refused_until_it_says_which(tmp_path) -> None:
    pictures = [path for name in ("a", "b") for path in write_scenes(tmp_path / name, 2)]
    names = tmp_path / "kept.txt"
    names.write_text("001.png\n")
    with pytest.raises(
        ValueError, match=r"kept.txt: 001.png may be .*a/001.png or .*b/001.png; write more of its path"
    ):
        listed(names, pictures)
    names.write_text(f"a/001.png\n{pictures[2]}\n")
    assert listed(names, pictures) == [pictures[1], pictures[2]]


def test_lists_go_with_their_folder(tmp_path) -> None:
    folder = tmp_path / "adapted"
    inside, outside = write_scenes(folder / "frames", 2), write_scenes(tmp_path / "elsewhere", 1)
    Lists([*inside, *outside], inside[:1]).write(folder)
    moved = folder.rename(tmp_path / "moved")
    assert read_list(moved / PICTURES) == [moved / "frames" / "000.png", moved / "frames" / "001.png", *outside]
    assert read_list(moved / HELD_OUT) == [moved / "frames" / "000.png"]
    assert read_list(moved / "none.txt") == []


def test_pictures_that_have_moved_are_found_by_the_end_of_their_path(tmp_path) -> None:
    there = [path for name in ("a", "b") for path in write_scenes(tmp_path / "new" / name, 1)]
    before = [Path("/robot/photos/b/000.png"), there[0], Path("/robot/photos/gone.png")]
    assert relocated(before, there) == [there[1], there[0], before[2]]
    with pytest.raises(ValueError, match="may be .* now"):
        relocated([Path("/robot/c/000.png")], there)


@pytest.mark.parametrize("way", ["relative", "linked"])
def test_pictures_reached_in_two_ways_are_held_out_from_both(tmp_path, monkeypatch, way) -> None:
    write_scenes(tmp_path / "pictures", 6)
    write_bag(tmp_path / "drive", StoragePlugin.MCAP, [scene(i + 10) for i in range(10)])
    monkeypatch.chdir(tmp_path)
    again = []
    for name in ("pictures", "drive"):
        (tmp_path / f"{name}_linked").symlink_to(tmp_path / name)
        again.append(Path(name) if way == "relative" else tmp_path / f"{name}_linked")
    sources = [tmp_path / "pictures", tmp_path / "drive", *again]
    lists = divide(sources, tmp_path / "out", InputConfig(min_change=0, held_out=0.3), 0, None)
    assert len({*lists.training, *lists.held_out}) == len(lists.training) + len(lists.held_out)
    assert not set(lists.training) & set(lists.held_out) and len(lists.held_out) == 5
    assert all(path == path.resolve() for path in lists.training)


def test_frames_of_the_moment_of_a_held_out_one_are_in_neither_list_though_a_topic_has_three_of_it(tmp_path) -> None:
    folder = tmp_path / "bag-1"
    folder.mkdir()
    (folder / "frames.json").write_text("{}")
    names = [name for n in range(10) for name in (f"{n:020d}.png", f"{n:020d}_000001.png", f"{n:020d}_000002.png")]
    paths = [folder / "a" / name for name in names]
    for seed in range(20):
        training, held_out = split(paths, 0.1, seed)
        assert len(held_out) == 3 and training
        assert not {moment(path) for path in training} & {moment(path) for path in held_out}


def test_a_list_that_is_no_text_is_named(tmp_path) -> None:
    (tmp_path / PICTURES).write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ValueError, match=r"pictures.txt: not a text file"):
        read_list(tmp_path / PICTURES)


def test_a_list_that_cannot_be_written_leaves_the_one_before(tmp_path, monkeypatch) -> None:
    Lists([tmp_path / "a.png"], []).write(tmp_path)

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(OSError, match=r"pictures\.txt"):
        Lists([tmp_path / "b.png"], []).write(tmp_path)
    assert read_list(tmp_path / PICTURES) == [tmp_path / "a.png"]
