"""Records of earlier versions, read as those that are written now."""

from collections.abc import Mapping
from typing import Any

from ..common.seeds import preview_seed
from ..concepts.catalog import known_concepts

RUN, FINDING = "unlearn-run/2", "unlearn-finding/2"
"""The schemas that are written."""
FIRST_RUN, FIRST_FINDING = "unlearn-run/1", "unlearn-finding/1"
"""The first ones, in which a second judge and a detector had fields of their own."""
SECOND, DETECTOR = "pocket-second", "NudeNet"
"""The only second judge and the only detector of that time."""
KINDS = ("object", "style")
PREVIEW_STEPS = 6
"""How previews were sampled, which their records did not say."""

Record = dict[str, Any]


def current_run(record: Record, taken: Mapping[str, int]) -> Record:
    """The record of a run in the form of `RUN`, with the kind of its concept in its settings; any
    other than the first is else returned as it is.

    `taken` are the steps that its stages took, which the first records said of no picture.

    Raises:
        LookupError, TypeError, AttributeError, ValueError: the record is no whole one.
    """
    record = _with_kind(record)
    if record.get("schema") != FIRST_RUN:
        return record
    compare = record.get("config", {}).get("compare", {})
    sampler = {
        "steps": compare.get("sampling_steps", 0),
        "guidance_scale": compare.get("guidance_scale", 1.0),
    }
    unlearned = "unlearn", taken.get("unlearn", 0)
    moments = {
        "original": ("unlearn", 0),
        "unlearned": unlearned,
        "relearned": ("attack", taken["attack"]) if "attack" in taken else unlearned,
    }
    pictures = [_picture(entry, *moments[entry["column"]], sampler) for entry in record["pictures"]]
    curve = [
        point
        | {
            "scores": _groups(point["scores"]),
            "pictures": [_picture(p, "attack", point["step"], sampler) for p in point["pictures"]],
        }
        for point in record["curve"]
    ]
    controls = {
        name: [point | {"scores": _groups(point["scores"])} for point in points]
        for name, points in record.get("controls", {}).items()
    }
    changed = {"pictures": pictures, "curve": curve, "controls": controls}
    changed["previews"] = [
        picture for entry in record["previews"] for picture in _preview(entry, sampler)
    ]
    if "scores" in record:
        changed["scores"] = {c: _groups(groups) for c, groups in record["scores"].items()}
    return record | changed | {"schema": RUN}


def _with_kind(record: Record) -> Record:
    """The record with the kind that an earlier version guessed for words that tell none."""
    config, concept = record.get("config"), record.get("concept")
    if not isinstance(config, dict) or not isinstance(concept, dict) or "concept_kind" in config:
        return record
    if known_concepts(str(config.get("model", ""))) or concept.get("kind") not in KINDS:
        return record
    return record | {"config": config | {"concept_kind": concept["kind"]}}


def current_finding(record: Record) -> Record:
    """The record of a finding in the form of `FINDING`; any other than the first is returned as it
    is.
    """
    if record.get("schema") != FIRST_FINDING:
        return record
    pictures = [_judges(entry) for entry in record["pictures"]]
    return record | {"pictures": pictures, "schema": FINDING}


def current_score(stored: Mapping[str, Any]) -> Record:
    """A stored `GroupScore` in the form that is written now."""
    known = {name: value for name, value in stored.items() if name not in ("second", "detected")}
    accuracies = known.pop("accuracies", None) or _named(SECOND, stored.get("second"))
    found = known.pop("found", None) or _named(DETECTOR, stored.get("detected"))
    return known | {"accuracies": accuracies, "found": found}


def _groups(groups: Mapping[str, Any]) -> Record:
    return {group: current_score(stored) for group, stored in groups.items()}


def _picture(entry: Record, stage: str, step: int, sampler: Record) -> Record:
    """A picture of the comparison; what it `expects` is known where a judge saw it."""
    expects = entry["predicted"] if entry["correct"] else ""
    if entry.get("second_correct"):
        expects = entry["second"]
    moment = {"stage": stage, "step": step, "sampler": sampler, "expects": expects or ""}
    return _judges(entry) | moment


def _preview(entry: Record, sampler: Record) -> list[Record]:
    steps = min(PREVIEW_STEPS, sampler["steps"])
    rows = zip(entry["files"], entry["prompts"], strict=False)
    return [
        {
            "stage": entry["stage"],
            "step": entry["step"],
            "prompt": prompt,
            "seed": preview_seed(index),
            "sampler": sampler | {"steps": steps},
            "index": index,
            "file": file,
        }
        for index, (file, prompt) in enumerate(rows)
    ]


def _judges(entry: Record) -> Record:
    """A judged picture with what further judges say in one place."""
    gone = ("second", "second_correct", "detected")
    known = {name: value for name, value in entry.items() if name not in gone}
    judges = _named(SECOND, entry.get("second")) | _named(DETECTOR, entry.get("detected"))
    return known | {"judges": judges}


def _named(name: str, value: Any) -> Record:
    return {} if value is None else {name: value}
