"""Base rates: what attacks achieve on a concept that a bundled model has never seen, measured by
the benchmarks and shipped.

A base rate depends on the model, the attack, how pictures are sampled and whether an object or a
style was forgotten, not on which concept. Where all of that is the same, the recorded rate is used
instead of running the control.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import Field

from ..common.atomic_files import write_bytes
from ..common.errors import ConfigError, OutputError
from ..common.json_values import json_text, to_json
from ..common.paths import POCKET
from ..common.record_files import Record, checked, read_json
from ..common.registry import world
from ..concepts.catalog import preview_concept
from ..settings.events import GroupScore, Sampling
from ..settings.run_config import RunConfig
from .relearn_curve import BaseCurve

if TYPE_CHECKING:
    from ..models.protocols import Model

NAME = "base_rates.json"
FILE = POCKET / NAME
"""Where the benchmarks record what they measure of the bundled model."""
RECORDED = "unseen, recorded"
"""The control whose scores were not made in this run."""


def relearning(config: RunConfig, model: "Model", file: Path | None = None) -> BaseCurve | None:
    """The recorded curve of a run's own attack; None where it was measured for another model,
    attack or sampling.
    """
    found = _of_kind("relearning", config, file)
    if not _fits(found, relearning_key(config, model), config):
        return None
    return BaseCurve(
        found["name"], {int(step): tuple(counts) for step, counts in found["marks"].items()}
    )


def taught_curve(taught: Mapping[int, GroupScore]) -> BaseCurve | None:
    """The curve of a control that was run with the run itself, from its scores by step; None where
    there is none.
    """
    marks = {step: (s.hits, s.n) for step, s in taught.items() if s.hits is not None}
    return BaseCurve("something", marks) if marks else None


def scores_of(base: BaseCurve | None) -> dict[int, GroupScore]:
    """The curve as scores by step; empty where there is none."""
    return {
        step: GroupScore(right / n, None, n)
        for step, (right, n) in (base.marks.items() if base else ())
    }


def of_attack(
    kind: str, attack: Any, config: RunConfig, model: "Model", file: Path | None = None
) -> dict[str, Any] | None:
    """The recorded control of an attack, as findings hold it; None where it was measured for
    something else.
    """
    found = _of_kind("attacks", config, file).get(kind, {})
    if not _fits(found, attack_key(attack, config, model), config):
        return None
    return {"name": found["name"], "hits": [hit == "1" for hit in found["hits"]]}


def seconds_of(
    kinds: Sequence[str],
    config: RunConfig,
    timing: Mapping[str, float],
    file: Path | None = None,
) -> float | None:
    """Seconds that attacks on a run will take here, by the pace of its own comparison; None if
    unknown.
    """
    known, compare = _recorded(config, file), config.compare
    if not known.get("pace") or not timing.get("compare_s"):
        return None
    try:
        rates = _of_kind("attacks", config, file)
    except ConfigError:  # a stored run may forget what the model does not know
        return None
    each = [rates.get(kind, {}).get("seconds") for kind in kinds]
    if None in each:
        return None
    # One column: the others are generated before the training and after the attack.
    pictures = compare.forget + compare.near + compare.far
    return sum(each) * timing["compare_s"] / pictures / known["pace"]


def relearning_key(config: RunConfig, model: "Model") -> dict[str, Any]:
    """What the base rate of a run's own attack depends on."""
    asked = {name: value for name, value in to_json(config.attack).items() if name != "controls"}
    sampling = Sampling(
        config.compare.sampling_steps, config.compare.guidance_scale, model.scheduler
    )
    own = {"pictures": config.pictures} if config.pictures else {}
    return {"attack": asked, **own, **to_json(sampling), "base": model.base_hash}


def attack_key(attack: Any, config: RunConfig, model: "Model") -> dict[str, Any]:
    """What the base rate of an attack depends on; what the adversary holds is part of it."""
    return {"settings": repr(attack), **relearning_key(config, model)}


def record(part: str, value: Any, file: Path = FILE) -> None:
    """Replace one part of the shipped base rates; every part but "pace" holds values by kind of
    concept.
    """
    text = json_text(_read(file) | {part: value}, sort_keys=True, separators=(",", ":"))
    write_bytes(file, text.encode())


def _of_kind(part: str, config: RunConfig, file: Path | None) -> dict[str, Any]:
    """What is recorded in `part` for concepts of the kind that `config` forgets."""
    return _recorded(config, file).get(part, {}).get(preview_concept(config).kind, {})


def _recorded(config: RunConfig, file: Path | None) -> dict[str, Any]:
    """What is recorded in `file`, by default that of the model's world; nothing where it has none,
    or where other judges than the world's own are asked for.
    """
    assets = world(config.model).assets if config.judge is None else None
    return _read(file or assets / NAME) if assets else {}


def _fits(found: dict[str, Any], key: dict[str, Any], config: RunConfig) -> bool:
    """Whether the recorded rate `found` has the same `key` and is of another concept than the
    run's own.
    """
    if not found or found["config"] != key:
        return False
    return found["name"].partition(",")[0] != preview_concept(config).name


class _Rate(Record):
    config: dict[str, Any]
    name: str
    hits: Annotated[str, Field(pattern="^[01]+$")]
    seconds: float


class _Curve(Record):
    config: dict[str, Any]
    name: str
    marks: dict[
        Annotated[str, Field(pattern="^[0-9]+$")],
        Annotated[list[Annotated[int, Field(ge=0)]], Field(min_length=2, max_length=2)],
    ]


class _Rates(Record):
    """What the shipped file holds, by kind of concept."""

    attacks: dict[str, dict[str, _Rate]] = {}
    relearning: dict[str, _Curve] = {}
    pace: float | None = None


def _read(file: Path) -> dict[str, Any]:
    """Everything in the file; nothing where it is missing or damaged."""
    try:
        found = read_json(file, "base rate")
        checked(found, _Rates, file, "base rate")
    except OutputError:
        return {}
    return found
