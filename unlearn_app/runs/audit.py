"""Audit what others have made: did it really forget? A run whose unlearned model was published by
somebody else, and then every attack that applies.
"""

import threading
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from ..attacks.never_seen import NeverSeen
from ..common.errors import Cancelled
from ..common.registry import DEFAULT_MODEL
from ..evaluation.finding import Finding
from ..evaluation.verdict import decided
from ..models.protocols import Model
from ..settings.attacks import kinds_of
from ..settings.events import Done, Event, Stage, Verdict
from ..settings.run_config import RunConfig, make_config
from .attack_run import run_attacks
from .findings import judge_again, read_findings
from .folder import Run
from .published import Published
from .workflow import run

RUN_SHARE = 0.4
"""About what share of an audit its run takes, before the further attacks."""


def audit(
    original: str,
    unlearned: str | Path,
    concept: str,
    out: str | Path,
    *,
    kinds: str | Sequence[str] = "quick",
    seed: int = 0,
    never_seen: NeverSeen | None = None,
    cancel: threading.Event | None = None,
    model: Model | None = None,
    **changes: Any,
) -> Iterator[Event | Finding]:
    """Judge whether `unlearned`, an adapter file, a model folder or a Hugging Face id, has
    forgotten `concept`, which the model `original` knows. Writes a run folder, and yields what a
    run yields and every finding; the last event is `Done`.

    `kinds` are attacks beside the run's own: names, "quick" or "all"; `changes` are settings of
    `attack` and `compare`. What is `never_seen` is the control where the world of the model names
    none.

    Raises:
        UnlearnError: as `run`; `unlearned` cannot be read or was made for another base, or there is
            no judge.
    """
    published = Published(str(unlearned))
    config = audit_config(concept, published.name, original, seed, **changes)
    asked = [kinds] if isinstance(kinds, str) else kinds
    names = tuple(dict.fromkeys(name for word in asked for name in kinds_of(word)))
    yield from audit_run(
        config, published, names, Path(out), cancel=cancel, model=model, never_seen=never_seen
    )


def audit_config(
    concept: str, name: str, original: str = DEFAULT_MODEL, seed: int = 0, **changes: Any
) -> RunConfig:
    """The settings of the audit of what is called `name`."""
    return make_config(concept, model=original, seed=seed, audited=name, **changes)


def audit_run(
    config: RunConfig,
    published: Published,
    kinds: Sequence[str],
    out: Path,
    *,
    cancel: threading.Event | None = None,
    model: Model | None = None,
    never_seen: NeverSeen | None = None,
) -> Iterator[Event | Finding]:
    """`audit` with its settings made; nothing of what was published stays in `model`."""
    from ..models.catalog import load_model

    cancel, model = cancel or threading.Event(), model or load_model(config.model)
    known = {"model": model, "never_seen": never_seen}
    try:
        share = RUN_SHARE if kinds else 1.0
        for event in run(config, out, cancel=cancel, published=published, **known):
            if not isinstance(event, Done):
                yield _at(event, 0.0, share)
                continue
            if not event.stopped and not decided(Run.open(event.folder).scores):
                yield from _attacks(event.folder, kinds, cancel, known)
            yield replace(event, stopped=event.stopped or cancel.is_set())
    finally:
        model.drop_adapters()


def _attacks(
    folder: Path, kinds: Sequence[str], cancel: threading.Event, known: dict[str, Any]
) -> Iterator[Event | Finding]:
    """The attacks beside the run's own; what was found before a stop is kept."""
    opened, size = Run.open(folder), (1 - RUN_SHARE) / max(len(kinds), 1)
    done = 0
    try:
        if not kinds:
            return
        for event in run_attacks(opened, kinds, should_stop=cancel.is_set, skip=True, **known):
            done += isinstance(event, Finding)
            yield _at(event, RUN_SHARE + done * size, size)
    except Cancelled:
        yield judge_again(opened, read_findings(folder))


def _at(event: Event | Finding | Verdict, begin: float, size: float) -> Event | Finding:
    """The event; a stage at its place in the whole audit."""
    if isinstance(event, Stage):
        return replace(event, fraction=begin + size * event.fraction)
    return event
