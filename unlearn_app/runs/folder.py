"""Run folders: everything a run produced, written so that it is whole or not there, and reopened
without computing.
"""

import dataclasses
import os
import zipfile
from dataclasses import dataclass, field
from functools import cached_property, partial
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter

from ..common.atomic_files import complete, remove, replacement, write_bytes
from ..common.errors import ConfigError, ModelError
from ..common.json_values import json_text, to_json
from ..common.new_folder import NewFolder
from ..common.record_files import check_files, checked, inside, read_json, read_record, sha256_of
from ..evaluation.relearn_curve import BaseCurve
from ..settings.events import (
    COLUMNS,
    AttackCheckpoint,
    Column,
    Difference,
    Group,
    GroupScore,
    Images,
    Picture,
    Preview,
    Sampling,
    Step,
    Verdict,
)
from ..settings.run_config import RunConfig, config_from_dict
from .records import RUN, current_run
from .schema import RunRecord, StepLines

ADAPTER = "unlearn.safetensors"
FOR_OTHERS = "unlearn.kohya.safetensors"
"""The adapter of the defender as diffusers reads it, and as ComfyUI and A1111 do."""
REPLACEMENT = "unlearned"
"""The folder of a run with another model that was audited, as what differs from the original."""


class RunWriter(NewFolder):
    """Collects a run in a hidden folder beside its destination, which gets its name when the run is
    done.
    """

    def __init__(self, out: Path) -> None:
        super().__init__(out)
        self.record: dict[str, Any] = {
            "schema": RUN,
            "status": "running",
            "pictures": [],
            "previews": [],
            "curve": [],
            "controls": {},
        }

    def add_step(self, step: Step) -> None:
        """Append one line to steps.jsonl."""
        with (self.partial / "steps.jsonl").open("a", encoding="utf-8") as stream:
            stream.write(json_text(step) + "\n")

    def add_preview(self, preview: Preview) -> None:
        """Save preview pictures."""
        name = f"preview-{preview.stage}-{preview.step:04d}"
        self.record["previews"] += [
            self._saved(picture, f"{name}-{_place(picture)}") for picture in preview.pictures
        ]

    def add_images(self, images: Images) -> None:
        """Save one column's pictures."""
        self.record["pictures"] += [
            self._saved(picture, f"{picture.column}-{_place(picture)}")
            for picture in images.pictures
        ]

    def add_checkpoint(self, found: AttackCheckpoint) -> None:
        """Save the pictures and scores of the attacked model on its way; of a control, its
        score.
        """
        point = {"step": found.step, "scores": to_json(found.scores)}
        if found.control:
            self.record["controls"].setdefault(found.control, []).append(point)
            return
        name = f"attack-{found.step:04d}"
        pictures = [self._saved(picture, f"{name}-{_place(picture)}") for picture in found.pictures]
        self.record["curve"].append(point | {"pictures": pictures})

    def _saved(self, picture: Picture, name: str) -> dict[str, Any]:
        file = f"images/{name}.png"
        (self.partial / "images").mkdir(exist_ok=True)
        picture.image.save(self.partial / file)
        record = to_json(dataclasses.replace(picture, image=None))
        del record["image"]
        return record | {"file": file}

    def make_room(self) -> None:
        """Remove every picture, and the line that was not written to its end, where the disk is
        full.
        """
        for name in ("images", "comparison.png"):
            remove(self.partial / name)
        self.record |= {"pictures": [], "previews": [], "curve": []}
        steps = self.partial / "steps.jsonl"
        if steps.exists():
            os.truncate(steps, steps.read_bytes().rfind(b"\n") + 1)

    def finish(self, status: str, **values: Any) -> Path:
        """Write run.json with the hashes of all files, and give the folder its name."""
        target = self.partial / "run.json"
        files = sorted(p for p in self.partial.rglob("*") if p.is_file() and p != target)
        self.record["files"] = {
            path.relative_to(self.partial).as_posix(): sha256_of(path) for path in files
        }
        record = self.record | to_json(values) | {"status": status}
        write_bytes(target, json_text(record, indent=1).encode())
        return self.settle()


def _steps(folder: Path) -> list[dict[str, Any]]:
    """The lines of steps.jsonl; none where no step was taken."""
    path = folder / "steps.jsonl"
    if not os.path.lexists(path):
        return []
    lines = read_json(inside(folder, path.name, "run"), "run", lines=True)
    return checked({"lines": lines}, StepLines, path, "run")["lines"]


def _place(picture: Picture) -> str:
    return f"{picture.group}-{picture.index:02d}"


def _groups(stored: dict[str, Any]) -> dict[Group, GroupScore]:
    return {group: GroupScore(**score) for group, score in stored.items()}


@dataclass(frozen=True)
class Run:
    """A finished run, read back from its folder: its `record`, and the lines of steps.jsonl."""

    folder: Path
    record: dict[str, Any]
    steps: list[dict[str, Any]] = field(default_factory=list)

    @classmethod
    def open(cls, folder: Path) -> "Run":
        """Read `folder/run.json` and `folder/steps.jsonl`, and see that the recorded files are
        there.

        Raises:
            OutputError: there is no run in the folder, or it is not as it was written.
        """
        folder = Path(folder)
        steps = _steps(folder)
        taken = {line["stage"]: line["step"] for line in steps}
        current = partial(current_run, taken=taken)
        run = cls(folder, read_record(folder / "run.json", RunRecord, "run", current), steps)
        shown = [picture for mark in run.record["curve"] for picture in mark["pictures"]]
        shown += run.record["pictures"] + run.record["previews"]
        for name in dict.fromkeys([*run.record["files"], *(entry["file"] for entry in shown)]):
            inside(folder, name, "run")
        return run

    @cached_property
    def config(self) -> RunConfig:
        """The settings of the run."""
        return config_from_dict(self.record["config"])

    @property
    def status(self) -> str:
        """complete, stopped or diverged."""
        return self.record["status"]

    @property
    def verdict(self) -> Verdict:
        """The verdict."""
        return TypeAdapter(Verdict).validate_python(self.record["verdict"])

    @property
    def scores(self) -> dict[Column, dict[Group, GroupScore]]:
        """Scores by column and group, of the columns that were reached."""
        stored = self.record["scores"]
        return {column: _groups(stored[column]) for column in COLUMNS if column in stored}

    @property
    def differences(self) -> dict[Column, dict[Group, Difference]]:
        """What separates each column from the original; empty where that was not measured."""
        kind = TypeAdapter(dict[Column, dict[Group, Difference]])
        return kind.validate_python(self.record["differences"])

    @property
    def base(self) -> BaseCurve | None:
        """What the same attack makes of something never seen; None where nobody knew."""
        return TypeAdapter(BaseCurve | None).validate_python(self.record["base"])

    @property
    def pictures(self) -> list[Picture]:
        """All judged pictures of the comparison."""
        return [self._stored(entry) for entry in self.record["pictures"]]

    @property
    def previews(self) -> list[Picture]:
        """The pictures of the model in training, in the order of their steps."""
        return [self._stored(entry) for entry in self.record["previews"]]

    @property
    def curve(self) -> list[tuple[int, dict[Group, GroupScore], list[Picture]]]:
        """Attack step, scores and pictures: unlearned at 0, then each mark, relearned at the end;
        what was reached.
        """
        scores, pictures = self.scores, self.pictures
        points = {
            mark["step"]: (_groups(mark["scores"]), list(map(self._stored, mark["pictures"])))
            for mark in self.record["curve"]
        }
        for column, step in (("unlearned", 0), ("relearned", self.config.attack.steps)):
            if column in scores:
                points[step] = scores[column], [p for p in pictures if p.column == column]
        return [(step, *points[step]) for step in sorted(points)]

    @property
    def controls(self) -> dict[str, dict[int, GroupScore]]:
        """What the same attack reached where it ought to succeed: the score by control and attack
        step.
        """
        return {
            name: {point["step"]: _groups(point["scores"])["forget"] for point in points}
            for name, points in self.record["controls"].items()
        }

    def adapter(self) -> Path:
        """The file of the unlearn adapter, as it was written.

        Raises:
            ConfigError: the run has none.
            OutputError: it is another one than the run recorded.
        """
        files = self.record["files"]  # none in those of the first versions
        path = self.folder / ADAPTER
        if not path.is_file() or (files and ADAPTER not in files):
            raise ConfigError(
                f"The run {str(self.folder)!r} holds no unlearn adapter; a run that finished"
                " unlearning is accepted."
            )
        check_files(self.folder, {name: files[name] for name in {ADAPTER} & {*files}}, "run")
        return path

    def check_base(self, base_hash: str, model: str) -> None:
        """Refuse another model than that of the run, where the run says which it was.

        Raises:
            ModelError: the weights of `model` have another hash.
        """
        recorded = self.record["environment"].get("base_sha256")
        if recorded not in (None, base_hash):
            raise ModelError(
                f"The run in {str(self.folder)!r} was made with the weights {recorded[:64]!r} and"
                f" the model {model!r} has {base_hash!r}; the weights of the run are accepted."
            )

    def _stored(self, entry: dict[str, Any]) -> Picture:
        sampler = Sampling(**entry["sampler"])
        return Picture(**entry | {"sampler": sampler, "file": self.folder / entry["file"]})

    @property
    def names(self) -> list[str]:
        """The files of the run: those recorded, run.json, and any report and findings.

        Raises:
            OutputError: one of them is no regular file in the folder.
        """
        later = [
            path.relative_to(self.folder).as_posix()
            for found in ("report.*", "attacks/*/*")
            for path in complete(self.folder, found)
        ]
        names = [*self.record["files"], "run.json", *later]
        for name in names:
            inside(self.folder, name, "run")
        return names

    def zip(self, to: Path) -> Path:
        """Pack the files of the run into the archive `to`."""
        with (
            replacement(to) as packed,
            zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive,
        ):
            for name in self.names:
                archive.write(self.folder / name, f"{self.folder.name}/{name}")
        return to
