import pytest

from superpoint_training.config import Config
from superpoint_training.recipe import config_yaml, load_config, parse_config, recipe_names


def test_every_named_recipe_loads() -> None:
    assert recipe_names() == ["fast", "gpu", "paper", "robot", "rotation", "small"]
    for name in recipe_names():
        assert isinstance(load_config(name), Config)


def test_the_defaults_are_the_papers() -> None:
    """But for the perspective, and for eps, which are too small without BatchNorm."""
    steep, sharp = {"homography": {"perspective": 0.4}}, {"eps": 1e-12}
    sections = {
        "shapes": steep,
        "adaptation": {"rounds": 2, **steep},
        "pairs": {"second": steep["homography"]},
        "magicpoint": sharp,
        "superpoint": sharp,
    }
    assert load_config("paper") == parse_config(sections)


def test_an_unknown_key_is_refused_with_the_nearest_name() -> None:
    with pytest.raises(
        ValueError, match=r"unknown key magicpoint\.lerning_rate; the nearest is magicpoint\.learning_rate"
    ):
        load_config("small", ["magicpoint.lerning_rate=1"])
    with pytest.raises(ValueError, match="unknown key magicpiont; the nearest is magicpoint"):
        load_config("small", ["magicpiont.steps=1"])
    with pytest.raises(
        ValueError, match=r"unknown key pairs\.second\.rotatoin; the nearest is pairs\.second\.rotation"
    ):
        load_config("small", ["pairs.second.rotatoin=1"])


def test_overrides_are_typed() -> None:
    config = load_config("small", ["magicpoint.learning_rate=1e-4", "shapes.size=[64, 80]", "loss.descriptor=hinge"])
    assert config.magicpoint.learning_rate == 1e-4
    assert config.shapes.size == (64, 80)
    assert config.loss.descriptor == "hinge"


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("magicpoint.steps=many", r"magicpoint\.steps: input should be a valid integer, got 'many'"),
        ("magicpoint.steps=1.5", r"magicpoint\.steps: input should be a valid integer, got 1\.5"),
        ("network.batch_norm=1", r"network\.batch_norm: input should be a valid boolean, got 1"),
        ("loss.descriptor=triplet", r"loss\.descriptor: input should be 'hinge' or 'infonce', got 'triplet'"),
        ("shapes.size=[64]", r"shapes\.size\.1: field required, got \[64\]"),
        ("shapes.size=[60, 80]", r"shapes\.size: .*multiples of 8"),
        ("shapes.kinds=[blobs]", r"shapes\.kinds: expected some of lines.*got blobs"),
        ("shapes.homography.crop=0", r"shapes\.homography\.crop must be above 0"),
        ("magicpoint.steps=0", r"magicpoint\.steps must be at least 1, got 0"),
        ("run.explosion=0.5", r"run\.explosion must be at least 1"),
        ("magicpoint.steps=[", "the value is not valid YAML"),
        ("magicpoint=3", r"magicpoint: input should be an object, got 3"),
        ("magicpoint.steps", "expected key=value"),
    ],
)
def test_values_that_do_not_fit_are_refused_by_name(override: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        load_config("small", [override])


def test_an_unknown_recipe_is_refused_with_the_known_ones(tmp_path) -> None:
    with pytest.raises(
        ValueError, match="unknown recipe 'large'; expected fast, gpu, paper, robot, rotation, small or a .yaml file"
    ):
        load_config("large")
    with pytest.raises(ValueError, match="no such recipe file"):
        load_config(str(tmp_path / "none.yaml"))


def test_a_written_configuration_reads_back_the_same(tmp_path) -> None:
    config = load_config("gpu", ["run.seed=7"])
    path = tmp_path / "config.yaml"
    path.write_text(config_yaml(config))
    assert load_config(str(path)) == config
