"""An interrupted `superpoint extract` goes on to the same result as one that was left alone."""

from __future__ import annotations

import itertools
import os
import signal
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import yaml
from click.testing import CliRunner

from bag_samples import SECOND, image_bytes, message_bytes
from robot import photograph, shifted
from superpoint_ros.bags.content import IMAGE
from superpoint_ros.bags.reader import BagReader
from superpoint_ros.bags.writer import BagWriter
from superpoint_ros.features.extractor import Extractor
from superpoint_ros.tools.extract import output
from superpoint_ros.tools.extract.camera_infos import CAMERA_INFO
from superpoint_ros.tools.extract.command import extract_command

LEFT, RIGHT = "/left/image_raw", "/right/image_raw"
RECORD = "superpoint_extract.yaml"
CAMERAS = ("--topic", LEFT, "--topic", RIGHT)
COUNT = 24


def drive(count=COUNT):
    """Two cameras, the right one half as often; one image is broken."""
    wide, messages = photograph((120, 400)), []
    for number in range(count):
        at = SECOND + number * SECOND // 10
        picture = shifted(wide, -3 * number, -number)[:64, :96]
        messages.append((LEFT, at, image_bytes(at, picture)))
        if number % 2:
            messages.append((RIGHT, at + 7, image_bytes(at, picture[::-1].copy())))
    messages[5] = (messages[5][0], messages[5][1], b"\x00\x01\x00\x00broken")
    return messages


@pytest.fixture
def bag(make_bag):
    return make_bag("drive", {LEFT: IMAGE, RIGHT: IMAGE}, drive())


@pytest.fixture
def options(tiny_weights):
    return ["--weights", tiny_weights, "--device", "cpu", "--engine", "torch", "--max-keypoints", "60"]


@pytest.fixture
def run(options):
    def call(*arguments, status):
        result = CliRunner().invoke(extract_command, [*map(str, arguments), *options])
        assert result.exit_code == status, result.output
        return result.output

    return call


def messages_of(path):
    found = []
    with BagReader(path) as reader:
        found.extend((each.topic.name, each.time, each.data) for each in reader.messages())
    return found


def killed(whole, part):
    """Make a finished mcap bag look like one whose process was killed."""
    file = whole / f"{whole.name}.mcap"
    file.write_bytes(file.read_bytes()[: int(file.stat().st_size * part)])
    (whole / "metadata.yaml").unlink()
    record = yaml.safe_load((whole / RECORD).read_text())
    record = {key: value for key, value in record.items() if key not in ("frames", "problems")}
    (whole / RECORD).write_text(yaml.safe_dump({**record, "complete": False}))


VARIANTS = {
    "as it is": (),
    "batches": ("--batch", "3"),
    "tracks": ("--set", "tracks=true"),
    "keyframes in halves": ("--set", "reference=keyframe", "--set", "descriptor_type=float16"),
    "halves in batches": ("--set", "descriptor_type=float16", "--batch", "3"),
    "homographies only": ("--set", "publish_features=false", "--set", "publish_matches=false"),
}


@pytest.mark.parametrize("variant", VARIANTS)
def test_the_result_is_byte_for_byte_that_of_a_run_that_was_left_alone(bag, run, tmp_path, variant, monkeypatch):
    # small chunks, so that there is something to resume
    monkeypatch.setattr("rosbags.rosbag2.storage_mcap.McapWriter.write", small_chunks())
    extra = [*CAMERAS, *VARIANTS[variant]]
    out = tmp_path / "out"
    run(bag, out, *extra, status=1)
    whole, record = (out / "out.mcap").read_bytes(), (out / RECORD).read_text()
    metadata = (out / "metadata.yaml").read_text()
    for part in (0.02, 0.35, 0.8, 0.97):
        killed(out, part)
        said = run(bag, out, *extra, "--resume", status=1)
        assert "1 of 36 images are unreadable" in said
        assert ("of them from before" in said) == (part > 0.3)
        assert (out / "out.mcap").read_bytes() == whole, part
        assert (out / RECORD).read_text() == record
        assert (out / "metadata.yaml").read_text() == metadata
        assert not (tmp_path / "out.interrupted").exists()


def small_chunks():
    from rosbags.rosbag2.storage_mcap import McapWriter

    write = McapWriter.write

    def written(self, connection, timestamp, data):
        write(self, connection, timestamp, data)
        if self.chunk.bio.tell() > 5000:
            self.close_chunk()

    return written


def test_images_that_are_done_are_not_extracted_again(bag, run, tmp_path, monkeypatch):
    monkeypatch.setattr("rosbags.rosbag2.storage_mcap.McapWriter.write", small_chunks())
    out, seen = tmp_path / "out", []
    run(bag, out, *CAMERAS, status=1)
    killed(out, 0.7)
    batch = Extractor.batch

    def counted(self, images, masks=None):
        seen.extend(images)
        return batch(self, images, masks)

    monkeypatch.setattr(Extractor, "batch", counted)
    run(bag, out, *CAMERAS, "--resume", status=1)
    assert 5 < len(seen) < 16


@pytest.mark.parametrize("when", ["while it copied", "before it wrote anything"])
def test_a_resumed_run_that_is_killed_can_be_resumed(bag, run, tmp_path, when):
    out, left = tmp_path / "out", tmp_path / "out.interrupted"
    run(bag, out, *CAMERAS, status=1)
    whole = messages_of(out)
    killed(out, 0.9 if when == "while it copied" else 0)
    if when == "while it copied":
        out.rename(left)
        out.mkdir()
        (out / RECORD).write_text((left / RECORD).read_text())
        (out / "out.mcap").write_bytes(b"")
    run(bag, out, *CAMERAS, "--resume", status=1)
    assert messages_of(out) == whole
    assert not left.exists()


def test_what_is_complete_stays_as_it_is(bag, run, tmp_path):
    out = tmp_path / "out"
    run(bag, out, *CAMERAS, status=1)
    before = (out / "out.mcap").stat().st_mtime_ns
    said = run(bag, out, *CAMERAS, "--resume", status=1)  # as in the first run
    assert "it is complete already" in said and "1 of 36 images are unreadable" in said
    assert (out / "out.mcap").stat().st_mtime_ns == before


@pytest.mark.parametrize(
    "change, sentence",
    [
        (("--set", "nms_radius=3"), "it was begun with nms_radius 4, now it is 3"),
        (("--storage", "sqlite3"), "it was begun with storage 'mcap', now it is 'sqlite3'"),
        (("--batch", "2"), "it was begun with batch 1, now it is 2"),
    ],
)
def test_a_run_with_other_settings_is_not_continued(bag, run, tmp_path, change, sentence):
    out = tmp_path / "out"
    run(bag, out, *CAMERAS, status=1)
    killed(out, 0.5)
    assert sentence in run(bag, out, *CAMERAS, *change, "--resume", status=1)
    assert (out / "out.mcap").exists()


def test_what_belongs_to_another_bag_is_not_continued(bag, make_bag, run, tmp_path):
    out = tmp_path / "out"
    run(bag, out, *CAMERAS, status=1)
    killed(out, 0.9)
    other = make_bag("other", {LEFT: IMAGE, RIGHT: IMAGE}, [(t, at + 1, data) for t, at, data in drive()])
    assert "does not belong to" in run(other, out, *CAMERAS, "--resume", status=1)


def start(bag, out, options, *extra):
    command = [sys.executable, "-m", "superpoint_ros.tools.cli", "extract", bag, out, *CAMERAS, *extra, *options]
    return subprocess.Popen(list(map(str, command)), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def children_of(process):
    """Ids, of whichever thread's."""
    return [each for file in Path(f"/proc/{process.pid}/task").glob("*/children") for each in file.read_text().split()]


def await_output(process, file, size):
    deadline = time.monotonic() + 300
    while not (file.exists() and file.stat().st_size > size):
        assert process.poll() is None and time.monotonic() < deadline, process.stdout.read()
        time.sleep(0.005)


@pytest.mark.parametrize("storage, end", itertools.product(["mcap", "sqlite3"], [signal.SIGKILL, signal.SIGINT]))
def test_a_process_that_is_really_ended_leaves_something_readable(make_bag, run, options, tmp_path, storage, end):
    bag = make_bag("long", {LEFT: IMAGE, RIGHT: IMAGE}, drive(200))
    out, alone = tmp_path / "out", tmp_path / "alone"
    with start(bag, out, options, "--storage", storage) as process:
        try:
            await_output(process, out / f"out.{'mcap' if storage == 'mcap' else 'db3'}", 1 << 18)
            process.send_signal(end)
            said, _ = process.communicate(timeout=300)
        finally:
            process.kill()
    assert process.returncode == (-9 if end == signal.SIGKILL else 130), said
    assert end == signal.SIGKILL or "interrupted; --resume continues it" in said
    with BagReader(out) as reader:
        assert reader.topics["/superpoint/left/features"].count > 5
    run(bag, out, *CAMERAS, "--storage", storage, "--resume", status=1)
    run(bag, alone, *CAMERAS, "--storage", storage, status=1)
    assert messages_of(out) == messages_of(alone)


@contextmanager
def side_by_side(bags, out, options, size):
    """`extract --jobs 2`, once the first two bags have so many bytes of output; killed in the end."""
    with start(bags[0], bags[1], [*bags[2:], out, *options], "--jobs", "2") as process:
        try:
            for number in range(2):
                await_output(process, out / f"drive{number}" / f"drive{number}.mcap", size)
            yield process
        finally:
            process.kill()


def long_drives(make_bag, count):
    return [make_bag(f"drive{number}", {LEFT: IMAGE, RIGHT: IMAGE}, drive(300)) for number in range(count)]


def test_an_interrupt_ends_all_processes_and_all_bags_can_be_resumed(make_bag, run, options, tmp_path):
    bags, out = long_drives(make_bag, 2), tmp_path / "out"
    with side_by_side(bags, out, options, 1 << 18) as process:
        process.send_signal(signal.SIGTERM)
        said, _ = process.communicate(timeout=300)
    assert process.returncode == 130, said
    for number in range(2):
        with BagReader(out / f"drive{number}") as reader:
            assert 5 < reader.topics["/superpoint/left/features"].count < 300
    run(*bags, out, *CAMERAS, "--resume", status=1)
    for number in range(2):
        assert yaml.safe_load((out / f"drive{number}" / RECORD).read_text())["frames"] == 449


def test_a_process_that_is_killed_costs_its_own_bag_alone(make_bag, options, tmp_path):
    out = tmp_path / "out"
    with side_by_side(long_drives(make_bag, 3), out, options, 1 << 16) as process:
        children = children_of(process)
        workers = [each for each in children if b"spawn_main" in Path(f"/proc/{each}/cmdline").read_bytes()]
        os.kill(int(workers[0]), signal.SIGKILL)
        said, _ = process.communicate(timeout=500)
    assert process.returncode == 1 and said.count("its process ended (BrokenProcessPool)") == 1, said
    done = [yaml.safe_load((out / f"drive{number}" / RECORD).read_text()).get("frames") for number in range(3)]
    assert sorted(done, key=str) == [449, 449, None]


def test_processes_whose_parent_is_gone_end_too(make_bag, options, tmp_path):
    with side_by_side(long_drives(make_bag, 2), tmp_path / "out", options, 1 << 18) as process:
        children = children_of(process)
        process.kill()
        try:
            process.communicate(timeout=300)  # ends once nobody holds the pipe any more
        except subprocess.TimeoutExpired:
            for child in children:
                os.kill(int(child), signal.SIGKILL)
            raise
    assert len(children) >= 2


def test_a_full_disk_is_told_and_what_was_written_can_be_resumed(bag, run, tmp_path, monkeypatch):
    out, alone, count = tmp_path / "out", tmp_path / "alone", itertools.count()
    run(bag, alone, *CAMERAS, status=1)
    write = BagWriter.write

    def fail(self, *arguments):
        if next(count) > 50:
            raise OSError(28, "No space left on device")
        write(self, *arguments)

    with monkeypatch.context() as patched:
        patched.setattr(BagWriter, "write", fail)
        assert f"{out}: [Errno 28] No space left on device" in run(bag, out, *CAMERAS, status=1)
    run(bag, out, *CAMERAS, "--resume", status=1)
    assert messages_of(out) == messages_of(alone)


def test_sixteen_bit_images_have_the_same_range_after_a_resume(make_bag, run, tmp_path):
    wide, messages = photograph((120, 400)), []
    for number in range(COUNT):
        at = SECOND + number * SECOND // 10
        deep = 5000 + 40 * number + shifted(wide, -3 * number, -number)[:64, :96].astype(np.uint16) * (4 + number)
        messages.append((LEFT, at, image_bytes(at, deep)))
    bag, out, alone = make_bag("deep", {LEFT: IMAGE}, messages), tmp_path / "out", tmp_path / "alone"
    run(bag, alone, status=0)
    run(bag, out, status=0)
    killed(out, 0.5)
    run(bag, out, "--resume", status=0)
    assert messages_of(out) == messages_of(alone)


def test_a_calibration_that_is_lost_is_missed_after_a_resume_too(make_bag, run, tmp_path):
    info, wide, messages = "/left/camera_info", photograph((120, 400)), []
    for number in range(COUNT):
        at = SECOND + number * SECOND // 10
        messages.append((LEFT, at, image_bytes(at, shifted(wide, -3 * number, -number)[:64, :96])))
        if number != 13:
            roi = SimpleNamespace(x_offset=number, y_offset=0, height=64, width=96, do_rectify=False)
            k = np.array([90.0, 0, 48, 0, 90, 32, 0, 0, 1])
            messages.append((info, at + 1, message_bytes(CAMERA_INFO, at, height=480, width=640, k=k, roi=roi)))
    bag, out, alone = make_bag("moving", {LEFT: IMAGE, info: CAMERA_INFO}, messages), tmp_path / "out", tmp_path / "one"
    extra = ("--set", "rectify=true")
    assert "without its CameraInfo" in run(bag, alone, *extra, status=1)
    for part in (0.3, 0.5, 0.8):
        run(bag, out, *extra, *(["--resume"] if out.exists() else []), status=1)
        killed(out, part)
    assert "of them from before" in run(bag, out, *extra, "--resume", status=1)
    assert messages_of(out) == messages_of(alone)


def test_files_of_others_are_not_touched(bag, run, tmp_path):
    out = tmp_path / "out"
    run(bag, out, *CAMERAS, status=1)
    killed(out, 0.5)
    (out / "notes.txt").write_text("mine")
    assert "it also holds notes.txt; move that away" in run(bag, out, *CAMERAS, "--resume", status=1)
    assert (out / "notes.txt").exists()


def test_the_record_is_replaced_at_once(tmp_path):
    output.write_record(tmp_path, {"complete": False})
    output.write_record(tmp_path, {"complete": True})
    assert yaml.safe_load((tmp_path / RECORD).read_text()) == {"complete": True}
    assert os.listdir(tmp_path) == [RECORD]
