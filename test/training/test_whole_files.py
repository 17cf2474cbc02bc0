import os
from pathlib import Path

import pytest

from superpoint_training.whole_files import can_be_listed, read_json, read_text, whole_file, write_text


def full(descriptor: int) -> None:
    raise OSError(28, "No space left on device")


def test_a_file_that_cannot_be_written_to_the_end_leaves_the_one_before(tmp_path, monkeypatch) -> None:
    path = tmp_path / "note.json"
    write_text(path, "before")
    with pytest.raises(KeyboardInterrupt), whole_file(path) as file:
        file.write(b"half")
        raise KeyboardInterrupt
    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match=r"No space left on device: '.*note.json'"):
        write_text(path, "after")
    assert path.read_text() == "before" and list(tmp_path.iterdir()) == [path]


def test_a_file_is_on_the_disk_before_it_takes_its_place(tmp_path, monkeypatch) -> None:
    done = []
    fsync, replace = os.fsync, os.replace
    monkeypatch.setattr(os, "fsync", lambda each: done.append("fsync") or fsync(each))
    monkeypatch.setattr(os, "replace", lambda *both: done.append("replace") or replace(*both))
    write_text(tmp_path / "names.txt", "é\n")
    assert done == ["fsync", "replace"] and read_text(tmp_path / "names.txt") == "é\n"


@pytest.mark.parametrize("content", [b"", b'{"half": ', b"\0\0\0\0", b"[1]", b"\xff\xfe"])
def test_json_that_cannot_be_read_is_named_with_what_would_do(tmp_path, content) -> None:
    (tmp_path / "note.json").write_bytes(content)
    with pytest.raises(ValueError, match=r"note.json: "):
        read_json(tmp_path / "note.json", "delete it")


def test_a_path_of_latin_1_or_of_two_lines_fits_no_list() -> None:
    assert can_be_listed(Path("/a/é b.png"))
    assert not can_be_listed(Path(os.fsdecode(b"/a/\xe9.png"))) and not can_be_listed(Path("/a/one\ntwo.png"))
