"""What is published of a run: a folder with its adapter, records and pictures, and a model card.

Nothing of the owner's machine is in it: of folders only the last names, and of the owner's own
prompts nothing unless they ask for it. The adversary's adapter, which would undo the forgetting, is
left out too.
"""

import hashlib
import re
import shlex
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any, ClassVar

from pydantic import Field

from ..common.atomic_files import write_bytes
from ..common.errors import ConfigError
from ..common.images import open_png, png_bytes
from ..common.json_values import json_text
from ..common.new_folder import NewFolder
from ..common.record_files import Record, sha256_of
from ..evaluation.finding import Finding
from ..models.diffusers.model_folder import looks_like_hub_id
from ..settings.judges import places_of
from ..settings.run_config import OWN_PROMPTS, config_from_dict
from .comparison_strip import comparison_strip, heading
from .findings import FOLDER, RECORD, read_findings, record_of
from .folder import Run
from .model_card import model_card
from .report import open_run

MANIFEST, CARD = "published.json", "README.md"
ADVERSARYS = "relearn"
"""How the files of the adversary begin."""
STEPS, RUN_RECORD, STRIP = "steps.jsonl", "run.json", "comparison.png"
ABOUT = ("text", "name", "kind", "anchor")
"""What is published of the concept; its prompts follow from it."""
_PART = r"""[^\s'"`,;:()\[\]/\\]+"""
PATH = re.compile(
    rf"(?<![\w.:/\\])(?:~|(?:[A-Za-z]:)?[/\\]{_PART})[/\\](?:{_PART}[/\\])*({_PART})[/\\]?"
)
"""A path from the root of a disk or from a home folder, and its last name."""
DIGEST = re.compile("[0-9a-f]{64}")


class _File(Record):
    size: Annotated[int, Field(ge=0, le=2**40)]
    sha256: Annotated[str, Field(pattern="^[0-9a-f]{64}$")]


class Manifest(Record):
    """published.json: every file of a published run but itself and the card."""

    VERSION: ClassVar[str] = "unlearn-published/1"
    files: Annotated[dict[str, _File], Field(min_length=1, max_length=20_000)]


def write_publication(run: Path, out: Path, name: str, own_prompts: bool = False) -> Path:
    """Write to the new folder `out` what is published of a run as `name`, and return it.

    Raises:
        OutputError: there is no whole run, or `out` exists or cannot be written.
        ConfigError: it is an audit of what others made.
    """
    opened = open_run(run)
    if opened.config.audited:
        raise ConfigError(
            f"The run {run.name!r} is an audit of {opened.config.audited!r}, which others made; a"
            " run that unlearned something here is accepted.",
            "run",
        )
    findings = read_findings(opened.folder)
    with NewFolder(out) as new:
        _fill(new.partial, opened, findings, own_prompts)
        # The card is made of what is published, so it cannot say more.
        card = model_card(Run.open(new.partial), read_findings(new.partial), name)
        write_bytes(new.partial / CARD, card.encode())
        return new.settle()


def _fill(folder: Path, run: Run, findings: Sequence[Finding], own_prompts: bool) -> None:
    digests = {
        name: digest
        for name, digest in run.record["files"].items()
        if not name.startswith(ADVERSARYS) and name not in (STEPS, STRIP)
        if own_prompts or name != OWN_PROMPTS
    }
    for name in digests:  # what they hold was compared with their hashes when the run was opened
        _copy(run.folder / name, folder / name)
    lines = "".join(f"{json_text(line)}\n" for line in run.steps)
    digests[STEPS] = _write(folder / STEPS, lines.encode())
    record = _published(run, own_prompts)
    if run.pictures:
        shown = [replace(p, image=open_png(p.file).convert("RGB")) for p in run.pictures]
        said = heading(config_from_dict(record["config"]), _name(record), run.verdict.label)
        strip = png_bytes(comparison_strip(*said, shown))
        digests[STRIP] = _write(folder / STRIP, strip)
    record["files"] = dict(sorted(digests.items()))
    digests[RUN_RECORD] = _write(folder / RUN_RECORD, json_text(record, indent=1).encode())
    for finding in findings:
        name = f"{FOLDER}/{finding.folder.name}"
        own = _add_finding(folder / name, finding, run)
        digests |= {f"{name}/{file}": digest for file, digest in own.items()}
    files = {
        name: {"size": (folder / name).stat().st_size, "sha256": digest}
        for name, digest in sorted(digests.items())
    }
    manifest = {"schema": Manifest.VERSION, "files": files}
    write_bytes(folder / MANIFEST, json_text(manifest, indent=1).encode())


def _write(path: Path, content: bytes) -> str:
    """Write a file and return its SHA-256."""
    write_bytes(path, content)
    return hashlib.sha256(content).hexdigest()


def _name(record: Mapping[str, Any]) -> str:
    return (record["concept"] or {}).get("name") or record["config"]["concept"]


def _published(run: Run, own_prompts: bool) -> dict[str, Any]:
    """The record of the run as it is published."""
    record = _without_paths(run.record, run)
    config = record["config"]
    config["model"] = model_name(run)
    config["judge"] = _judges(run.record["config"].get("judge"))
    if not own_prompts:
        config["prompts"] = None
    if record["concept"]:
        record["concept"] = {name: record["concept"][name] for name in ABOUT}
    record["command"] = config_from_dict(config).command()
    return record


def _add_finding(folder: Path, finding: Finding, run: Run) -> dict[str, str]:
    """Write what is published of a finding; returns the hashes of its files by name."""
    pictures = [entry["file"] for entry in finding.pictures]
    files = dict.fromkeys([*pictures, *([finding.proof] if finding.proof else [])])
    for name in files:
        _copy(finding.folder / name, folder / name)
    digests = {name: sha256_of(folder / name) for name in sorted(files)}
    record = _without_paths(record_of(finding), run) | {"files": digests}
    words = [_without_paths(word, run) for word in shlex.split(finding.command)]
    record["command"] = shlex.join(words)
    return digests | {RECORD: _write(folder / RECORD, json_text(record, indent=1).encode())}


def _copy(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(source, target)


def model_name(run: Run) -> str:
    """The run's model as others may read it: a Hugging Face id, or a folder's last name."""
    model = run.record["config"]["model"]
    return model if is_on_hub(run) else _last(model)


def is_on_hub(run: Run) -> bool:
    """Whether the run's model is a Hugging Face id, which records call by its whole name; earlier
    ones do not say so, and hashed the weights of folders alone.
    """
    model, about = run.record["config"]["model"], run.record["environment"]
    if called := about.get("base"):
        return looks_like_hub_id(called) and called == model
    hashed = DIGEST.fullmatch(about.get("base_sha256") or "")
    return looks_like_hub_id(model) and not hashed and not Path(model).is_dir()


def _judges(named: str | None) -> str | None:
    parts = [
        name if place is None else f"{name}={place if _is_id(place) else _last(place)}"
        for name, place in places_of(named).items()
    ]
    return ",".join(parts) or None


def _is_id(place: str) -> bool:
    return looks_like_hub_id(place) and not Path(place).is_dir()


def _last(path: str) -> str:
    return re.split(r"[/\\]", path.rstrip("/\\"))[-1] or "model"


def _without_paths(value: Any, run: Run) -> Any:
    """A JSON value whose texts name of folders only the last name."""
    if isinstance(value, str):
        config = run.record["config"]
        places = [config["model"], *places_of(config.get("judge")).values()]
        for place in sorted(filter(None, places), key=len, reverse=True):
            if ("/" in place or "\\" in place) and not (place == model_name(run) or _is_id(place)):
                value = value.replace(place, _last(place))
        return PATH.sub(r"\1", value)
    if isinstance(value, Mapping):
        return {name: _without_paths(item, run) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [_without_paths(item, run) for item in value]
    return value
