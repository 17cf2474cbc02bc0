"""Files that are written whole or not at all, and read by name: a run that is cut off, or a full disk, leaves the file
of before, never a part of the next one.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO


@contextmanager
def whole_file(path: Path, shared: bool = False) -> Iterator[BinaryIO]:
    """A file to write to that takes `path`'s place, once it is on the disk, when the block ends without an error.

    shared  other processes may be writing the same file

    Raises OSError, naming the file.
    """
    partial = path.with_name(f".{path.name}.{f'{os.getpid()}.' if shared else ''}partial")
    try:
        with partial.open("wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(partial, path)
    except BaseException as error:
        partial.unlink(missing_ok=True)
        if isinstance(error, OSError) and error.errno and not error.filename:  # a full disk has no name
            raise OSError(error.errno, error.strerror, str(path)) from None
        raise


def write_text(path: Path, text: str) -> None:
    """Write a text file whole, in UTF-8. Raises OSError, naming the file."""
    with whole_file(path) as file:
        file.write(text.encode())


def read_text(path: Path) -> str:
    """A text file. Raises ValueError, naming the file, where it is none."""
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError:
        raise ValueError(f"{path}: not a text file in UTF-8; it is damaged, or something else") from None


def read_json(path: Path, remedy: str) -> dict[str, Any]:
    """A JSON object. Raises ValueError, naming the file, where it is none.

    remedy  what would do then
    """
    try:
        content = json.loads(read_text(path))
    except json.JSONDecodeError:
        content = None
    if not isinstance(content, dict):
        found = f"{path.stat().st_size} bytes that are no JSON object"
        raise ValueError(f"{path}: {found}, as a full disk or a crash may leave it; {remedy}")
    return content


def can_be_listed(path: Path) -> bool:
    """Whether a path can be a line of a list: bytes that are no UTF-8 (of Latin-1, say) and line breaks cannot."""
    try:
        return len(str(path).encode().decode().splitlines()) == 1
    except UnicodeEncodeError:
        return False
