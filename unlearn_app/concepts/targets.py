"""Targets that a user brings to a benchmark: concepts of any model, with kind and relatives."""

import itertools
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, get_args

from ..common.errors import ConfigError
from ..common.record_files import read_bytes, sha256_of
from ..settings.run_config import clean_text
from .concept import Concept, Kind, KnownConcept, Prompt, PromptSplit, halves, named
from .own_prompts import json_object

FEWEST = 2
"""Relatives of a target on either side, so that some are trained on and others tested."""
SIDES = ("near", "far")
FEWEST_CAPTIONS = 3
"""A kernel distance needs as many pictures a side."""


@dataclass(frozen=True)
class Target:
    """A concept to forget, and the names of its closest relatives and of others of its kind."""

    name: str
    kind: Kind
    near: tuple[str, ...]
    far: tuple[str, ...]

    def applied(self, concept: Concept) -> Concept:
        """`concept` with retain prompts that name the relatives of the target.

        They are the forget prompts with another name in the concept's place; half of the names are
        for training, the others are tested.

        Raises:
            ConfigError: the words are read as a concept of the other kind.
        """
        if concept.kind != self.kind:
            raise ConfigError(
                f"The target “{self.name}” is of kind {self.kind} in the file and the words are"
                f" read as {concept.kind}; write them as that kind, such as “cat” or “Van Gogh"
                " style”.",
                "targets",
            )
        near, far = (_retained(concept, getattr(self, side), self.name) for side in SIDES)
        harmless = [near.train[row % len(near.train)] for row in range(len(concept.relearn))]
        return replace(concept, near=near, far=far, benign=tuple(dict.fromkeys(harmless)))


def _retained(concept: Concept, names: Sequence[str], salt: str) -> PromptSplit:
    def prompts(asked: Sequence[Prompt], own: Sequence[str]) -> tuple[Prompt, ...]:
        turns = itertools.cycle(own)
        return tuple(
            Prompt(named(concept, prompt.text, name), prompt.axis, name)
            for prompt, name in zip(asked, turns, strict=False)
        )

    learned, held_out = halves(names, salt)
    return PromptSplit(
        prompts(concept.forget.train, learned), prompts(concept.forget.test, held_out)
    )


@dataclass(frozen=True)
class Targets:
    """The targets of a file by name, the model that shall forget them, and the name and the hash of
    the file.
    """

    targets: Mapping[str, Target] = field(hash=False)
    model: str
    file: str
    sha256: str

    def of_kind(self, kind: Kind) -> tuple[str, ...]:
        """Names of the targets of a kind, in the order of the file."""
        return tuple(name for name, target in self.targets.items() if target.kind == kind)

    def known(self) -> list[KnownConcept]:
        """Every concept that the file names, each once."""
        names = {name: target.kind for name, target in self.targets.items()}
        for target in self.targets.values():
            names = dict.fromkeys((*target.near, *target.far), target.kind) | names
        return [KnownConcept(name, kind, "") for name, kind in names.items()]

    def applied(self, concept: Concept) -> Concept:
        """`concept` with the relatives that the file names for it, if it is one of the targets."""
        words = {concept.text.casefold(), concept.name.casefold()}
        found = [target for name, target in self.targets.items() if name.casefold() in words]
        return found[0].applied(concept) if found else concept


def read_targets(path: Path, model: str) -> Targets:
    """The targets for `model` of a JSON file that holds them by name, each as
    {"kind": "object", "near": [...], "far": [...]}.

    Raises:
        ConfigError: no such file, or a target without a kind or relatives.
    """
    values = json_object(path, "targets")
    if not values:
        raise _refusal(f"{path.name} names no target; at least one is accepted.")
    targets = {}
    for typed, entry in values.items():
        name = clean_text(typed, "target")
        if not isinstance(entry, dict) or entry.get("kind") not in get_args(Kind):
            raise _refusal(
                f"The target “{name}” of {path.name} has no kind;"
                ' {"kind": "object", "near": [...], "far": [...]} is accepted, or "style".'
            )
        near, far = (_names(name, side, entry.get(side)) for side in SIDES)
        if both := {*near} & {*far} or {name} & {*near, *far}:
            raise _refusal(f"“{min(both)}” stands twice at the target “{name}”; once is accepted.")
        targets[name] = Target(name, entry["kind"], near, far)
    return Targets(targets, model, path.name, sha256_of(path))


def _names(target: str, side: str, names: Any) -> tuple[str, ...]:
    texts = isinstance(names, list) and all(isinstance(name, str) for name in names)
    if not texts or len({*names}) < FEWEST:
        raise _refusal(
            f"“{side}” of the target “{target}” is {names!r:.80}; a list of {FEWEST} or more names"
            " is accepted."
        )
    return tuple(dict.fromkeys(clean_text(name, f"{side} name") for name in names))


def _refusal(message: str) -> ConfigError:
    return ConfigError(message, "targets")


def read_captions(path: Path) -> tuple[str, ...]:
    """The captions of a text file, one a line, each once.

    Raises:
        ConfigError: no such file, or fewer than three captions, which have no distance.
    """
    try:
        lines = read_bytes(path).decode("utf-8-sig").splitlines()
    except (OSError, ValueError):
        raise ConfigError(
            f"{str(path)!r} cannot be read as captions; a text file in UTF-8, one caption a line,"
            " is accepted.",
            "captions",
        ) from None
    typed = [clean_text(line, "caption", 500) for line in lines if line.strip()]
    captions = tuple(dict.fromkeys(typed))
    if len(captions) < FEWEST_CAPTIONS:
        raise ConfigError(
            f"{path.name} holds {len(captions)} captions; {FEWEST_CAPTIONS} or more, one a line,"
            " are accepted.",
            "captions",
        )
    return captions


_TOLD: ContextVar[Targets | None] = ContextVar("targets", default=None)


@contextmanager
def told(targets: Targets | None) -> Iterator[None]:
    """Let the concepts of their model be those of `targets`, in this thread."""
    token = _TOLD.set(targets)
    try:
        yield
    finally:
        _TOLD.reset(token)


def targets_told() -> Targets | None:
    """The targets of the surrounding `told`; None where there are none."""
    return _TOLD.get()
