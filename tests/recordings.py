"""Real runs and ledgers on the bundled model, made once a session with small settings, and a runner
that replays them at any pace.
"""

import fcntl
import hashlib
import pickle
import shutil
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any
from unittest.mock import patch

from PIL import Image

from unlearn_app.common.errors import Cancelled
from unlearn_app.common.json_values import to_json
from unlearn_app.concepts.catalog import preview_concept
from unlearn_app.continual import sequence
from unlearn_app.continual.events import Added
from unlearn_app.continual.ledger import Ledger
from unlearn_app.evaluation.finding import Finding
from unlearn_app.models.catalog import load_model
from unlearn_app.models.latent_store import LatentStore
from unlearn_app.models.protocols import Model
from unlearn_app.runs import workflow
from unlearn_app.runs.findings import judge_again, read_findings, write_finding
from unlearn_app.runs.folder import Run
from unlearn_app.service.jobs import AttackRequest, JobRequest, LedgerRequest
from unlearn_app.settings.events import Done, Event, Images, Picture, Stage, Step
from unlearn_app.settings.run_config import RunConfig, config_from_dict, make_config

SMALL = {
    "unlearn.steps": 2,
    "unlearn.batch_size": 2,
    "unlearn.train_pictures": 4,
    "unlearn.rank": 2,
    "resist.steps": 1,
    "resist.batch_size": 2,
    "attack.steps": 11,
    "attack.batch_size": 1,
    "attack.pictures": 2,
    "attack.rank": 2,
    "compare.forget": 6,
    "compare.near": 2,
    "compare.far": 2,
    "compare.sampling_steps": 2,
}
"""The most of everything in a recording; an attack of 11 steps is looked at twice, after 10 too."""
FIRM = "frog"
"""The one concept that the run's own attack does not bring back."""
WEAK = ("inversion", "relearn", "scale")
"""The attacks that bring every concept back."""
PANEL = ("cat", "dog", "rabbit", "car", "mosaic", "neon")


@dataclass(frozen=True)
class Recording:
    """The events of a real run or request. A folder that stands beside an event is what the engine
    had written by then.
    """

    events: tuple[tuple[Event | Added, Path | None], ...]

    @property
    def folder(self) -> Path:
        """What was written in the end."""
        return next(folder for _, folder in reversed(self.events) if folder)


class Recordings:
    """Makes a recording when it is asked for, and keeps it in `root`, where other processes that
    run tests find it.
    """

    def __init__(self, root: Path) -> None:
        self._root = root
        self._one = threading.Lock()
        """The model makes one recording at a time, whichever page or test asks."""
        root.mkdir(exist_ok=True)

    def run(self, config: RunConfig, stop_after: type | None = None) -> Recording:
        """A run with the settings of `config` but small, or one stopped after its first event of a
        kind.

        The judge's answers are not its own but those of `answered`.
        """
        config = small(config)
        return self._once((config, stop_after), lambda out: self._run(config, stop_after, out))

    def request(self, asked: LedgerRequest, folder: Path) -> Recording:
        """One more request to the ledger in `folder`, which is not touched."""
        before = [row.concept for row in Ledger.open(folder).rows] if folder.exists() else []
        key = (asked.config.concept, *before)
        return self._once(key, lambda out: self._request(asked, folder if before else None, out))

    @cached_property
    def _model(self) -> Model:
        """The bundled model; what it samples before it forgets is the same in many recordings."""
        model = load_model()
        model.store = LatentStore(self._root / "latents.sqlite")
        return model

    def _once(self, key: Any, make: Callable[[Path], Recording]) -> Recording:
        """The recording with this key; `make` writes it into a new folder."""
        place = self._root / hashlib.sha256(repr(key).encode()).hexdigest()[:16]
        kept = place.with_suffix(".pickle")
        with place.with_suffix(".lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not kept.exists():
                with self._one:
                    kept.write_bytes(pickle.dumps(make(place)))
        return pickle.loads(kept.read_bytes())  # noqa: S301  written above

    def _run(self, config: RunConfig, stop_after: type | None, out: Path) -> Recording:
        cancel, events = threading.Event(), []
        with answers(preview_concept(config).name):
            for event in workflow.run(config, out, cancel=cancel, model=self._model):
                if stop_after and isinstance(event, stop_after):
                    cancel.set()
                events.append((event, out if isinstance(event, Done) else None))
        return Recording(tuple(events))

    def _request(self, asked: LedgerRequest, before: Path | None, out: Path) -> Recording:
        config = make_config(asked.config.concept, objective="uce", **SMALL)
        plan = replace(asked.plan, pictures=2)
        if before:
            shutil.copytree(before, out)
        else:
            Ledger.create(out, config, plan, PANEL)
        events = []
        for event in sequence.run_request(config, plan, out, self._model):
            copy = None
            if isinstance(event, Added):
                copy = out.with_name(f"{out.name}-{len(events)}")
                shutil.copytree(out, copy)
            events.append((event, copy))
        return Recording(tuple(events))


def small(config: RunConfig) -> RunConfig:
    """The config with no more of anything than `SMALL`, and a method that needs no training unless
    it resists.
    """
    values = to_json(config)
    less = {}
    for name, most in SMALL.items():
        group, _, leaf = name.partition(".")
        less[name] = min(values[group][leaf], most)
    method = config.objective if config.resist.on else "uce"
    return config_from_dict(values, objective=method, **less)


def answers(concept: str) -> AbstractContextManager:
    """The judge sees what was asked for in every picture, but not where it was forgotten, and what
    was forgotten is back after the attack; a few steps would not teach the model either.
    """
    real = workflow.generate_column

    def generated(model: Any, column: str, *rest: Any, **more: Any) -> Images:
        images = real(model, column, *rest, **more)
        gone = ("unlearned", "relearned") if concept == FIRM else ("unlearned",)
        answered = (_answered(picture, concept, column in gone) for picture in images.pictures)
        return Images(column, tuple(answered))

    return patch.object(workflow, "generate_column", generated)


def _answered(picture: Picture, concept: str, gone: bool) -> Picture:
    alone = replace(picture, judges={})
    if picture.group == "forget" and gone:
        return replace(alone, alignment=0.08, predicted="dog", correct=False)
    seen = concept if picture.group == "forget" else picture.predicted
    return replace(alone, alignment=0.31 + 0.01 * picture.index, predicted=seen, correct=True)


def _grow(out: Path, folder: Path) -> None:
    """Make `out` what `folder` is while a page reads it: every file is whole at any moment, and the
    record that names the others comes last.
    """
    last = "ledger.json"
    shutil.copytree(
        folder,
        out,
        ignore=shutil.ignore_patterns(last),
        copy_function=_replace,
        dirs_exist_ok=True,
    )
    if (folder / last).exists():
        _replace(str(folder / last), str(out / last))


def _replace(source: str, target: str) -> None:
    shutil.copy2(source, f"{target}.part")
    Path(f"{target}.part").replace(target)


class Replay:
    """A runner of the engine that replays recordings in `seconds` each, once `gate` is open.

    It notes when jobs begin and end, and whether two ever overlap; with an `error` every job fails.
    """

    def __init__(
        self, recordings: Recordings, seconds: float = 0.0, error: Exception | None = None
    ) -> None:
        self.recordings, self.seconds, self.error = recordings, seconds, error
        self.asked: list[JobRequest] = []
        self.log: list[tuple[str, str]] = []
        self.overlapped = False
        self.gate = threading.Event()
        self.gate.set()
        self._busy = threading.Lock()

    def warm(self) -> None:
        """Load nothing."""

    def __call__(self, asked: JobRequest, out: Path, cancel: threading.Event) -> Iterator[Event]:
        """Yield what a job yields, and write what it writes."""
        if not self._busy.acquire(blocking=False):
            self.overlapped = True
        concept = asked.concept if isinstance(asked, RunConfig) else asked.config.concept
        self.asked.append(asked)
        self.log.append(("begin", concept))
        try:
            self.gate.wait(120)
            if self.error:
                raise self.error
            if isinstance(asked, LedgerRequest):
                yield from self._request(asked, out, cancel)
            elif isinstance(asked, AttackRequest):
                yield from self._attacks(asked, out, cancel)
            else:
                yield from self._run(asked, out, cancel)
        finally:
            self.log.append(("end", concept))
            self._busy.release()

    def _run(self, config: RunConfig, out: Path, cancel: threading.Event) -> Iterator[Event]:
        events = self._paced(self.recordings.run(config), out, cancel)
        yield from events
        if cancel.is_set() and not out.exists():
            ending = self.recordings.run(config, Step).events
            last = max(n for n, (event, _) in enumerate(ending) if isinstance(event, Step))
            yield from self._paced(Recording(ending[last + 1 :]), out, threading.Event())

    def _request(self, asked: LedgerRequest, out: Path, cancel: threading.Event) -> Iterator[Event]:
        yield from self._paced(self.recordings.request(asked, out), out, cancel)
        if cancel.is_set():
            raise Cancelled("The request was stopped.")

    def _paced(self, recording: Recording, out: Path, cancel: threading.Event) -> Iterator[Event]:
        """The events, with a pause after every step, until `cancel` is set."""
        steps = sum(isinstance(event, Step) for event, _ in recording.events)
        for event, folder in recording.events:
            if cancel.is_set():
                return
            if folder:
                _grow(out, folder)
            yield replace(event, folder=out) if isinstance(event, Done) else event
            if isinstance(event, Step):
                cancel.wait(self.seconds / steps)

    def _attacks(self, asked: AttackRequest, out: Path, cancel: threading.Event) -> Iterator[Event]:
        """Attacks with outcomes known before: those in `WEAK` bring the concept back."""
        run = Run.open(out)
        yield Stage("load", "Loading the model", 0.0)
        for kind in asked.kinds:
            concept = run.config.concept
            for text, begin in (
                (f"Trying to get {concept} back, {kind}", 0.1),
                ("For comparison", 0.55),
            ):
                yield Stage("attack", text, begin)
                for step in range(1, 11):
                    yield Step("attack", step, 10, {"relearn": 1 / step})
                    if cancel.wait(self.seconds / 20):
                        raise Cancelled("It was stopped.")
            yield kept_finding(run, kind)
        yield judge_again(run, read_findings(out))


def kept_finding(run: Run, kind: str, hits: str = "", **changes: Any) -> Finding:
    """What an attack leaves in the run folder, with a picture for every prompt; `hits` is "1" where
    it succeeds.
    """
    hits = hits or ("011111" if kind in WEAK else "000000")
    concept, counts = run.config.concept, kind != "scale"
    pictures = tuple(
        {
            "row": row,
            "turn": 0,
            "asked": f"a {concept} as {kind} asks {row}",
            "seed": row,
            "file": f"{row:02d}-00.png",
            "alignment": 0.1 * row,
            "predicted": concept if hit == "1" else "dog",
            "correct": hit == "1",
            "judges": {"pocket-second": "dog" if row == 1 else concept},
        }
        for row, hit in enumerate(hits)
    )
    values: dict[str, Any] = {
        "kind": kind,
        "settings": {},
        "budget": f"10 steps of {kind}",
        "counts": counts,
        "by_prompt": kind == "prompts",
        "tries": 1,
        "hits": tuple(hit == "1" for hit in hits),
        "first": tuple(hit == "1" for hit in hits),
        "control": {"name": "pumpkin, never seen", "hits": [False] * 6} if counts else None,
        "missing": "" if counts else "it is no attack on what the model has learned",
        "pictures": pictures,
        "proof": pictures[-1]["file"] if "1" in hits else None,
        "seconds": 1.0,
        "command": f"python -m unlearn_app attack RUN --kind {kind}",
        "environment": {},
        "sure": 0.6,
    }
    found = Finding(**values | changes)
    images = {entry["file"]: picture(len(kind) + row) for row, entry in enumerate(found.pictures)}
    return replace(found, folder=write_finding(run.folder, found, images))


def picture(seed: int, size: int = 64) -> Image.Image:
    """A picture of one colour, which depends on the seed."""
    return Image.new("RGB", (size, size), (seed * 37 % 256, seed * 71 % 256, seed * 53 % 256))
