import click
import pytest
import torch

from superpoint_training.options import sentences


def said(error: BaseException) -> str:
    with pytest.raises(click.ClickException) as caught, sentences():
        raise error
    return caught.value.message


def test_a_lack_of_memory_is_a_sentence_with_what_would_do() -> None:
    text = said(torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.\nadvice"))
    assert text.startswith(
        "not enough memory (CUDA out of memory. Tried to allocate 2.00 GiB.); less would do: a smaller"
    )
    assert "advice" not in text and "batch_size" in said(MemoryError())


def test_what_torch_raises_is_its_first_line() -> None:
    assert said(RuntimeError("CUDA error: unspecified launch failure\nCompile with …")) == (
        "CUDA error: unspecified launch failure"
    )
    assert said(RuntimeError("x.onnx: ONNX Runtime and torch differ by 1; expected less than 0.001")).startswith(
        "x.onnx"
    )


def test_an_error_of_a_worker_is_its_sentence_and_not_its_traceback() -> None:
    text = (
        "Caught ValueError in DataLoader worker process 0.\nOriginal Traceback (most recent call last):\n"
        '  File "worker.py", line 1, in fetch\nValueError: /a/b.png: this picture cannot be read\n'
    )
    assert said(ValueError(text)) == "/a/b.png: this picture cannot be read"


def test_what_a_file_is_called_does_not_reach_the_terminal_as_an_escape_sequence() -> None:
    assert said(ValueError("\x1b[31mred\udce9.png: no picture")) == "�[31mred�.png: no picture"


@pytest.mark.parametrize("error", [click.Abort(), click.exceptions.Exit(3)])
def test_how_click_ends_a_command_is_left_to_it(error) -> None:
    with pytest.raises(type(error)), sentences():
        raise error
