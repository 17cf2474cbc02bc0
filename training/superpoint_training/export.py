"""Weights files for the node: safetensors with metadata, and ONNX for other engines."""

from __future__ import annotations

import copy
import os
import subprocess
from collections.abc import Mapping, Sequence
from datetime import datetime, timezone
from pathlib import Path

import torch

from superpoint_ros.network.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from superpoint_ros.network.engines import onnx_file
from superpoint_ros.network.layouts import architecture_of
from superpoint_ros.network.superpoint import Architecture, SuperPoint, fold_norms
from superpoint_training.state import STATE_FILE, load_state


def export_file(source: Path, target: Path, facts: Sequence[str] = (), others: Sequence[Path] = ()) -> str:
    """Convert a weights file, or a run's state.pt, to what `target`'s name ends in; returns a
    sentence about it.

    facts   "key=value" pairs, added to the metadata that `source` has
    others  further such files of the same architecture: what is written is the mean of all (`mean_checkpoint`)

    BatchNorms before a ReLU are folded into their convolutions: the file is a plain network, which nothing but a
    training can want with its norms.

    Raises ValueError or FileNotFoundError as `load_checkpoint`, ImportError and RuntimeError as
    `export_onnx`.
    """
    if target.suffix not in (".safetensors", ".onnx"):
        raise ValueError(f"{target}: expected a name that ends in .safetensors or .onnx")
    added = dict(fact.partition("=")[::2] for fact in facts)
    checkpoint = _read(source)
    if others:
        checkpoint = mean_checkpoint([checkpoint, *map(_read, others)])
    if target.suffix == ".onnx":
        worst = export_onnx(target, checkpoint.build())
        return f"{target}: written; ONNX Runtime and torch differ by at most {worst:.1g}"
    model = checkpoint.build()
    if model.architecture.norm_first:
        model = fold_norms(model)
    weights_id = export_weights(target, model, {**checkpoint.metadata, **added})
    return f"{target}: {weights_id} written"


def _read(path: Path) -> Checkpoint:
    return read_state(path) if path.name == STATE_FILE else load_checkpoint(path)


def mean_checkpoint(checkpoints: Sequence[Checkpoint]) -> Checkpoint:
    """The mean of networks that went on from the same weights, tensor by tensor; the first's metadata, less what
    it measured, and which networks they were ("mean_of").

    It is often at least as good as any of them (Wortsman et al., "Model soups", 2022, arXiv 2203.05482); of networks
    that began apart it is none. Raises ValueError where architectures differ.
    """
    first = checkpoints[0]
    for other in checkpoints[1:]:
        if other.architecture != first.architecture:
            raise ValueError(
                f"{other.weights_id} and {first.weights_id} are of different architectures, {other.architecture} and "
                f"{first.architecture}: only weights of one lineage have a mean"
            )
    state = {
        name: torch.stack([checkpoint.state[name].float() for checkpoint in checkpoints]).mean(0).to(tensor.dtype)
        for name, tensor in first.state.items()
    }
    facts = {key: value for key, value in first.metadata.items() if key not in ("metrics", "created", "source_commit")}
    facts["mean_of"] = ", ".join(checkpoint.weights_id for checkpoint in checkpoints)
    return Checkpoint(first.architecture, state, facts)


def read_state(path: Path) -> Checkpoint:
    """The weights that a run's state file would export: the best in validation where the run chooses them, averaged
    where it averages. Raises ValueError.
    """
    state = load_state(path)
    tensors, step = state["model"], state["step"]
    if best := state.get("best"):
        tensors, step = best["model"], best["step"]
    elif state["average"] is not None:
        stem = "module."
        averaged = state["average"].items()
        tensors = {key[len(stem) :]: value for key, value in averaged if key.startswith(stem)}
    facts = {"name": str(state["task"]), "steps": str(step)}
    if "architecture" in state:
        architecture = Architecture(**state["architecture"])
    else:  # of a version whose networks tensors tell apart
        architecture = architecture_of(tensors, str(path))
    return Checkpoint(architecture, tensors, facts)


def export_weights(path: Path, model: SuperPoint, metadata: Mapping[str, str]) -> str:
    """Write our safetensors file and return its weights id. `metadata` is added to name, date and
    source commit.
    """
    facts = {
        "name": path.stem,
        "created": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "source_commit": source_commit(),
        **metadata,
    }
    checkpoint = Checkpoint(model.architecture, model.state_dict(), facts)
    save_checkpoint(path, checkpoint)
    return checkpoint.weights_id


def export_onnx(path: Path, model: SuperPoint) -> float:
    """Write the network as `network.engines.onnx_file` does, and check the file against torch.

    Returns the greatest difference of any output on pictures of two other sizes.

    Raises ImportError without onnx and onnxruntime, and RuntimeError if the difference is above
    1e-3.
    """
    import onnxruntime

    model = model.eval().cpu()
    unfinished = path.with_name(f".{path.name}.{os.getpid()}.unchecked")
    try:
        onnx_file.export_onnx(unfinished, copy.deepcopy(model))
        session = onnxruntime.InferenceSession(str(unfinished), providers=["CPUExecutionProvider"])
        worst = max(_difference(session, model, size) for size in ((2, 1, 96, 128), (1, 1, 120, 88)))
        if not worst < 1e-3:
            raise RuntimeError(f"{path}: ONNX Runtime and torch differ by {worst:.2g}; expected less than 0.001")
        os.replace(unfinished, path)
    finally:
        unfinished.unlink(missing_ok=True)
    return worst


def _difference(session: object, model: SuperPoint, size: tuple[int, int, int, int]) -> float:
    image = torch.rand(size, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        expected = [output for output in model(image) if output is not None]
    found = session.run(None, {"image": image.numpy()})  # type: ignore[attr-defined]
    return max(float((torch.from_numpy(f) - e).abs().max()) for f, e in zip(found, expected, strict=True))


def source_commit() -> str:
    """The commit of the checkout that this code runs from, "+" appended if it was changed, or
    "unknown".
    """
    folder = Path(__file__).parent
    try:
        commit = _git(folder, "rev-parse", "HEAD")
        return commit + ("+" if _git(folder, "status", "--porcelain", "--untracked-files=no") else "")
    except (OSError, subprocess.CalledProcessError):
        return "unknown"


def _git(folder: Path, *arguments: str) -> str:
    done = subprocess.run(["git", "-C", str(folder), *arguments], capture_output=True, text=True, check=True)
    return done.stdout.strip()
