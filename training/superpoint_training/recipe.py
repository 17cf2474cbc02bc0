"""Recipes: a `Config` from a YAML file and `key=value` overrides, every key and value checked by pydantic.

A recipe holds what differs from the defaults; `recipes/` has the named ones. Of the maintained libraries pydantic is
the one that takes frozen dataclasses, tuples and Literals as they are (OmegaConf has no Literals, makes lists of
tuples and refuses to fill frozen classes).
"""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from importlib import resources
from pathlib import Path
from typing import Any

import yaml
from pydantic import TypeAdapter, ValidationError
from pydantic_core import ErrorDetails

from superpoint_training.config import Config

SECTIONS = {
    "magicpoint": ("network", "shapes", "loss"),
    "superpoint": ("network", "pairs", "loss"),
    "distill": ("network", "distillation"),
}
"""Stage -> the sections of a recipe that decide what it learns, besides its own."""


def recipe_names() -> list[str]:
    """The recipes that come with the package."""
    folder = resources.files("superpoint_training") / "recipes"
    return sorted(entry.name[: -len(".yaml")] for entry in folder.iterdir() if entry.name.endswith(".yaml"))


def load_config(recipe: str, overrides: Sequence[str] = ()) -> Config:
    """Read a named recipe or a YAML file and apply `section.key=value` overrides (values are YAML).

    Raises ValueError for an unknown recipe or key, naming the nearest one, or for a value that does
    not fit.
    """
    tree = _read(recipe)
    for override in overrides:
        key, separator, text = override.partition("=")
        if not separator:
            raise ValueError(f"{override!r}: expected key=value, as in magicpoint.steps=1000")
        try:
            _set(tree, key.strip(), yaml.load(text, _Loader))
        except yaml.YAMLError:
            raise ValueError(f"{override!r}: the value is not valid YAML") from None
    return parse_config(tree)


def parse_config(tree: Mapping[str, Any]) -> Config:
    """A `Config` from nested mappings, as YAML gives them. Raises ValueError."""
    try:
        # As JSON, where pydantic is strict (1 is no truth, "3" no number) and a list still may be a tuple.
        return _ADAPTER.validate_json(json.dumps(tree, default=str))
    except ValidationError as error:
        raise ValueError(_sentence(error.errors()[0])) from None


def config_yaml(config: Config) -> str:
    """Every value of a configuration as YAML, which `load_config` reads back."""
    return yaml.safe_dump(_plain(config), sort_keys=False, default_flow_style=None)


def stage_recipe(config: Config, stage: str, *more: str) -> dict[str, Any]:
    """What decides the course of a stage, as on the command line: "pairs.second.rotation" -> 180.0.

    more  further sections
    """
    tree = _plain(config)
    chosen = {name: tree[name] for name in (*SECTIONS[stage], *more, stage)}
    judged = {"run.validation_samples": config.run.validation_samples} if tree[stage]["best"] else {}
    return {"run.seed": config.run.seed, **judged, **flat(chosen)}


def default_values() -> dict[str, Any]:
    """Every key, as on the command line, with its default, as JSON has it."""
    return flat(_plain(Config()))


def flat(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """{"a": {"b": 1}} to {"a.b": 1}."""
    found: dict[str, Any] = {}
    for name, value in tree.items():
        found |= flat(value, f"{prefix}{name}.") if isinstance(value, dict) else {f"{prefix}{name}": value}
    return found


_ADAPTER = TypeAdapter(Config)


class _Loader(yaml.SafeLoader):
    """YAML, with the numbers of version 1.2: PyYAML takes 1e-4 for a word."""


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"[-+]?(\.\d+|\d+(\.\d*)?)[eE][-+]?\d+$"), list("-+.0123456789")
)


def _read(recipe: str) -> dict[str, Any]:
    if recipe.endswith((".yaml", ".yml")):
        if not Path(recipe).is_file():
            raise ValueError(f"{recipe}: no such recipe file")
        text = Path(recipe).read_text()
    elif recipe in recipe_names():
        text = (resources.files("superpoint_training") / "recipes" / f"{recipe}.yaml").read_text()
    else:
        raise ValueError(f"unknown recipe {recipe!r}; expected {', '.join(recipe_names())} or a .yaml file")
    try:
        tree = yaml.load(text, _Loader) or {}
    except yaml.YAMLError as error:
        raise ValueError(f"{recipe}: not valid YAML ({error})") from None
    if not isinstance(tree, dict):
        raise ValueError(f"{recipe}: expected a mapping of sections, found {type(tree).__name__}")
    return tree


def _set(tree: dict[str, Any], key: str, value: Any) -> None:
    *sections, name = key.split(".")
    for section in sections:
        tree = tree.setdefault(section, {})
        if not isinstance(tree, dict):
            raise ValueError(f"{key}: {section} is a value, not a section")
    tree[name] = value


def _sentence(error: ErrorDetails) -> str:
    """What is wrong with the first wrong value, by its key."""
    key = ".".join(map(str, error["loc"]))
    if error["type"] == "unexpected_keyword_argument":
        *sections, wrong = map(str, error["loc"])
        known = _plain(Config())
        for section in sections:
            known = known[section]
        (near,) = difflib.get_close_matches(wrong, known, n=1, cutoff=0.0)
        return f"unknown key {key}; the nearest is {'.'.join([*sections, near])}"
    if error["type"] == "value_error":  # a section's own check, which names the key
        return f"{key}.{error['ctx']['error']}" if key else str(error["ctx"]["error"])
    return f"{key}: {error['msg'][0].lower()}{error['msg'][1:]}, got {error['input']!r}"


def _plain(config: Config) -> dict[str, Any]:
    """Nested dicts, and lists for tuples."""
    tree: dict[str, Any] = json.loads(json.dumps(asdict(config)))
    return tree
