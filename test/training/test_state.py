import json
from pathlib import Path

import pytest
import torch

from superpoint_training.config import Config
from superpoint_training.state import check_recipe, load_state, save_state


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


SHAPES = {"run.seed": 0, "magicpoint.batch_size": 4, "magicpoint.steps": 6, "shapes.size": [64, 80]}
LABELLED = SHAPES | {"pairs.size": [64, 80], "pictures": "3 pictures, abc", "labels": "{}"}


def state_of(recipe: dict[str, object]) -> dict[str, object]:
    return {"task": "magicpoint", "recipe": json.dumps(recipe)}


@pytest.mark.parametrize(
    ("before", "now", "told"),
    [
        (LABELLED, SHAPES, 'pictures was "3 pictures, abc" and is nothing'),
        (SHAPES, LABELLED, 'pictures was nothing and is "3 pictures, abc"'),
    ],
)
def test_a_run_on_labels_does_not_go_on_with_shapes_nor_the_other_way(before, now, told) -> None:
    with pytest.raises(ValueError, match=f"state.pt: {told}; a run goes on with what it began with"):
        check_recipe(Path("state.pt"), state_of(before), now)


def test_a_key_that_an_earlier_version_did_not_know_stands_for_its_default() -> None:
    usual = Config().magicpoint.patience
    check_recipe(Path("state.pt"), state_of(SHAPES), SHAPES | {"magicpoint.patience": usual})
    check_recipe(Path("state.pt"), state_of(SHAPES | {"magicpoint.patience": usual}), SHAPES)
    with pytest.raises(ValueError, match=f"magicpoint.patience was nothing and is {usual + 3}"):
        check_recipe(Path("state.pt"), state_of(SHAPES), SHAPES | {"magicpoint.patience": usual + 3})
    # a state of before these were noted
    judged = {"held_out": "2 pictures, abc", "run.validation_samples": 7}
    check_recipe(Path("state.pt"), state_of(LABELLED), LABELLED | judged)
    check_recipe(Path("state.pt"), {"task": "magicpoint"}, LABELLED)


def test_a_state_that_cannot_be_read_gets_our_own_sentence(tmp_path) -> None:
    path = tmp_path / "state.pt"
    torch.save({"task": "magicpoint", "model": torch.nn.Linear(1, 1)}, path)
    whole = path.read_bytes()
    for content in (whole, whole[: len(whole) // 2], b"\x80\x02\x1b[31m", b""):
        path.write_bytes(content)
        with pytest.raises(ValueError, match=r"state\.pt: not a state file: it is damaged") as caught:
            load_state(path)
        assert str(caught.value).isprintable() and "weights_only" not in str(caught.value)
