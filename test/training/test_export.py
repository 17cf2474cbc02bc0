import json
from dataclasses import asdict, replace

import numpy as np
import pytest
import torch
from training_scenes import scene

from superpoint_ros import Extractor
from superpoint_ros.network.checkpoint import load_checkpoint
from superpoint_ros.network.superpoint import Architecture, SuperPoint
from superpoint_training.export import export_file, export_onnx, export_weights
from superpoint_training.state import save_state

SLIM = Architecture((4, 4, 8, 8), 16, 8, batch_norm=True)


def network(architecture: Architecture = SLIM) -> SuperPoint:
    torch.manual_seed(0)
    return SuperPoint(architecture).eval()


def test_the_extractor_loads_an_export_with_its_metadata(tmp_path) -> None:
    path = tmp_path / "mine.safetensors"
    weights_id = export_weights(path, network(), {"data": "my robot", "data_licence": "CC0"})
    checkpoint = load_checkpoint(path)
    assert checkpoint.weights_id == weights_id and weights_id.startswith("mine@")
    assert checkpoint.metadata["data"] == "my robot" and checkpoint.metadata["data_licence"] == "CC0"
    assert checkpoint.metadata.keys() >= {"created", "source_commit"}
    features = Extractor(path, device="cpu")(scene(0))
    assert features.descriptors.shape[1] == 8


def test_a_converted_file_keeps_its_metadata_and_takes_more(tmp_path) -> None:
    first, second = tmp_path / "first.safetensors", tmp_path / "second.safetensors"
    export_weights(first, network(), {"data": "my robot"})
    export_file(first, second, ["data_licence=CC0", "name=second"])
    metadata = load_checkpoint(second).metadata
    assert (metadata["data"], metadata["data_licence"], metadata["name"]) == ("my robot", "CC0", "second")


def test_the_mean_of_two_files_lies_in_the_middle_and_says_of_what_it_is(tmp_path) -> None:
    first, second = network(), SuperPoint(SLIM)
    ids = [
        export_weights(tmp_path / "first.safetensors", first, {"data": "my robot", "metrics": "{}"}),
        export_weights(tmp_path / "second.safetensors", second, {}),
    ]
    export_file(
        tmp_path / "first.safetensors", tmp_path / "out.safetensors", ["name=out"], [tmp_path / "second.safetensors"]
    )
    checkpoint = load_checkpoint(tmp_path / "out.safetensors")
    for name, tensor in second.state_dict().items():
        torch.testing.assert_close(checkpoint.state[name], ((first.state_dict()[name] + tensor) / 2).to(tensor.dtype))
    assert checkpoint.metadata["mean_of"] == ", ".join(ids) and checkpoint.metadata["data"] == "my robot"
    assert "metrics" not in checkpoint.metadata


def test_the_mean_of_two_architectures_is_refused_with_both(tmp_path) -> None:
    export_weights(tmp_path / "first.safetensors", network(), {})
    export_weights(tmp_path / "second.safetensors", network(replace(SLIM, descriptor_dim=16)), {})
    with pytest.raises(
        ValueError, match=r"second@\w+ and first@\w+ are of different architectures.*16.*8.*one lineage"
    ):
        export_file(tmp_path / "first.safetensors", tmp_path / "out.safetensors", [], [tmp_path / "second.safetensors"])
    assert not (tmp_path / "out.safetensors").exists()


@pytest.mark.parametrize("averaged", [True, False])
def test_the_state_of_a_run_is_exported_averaged_where_it_averages(tmp_path, averaged) -> None:
    state, mean = network().state_dict(), SuperPoint(SLIM).state_dict()
    average = {"n_averaged": torch.tensor(3), **{f"module.{k}": v for k, v in mean.items()}}
    saved = {"task": "superpoint", "step": 7, "model": state, "average": average if averaged else None}
    save_state(tmp_path / "state.pt", saved)
    export_file(tmp_path / "state.pt", tmp_path / "out.safetensors")
    checkpoint = load_checkpoint(tmp_path / "out.safetensors")
    assert checkpoint.metadata["steps"] == "7"
    for name, tensor in (mean if averaged else state).items():
        assert torch.equal(checkpoint.state[name], tensor)


def test_norms_before_the_relu_are_exported_as_plain_convolutions(tmp_path) -> None:
    architecture = replace(SLIM, norm_first=True, stem=2)
    model = SuperPoint(architecture)
    with torch.no_grad():
        model(torch.rand(2, 1, 64, 64))  # statistics that are not the first ones
    saved = {"task": "distill", "step": 7, "architecture": asdict(architecture), "average": None}
    save_state(tmp_path / "state.pt", {**saved, "model": model.state_dict()})
    export_file(tmp_path / "state.pt", tmp_path / "out.safetensors")
    checkpoint = load_checkpoint(tmp_path / "out.safetensors")
    assert checkpoint.architecture == replace(SLIM, batch_norm=False, stem=2)
    image = torch.rand(1, 1, 40, 56)
    with torch.no_grad():
        for got, expected in zip(checkpoint.build()(image), model.eval()(image), strict=True):
            torch.testing.assert_close(got, expected, rtol=1e-4, atol=1e-5)


def test_another_ending_is_refused_with_the_known_ones(tmp_path) -> None:
    with pytest.raises(ValueError, match=r"ends in \.safetensors or \.onnx"):
        export_file(tmp_path / "in.safetensors", tmp_path / "out.pth")


@pytest.mark.parametrize(
    "architecture", [SLIM, Architecture((4, 4, 8, 8), 16, 0), replace(SLIM, norm_first=True, stem=2)]
)
def test_onnx_gives_what_torch_gives_at_any_size(tmp_path, architecture) -> None:
    pytest.importorskip("onnx", reason="the extra `export` is not installed")
    runtime = pytest.importorskip("onnxruntime", reason="the extra `export` is not installed")
    model, path = network(architecture), tmp_path / "net.onnx"
    assert export_onnx(path, model) < 1e-4
    session = runtime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    for size in ((1, 1, 40, 24), (3, 1, 64, 104)):
        image = torch.rand(size)
        with torch.no_grad():
            expected = [output for output in model(image) if output is not None]
        found = session.run(None, {"image": image.numpy()})
        assert len(found) == len(expected)
        for a, b in zip(found, expected, strict=True):
            assert np.allclose(a, b.numpy(), atol=1e-4)


def test_metrics_are_json(tmp_path) -> None:
    path = tmp_path / "mine.safetensors"
    export_weights(path, network(), {"metrics": json.dumps({"map_noise": 0.9})})
    assert json.loads(load_checkpoint(path).metadata["metrics"]) == {"map_noise": 0.9}
