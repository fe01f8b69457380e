"""A workflow without a model: the same events and folders, with generated pictures, in a fraction
of a second.
"""

import threading
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from types import SimpleNamespace
from zlib import crc32

import torch
from PIL import Image, ImageDraw

from unlearn_app.common.errors import Cancelled, ConfigError
from unlearn_app.common.json_values import to_json
from unlearn_app.concepts.concept import Concept, KnownConcept, Prompt, PromptSplit
from unlearn_app.concepts.own_prompts import own_prompts
from unlearn_app.continual.events import Added
from unlearn_app.continual.ledger import ConceptScore, Ledger, Request
from unlearn_app.evaluation.differences import differences
from unlearn_app.evaluation.finding import Finding
from unlearn_app.evaluation.verdict import judge_run
from unlearn_app.runs.comparison_strip import comparison_strip, heading
from unlearn_app.runs.findings import judge_again, own_findings, read_findings, write_finding
from unlearn_app.runs.folder import Run, RunWriter
from unlearn_app.service.jobs import Ask, Asked, Probe
from unlearn_app.settings.events import (
    COLUMNS,
    AttackCheckpoint,
    Done,
    Event,
    GroupScore,
    Images,
    Picture,
    Preview,
    Sampling,
    Scores,
    Stage,
    Step,
)
from unlearn_app.settings.groups import SequenceConfig
from unlearn_app.settings.run_config import RunConfig

OBJECTS = (
    "cat",
    "dog",
    "rabbit",
    "bear",
    "fish",
    "butterfly",
    "frog",
    "rose",
    "sunflower",
    "tree",
    "car",
    "ship",
)
STYLES = ("photo", "van gogh", "watercolor", "mosaic", "sketch", "neon")
FIRM = "frog"
"""The one concept that the run's own attack does not bring back."""
WEAK = ("inversion", "relearn", "scale")
"""The attacks that bring every concept back."""
SAMPLER = Sampling(10, 3.0)
MOMENTS = {"original": ("unlearn", 0), "unlearned": ("unlearn", 4), "relearned": ("attack", 20)}
PLACES = ("on the beach", "in the forest", "at night", "in the city")


def known_concepts(model: str = "pocket") -> list[KnownConcept]:
    """Twelve objects and six styles."""
    return [
        KnownConcept(name, kind, "any")
        for kind, names in (("object", OBJECTS), ("style", STYLES))
        for name in names
    ]


def nearest_known(text: str) -> list[str]:
    """Always the same two."""
    return ["cat", "van gogh"]


def preview_concept(config: RunConfig) -> Concept:
    """The concept with prompts made of a few words."""
    name = config.concept.casefold()
    name = {"kitty": "cat", "van gogh style": "van gogh"}.get(name, name)
    if name not in OBJECTS + STYLES:
        raise ConfigError(
            f"“{config.concept}” is not known; the nearest are cat, van gogh.", "concept"
        )
    anchor = config.anchor or "dog"
    if anchor == name:
        raise ConfigError(f"The anchor “{anchor}” is the concept itself.", "anchor")

    def ask(word: str) -> PromptSplit:
        asked = tuple(Prompt(f"a {word} {place}", "object", word) for place in PLACES)
        return PromptSplit(asked[:2], asked[2:])

    if config.prompts:
        own_prompts(config.prompts)
    kind = "object" if name in OBJECTS else "style"
    return Concept(config.concept, name, kind, anchor, ask(name), (), (), ask("rabbit"), ask("car"))


@dataclass
class FakeRunner:
    """Runs in `seconds` once `gate` is open, noting when runs begin and end and whether two ever
    overlap.
    """

    seconds: float = 0.2
    load_seconds: float = 0.0
    error: Exception | None = None

    def __post_init__(self) -> None:
        self.log: list[tuple[str, str]] = []
        self.overlapped = False
        self.gate = threading.Event()
        self.gate.set()
        self._busy = threading.Lock()

    def warm(self) -> None:
        """Pretend to load."""
        time.sleep(self.load_seconds)

    def __call__(self, config: Asked, out: Path, cancel: threading.Event) -> Iterator[Event]:
        """Yield what a run yields."""
        if not self._busy.acquire(blocking=False):
            self.overlapped = True
        concept = config.concept if isinstance(config, RunConfig) else config.config.concept
        self.log.append(("begin", concept))
        try:
            self.gate.wait(120)
            if self.error:
                raise self.error
            if isinstance(config, Ask):
                yield from serve(config.config, config.plan, out, cancel, self.seconds)
            elif isinstance(config, Probe):
                yield from probe(out, config.kinds, cancel, self.seconds)
            else:
                yield from run(config, out, cancel, self.seconds)
        finally:
            self.log.append(("end", concept))
            self._busy.release()


class Look:
    """Sees nothing but the pixels of a thumbnail."""

    def features(self, images: torch.Tensor) -> torch.Tensor:
        return torch.nn.functional.adaptive_avg_pool2d(images, 4).flatten(1)

    def distance(self, images: torch.Tensor, others: torch.Tensor) -> torch.Tensor:
        return (self.features(images) - self.features(others)).abs().mean(1)


def run(
    config: RunConfig, out: Path, cancel: threading.Event, seconds: float = 0.0
) -> Iterator[Event]:
    """All stages, columns, scores and the folder, in about `seconds`."""
    total = config.unlearn.steps + config.attack.steps
    with RunWriter(out) as writer:
        yield Stage("load", "Loading the model", 0.0)
        scores, columns = {}, {}
        yield Stage("unlearn", f"Teaching the model to forget “{config.concept}”", 0.1)
        for step in range(1, config.unlearn.steps + 1):
            if cancel.is_set():
                break
            time.sleep(seconds / total)
            event = Step(
                "unlearn",
                step,
                config.unlearn.steps,
                {"forget": 0.9 / step + 0.05, "retain": 0.2 + 0.1 / step},
            )
            writer.add_step(event)
            yield event
            if step % max(config.unlearn.steps // 4, 1) == 0:
                shown = (
                    ("a cat", picture(config.seed + step)),
                    ("a cat, sketch", picture(config.seed)),
                )
                preview = Preview("unlearn", step, tuple(_previews(step, shown)))
                writer.add_preview(preview)
                yield preview
        yield Stage("attack", "An attacker tries to teach it back", 0.5)
        for step in range(1, config.attack.steps + 1):
            if cancel.is_set():
                break
            time.sleep(seconds / total)
            event = Step("attack", step, config.attack.steps, {"relearn": 0.5 / step + 0.1})
            writer.add_step(event)
            yield event
            if step in (max(config.attack.steps // 2, 1), config.attack.steps):
                painted = Images("relearned", tuple(_pictures(config, "relearned")))
                mark = AttackCheckpoint(step, painted.pictures, _scored(config, painted))
                if step < config.attack.steps:
                    writer.add_checkpoint(mark)
                yield mark
        yield Stage("compare", "Painting the same prompts with all three", 0.8)
        for column in COLUMNS[: 1 if cancel.is_set() else 3]:
            images = Images(column, tuple(_pictures(config, column)))
            writer.add_images(images)
            yield images
            scores[column], columns[column] = _scored(config, images), images
        apart = differences(
            columns, Look() if scores["original"]["forget"].accuracy is not None else None
        )
        yield Scores(scores, apart)
        known = to_json({"config": config, "scores": scores, "base": None})
        so_far = Run(writer.folder, writer.record | known)
        verdict = judge_run(scores, own_findings(so_far))
        yield verdict
        writer.add_adapter(
            "unlearn", {"a.lora_A.weight": torch.zeros(2, 2)}, {"concept": config.concept}
        )
        pictures = [replace(p) for column in scores for p in _pictures(config, column)]
        said = heading(config, preview_concept(config).name, verdict.label)
        writer.add_image("comparison.png", comparison_strip(*said, pictures))
        status = "stopped" if cancel.is_set() else "complete"
        timing = {"total_s": seconds}
        known = {"config": config, "concept": preview_concept(config), "timing": timing}
        folder = writer.finish(status, **known, scores=scores, differences=apart, verdict=verdict)
    yield Done(folder, stopped=status == "stopped")


def serve(
    config: RunConfig,
    plan: SequenceConfig,
    folder: Path,
    cancel: threading.Event,
    seconds: float = 0.0,
) -> Iterator[Event | Added]:
    """One more request in about `seconds`, in a ledger of four objects and two styles; erased ones
    show nothing.
    """
    names = ("cat", "dog", "rabbit", "car", "mosaic", "neon")
    if not (folder / "ledger.json").exists():
        Ledger.create(folder, config, plan, names)
    ledger = Ledger.open(folder)
    concept = preview_concept(config)
    asked = [concept.name] if ledger.rows else ["", concept.name]
    for name in asked:
        yield Stage(
            "unlearn",
            f"Request {len(ledger.rows)}: forgetting {name}" if name else "The original",
            0.1,
        )
        for step in range(1, 11):
            if cancel.is_set():
                raise Cancelled("The request was stopped.")
            time.sleep(seconds / 20)
            yield Step("unlearn", step, 10, {"forget": 1 / step})
        gone = [*(row.concept for row in ledger.requests), name]
        panel = {
            n: ConceptScore("style" if n in STYLES else "object", (n not in gone,) * 4, 0.5)
            for n in names
        }
        pictures = {n: picture(crc32(n.encode()) % 100 + 7 * (n in gone)) for n in names}
        drift = float(len(ledger.rows))
        row = Request(
            name,
            concept.kind if name else "",
            "car",
            ledger.next_folder(name),
            1.0,
            10,
            drift,
            panel,
        )
        state = (
            {"a.lora_A.weight": torch.full((2, 2), drift), "a.lora_B.weight": torch.ones(2, 2)}
            if name
            else {}
        )
        ledger.add(row, state, state, pictures)
        yield Added(row)


def probe(
    folder: Path, kinds: tuple[str, ...], cancel: threading.Event, seconds: float = 0.0
) -> Iterator[Event | Finding]:
    """Attacks of these kinds on a run, each in about `seconds`; those in `WEAK` bring the concept
    back.
    """
    run = Run.open(folder)
    yield Stage("load", "Loading the model", 0.0)
    for kind in kinds:
        for text, fraction in (
            (f"Trying to get {run.config.concept} back, {kind}", 0.1),
            ("For comparison", 0.55),
        ):
            yield Stage("attack", text, fraction)
            for step in range(1, 11):
                if cancel.is_set():
                    raise Cancelled("It was stopped.")
                time.sleep(seconds / 20)
                yield Step("attack", step, 10, {"relearn": 1 / step})
        found, images = _finding(kind, run.config)
        yield replace(found, folder=write_finding(folder, found, images))
    yield judge_again(run, read_findings(folder))


def _finding(kind: str, config: RunConfig) -> tuple[Finding, dict[str, Image.Image]]:
    hits = tuple(kind in WEAK and row != 0 for row in range(6))
    images = {f"{row:02d}-00.png": picture(crc32(kind.encode()) % 500 + row) for row in range(6)}
    pictures = tuple(
        {
            "row": row,
            "turn": 0,
            "asked": f"a {config.concept} as {kind} asks {row}",
            "seed": row,
            "file": file,
        }
        | {
            "alignment": 0.1 * row,
            "predicted": config.concept if hits[row] else "dog",
            "correct": hits[row],
        }
        | {"judges": {"pocket-second": "dog" if row == 1 else config.concept}}
        for row, file in enumerate(images)
    )
    counts = kind != "scale"
    control = {"name": "pumpkin, never seen", "hits": [False] * 6} if counts else None
    missing, proof = (
        "" if counts else "it is no attack on what the model has learned",
        "05-00.png" if any(hits) else None,
    )
    return Finding(
        kind,
        {},
        f"10 steps of {kind}",
        counts,
        kind == "prompts",
        1,
        hits,
        hits,
        control,
        missing,
        pictures,
        proof,
        1.0,
        f"python -m unlearn_app attack RUN --kind {kind}",
        {},
        0.6,
    ), images


def _scored(config: RunConfig, images: Images) -> dict[str, GroupScore]:
    return {
        group: GroupScore(
            sum(bool(p.correct) for p in images.pictures if p.group == group) / count,
            sum(p.alignment or 0 for p in images.pictures if p.group == group) / count,
            count,
        )
        for group, count in _counts(config)
    }


def _counts(config: RunConfig) -> tuple[tuple[str, int], ...]:
    return (
        ("forget", config.compare.forget),
        ("near", config.compare.near),
        ("far", config.compare.far),
    )


def _previews(step: int, shown: Iterable[tuple[str, Image.Image]]) -> Iterator[Picture]:
    for index, (prompt, image) in enumerate(shown):
        yield Picture("unlearn", step, prompt, index, SAMPLER, index, image=image)


def _pictures(config: RunConfig, column: str) -> Iterator[Picture]:
    for group, count in _counts(config):
        for index in range(count):
            gone = ("unlearned", "relearned") if config.concept == FIRM else ("unlearned",)
            forgotten = group == "forget" and column in gone
            seed = 1000 + config.seed + index
            word = {"forget": config.concept, "near": "rabbit", "far": "car"}[group]
            look = seed + (7 if forgotten else 0) + len(group) + crc32(config.concept.encode())
            stage, step = MOMENTS[column]
            yield Picture(
                stage=stage,
                step=step,
                prompt=f"a {word} {PLACES[index % 4]}",
                seed=seed,
                sampler=SAMPLER,
                index=index,
                column=column,
                group=group,
                expects=word,
                alignment=0.08 if forgotten else 0.31 + 0.01 * index,
                predicted="dog" if forgotten else word,
                correct=not forgotten,
                image=picture(look),
            )


def picture(seed: int, size: int = 96) -> Image.Image:
    """A picture that depends on the seed only."""
    image = Image.new(
        "RGB", (size, size), (90 + seed * 37 % 120, 110 + seed * 71 % 100, 130 + seed * 53 % 90)
    )
    draw = ImageDraw.Draw(image)
    draw.rectangle((0, size * 0.66, size, size), fill=(60 + seed * 13 % 90, 120, 70))
    x, radius = seed * 29 % (size // 2) + size // 4, size // 5 + seed * 11 % (size // 8)
    draw.ellipse(
        (x - radius, size // 2 - radius, x + radius, size // 2 + radius),
        fill=(230, seed * 97 % 256, 60),
    )
    return image


CORE = SimpleNamespace(
    known_concepts=known_concepts, nearest_known=nearest_known, preview_concept=preview_concept
)
