"""Cells: one JSON file per measurement, so that a benchmark that is killed can be resumed.

A cell is a frozen dataclass that says what is run, with its settings and seed. An experiment says
which cells there are and how one is measured; this file stores cells and measures those that are
missing. A stored cell names a file in `environments` beside its folder, which holds the machine and
the versions that it was measured with.
"""

import functools
import hashlib
import subprocess
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, ClassVar

from pydantic import Field

from ..common.atomic_files import write_bytes
from ..common.errors import ConfigError
from ..common.json_values import json_text, to_json
from ..common.paths import POCKET, ROOT
from ..common.record_files import Record, checked, read_json
from ..common.registry import DEFAULT_MODEL
from ..concepts.catalog import preview_concept
from ..concepts.concept import Kind
from ..concepts.targets import Targets, targets_told, told
from ..continual.ledger import slug
from ..evaluation.judges import Scorer
from ..evaluation.judges.loading import load_scorer
from ..evaluation.judges.pocket_judge import PocketJudge
from ..evaluation.judges.second_judge import SecondJudge
from ..models.catalog import load_model
from ..models.protocols import Model
from ..runs.provenance import environment, peak_memory_gb
from ..settings.run_config import BY_WORDS, RunConfig, make_config

SMOKE = {
    "unlearn.steps": 2,
    "unlearn.train_pictures": 4,
    "unlearn.batch_size": 2,
    "resist.steps": 1,
    "resist.batch_size": 2,
    "attack.steps": 2,
    "attack.pictures": 2,
    "attack.batch_size": 2,
    "compare.forget": 2,
    "compare.near": 1,
    "compare.far": 1,
    "compare.sampling_steps": 2,
}
"""Settings so small that every benchmark runs in seconds; its numbers then mean nothing."""


def assigned(settings: Mapping[str, Any]) -> list[str]:
    """Settings as options of a command."""
    return [word for name, value in settings.items() for word in ("--set", f"{name}={value}")]


@dataclass(frozen=True)
class Extent:
    """How much of a benchmark is measured, the folder that holds its cells and tables, the bundled
    model that is measured, and what the user brings instead: a model with targets, a judge by the
    name that `--judge` takes, and captions.
    """

    out: Path
    seeds: int = 3
    smoke: bool = False
    full: bool = False
    split: str = "test"
    bundled: str = DEFAULT_MODEL
    targets: Targets | None = None
    judge: str | None = None
    captions: tuple[str, ...] = ()

    @property
    def model(self) -> str:
        """The name of the model that is measured."""
        return self.targets.model if self.targets else self.bundled

    @property
    def ships(self) -> bool:
        """Whether what is measured replaces files that ship."""
        own = self.targets or self.bundled != DEFAULT_MODEL or self.smoke
        return not own and self.out.resolve().is_relative_to(ROOT)


_MEASURED: ContextVar[str] = ContextVar("measured model", default=DEFAULT_MODEL)


@contextmanager
def measuring(model: str) -> Iterator[None]:
    """Let `settings` be those of `model`, in this thread."""
    token = _MEASURED.set(model)
    try:
        yield
    finally:
        _MEASURED.reset(token)


def measured_model() -> str:
    """The name of the model that is measured."""
    targets = targets_told()
    return targets.model if targets else _MEASURED.get()


def settings(target: str, **changes: Any) -> RunConfig:
    """The settings of a run of a benchmark on `target`, with the model that is measured."""
    return make_config(target, **{"model": measured_model()} | changes)


def names_of(kind: Kind, usual: Sequence[str]) -> tuple[str, ...]:
    """The names of the targets of a kind that the user brings, else the `usual` ones."""
    targets = targets_told()
    return targets.of_kind(kind) if targets else tuple(usual)


def all_names(usual: Sequence[str]) -> tuple[str, ...]:
    """The names of all targets that the user brings, else the `usual` ones."""
    targets = targets_told()
    return tuple(targets.targets) if targets else tuple(usual)


class Experiment(ABC):
    """A benchmark: its cells, how a cell is measured, and its report. Model and judges are loaded
    when they are first used.
    """

    name: ClassVar[str]

    def __init__(
        self, extent: Extent, model: Model | None = None, judge: Scorer | None = None
    ) -> None:
        self.extent, self.smoke = extent, extent.smoke
        self.seeds = 1 if extent.smoke else extent.seeds
        self._model, self._judge = model, judge

    @functools.cached_property
    def model(self) -> Model:
        """The model that is measured: the bundled one unless the user brings another."""
        return self._model or load_model(self.extent.model)

    @functools.cached_property
    def judge(self) -> Scorer:
        """What judges its pictures.

        Raises:
            ConfigError: the model has no judge here.
        """
        if self._judge or not self.extent.targets:
            return self._judge or PocketJudge.load(POCKET / "judge")
        asked = [settings(name) for name in self.extent.targets.targets]
        named = {"named": self.extent.judge} if self.extent.judge else {}
        judge = load_scorer(self.extent.model, [preview_concept(one) for one in asked], **named)
        if judge is None:
            raise ConfigError(
                f"There is no judge for {self.extent.model} here, and tables are its scores;"
                " --judge NAME names one.",
                "judge",
            )
        return judge

    @functools.cached_property
    def about(self) -> dict[str, Any]:
        """What every cell of another model than the default depends on."""
        if not (targets := self.extent.targets):
            second = self.extent.bundled != DEFAULT_MODEL
            return {"bundled": self.extent.bundled} if second else {}
        own = {
            "model": Path(targets.model).name,
            "base": self.model.base_hash,
            "judge": f"{self.judge.name} {self.judge.version}",
            "targets": targets.file,
            "targets_sha256": targets.sha256,
        }
        captions = {"captions": short_hash(self.extent.captions)} if self.extent.captions else {}
        return {"brought": own | captions}

    @functools.cached_property
    def second(self) -> SecondJudge:
        """What checks the judge of the bundled model."""
        return SecondJudge.load(POCKET / "second")

    @property
    def label(self) -> str:
        """The name of the folder of cells; extents whose cells differ have different ones."""
        return self.name

    @property
    def folder(self) -> Path:
        """The folder of the cells."""
        other = self.extent.targets or self.extent.bundled != DEFAULT_MODEL
        own = f"-{slug(Path(self.extent.model).name)}" if other else ""
        return self.extent.out / f"{self.label}{own}{'-smoke' if self.smoke else ''}"

    @abstractmethod
    def cells(self) -> list[Any]:
        """All cells of the extent, in the order in which they are measured; those that depend on
        what others have shown, once these are stored.
        """

    def chosen(self, cells: Iterable[Any], small: Callable[[Any], bool]) -> list[Any]:
        """The cells of a grid that belong to the extent: the declared cut, or all; of a smoke only
        `small` ones.
        """
        every = self.extent.full or self.extent.targets is not None
        some = [cell for cell in cells if every or cell.cut]
        return [cell for cell in some if not self.smoke or small(cell)]

    def key(self, cell: Any) -> str:
        """The name of the cell's file, without its ending: all of its fields."""
        return slug("-".join(map(str, to_json(cell).values())))

    @abstractmethod
    def config(self, cell: Any) -> dict[str, Any]:
        """What the values depend on; a stored cell with another config is measured again."""

    @abstractmethod
    def measure(self, cell: Any, known: dict[str, Any], shared: Any) -> Iterator[Mapping[str, Any]]:
        """Yield all values of a cell, given the `known` ones; where a cell grows by parts, after
        each of them.

        `shared` is what `prepare` returned.
        """

    def lacks(self, cell: Any, known: Mapping[str, Any]) -> bool:
        """Whether there is anything left to measure."""
        return not known

    def shared_by(self, cell: Any) -> Hashable:
        """A key; cells with the same key share one result of `prepare`. None means no result."""
        return None

    def prepare(self, cell: Any) -> Any:
        """What cells with the same `shared_by` need, made once for all of them."""
        return None

    def alone(self, cell: Any) -> bool:
        """Whether the cell measures time, so that nothing else may run on the machine."""
        return False

    @abstractmethod
    def line(self, cell: Any, values: Mapping[str, Any]) -> str:
        """A line to print once the cell is measured."""

    @abstractmethod
    def report(self) -> str:
        """Write the report on the stored cells, and return it."""


@dataclass(frozen=True)
class Measured:
    """Values of a cell, and where and at what cost they were measured; workers send it back."""

    values: dict[str, Any]
    seconds: float
    """Since this measurement began."""
    peak_gb: float | None
    """The most memory that the process had held until then."""
    environment: dict[str, Any]


Work = Mapping[Any, dict[str, Any]]
"""Cells to be measured, each with the values that are known already."""
Loop = Callable[[Experiment, Work], Iterator[tuple[Any, Measured]]]


def measured(
    experiment: Experiment, cell: Any, known: dict[str, Any], shared: Any
) -> Iterator[Measured]:
    """Measure one cell in this process."""
    started = time.perf_counter()
    for values in experiment.measure(cell, known, shared):
        spent = time.perf_counter() - started
        yield Measured(to_json(values), spent, peak_memory_gb(), _environment())


def one_by_one(experiment: Experiment, work: Work) -> Iterator[tuple[Any, Measured]]:
    """Measure all cells in this process, one after the other."""
    prepared: dict[Hashable, Any] = {None: None}
    for cell, known in work.items():
        key = experiment.shared_by(cell)
        if key not in prepared:
            prepared = {None: None, key: experiment.prepare(cell)}
        for found in measured(experiment, cell, known, prepared[key]):
            yield cell, found


def run_cells(
    experiment: Experiment, cells: Iterable[Any], loop: Loop = one_by_one
) -> Iterator[tuple[Any, dict[str, Any]]]:
    """Cells with their values, stored ones first, the others as they are measured and stored."""
    _commit()  # now, while the code on disk is the code that is loaded
    work: dict[Any, dict[str, Any]] = {}
    spent: dict[Any, float] = {}
    for cell in cells:
        known, spent[cell] = stored(experiment, cell)
        if experiment.lacks(cell, known):
            work[cell] = known
        else:
            yield cell, known
    for cell, found in loop(experiment, work):
        _store(experiment, cell, found, spent[cell])
        if not experiment.lacks(cell, found.values):
            yield cell, found.values


def bench(experiment: Experiment, loop: Loop = one_by_one) -> Iterator[str]:
    """Measure or resume every cell, write the report, and yield lines to print.

    Where cells depend on what others have shown, `cells` names them once the others are stored.
    """
    with told(experiment.extent.targets), measuring(experiment.extent.model):
        done: set[Any] = set()
        while left := [cell for cell in experiment.cells() if cell not in done]:
            found = run_cells(experiment, left, loop)
            for row, (cell, values) in enumerate(found, len(done) + 1):
                yield f"{row}/{len(done) + len(left)} {experiment.line(cell, values)}"
            done.update(left)
        yield experiment.report()


def stored(experiment: Experiment, cell: Any) -> tuple[dict[str, Any], float]:
    """Values of a cell and the seconds that they took; ({}, 0.0) where its file is missing or holds
    another config.
    """
    path = _path(experiment, cell)
    if path.exists():
        record = _read(path)
        if record["config"] == to_json(experiment.config(cell) | experiment.about):
            return record["values"], record["seconds"]
    return {}, 0.0


def read_cells(folder: Path) -> dict[str, tuple[dict[str, Any], Any]]:
    """Config and values of every stored cell of a folder, by key in order."""
    found = {}
    for path in sorted(folder.glob("*.json")):
        record = _read(path)
        found[path.stem] = record["config"], record["values"]
    return found


def machines(folder: Path) -> dict[str, list[str]]:
    """The keys of the stored cells of a folder by the device that measured them, where it is
    known.
    """
    found: dict[str, list[str]] = {}
    for path in sorted(folder.glob("*.json")):
        known = folder.parent / "environments" / f"{_read(path)['environment']}.json"
        if known.exists():
            device = str(read_json(known, "environment").get("device"))
            found.setdefault(device, []).append(path.stem)
    return found


class _Cell(Record):
    """What of a stored cell is read back."""

    config: dict[str, Any]
    values: dict[str, Any]
    seconds: Annotated[float, Field(ge=0)] = 0.0
    environment: str = ""


def _read(path: Path) -> dict[str, Any]:
    return checked(read_json(path, "benchmark"), _Cell, path, "benchmark")


def run_settings(config: RunConfig) -> dict[str, Any]:
    """The settings of a run on the bundled model as cells hold them, without the kind of a concept
    whose words tell it.
    """
    told = {"concept_kind"} if config.concept_kind == BY_WORDS else ()
    return {name: value for name, value in to_json(config).items() if name not in told}


def short_hash(value: Any) -> str:
    """The first sixteen hexadecimal digits of the SHA-256 of `value` as JSON."""
    return hashlib.sha256(json_text(value).encode()).hexdigest()[:16]


def _path(experiment: Experiment, cell: Any) -> Path:
    return experiment.folder / f"{experiment.key(cell)}.json"


def _store(experiment: Experiment, cell: Any, found: Measured, spent: float) -> None:
    """Write a cell; `seconds` counts all that was ever spent on it."""
    environments = experiment.folder.parent / "environments"
    for folder in (experiment.folder, environments):
        folder.mkdir(parents=True, exist_ok=True)
    content = _compact(found.environment)
    name = hashlib.sha256(content).hexdigest()[:8]
    write_bytes(environments / f"{name}.json", content)
    record = {
        "config": to_json(experiment.config(cell) | experiment.about),
        "values": found.values,
        "seconds": round(spent + found.seconds, 2),
        "peak_gb": found.peak_gb,
        "status": "complete",
        "environment": name,
    }
    write_bytes(_path(experiment, cell), _compact(record))


def _compact(value: Mapping[str, Any]) -> bytes:
    return json_text(value, separators=(",", ":")).encode()


def _environment() -> dict[str, Any]:
    """This machine, its versions and the commit."""
    known = environment(None, None) | {"judge_note": None, "commit": _commit()}
    return {name: value for name, value in known.items() if value is not None}


@functools.cache
def _commit() -> str | None:
    """The commit of the code on disk, with a plus sign where the code differs from it; None where
    git cannot tell.
    """
    try:
        changed = _git("status", "--porcelain", "-uno", "--", "unlearn_app")
        return _git("rev-parse", "HEAD") + "+" * bool(changed)
    except (OSError, subprocess.CalledProcessError):
        return None


def _git(*words: str) -> str:
    done = subprocess.run(["git", *words], cwd=ROOT, capture_output=True, text=True, check=True)
    return done.stdout.strip()
