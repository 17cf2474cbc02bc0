import json

import numpy as np
import pytest

from superpoint_training.journal import LOG_FILE, Journal, read_log


def test_scalars_of_the_first_and_every_tenth_step_are_written(tmp_path) -> None:
    journal = Journal(tmp_path, 0)
    for step in range(1, 31):
        journal.scalars(step, step / 2, {"loss": 1.0 / step})
    journal.close()
    lines = read_log(tmp_path / LOG_FILE)
    assert [line["step"] for line in lines] == [1, 10, 20, 30]
    assert lines[1] == {"kind": "train", "step": 10, "seconds": 5.0, "loss": 0.1}


def test_what_was_written_after_the_checkpoint_is_dropped_on_resuming(tmp_path) -> None:
    journal = Journal(tmp_path, 0)
    for step in (10, 20, 30):
        journal.scalars(step, step, {"loss": 1.0})
    journal.close()
    Journal(tmp_path, 20).close()
    assert [line["step"] for line in read_log(tmp_path / LOG_FILE)] == [10, 20]
    Journal(tmp_path, 0).close()  # a new run starts anew
    assert read_log(tmp_path / LOG_FILE) == []


def test_a_line_that_a_crash_cut_off_is_dropped(tmp_path) -> None:
    log = tmp_path / LOG_FILE
    log.write_text(json.dumps({"kind": "train", "step": 1}) + '\n{"kind": "tra')
    assert read_log(log) == [{"kind": "train", "step": 1}]


def test_tensorboard_gets_scalars_and_pictures(tmp_path) -> None:
    pytest.importorskip("tensorboard", reason="the extra `train` is not installed")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    journal = Journal(tmp_path, 0)
    journal.scalars(10, 5.0, {"loss": 0.25})
    journal.validation(10, 5.0, {"map_noise": 0.5}, {"detections": np.zeros((8, 8, 3), np.uint8)})
    journal.close()
    events = EventAccumulator(str(tmp_path / "tensorboard"))
    events.Reload()
    assert events.Tags()["images"] == ["detections"]
    assert events.Scalars("train/loss")[0].value == pytest.approx(0.25)
    assert events.Scalars("validation/map_noise")[0].step == 10


def test_a_full_disk_costs_lines_but_not_the_run(tmp_path, capfd) -> None:
    journal = Journal(tmp_path, 0)

    def full(text: str) -> None:
        raise OSError(28, "No space left on device")

    journal._file.write = full  # type: ignore[method-assign]
    journal.scalars(10, 5.0, {"loss": 0.25})
    assert "log.jsonl could not be written" in capfd.readouterr().out


def test_a_log_that_cannot_be_shortened_stays(tmp_path, monkeypatch) -> None:
    log = tmp_path / LOG_FILE
    log.write_text('{"kind": "train", "step": 10}\n{"kind": "train", "step": 20}\n')

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(OSError, match=LOG_FILE):
        Journal(tmp_path, 10)
    assert len(read_log(log)) == 2


def test_lines_of_a_damaged_log_are_dropped(tmp_path) -> None:
    log = tmp_path / LOG_FILE
    log.write_bytes(b'{"kind": "train", "step": 10}\n\0\0\xff\n7\n{}\n{"kind": "train", "step": 20}\n')
    Journal(tmp_path, 10).close()
    assert read_log(log) == [{"kind": "train", "step": 10}]
