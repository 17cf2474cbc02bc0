"""What can be read of a bag that was cut off, overwritten, or does not fit its metadata."""

from __future__ import annotations

import tracemalloc

import lz4.frame
import numpy as np
import pytest
import yaml
from rosbags.rosbag2 import CompressionFormat, CompressionMode, Reader, StoragePlugin, Writer

from bag_samples import SECOND, image_bytes, write_mcap
from superpoint_ros.bags import reader
from superpoint_ros.bags.compression import zstd
from superpoint_ros.bags.content import COMPRESSED_IMAGE, IMAGE, BagError
from superpoint_ros.bags.definitions import typestore
from superpoint_ros.bags.reader import BagReader

TOPIC = "/camera/image_raw"
PLUGINS = pytest.mark.parametrize("plugin", [StoragePlugin.MCAP, StoragePlugin.SQLITE3])
KINDS = pytest.mark.parametrize("compression, per_chunk", [("", 4), ("zstd", 4), ("lz4", 4), ("", 0)])


def images(count=30, size=(24, 32)):
    random = np.random.default_rng(1)
    times = [SECOND * (1 + number) for number in range(count)]
    return [(TOPIC, time, image_bytes(time, random.integers(0, 256, size, np.uint8))) for time in times]


def read(path, topics=()):
    """(times, messages, what the reader says is lost)."""
    messages = []
    with BagReader(path) as bag:
        try:
            for message in bag.messages(topics):
                messages.append(message)
        except BagError as error:
            return [each.time for each in messages], messages, str(error)
    return [each.time for each in messages], messages, ""


def change_metadata(path, change):
    file = path / "metadata.yaml"
    content = yaml.safe_load(file.read_text())
    change(content["rosbag2_bagfile_information"])
    file.write_text(yaml.safe_dump(content))


def storage(path):
    (file,) = [each for each in path.iterdir() if each.suffix in (".mcap", ".db3")]
    return file


@KINDS
@pytest.mark.parametrize("index", [True, False])
def test_mcap_files_of_every_kind_are_read(tmp_path, compression, per_chunk, index):
    sent = images()
    write_mcap(tmp_path / "a.mcap", sent, compression=compression, per_chunk=per_chunk, index=index)
    times, messages, lost = read(tmp_path / "a.mcap")
    assert [(m.topic.name, m.time, m.data) for m in messages] == sent
    assert messages[0].topic.count == 30
    assert not lost
    with Reader(tmp_path / "a.mcap") as other:  # the file is as rosbags expects one, too
        assert len(list(other.messages())) == 30


@KINDS
def test_an_mcap_file_cut_off_anywhere_yields_what_is_before_the_cut(tmp_path, compression, per_chunk):
    sent = images()
    ends = write_mcap(tmp_path / "whole.mcap", sent, compression=compression, per_chunk=per_chunk)
    whole, path = (tmp_path / "whole.mcap").read_bytes(), tmp_path / "cut.mcap"
    first = min(ends.values())
    for cut in np.linspace(first, len(whole) - 9, 40).astype(int):
        path.write_bytes(whole[:cut])
        times, messages, lost = read(path)
        assert set(times) >= {time for time, end in ends.items() if end <= cut}, cut
        assert [(TOPIC, m.time, m.data) for m in messages] == sent[: len(messages)]
        assert "cut off" in lost or "never finished" in lost or "unreadable" in lost


@KINDS
def test_a_flipped_byte_costs_an_mcap_file_little_and_is_told(tmp_path, compression, per_chunk):
    sent = images()
    write_mcap(tmp_path / "whole.mcap", sent, compression=compression, per_chunk=per_chunk)
    whole, path = bytearray((tmp_path / "whole.mcap").read_bytes()), tmp_path / "flipped.mcap"
    random = np.random.default_rng(2)
    for offset in random.integers(8, len(whole) - 8, 150):
        flipped = bytearray(whole)
        flipped[offset] ^= 1 << random.integers(8)
        path.write_bytes(flipped)
        try:
            times, messages, lost = read(path)
        except BagError:
            assert offset < 1500  # the only copy of a name
            continue
        assert len(times) >= (26 if per_chunk else 28), offset
        unchanged = [(TOPIC, m.time, m.data) for m in messages] == sent
        assert unchanged or lost or not (compression or per_chunk), offset


def test_a_hole_in_an_mcap_file_is_skipped(tmp_path):
    sent = images(60)
    ends = write_mcap(tmp_path / "whole.mcap", sent)
    content = bytearray((tmp_path / "whole.mcap").read_bytes())
    begin, end = ends[20 * SECOND] + 10, ends[30 * SECOND] - 10
    content[begin:end] = bytes(end - begin)
    (tmp_path / "whole.mcap").write_bytes(content)
    times, messages, lost = read(tmp_path / "whole.mcap")
    survived = [time for _, time, _ in sent if time <= 20 * SECOND or time > 32 * SECOND]
    assert set(times) >= set(survived)
    assert "are unreadable" in lost and "60 messages" not in lost


def test_chunks_that_overlap_in_time_come_in_order(tmp_path):
    sent = images(16)
    shuffled = [sent[index] for index in (0, 4, 1, 5, 2, 8, 3, 6, 7, 12, 9, 15, 10, 11, 13, 14)]
    write_mcap(tmp_path / "a.mcap", shuffled)
    assert read(tmp_path / "a.mcap")[0] == [time for _, time, _ in sent]


def many_pages(make_bag):
    """A database whose tree has several levels, with images that continue on other pages."""
    return make_bag("deep", {TOPIC: IMAGE}, images(400, (80, 100)), StoragePlugin.SQLITE3)


def test_an_sqlite_file_cut_off_anywhere_yields_what_is_before_the_cut(make_bag):
    path = many_pages(make_bag)
    file = storage(path)
    whole = file.read_bytes()
    for part in (0.05, 0.2, 0.5, 0.8, 0.97):
        file.write_bytes(whole[: int(len(whole) * part)])
        times, messages, lost = read(path)
        # pages are written in order, so what is in the file is about the same part of the messages
        assert len(times) >= 400 * part - 8, part
        assert times == [SECOND * (1 + number) for number in range(len(times))]
        assert [message.data for message in messages] == [data for _, _, data in images(400, (80, 100))][: len(times)]
        assert f"{len(times)} of 400 messages on {TOPIC} are there" in lost
        assert "SQLite says" in lost


def test_flipped_bytes_cost_an_sqlite_file_little_and_are_told(make_bag):
    path = many_pages(make_bag)
    file = storage(path)
    whole = file.read_bytes()
    random = np.random.default_rng(5)
    for _ in range(30):
        flipped = bytearray(whole)
        begin = int(random.integers(1, len(whole) // 4096)) * 4096
        flipped[begin : begin + 64] = random.integers(0, 256, 64, np.uint8).tobytes()  # a page's head
        file.write_bytes(flipped)
        try:
            times, messages, lost = read(path)
        except BagError as error:
            assert "not a readable bag" in str(error)
            assert begin < 8 * 4096  # the topics
            continue
        assert len(times) >= 395
        assert len(times) == 400 or lost


@PLUGINS
def test_a_bag_without_metadata_is_read_from_its_storage(make_images, plugin):
    path = make_images(count=5, plugin=plugin)
    (path / "metadata.yaml").unlink()
    with BagReader(path) as bag:
        assert bag.image_topic(None).count == 5
        assert len(list(bag.messages())) == 5
        assert bag.notes == ["it has no metadata.yaml and is read without"]


@PLUGINS
@pytest.mark.parametrize("content", ["", "not: a bag", "{", "rosbag2_bagfile_information: 3", "\x00\x01"])
def test_unreadable_metadata_is_left_aside(make_images, plugin, content):
    path = make_images(count=5, plugin=plugin)
    (path / "metadata.yaml").write_text(content)
    with BagReader(path) as bag:
        assert len(list(bag.messages())) == 5
        assert "metadata.yaml is unreadable" in bag.notes[0]


@PLUGINS
def test_metadata_that_counts_too_few_hides_nothing(make_images, plugin):
    path = make_images(count=5, plugin=plugin)

    def change(told):
        told["message_count"] = 0
        told["topics_with_message_count"][0]["message_count"] = 0

    change_metadata(path, change)
    with BagReader(path) as bag:
        assert len(list(bag.messages([TOPIC]))) == 5
        assert bag.notes == [f"its metadata.yaml counts 0 messages on {TOPIC}, it holds 5"]


@PLUGINS
def test_metadata_that_counts_too_many_is_a_loss(make_images, plugin):
    path = make_images(count=5, plugin=plugin)
    change_metadata(path, lambda told: told["topics_with_message_count"][0].update(message_count=9))
    times, _, lost = read(path)
    assert len(times) == 5
    assert f"5 of 9 messages on {TOPIC} are there" in lost


@PLUGINS
def test_topics_that_metadata_does_not_know_are_read(make_images, plugin):
    path = make_images(count=5, plugin=plugin)
    change_metadata(path, lambda told: told["topics_with_message_count"][0]["topic_metadata"].update(name="/other"))
    with BagReader(path) as bag:
        assert bag.image_topic(None).name == TOPIC
        with pytest.raises(BagError, match="metadata.yaml counts 5 messages on /other, none are there"):
            list(bag.messages())


@PLUGINS
def test_a_missing_file_of_a_split_bag_is_named_and_the_others_read(make_images, plugin):
    first, second = make_images("a", count=5, plugin=plugin), make_images("b", count=5, plugin=plugin)
    storage(second).rename(first / storage(second).name)
    name = f"b{'.mcap' if plugin == StoragePlugin.MCAP else '.db3'}"
    change_metadata(first, lambda told: told["relative_file_paths"].extend([name, "gone.mcap"]))
    times, _, lost = read(first)
    assert times == sorted(times) and len(times) == 10
    assert "gone.mcap is missing" in lost
    change_metadata(first, lambda told: told.update(relative_file_paths=["gone.mcap"]))
    with BagReader(first) as bag:  # what lies beside counts, whatever its metadata says
        assert bag.image_topic(None).count == 10
        assert any("does not name" in note for note in bag.notes)


def test_only_files_that_are_not_there_is_no_bag(make_images):
    path = make_images()
    storage(path).unlink()
    with pytest.raises(BagError, match="metadata.yaml names images.mcap, not there"), BagReader(path):
        pass


def test_a_broken_file_of_a_split_bag_costs_only_itself(make_images):
    path = make_images(count=5)
    (path / "images_1.mcap").write_bytes(b"")
    times, _, lost = read(path)
    assert len(times) == 5
    assert "images_1.mcap: not a readable bag; the file is empty" in lost


@PLUGINS
@pytest.mark.parametrize("version", range(1, 10))
def test_metadata_of_every_version_is_read(make_images, plugin, version):
    path = make_images(count=5, plugin=plugin)

    def age(told):
        told["version"] = version
        if version < 9:
            for each in told["topics_with_message_count"]:
                each["topic_metadata"]["offered_qos_profiles"] = "- history: 1\n  depth: 7" if version >= 4 else ""
        for name, since in (("files", 5), ("custom_data", 6), ("ros_distro", 8)):
            if version < since:
                told.pop(name)
        if version < 7:
            told["topics_with_message_count"][0]["topic_metadata"].pop("type_description_hash")
        if version < 4:
            told["topics_with_message_count"][0]["topic_metadata"].pop("offered_qos_profiles")
            told["relative_file_paths"] = [f"images/{name}" for name in told["relative_file_paths"]]
        if version < 3:
            told.pop("compression_format"), told.pop("compression_mode")

    change_metadata(path, age)
    times, _, lost = read(path)
    assert len(times) == 5 and not lost


def test_sqlite_files_of_before_qos_and_definitions_are_read(make_images):
    import sqlite3

    path = make_images(count=5, plugin=StoragePlugin.SQLITE3)
    with sqlite3.connect(storage(path)) as connection:
        connection.executescript(
            "DROP TABLE schema; DROP TABLE metadata; DROP TABLE message_definitions;"
            "ALTER TABLE topics DROP COLUMN type_description_hash;"
            "ALTER TABLE topics DROP COLUMN offered_qos_profiles;"
            "UPDATE topics SET type = 'sensor_msgs/Image';"
        )
    connection.close()
    with BagReader(path) as bag:
        assert bag.image_topic(None).type == IMAGE
        assert len([bag.decode(message) for message in bag.messages()]) == 5


@pytest.mark.parametrize("schema", ["sensor_msgs/Image", "sensor_msgs/msg/Image"])
def test_mcap_types_are_known_with_and_without_msg(tmp_path, schema):
    write_mcap(tmp_path / "a.mcap", images(2), schema=schema)
    with BagReader(tmp_path / "a.mcap") as bag:
        assert bag.image_topic(None).type == IMAGE


@pytest.mark.parametrize("mode", [CompressionMode.MESSAGE, CompressionMode.FILE])
@PLUGINS
def test_bags_compressed_by_message_or_as_a_file_are_read(tmp_path, plugin, mode):
    store, sent = typestore(), images(5)
    writer = Writer(tmp_path / "bag", version=9, storage_plugin=plugin)
    writer.set_compression(mode, CompressionFormat.ZSTD)
    with writer:
        connection = writer.add_connection(TOPIC, IMAGE, typestore=store)
        for _, time, data in sent:
            writer.write(connection, time, data)
    for metadata in (True, False):  # which says how it is compressed, and is not needed for it
        if not metadata:
            (tmp_path / "bag" / "metadata.yaml").unlink()
        _, messages, lost = read(tmp_path / "bag")
        assert [message.data for message in messages] == [data for _, _, data in sent]
        assert not lost


def test_lz4_messages_and_a_damaged_one(make_bag):
    sent = images(3)
    packed = [(topic, time, lz4.frame.compress(data)) for topic, time, data in sent]
    packed[1] = (TOPIC, packed[1][1], packed[1][2][:-40])
    path = make_bag("packed", {TOPIC: IMAGE}, packed)
    _, messages, lost = read(path)
    assert [message.data for message in messages] == [sent[0][2], sent[2][2]]
    assert f"a message on {TOPIC} at {2 * SECOND} ns: lz4 data is cut off" in lost


def test_a_file_that_grows_and_one_that_is_no_bag(tmp_path, make_images):
    path = make_images(count=3, compressed=True)
    content = storage(path).read_bytes()
    storage(path).write_bytes(content + b"\0" * 5000)
    with BagReader(path) as bag:
        assert bag.image_topic(None).type == COMPRESSED_IMAGE
        assert len(list(bag.messages())) == 3
    (tmp_path / "zeros.mcap").write_bytes(bytes(5000))
    with pytest.raises(BagError, match="does not begin as an mcap file"), BagReader(tmp_path / "zeros.mcap"):
        pass


def test_zstd_that_is_cut_off_keeps_its_beginning():
    from superpoint_ros.bags.compression import decompress

    content = np.random.default_rng(0).integers(0, 256, 1 << 20, np.uint8).tobytes()
    for pack, name in ((zstd.compress, "zstd"), (lz4.frame.compress, "lz4")):
        packed = pack(content)
        assert decompress(packed, name) == (content, "")
        found, problem = decompress(packed[: len(packed) // 2], name)
        assert problem == f"{name} data is cut off"
        assert 0.4 * len(content) < len(found) and content.startswith(found)
    assert decompress(b"x", "snappy") == (b"", "compression 'snappy' is unknown")


@pytest.mark.parametrize("name", ["zstd", "lz4"])
@pytest.mark.parametrize("told", [True, False])
def test_what_would_grow_beyond_the_bound_is_refused_and_never_held(name, told):
    from superpoint_ros.bags.compression import decompress

    content = bytes(1 << 22)
    packed = _packed(content, name, told)
    assert decompress(packed, name) == (content, "")
    assert decompress(packed, name, most=len(content)) == (content, "")
    tracemalloc.start()
    found, problem = decompress(packed, name, most=1 << 16)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert found == b"" and "more than 65536" in problem
    assert peak < 1 << 25 if not told else peak < 1 << 18


def _packed(content, name, told):
    """Compressed, with the size of the content told in the frame's header or not."""
    if name == "lz4":
        return lz4.frame.compress(content, store_size=told)
    if told:
        return zstd.compress(content)
    stream = zstd.ZstdCompressor()
    return stream.compress(content[:100]) + stream.compress(content[100:]) + stream.flush()


@pytest.mark.parametrize("name", ["zstd", "lz4"])
@pytest.mark.parametrize("told", [True, False])
def test_a_bag_compressed_as_a_file_is_unpacked_without_holding_it(tmp_path, name, told, monkeypatch):
    write_mcap(tmp_path / "a.mcap", images(60, (200, 300)), per_chunk=0)
    whole = (tmp_path / "a.mcap").read_bytes() + bytes(1 << 26)
    packed = tmp_path / "packed" / f"a.mcap.{name}"
    packed.parent.mkdir()
    packed.write_bytes(_packed(whole, name, told))
    times, _, lost = read(packed)  # the modules are loaded
    assert len(times) == 60
    tracemalloc.start()
    with BagReader(packed) as bag:
        assert bag.topics[TOPIC].count == 60
    assert tracemalloc.get_traced_memory()[1] < len(whole) // 2
    tracemalloc.stop()
    packed.write_bytes(packed.read_bytes()[: packed.stat().st_size // 3])
    times, messages, lost = read(packed)
    assert 10 < len(times) < 60 and f"{name} data is cut off" in lost
    monkeypatch.setattr(reader, "PART_OF_DISK", 1e-9)
    with pytest.raises(BagError, match=f"not a readable bag; {name} data has more than"):
        read(packed)


def test_what_ros2_bag_decompressed_beside_is_not_read_twice(make_images):
    path = make_images(count=5)
    packed = storage(path).with_name("images.mcap.zstd")
    packed.write_bytes(zstd.compress(storage(path).read_bytes()))
    change_metadata(path, lambda told: told.update(relative_file_paths=[packed.name], compression_mode="FILE"))
    assert len(read(path)[0]) == 5
    (path / "metadata.yaml").unlink()
    assert len(read(path)[0]) == 5


def test_another_bag_in_the_folder_is_left_aside(make_images):
    path, other = make_images("drive", count=5), make_images("filtered", count=3)
    storage(other).rename(path / "filtered.mcap")
    with BagReader(path) as bag:
        assert len(list(bag.messages())) == 5
        assert bag.notes == ["filtered.mcap beside it is not in its metadata.yaml and left aside"]


@pytest.mark.parametrize("log", [True, False])
def test_a_recording_that_never_ended_is_read_with_its_write_ahead_log(make_images, tmp_path, log):
    import shutil
    import sqlite3

    path = make_images(count=5, plugin=StoragePlugin.SQLITE3)
    (path / "metadata.yaml").unlink()
    connection = sqlite3.connect(storage(path))
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute(
        "INSERT INTO messages (topic_id, timestamp, data) SELECT topic_id, timestamp + 1, data FROM messages"
    )
    connection.commit()
    (tmp_path / "copy").mkdir()
    for file in path.iterdir():
        if log or not file.name.endswith(("-wal", "-shm")):
            shutil.copy(file, tmp_path / "copy")
    assert len(read(tmp_path / "copy")[0]) == (10 if log else 5)
    connection.close()


def test_a_chunk_that_passes_for_something_else_is_missed(tmp_path):
    write_mcap(tmp_path / "a.mcap", images(), compression="zstd")
    content = bytearray((tmp_path / "a.mcap").read_bytes())
    chunk = len(b"\x89MCAP0\r\n") + 9 + len("ros2") + len("test") + 8  # after the magic and the header
    assert content[chunk] == 6
    content[chunk] = 7  # a message index
    (tmp_path / "a.mcap").write_bytes(content)
    times, _, lost = read(tmp_path / "a.mcap")
    assert len(times) == 26
    assert f"26 of 30 messages on {TOPIC} are there" in lost


def test_a_topic_without_a_name_costs_only_itself(make_bag):
    import sqlite3

    path = make_bag("two", {TOPIC: IMAGE, "/other": IMAGE}, images(5), StoragePlugin.SQLITE3)
    with sqlite3.connect(storage(path)) as connection:
        connection.execute("CREATE TABLE t AS SELECT * FROM topics")
        connection.execute("UPDATE t SET name = NULL WHERE name = '/other'")
        connection.executescript("DROP TABLE topics; ALTER TABLE t RENAME TO topics")
    connection.close()
    times, _, lost = read(path)
    assert len(times) == 5
    assert "a topic without number, name or type" in lost


def test_messages_without_a_topic_are_told(make_bag):
    import sqlite3

    path = make_bag("two", {TOPIC: IMAGE}, images(5), StoragePlugin.SQLITE3)
    with sqlite3.connect(storage(path)) as connection:
        connection.execute("UPDATE messages SET topic_id = 7 WHERE id > 3")
    connection.close()
    times, _, lost = read(path)
    assert len(times) == 3
    assert "2 messages are of topics that it does not name" in lost
