"""What a run leaves behind to look at: `log.jsonl`, and TensorBoard where it is installed."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tqdm import tqdm

from superpoint_training.whole_files import write_text

LOG_FILE = "log.jsonl"
EVERY = 10  # steps between scalars


class Journal:
    """Scalars and pictures of a run, added to those of the run it resumes up to `step`."""

    def __init__(self, folder: Path, step: int) -> None:
        self._file = _reopen(folder / LOG_FILE, step)
        self._board = _board(folder, step)

    def scalars(self, step: int, seconds: float, values: Mapping[str, float]) -> None:
        """Write down the figures of a step, of every tenth one."""
        if step % EVERY == 0 or step == 1:
            self._write("train", step, seconds, values)

    def validation(
        self, step: int, seconds: float, values: Mapping[str, float], pictures: Mapping[str, object]
    ) -> None:
        """Write down a validation; pictures are (H, W, 3) uint8 RGB."""
        self._write("validation", step, seconds, values)
        with self._disk_may_be_full("TensorBoard"):
            if self._board:
                for name, picture in pictures.items():
                    self._board.add_image(name, picture, step, dataformats="HWC")
                self._board.flush()

    def close(self) -> None:
        """Flush and close both."""
        with self._disk_may_be_full(LOG_FILE):
            self._file.close()
        with self._disk_may_be_full("TensorBoard"):
            if self._board:
                self._board.close()

    def _write(self, kind: str, step: int, seconds: float, values: Mapping[str, float]) -> None:
        line = {"kind": kind, "step": step, "seconds": round(seconds, 3), **values}
        with self._disk_may_be_full(LOG_FILE):
            self._file.write(json.dumps(line) + "\n")
            self._file.flush()
        with self._disk_may_be_full("TensorBoard"):
            if self._board:
                for name, value in values.items():
                    self._board.add_scalar(f"{kind}/{name}", value, step)

    @contextmanager
    def _disk_may_be_full(self, what: str) -> Iterator[None]:
        """A full disk costs lines of the log, never the run."""
        try:
            yield
        except OSError as error:
            tqdm.write(f"{what} could not be written ({error}); training goes on")


def read_log(path: Path) -> list[dict[str, Any]]:
    """The lines of a `log.jsonl`; one that a crash left unfinished or damaged is dropped."""
    lines = []
    for text in path.read_text(encoding="utf-8", errors="replace").splitlines():
        try:
            line = json.loads(text)
        except json.JSONDecodeError:
            continue
        if isinstance(line, dict) and "step" in line:
            lines.append(line)
    return lines


def _reopen(path: Path, step: int) -> Any:
    """The log, without what a run wrote after the checkpoint it now resumes from."""
    kept = [line for line in read_log(path) if line["step"] <= step] if step and path.exists() else []
    write_text(path, "".join(json.dumps(line) + "\n" for line in kept))
    return path.open("a")


def _board(folder: Path, step: int) -> Any:
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        tqdm.write("tensorboard is not installed; scalars go to log.jsonl alone (pip install tensorboard)")
        return None
    return SummaryWriter(str(folder / "tensorboard"), purge_step=step + 1)
