"""Recipes: a `Config` from a YAML file and `key=value` overrides, every key and value checked.

A recipe holds what differs from the defaults; `recipes/` has the named ones.
"""

from __future__ import annotations

import difflib
import types
from collections.abc import Mapping, Sequence
from dataclasses import asdict, fields, is_dataclass
from importlib import resources
from pathlib import Path
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

import yaml

from superpoint_training.config import Config


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
            _set(tree, key.strip(), yaml.safe_load(text))
        except yaml.YAMLError:
            raise ValueError(f"{override!r}: the value is not valid YAML") from None
    return parse_config(tree)


def parse_config(tree: Mapping[str, Any]) -> Config:
    """A `Config` from nested mappings, as YAML gives them. Raises ValueError."""
    config = _parse(Config, tree, "")
    assert isinstance(config, Config)
    return config


def config_yaml(config: Config) -> str:
    """Every value of a configuration as YAML, which `load_config` reads back."""
    return yaml.safe_dump(_plain(asdict(config)), sort_keys=False, default_flow_style=None)


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
        tree = yaml.safe_load(text) or {}
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


def _parse(kind: Any, value: Any, where: str) -> Any:
    if is_dataclass(kind):
        return _parse_section(kind, value, where)
    origin, arguments = get_origin(kind), get_args(kind)
    if origin is Literal:
        if value in arguments:
            return value
    elif origin in (Union, types.UnionType):
        return _parse(next(a for a in arguments if a is not type(None)), value, where) if value is not None else None
    elif origin is tuple:
        if isinstance(value, (list, tuple)):
            repeated = len(arguments) == 2 and arguments[1] is Ellipsis
            if repeated or len(value) == len(arguments):
                kinds = [arguments[0]] * len(value) if repeated else list(arguments)
                return tuple(_parse(k, v, f"{where}[{i}]") for i, (k, v) in enumerate(zip(kinds, value, strict=True)))
    elif kind is float and not isinstance(value, bool):
        try:
            return float(value)  # YAML 1.1 reads 1e-4 as a string
        except (TypeError, ValueError):
            pass
    elif isinstance(value, kind) and (kind is bool or not isinstance(value, bool)):
        return value
    raise ValueError(f"{where}: expected {_name(kind)}, got {value!r}")


def _parse_section(kind: Any, value: Any, where: str) -> Any:
    if not isinstance(value, Mapping):
        names = ", ".join(f.name for f in fields(kind))
        raise ValueError(f"{where}: expected a section with {names}, got {value!r}")
    prefix = f"{where}." if where else ""
    hints = get_type_hints(kind)
    known = [f.name for f in fields(kind)]
    for key in value:
        if key not in known:
            near = difflib.get_close_matches(str(key), known, n=1, cutoff=0.0)
            raise ValueError(f"unknown key {prefix}{key}; the nearest is {prefix}{near[0]}")
    try:
        return kind(**{key: _parse(hints[key], inner, f"{prefix}{key}") for key, inner in value.items()})
    except ValueError as error:
        message = str(error)
        raise ValueError(message if message.startswith((prefix, "unknown key")) else f"{prefix}{message}") from None


def _name(kind: Any) -> str:
    if get_origin(kind) is Literal:
        return " or ".join(map(repr, get_args(kind)))
    if get_origin(kind) is tuple:
        inner = get_args(kind)
        if inner[-1] is Ellipsis:
            return f"a list of {_name(inner[0])}"
        return f"{len(inner)} values ({', '.join(_name(k) for k in inner)})"
    return {int: "a whole number", float: "a number", str: "a word", bool: "true or false"}.get(kind, str(kind))


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _plain(inner) for key, inner in value.items()}
    return [_plain(inner) for inner in value] if isinstance(value, (list, tuple)) else value
