"""Names of the interchangeable parts: every module of a package registers the class it defines."""

import importlib
import pkgutil
from dataclasses import Field, fields, is_dataclass
from functools import cache
from typing import Any

PACKAGES = {
    "objective": "methods.objectives",
    "closed_form": "methods.closed_form",
    "rule": "methods.gradient_rules",
    "regularizer": "methods.regularizers",
    "merge": "methods.merging",
    "attack": "attacks",
    "judge": "evaluation.judges",
    "world": "worlds",
}
"""Where the parts of each kind live: one module each, found by listing the package."""
METHODS = ("objective", "closed_form")
"""What `--objective` chooses among: objectives to train, and edits with a closed form."""
DEFAULT_MODEL = "pocket"
"""The bundled model, which is meant wherever none is named."""
OPEN_WORLD = "open"
"""The world of every model that has none of its own."""
_PARTS: dict[str, dict[str, type]] = {kind: {} for kind in PACKAGES}


def register(kind: str, name: str):
    """Class decorator: make the class available under `name`."""

    def add(part: type) -> type:
        _PARTS[kind][name] = part
        return part

    return add


@cache
def _load(kind: str) -> None:
    package = importlib.import_module(f"..{PACKAGES[kind]}", __package__)
    for module in pkgutil.iter_modules(package.__path__):
        importlib.import_module(f"{package.__name__}.{module.name}")


def names(kind: str) -> tuple[str, ...]:
    """Registered names of a kind in `PACKAGES`, sorted by the parts' `registry_order`, 0 unless
    they have one, and by name.
    """
    _load(kind)
    parts = _PARTS[kind]
    return tuple(sorted(parts, key=lambda name: (getattr(parts[name], "registry_order", 0), name)))


def get(kind: str, name: str) -> type:
    """The class registered as `name`.

    Raises:
        KeyError: nothing is registered under that name.
    """
    _load(kind)
    return _PARTS[kind][name]


def describe(kind: str, name: str) -> str:
    """The first sentence of the part's docstring."""
    text = " ".join((get(kind, name).__doc__ or name).split())
    return text.split(". ")[0].rstrip(".") + "."


def world(model: str) -> Any:
    """The world of the model with that name, a `worlds.World`: its own, else the open one."""
    return get("world", model if model in names("world") else OPEN_WORLD)(model)


def methods() -> tuple[str, ...]:
    """Names of all ways to forget."""
    return tuple(sorted(name for kind in METHODS for name in names(kind)))


def kind_of(method: str) -> str:
    """The kind in `METHODS` of a way to forget.

    Raises:
        KeyError: there is no such method.
    """
    for kind in METHODS:
        if method in names(kind):
            return kind
    raise KeyError(method)


def suggested(method: str) -> dict[str, Any]:
    """Settings that a way to forget wants when nothing else is asked for, by dotted name; none for
    an unknown one.
    """
    return dict(_said(method, "suggested"))


def advice(method: str, concept_kind: str) -> str:
    """What a way to forget says about concepts of a kind, "object" or "style", in a sentence; empty
    for nothing.
    """
    return _said(method, "advice").get(concept_kind, "")


def _said(method: str, attribute: str) -> dict[str, Any]:
    known = [get(kind, method) for kind in METHODS if method in names(kind)]
    return getattr(known[0], attribute, {}) if known else {}


def settings_of(kind: str, name: str) -> tuple[Field, ...]:
    """The hyperparameters of a part: its dataclass fields that state a meaning."""
    part = get(kind, name)
    declared = fields(part) if is_dataclass(part) else ()
    return tuple(item for item in declared if "help" in item.metadata)


def shared_settings(kind: str) -> dict[str, Field]:
    """The hyperparameters of all parts of a kind by name; parts that share one declare it alike."""
    return {item.name: item for name in names(kind) for item in settings_of(kind, name)}


def build(kind: str, name: str, group: Any) -> Any:
    """The part with its hyperparameters taken from the attributes of `group`, a group of settings.

    Raises:
        KeyError: nothing is registered under that name.
    """
    chosen = {item.name: getattr(group, item.name) for item in settings_of(kind, name)}
    return get(kind, name)(**chosen)


def build_all(kind: str, group: Any) -> list[Any]:
    """Every part of a kind, as `build` makes it, in the order of `names`."""
    return [build(kind, name, group) for name in names(kind)]
