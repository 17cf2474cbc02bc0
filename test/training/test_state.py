import pytest
import torch

from superpoint_training.state import load_state, save_state


def test_a_state_comes_back_as_it_was(tmp_path) -> None:
    path = tmp_path / "state.pt"
    assert save_state(path, {"task": "magicpoint", "step": 3, "model": {"a": torch.ones(2)}})
    state = load_state(path, "magicpoint")
    assert state["step"] == 3 and torch.equal(state["model"]["a"], torch.ones(2))


def test_a_file_that_is_no_state_is_refused_by_name(tmp_path) -> None:
    path = tmp_path / "state.pt"
    path.write_bytes(b"half a file")
    with pytest.raises(ValueError, match=r"state\.pt: not a state file"):
        load_state(path)
    torch.save({"weights": 1}, path)
    with pytest.raises(ValueError, match="not the state of a training run"):
        load_state(path)


def test_the_state_of_another_stage_is_refused(tmp_path) -> None:
    save_state(tmp_path / "state.pt", {"task": "magicpoint", "step": 3})
    with pytest.raises(ValueError, match="expected the state of superpoint, found that of magicpoint"):
        load_state(tmp_path / "state.pt", "superpoint")


def test_a_state_that_cannot_be_written_leaves_the_old_one(tmp_path, capfd) -> None:
    path = tmp_path / "state.pt"
    save_state(path, {"task": "magicpoint", "step": 1})
    unwritable = {"task": "magicpoint", "step": 2, "file": (line for line in "no tensor")}
    with pytest.raises(TypeError):  # a defect of ours, not of the disk: it must not be hidden
        save_state(path, unwritable)
    assert not save_state(tmp_path / "gone" / "state.pt", {"task": "magicpoint"})
    assert "could not be written" in capfd.readouterr().out
    assert load_state(path)["step"] == 1
