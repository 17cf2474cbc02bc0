"""Files that are made once and kept in the user's cache: networks in another engine's format.

`$XDG_CACHE_HOME/superpoint_ros` (else `~/.cache/superpoint_ros`). A file starts with a line that
says what it is and a digest of the rest, so a truncated, damaged or foreign one is recognised
before an engine reads it.
"""

from __future__ import annotations

import hashlib
import logging
import os
from collections.abc import Callable
from pathlib import Path

from superpoint_ros.network.checkpoint import Checkpoint

logger = logging.getLogger(__name__)


def cache_folder() -> Path:
    """The folder, which need not exist."""
    base = os.environ.get("XDG_CACHE_HOME", "")
    # The XDG specification: a relative path is to be ignored.
    root = Path(base) if os.path.isabs(base) else Path.home() / ".cache"
    return root / "superpoint_ros"


def checkpoint_key(checkpoint: Checkpoint) -> str:
    """32 hexadecimal digits that change with any weight and with the architecture."""
    digest = hashlib.sha256(repr(checkpoint.architecture).encode())
    for name in sorted(checkpoint.state):
        tensor = checkpoint.state[name].detach().cpu().contiguous()
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.float().numpy().tobytes())
    return digest.hexdigest()[:32]


def cached(name: str, build: Callable[[], bytes]) -> bytes:
    """What `build` makes: from the cache's file `name` if it is whole, else built and kept there.

    The file appears whole or not at all. One line of warning where a file had to be rebuilt or
    cannot be kept; the result is the same.
    """
    path = cache_folder() / name
    try:
        return _open(path.read_bytes(), name)
    except FileNotFoundError:
        pass
    except (OSError, ValueError) as error:
        logger.warning("%s: %s; it is rebuilt", path, error)
    content = build()
    partial = path.with_name(f".{name}.{os.getpid()}.partial")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        partial.write_bytes(_header(content, name) + content)
        os.replace(partial, path)
    except OSError as error:
        logger.warning("%s: cannot be kept (%s); the next start builds it again", path, error)
    finally:
        try:
            partial.unlink(missing_ok=True)
        except OSError:
            pass
    return content


def _header(content: bytes, name: str) -> bytes:
    return f"superpoint_ros {name} {hashlib.sha256(content).hexdigest()}\n".encode()


def _open(data: bytes, name: str) -> bytes:
    _, _, content = data.partition(b"\n")
    if data != _header(content, name) + content:
        raise ValueError(f"not what superpoint_ros wrote ({len(data)} bytes, wrong digest)")
    return content
