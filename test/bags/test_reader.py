from __future__ import annotations

import sqlite3
import struct
from pathlib import Path

import numpy as np
import pytest
import yaml
from rosbags.highlevel import AnyReader
from rosbags.rosbag2 import StoragePlugin

from bag_samples import SECOND, image_bytes, message_bytes, write_mcap
from superpoint_ros.bags.content import COMPRESSED_IMAGE, IMAGE, BagError, header_stamp, stamp_fields, stamp_nanoseconds
from superpoint_ros.bags.reader import BagReader
from superpoint_ros.bags.writer import BagWriter, offered_qos

PLUGINS = pytest.mark.parametrize("plugin", [StoragePlugin.MCAP, StoragePlugin.SQLITE3])
FEATURES = "superpoint_ros/msg/Features"


def features_bytes(stamp: int) -> bytes:
    return message_bytes(FEATURES, stamp, x=np.array([1.5, 2.5], np.float32), weights_id="tiny@0")


@PLUGINS
@pytest.mark.parametrize("compressed", [False, True])
def test_images_are_read_from_both_storages(make_images, plugin, compressed):
    path = make_images(count=3, compressed=compressed, plugin=plugin)
    with BagReader(path) as bag:
        topic = bag.image_topic(None)
        assert (topic.name, topic.count) == ("/camera/image_raw", 3)
        assert topic.type == (COMPRESSED_IMAGE if compressed else IMAGE)
        messages = list(bag.messages([topic.name]))
        stamps = [stamp_nanoseconds(bag.decode(message).header.stamp) for message in messages]
        assert stamps == [message.time for message in messages]
        assert stamps == [SECOND, SECOND * 11 // 10, SECOND * 12 // 10]


@PLUGINS
def test_a_single_file_is_a_bag(make_images, plugin):
    (file,) = [each for each in make_images(plugin=plugin).iterdir() if each.suffix != ".yaml"]
    with BagReader(file) as bag:
        assert len(list(bag.messages())) == 3


def test_messages_are_limited_to_a_span_of_time(make_images):
    with BagReader(make_images(count=5)) as bag:
        start, stop = SECOND * 11 // 10, SECOND * 13 // 10
        assert len(list(bag.messages(start=start, stop=stop))) == 2
        assert bag.start_time() == SECOND


def test_written_messages_come_back_byte_for_byte(tmp_path):
    with BagWriter(tmp_path / "bag") as writer:
        writer.add_topic("/superpoint/features", FEATURES, offered_qos(reliable=True, depth=5))
        sent = [features_bytes(stamp) for stamp in (SECOND, 2 * SECOND)]
        for number, data in enumerate(sent):
            writer.write("/superpoint/features", number, data)
    with BagReader(tmp_path / "bag") as bag:
        assert [message.data for message in bag.messages()] == sent
        assert bag.topics["/superpoint/features"].qos == offered_qos(reliable=True, depth=5)


def test_our_messages_are_readable_without_our_definitions(tmp_path):
    with BagWriter(tmp_path / "bag") as writer:
        writer.add_topic("/features", FEATURES, offered_qos(reliable=True, depth=5))
        writer.write("/features", 7, features_bytes(SECOND))
    # a reader that knows only what is in the bag
    with AnyReader([tmp_path / "bag"]) as bag:
        (connection, time, data) = next(bag.messages())
        message = bag.deserialize(data, connection.msgtype)
        assert time == 7
        assert message.x.tolist() == [1.5, 2.5]
        assert message.weights_id == "tiny@0"
        assert message.FLOAT16 == 1


def test_the_only_image_topic_needs_no_name_and_the_slash_may_be_left_out(make_images):
    with BagReader(make_images()) as bag:
        assert bag.image_topic(None) == bag.image_topic("/camera/image_raw")
        assert bag.image_topic("camera/image_raw").name == "/camera/image_raw"


def test_a_missing_topic_is_answered_with_the_image_topics_there_are(make_bag):
    message = image_bytes(1, np.zeros((8, 8), np.uint8))
    topics = {"/left": IMAGE, "/right/compressed": COMPRESSED_IMAGE, "/words": "std_msgs/msg/String"}
    with BagReader(make_bag("two", topics, [("/left", 1, message)])) as bag:
        with pytest.raises(BagError, match="there is no topic /front; its image topics are: "):
            bag.image_topic("/front")
        with pytest.raises(BagError, match=r"which topic\? its image topics are: ") as error:
            bag.image_topic(None)
        assert "/left (sensor_msgs/msg/Image, 1 messages)" in str(error.value)
        assert "/right/compressed (sensor_msgs/msg/CompressedImage, 0 messages)" in str(error.value)
        with pytest.raises(BagError, match="/words is a topic of std_msgs/msg/String"):
            bag.image_topic("/words")


def test_a_bag_without_images_says_what_it_has(make_bag):
    path = make_bag("words", {"/words": "std_msgs/msg/String"}, [])
    with BagReader(path) as bag, pytest.raises(BagError, match="no image topic, only /words"):
        bag.image_topic(None)


def test_what_is_no_bag_gets_one_sentence(tmp_path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "text.mcap").write_text("this is not a bag")
    (tmp_path / "text.db3").write_text("this is not a bag")
    (tmp_path / "bag.zip").write_text("this is not a bag")
    for name in ("empty", "text.mcap", "text.db3", "bag.zip", "missing"):
        with pytest.raises(BagError) as error, BagReader(tmp_path / name):
            pass
        assert str(tmp_path / name) in str(error.value)
        assert "\n" not in str(error.value)


def test_a_bag_of_ros_1_is_named_with_what_converts_it(tmp_path):
    (tmp_path / "drive.bag").write_bytes(b"#ROSBAG V2.0\nE\0\0\0\x05\0\0\0op=\x03")
    for path, words in ((tmp_path / "drive.bag", "a bag of ROS 1"), (tmp_path, "bags of ROS 1 .drive.bag")):
        with pytest.raises(BagError, match=f"{words}.*rosbags-convert --src"), BagReader(path):
            pass


@pytest.mark.parametrize("encoding", ["ros1", "protobuf", "json"])
def test_an_mcap_file_of_other_encodings_names_them(tmp_path, encoding):
    path = tmp_path / "drive.mcap"
    write_mcap(path, [("/camera", 5, bytes(100))], encodings={"/camera": encoding})
    with BagReader(path) as bag, pytest.raises(BagError) as error:
        bag.image_topic(None)
    text = str(error.value)
    assert f"all it holds is /camera (sensor_msgs/msg/Image, encoded as {encoding}); expected" in text
    assert ("rosbags-convert" in text) == (encoding == "ros1")


@pytest.mark.parametrize("index", [True, False])
def test_topics_of_other_encodings_beside_ours_are_left_out_and_damage_nothing(tmp_path, index):
    path, image = tmp_path / "drive.mcap", image_bytes(SECOND, np.zeros((16, 16), np.uint8))
    write_mcap(path, [("/camera", 5, image), ("/state", 6, b"{}" * 50)], encodings={"/state": "json"}, index=index)
    with BagReader(path) as bag:
        assert [message.topic.name for message in bag.messages()] == ["/camera"]
        assert bag.notes == ["it holds /state (sensor_msgs/msg/Image, encoded as json), which cannot be read"]


def test_an_sqlite_file_of_another_encoding_names_it(make_images):
    path = make_images(plugin=StoragePlugin.SQLITE3)
    (file,) = path.glob("*.db3")
    with sqlite3.connect(file) as connection:
        connection.execute("UPDATE topics SET serialization_format = 'protobuf'")
    connection.close()
    with BagReader(file) as bag, pytest.raises(BagError, match="encoded as protobuf"):
        bag.image_topic(None)


def test_a_bag_recorded_at_time_0_begins_there(tmp_path):
    for number, times in enumerate(([0, 0], [0, 5], [5, 7])):
        with BagWriter(tmp_path / f"bag{number}") as writer:
            writer.add_topic("/camera", IMAGE, offered_qos(True, 1))
            for time in times:
                writer.write("/camera", time, image_bytes(SECOND, np.zeros((16, 16), np.uint8)))
        with BagReader(tmp_path / f"bag{number}") as bag:
            assert bag.start_time() == times[0]
            assert [message.time for message in bag.messages()] == times


def test_names_in_a_bag_reach_the_terminal_without_their_escapes(make_bag):
    path = make_bag("words", {"/wo\x1b[31mrds": "std_msgs/msg/String"}, [])
    with BagReader(path) as bag, pytest.raises(BagError, match=r"only /wo�\[31mrds"):
        bag.image_topic(None)


@pytest.mark.parametrize("seconds", [0, 1, (1 << 31) - 1])
@pytest.mark.parametrize("nanoseconds", [0, 999_999_999, 1_500_000_000, (1 << 32) - 1])
def test_a_stamp_fits_its_message_whatever_a_driver_has_sent(seconds, nanoseconds):
    total = seconds * SECOND + nanoseconds
    found = stamp_fields(total)
    assert found[0] * SECOND + found[1] == total
    assert 0 <= found[0] < 1 << 31 and 0 <= found[1] < 1 << 32


def test_a_bag_cut_short_says_so(make_images):
    path = make_images(count=40)
    (file,) = path.glob("*.mcap")
    file.write_bytes(file.read_bytes()[:-5000])
    with (
        pytest.raises(BagError, match="39 messages could be read, but not everything: .*cut off at byte"),
        BagReader(path) as bag,
    ):
        list(bag.messages())


def test_a_corrupt_message_names_topic_and_time(make_bag):
    path = make_bag("broken", {"/camera": IMAGE}, [("/camera", 5, b"\x00\x01\x00\x00abc")])
    with BagReader(path) as bag:
        (message,) = bag.messages()
        with pytest.raises(BagError, match="a message on /camera at 5 ns is not a sensor_msgs"):
            bag.decode(message)


def test_header_stamps_are_read_in_both_byte_orders():
    for flag, order in ((b"\x01", "<"), (b"\x00", ">")):
        data = b"\x00" + flag + b"\x00\x00" + struct.pack(f"{order}iI", 3, 7) + b"more"
        assert header_stamp(data) == 3 * SECOND + 7
    with pytest.raises(BagError, match="too short"):
        header_stamp(b"\x00\x01\x00\x00")


def test_header_stamp_agrees_with_decoding(make_images):
    with BagReader(make_images()) as bag:
        for message in bag.messages():
            stamp = stamp_nanoseconds(bag.decode(message).header.stamp)
            assert header_stamp(message.data) == stamp


def test_type_names_without_msg_are_understood(make_images):
    path = make_images(plugin=StoragePlugin.SQLITE3)
    metadata = path / "metadata.yaml"
    metadata.write_text(metadata.read_text().replace(IMAGE, "sensor_msgs/Image"))
    with BagReader(path) as bag:
        assert bag.image_topic(None).type == IMAGE


def test_bags_are_never_overwritten(make_images):
    path = make_images()
    with pytest.raises(BagError, match="exists already"), BagWriter(path):
        pass


def test_an_unknown_type_is_not_recorded(tmp_path: Path):
    with pytest.raises(BagError, match="the definition of foo_msgs/msg/Bar is not known"):
        with BagWriter(tmp_path / "bag") as writer:
            writer.add_topic("/foo", "foo_msgs/msg/Bar", offered_qos(reliable=True, depth=1))


def test_written_bags_are_of_the_version_that_humble_reads(tmp_path):
    with BagWriter(tmp_path / "bag") as writer:
        writer.add_topic("/features", FEATURES, offered_qos(reliable=True, depth=5))
    (topic,) = yaml.safe_load((tmp_path / "bag" / "metadata.yaml").read_text())["rosbag2_bagfile_information"][
        "topics_with_message_count"
    ]
    (profile,) = yaml.safe_load(topic["topic_metadata"]["offered_qos_profiles"])  # a string, up to version 8
    assert (profile["reliability"], profile["depth"]) == (1, 5)
