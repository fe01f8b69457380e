"""Requests to forget that keep coming: each is trained, everything is tested again, and the ledger gets a row."""

import itertools
import re
import shutil
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from PIL.Image import Image
from torch import Tensor

from .backend import Backend
from .catalog import known_concepts, load_scorer, preview_concept
from .concept import Concept, Prompt, PromptSplit, also_named, spread
from .config import RunConfig, with_concept
from .errors import ConfigError, raise_if_stopped
from .evaluate import judged, paint, to_pil
from .events import Stage, Step
from .ledger import Ledger, Request, Seen
from .merging import length, merge, total
from .restraints import protected_span
from .scorers import Scorer
from .settings import SequenceConfig
from .unlearning import Earlier, edit, forget, is_trained, train, training_terms

PANEL_SEED = 2_000_000
"""The panel's pictures have seeds of their own, the same after every request."""
TRAINED = 0.4
"""How far a request is when it is trained."""
BESIDE = 4
OTHER_KIND = {"object": ("watercolor", "Claude Monet"), "style": ("dog", "car")}
"""What a ledger tests of a model about which nothing is known: so many relatives, so many others, and these."""
Stop = Callable[[], bool]


@dataclass(frozen=True)
class Added:
    """A row was added to the ledger."""

    request: Request


def new_ledger(folder: Path, config: RunConfig, plan: SequenceConfig, also: Sequence[str] = ()) -> Ledger:
    """An empty ledger whose panel is all that the model is known to have seen, and `also`.

    Where nothing is known, some of what the first concept's retain prompts ask for, and something of the other kind.

    Raises:
        OutputError: the folder exists or cannot be written.
    """
    names = [entry.name for entry in known_concepts(config.model) if not entry.fresh]
    if not names:
        concept = preview_concept(config)
        splits = [dict.fromkeys(p.expects for p in split.test) for split in (concept.near, concept.far)]
        others = [name for split in splits for name in itertools.islice(split, BESIDE)]
        names = [preview_concept(with_concept(config, n)).name for n in (*others, *OTHER_KIND[concept.kind])]
    return Ledger.create(folder, config, plan, list(dict.fromkeys([*names, *also])))


def load_judge(ledger: Ledger, concepts: Sequence[str]) -> Scorer | None:
    """The judge of the ledger's panel and of `concepts`; None when it is missing."""
    names = dict.fromkeys([*ledger.names, *concepts])
    return load_scorer(ledger.config.model, [preview_concept(with_concept(ledger.config, name)) for name in names])


def begin(
    ledger: Ledger, backend: Backend, scorer: Scorer | None, should_stop: Stop = lambda: False
) -> Iterator[Stage | Added]:
    """Test the original model, and write it down as row 0."""
    yield Stage("compare", "Painting the panel with the original model", 0.0)
    backend.drop_adapters()
    panel, pictures = tested(ledger, backend, scorer, (), should_stop)
    row = Request("", "", "", ledger.next_folder(""), 0.0, 0, 0.0, panel)
    ledger.add(row, {}, {}, pictures)
    yield Added(row)


def serve(
    config: RunConfig, plan: SequenceConfig, folder: Path, backend: Backend, should_stop: Stop = lambda: False
) -> Iterator[Stage | Step | Added]:
    """Add the concept of `config` to the ledger in `folder`, which is begun anew as long as it has no request.

    Afterwards the settings of the first request hold.

    Raises:
        ConfigError: as `append`.
    """
    concept = preview_concept(config).name
    if (folder / "ledger.json").exists():
        there = Ledger.open(folder)
        if not there.requests and (there.plan, replace(there.config, concept=concept)) != (plan, config):
            shutil.rmtree(folder)
    there = (folder / "ledger.json").exists()
    ledger = Ledger.open(folder) if there else new_ledger(folder, config, plan, [concept])
    scorer = load_judge(ledger, [concept])
    if not ledger.rows:
        yield from begin(ledger, backend, scorer, should_stop)
    yield from append(ledger, concept, backend, scorer, should_stop)


def append(
    ledger: Ledger, text: str, backend: Backend, scorer: Scorer | None, should_stop: Stop = lambda: False
) -> Iterator[Stage | Step | Added]:
    """Forget one more concept, test everything again, and add the row; stopping leaves the ledger as it was.

    What is not on the panel yet joins it, and is painted by the model as it was after every request so far.

    Raises:
        ConfigError: the concept is unknown or was forgotten before.
    """
    erased = [preview_concept(with_concept(ledger.config, row.concept)) for row in ledger.requests]
    concept = anchored(ledger.config, text, [other.name for other in erased])
    if concept.name in [other.name for other in erased]:
        raise ConfigError(f"“{concept.name}” is in the ledger already; something else is accepted.", "concept")
    if concept.name not in ledger.names:
        yield Stage("compare", f"Painting {concept.name} after every request so far", 0.0)
        _widen(ledger, concept.name, backend, scorer, should_stop)
    started, steps = time.perf_counter(), 0
    yield Stage("unlearn", f"Request {len(ledger.rows)}: forgetting {concept.name}", 0.0)
    config = replace(ledger.config, concept=concept.name, anchor=concept.anchor)
    for step in _learned(ledger, config, concept, erased, backend, should_stop):
        steps += 1
        yield step
        raise_if_stopped(should_stop)
    own = backend.adapter_state("unlearn")
    combined, notes = _combined(ledger, concept, erased, own, backend)
    seconds = round(time.perf_counter() - started, 2)
    yield Stage("compare", "Painting the panel again: what was erased, and what should stay", TRAINED)
    backend.drop_adapters()
    backend.load_adapter("unlearn", combined)
    panel, pictures = tested(ledger, backend, scorer, ("unlearn",), should_stop)
    known = concept.name, concept.kind, concept.anchor, ledger.next_folder(concept.name)
    row = Request(*known, seconds, steps, length(combined), panel, notes)
    ledger.add(row, own, combined, pictures)
    yield Added(row)


def anchored(config: RunConfig, text: str, erased: Sequence[str]) -> Concept:
    """The concept with an anchor that is not erased itself: its usual one, else the first relative that is left.

    Raises:
        ConfigError: the concept is unknown.
    """
    concept = preview_concept(with_concept(config, text))
    others = [prompt.expects for prompt in (*concept.near.train, *concept.near.test, *concept.far.train)]
    left = [name for name in dict.fromkeys([concept.anchor, *others]) if name not in erased]
    if not left or left[0] == concept.anchor:
        return concept
    return preview_concept(replace(config, concept=text, anchor=left[0]))


def _learned(
    ledger: Ledger,
    config: RunConfig,
    concept: Concept,
    erased: Sequence[Concept],
    backend: Backend,
    should_stop: Stop,
) -> Iterator[Step]:
    """Learn into the `unlearn` slot: on top of what is there, from the original, or all requests at once."""
    backend.drop_adapters()
    if ledger.plan.regime != "sequential" or not erased:
        asked = [*erased, concept] if ledger.plan.regime == "simultaneous" else [concept]
        yield from forget(backend, without(united(asked), asked), config, should_stop)
        return
    kept, before = without(concept, erased), ledger.adapter(len(erased))
    terms = training_terms(backend, kept, config, should_stop) if is_trained(config) else {}
    backend.load_adapter("unlearn", before)
    with backend.merged("unlearn"):
        if terms:
            yield from train(backend, kept, terms, config, Earlier(tuple(erased), before))
        else:
            yield from edit(backend, kept, config)


def _combined(
    ledger: Ledger, concept: Concept, erased: Sequence[Concept], own: dict[str, Tensor], backend: Backend
) -> tuple[dict[str, Tensor], tuple[str, ...]]:
    """The adapter of all requests so far, and what there is to say about it."""
    if ledger.plan.regime == "simultaneous" or not erased:
        return own, ()
    if ledger.plan.regime == "sequential":
        return total(ledger.adapter(len(erased)), own).state, ()
    states = [ledger.adapter(number, own=True) for number in range(1, len(ledger.rows))]
    basis = None
    if ledger.config.regularize.project == "exact":
        everything = without(united([*erased, concept]), [*erased, concept])
        basis = protected_span(backend, everything, (), ledger.config.regularize.energy)
    adapter = merge([*states, own], ledger.plan, basis)
    return adapter.state, (f"The merged rank {adapter.rank} leaves out {adapter.error:.1%} (Frobenius norm).",)


def united(concepts: Sequence[Concept]) -> Concept:
    """All concepts as one: their training prompts take turns."""
    if len(concepts) == 1:
        return concepts[0]
    pairs = [list(zip(c.forget.train, c.anchors, strict=True)) for c in concepts]
    forget = [row for rows in zip(*_equally_long(pairs), strict=True) for row in rows]
    near, far = ([p for c in concepts for p in getattr(c, group).train] for group in ("near", "far"))
    last = concepts[-1]
    return replace(
        last,
        forget=PromptSplit(tuple(prompt for prompt, _ in forget), last.forget.test),
        anchors=tuple(anchor for _, anchor in forget),
        near=PromptSplit(tuple(dict.fromkeys(near)), last.near.test),
        far=PromptSplit(tuple(dict.fromkeys(far)), last.far.test),
    )


def _equally_long(lists: Sequence[list]) -> list[list]:
    longest = max(map(len, lists))
    return [list(itertools.islice(itertools.cycle(rows), longest)) for rows in lists]


def without(concept: Concept, erased: Sequence[Concept]) -> Concept:
    """The concept with retain prompts that name nothing that was erased before."""
    names = [re.escape(other.name) for other in erased]
    if not names:
        return concept
    named = re.compile(rf"\b({'|'.join(names)})", re.I)

    def kept(prompts: Sequence[Prompt]) -> tuple[Prompt, ...]:
        return tuple(p for p in prompts if not named.search(p.text) and not named.fullmatch(p.expects))

    near, far = (PromptSplit(kept(split.train), split.test) for split in (concept.near, concept.far))
    if not near.train:
        near, far = PromptSplit(far.train, near.test), PromptSplit((), far.test)
    return replace(concept, near=near, far=far)


def tested(
    ledger: Ledger,
    backend: Backend,
    scorer: Scorer | None,
    slots: Sequence[str],
    should_stop: Stop,
    names: Sequence[str] = (),
) -> tuple[dict[str, Seen], Mapping[str, Image]]:
    """What the model shows of `names`, by default of the whole panel, and one picture of each concept.

    Picture i of concept j has the same seed after every request, so that a kept concept is compared with itself, and
    every concept is painted by itself, because rounding depends on what else is in a batch, and the panel may grow.
    """
    concepts = {name: preview_concept(with_concept(ledger.config, name)) for name in names or ledger.names}
    count, first = ledger.plan.pictures, PANEL_SEED + 1000 * ledger.config.seed
    asked = {name: spread(concept.forget.test, count) for name, concept in concepts.items()}
    prompts = [prompt for own in asked.values() for prompt in own]
    painted = []
    with backend.active(*slots):
        for name, own in asked.items():
            seeds = [first + count * ledger.names.index(name) + row for row in range(count)]
            painted.append(paint(backend, own, seeds, ledger.config.compare, should_stop))
    images = torch.cat(painted)
    verdicts = judged(images, prompts, scorer)
    seen = iter(zip(to_pil(images), verdicts, _beside(ledger, images, prompts, scorer), strict=True))
    panel, pictures = {}, {}
    for name, concept in concepts.items():
        shown, verdicts, beside = zip(*itertools.islice(seen, count), strict=True)
        pictures[name] = shown[0]
        alignment = None if scorer is None else sum(verdict[0] for verdict in verdicts) / count
        panel[name] = Seen(concept.kind, tuple(verdict[2] for verdict in verdicts), alignment, beside)
    return panel, pictures


def _widen(ledger: Ledger, name: str, backend: Backend, scorer: Scorer | None, should_stop: Stop) -> None:
    """Put `name` on the panel, with what the model showed of it after every request so far."""
    wider, found = replace(ledger, names=(*ledger.names, name)), []
    for number in range(len(ledger.rows)):
        backend.drop_adapters()
        state = ledger.adapter(number)
        if state:
            backend.load_adapter("unlearn", state)
        panel, pictures = tested(wider, backend, scorer, ("unlearn",) if state else (), should_stop, [name])
        found.append((panel[name], pictures[name]))
    ledger.widen(name, found)


def _beside(ledger: Ledger, images: Tensor, prompts: Sequence[Prompt], scorer: Scorer | None) -> list[bool | None]:
    """Whether each picture shows the concept of the other kind that its prompt names; None without one or a judge."""
    known = [entry for entry in known_concepts(ledger.config.model) if not entry.fresh]
    others = [also_named(prompt, known) for prompt in prompts]
    rows = [row for row, other in enumerate(others) if other]
    found: list[bool | None] = [None] * len(prompts)
    if rows:
        verdicts = judged(images[rows], [others[row] for row in rows], scorer)
        for row, (_, _, right) in zip(rows, verdicts, strict=True):
            found[row] = right
    return found
