"""Requests to forget that keep coming: each is trained, everything is tested again, and the ledger
gets a row.
"""

import itertools
import shutil
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from torch import Tensor

from ..common.errors import ConfigError, OutputError, raise_if_stopped
from ..concepts.catalog import known_concepts, preview_concept
from ..concepts.concept import Concept
from ..evaluation.judges import Scorer
from ..evaluation.judges.loading import load_scorer
from ..methods.lora import frobenius_norm, sum_adapters
from ..methods.merging.merge import merge
from ..models.protocols import Backend
from ..settings.events import Painted, Stage, Step
from ..settings.groups import SequenceConfig
from ..settings.run_config import RunConfig, with_concept
from ..training.latent_dataset import CachedSampler
from ..training.regularization import protected_span, span_note
from ..training.unlearning import Earlier, edit, forget, is_trained, train, training_terms
from .events import TRAINED, Added
from .ledger import Ledger, Request
from .panel import Asked, tested, whole_panel
from .sequence_data import all_anchored, anchored, asked_before, united, without

BESIDE = 4
OTHER_KIND = {"object": ("watercolor", "Claude Monet"), "style": ("dog", "car")}
"""What a ledger tests of a model about which nothing is known: so many relatives, so many others,
and these.
"""
Stop = Callable[[], bool]


def new_ledger(
    folder: Path, config: RunConfig, plan: SequenceConfig, also: Sequence[str] = ()
) -> Ledger:
    """An empty ledger whose panel is all that the model is known to have seen, and `also`.

    Where nothing is known, some of what the first concept's retain prompts ask for, and something
    of the other kind.

    Raises:
        OutputError: the folder exists or cannot be written.
    """
    names = [entry.name for entry in known_concepts(config.model) if not entry.fresh]
    if not names:
        concept = preview_concept(config)
        splits = [
            dict.fromkeys(p.expects for p in split.test) for split in (concept.near, concept.far)
        ]
        others = [name for split in splits for name in itertools.islice(split, BESIDE)]
        names = [
            preview_concept(with_concept(config, n)).name
            for n in (*others, *OTHER_KIND[concept.kind])
        ]
    return Ledger.create(folder, config, plan, list(dict.fromkeys([*names, *also])))


def load_judge(ledger: Ledger, concepts: Sequence[str]) -> Scorer | None:
    """The judge of the ledger's panel and of `concepts`; None when it is missing."""
    names = dict.fromkeys([*ledger.names, *concepts])
    return load_scorer(
        ledger.config.model, [preview_concept(with_concept(ledger.config, name)) for name in names]
    )


def begin(
    ledger: Ledger,
    backend: Backend,
    scorer: Scorer | None,
    should_stop: Stop = lambda: False,
    asked: Asked | None = None,
) -> Iterator[Stage | Painted | Added]:
    """Test the original model, by what is `asked` or by the whole panel, and write it down as row
    0.
    """
    yield Stage("compare", "Painting the panel with the original model", 0.0)
    backend.drop_adapters()
    look = asked or whole_panel(ledger)
    panel, pictures = yield from tested(ledger.config, look, backend, scorer, (), should_stop)
    row = Request("", "", "", ledger.next_folder(""), 0.0, 0, 0.0, panel)
    ledger.base = backend.base_hash
    ledger.add(row, {}, {}, pictures)
    yield Added(row)


def serve(
    config: RunConfig,
    plan: SequenceConfig,
    folder: Path,
    backend: Backend,
    should_stop: Stop = lambda: False,
) -> Iterator[Stage | Step | Painted | Added]:
    """Add the concept of `config` to the ledger in `folder`, which is begun anew as long as it has
    no request.

    Afterwards the settings of the first request hold.

    Raises:
        ConfigError: as `append`.
    """
    concept = preview_concept(config).name
    if (folder / "ledger.json").exists():
        there = Ledger.open(folder)
        if not there.requests and (there.plan, replace(there.config, concept=concept)) != (
            plan,
            config,
        ):
            shutil.rmtree(folder)
    there = (folder / "ledger.json").exists()
    ledger = Ledger.open(folder) if there else new_ledger(folder, config, plan, [concept])
    scorer = load_judge(ledger, [concept])
    if not ledger.rows:
        yield from begin(ledger, backend, scorer, should_stop)
    yield from append(ledger, concept, backend, scorer, should_stop)


def append(
    ledger: Ledger,
    text: str,
    backend: Backend,
    scorer: Scorer | None,
    should_stop: Stop = lambda: False,
    *,
    config: RunConfig | None = None,
    asked: Asked | None = None,
    held_out: Sequence[str] = (),
    sampler: CachedSampler | None = None,
) -> Iterator[Stage | Step | Painted | Added]:
    """Forget one more concept, test everything again, and add the row; stopping leaves the ledger
    as it was.

    What is not on the panel yet joins it, and is painted by the model as it was after every request
    so far. `config` teaches this request alone instead of the ledger's, `asked` is tested instead
    of the whole panel, nothing of `held_out` is trained on, and `sampler` may know pictures
    already.

    Raises:
        ConfigError: the concept is unknown or was forgotten before.
        OutputError: the ledger is another model's.
    """
    concept, erased = _next(ledger, text, held_out)
    if ledger.base not in ("", backend.base_hash):
        raise OutputError(
            f"The ledger in {str(ledger.folder)!r} is of another {ledger.config.model} model; add to it "
            "with the weights it was begun with."
        )
    if concept.name not in ledger.names:
        yield from _widen(ledger, concept.name, backend, scorer, should_stop)
    own_config = replace(config or ledger.config, concept=concept.name, anchor=concept.anchor)
    held = [preview_concept(with_concept(ledger.config, name)) for name in held_out]
    yield Stage("unlearn", f"Request {len(ledger.rows)}: forgetting {concept.name}", 0.0)
    taught = yield from _taught(
        ledger, concept, own_config, erased, held, backend, sampler or CachedSampler(), should_stop
    )
    yield Stage(
        "compare", "Painting the panel again: what was erased, and what should stay", TRAINED
    )
    backend.drop_adapters()
    backend.load_adapter("unlearn", taught.combined)
    look = asked or whole_panel(ledger)
    shown, pictures = yield from tested(
        ledger.config, look, backend, scorer, ("unlearn",), should_stop
    )
    known = concept.name, concept.kind, concept.anchor, ledger.next_folder(concept.name)
    cost = taught.seconds, taught.steps, frobenius_norm(taught.combined)
    row = Request(*known, *cost, shown, taught.notes, own_config)
    ledger.add(row, taught.own, taught.combined, pictures)
    yield Added(row)


@dataclass(frozen=True)
class _Taught:
    """What a request learned: its own adapter and that of all so far, what there is to say about
    it, and its cost.
    """

    own: dict[str, Tensor]
    combined: dict[str, Tensor]
    notes: tuple[str, ...]
    seconds: float
    steps: int


def _taught(
    ledger: Ledger,
    concept: Concept,
    config: RunConfig,
    erased: Sequence[Concept],
    held: Sequence[Concept],
    backend: Backend,
    sampler: CachedSampler,
    should_stop: Stop,
) -> Generator[Step, None, _Taught]:
    """Teach the request; pictures that `sampler` knew already count as if they had been painted."""
    started, spared, steps = time.perf_counter(), sampler.spared, 0
    lesson, grown = _lesson(ledger, concept, config, erased, held)
    earlier = erased if ledger.plan.regime == "sequential" else []
    for step in _learned(ledger, grown, lesson, earlier, backend, sampler, should_stop):
        steps += 1
        yield step
        raise_if_stopped(should_stop)
    own = backend.adapter_state("unlearn")
    combined, notes = _combined(ledger, lesson, config, erased, held, own, backend)
    seconds = round(time.perf_counter() - started + sampler.spared - spared, 2)
    if config.regularize.project != "none":
        notes = (*notes, span_note(backend, lesson, earlier, config.regularize.energy))
    return _Taught(own, combined, notes, seconds, steps)


def postpone(ledger: Ledger, text: str, held_out: Sequence[str] = ()) -> Request:
    """Write down a request that the next one serves with it, all being forgotten at once; nothing
    is tested.

    Raises:
        ConfigError: the concept is unknown or was forgotten before.
    """
    concept, _ = _next(ledger, text, held_out)
    last = len(ledger.rows) - 1
    known = concept.name, concept.kind, concept.anchor, ledger.next_folder(concept.name)
    config = replace(ledger.config, concept=concept.name, anchor=concept.anchor)
    row = Request(*known, 0.0, 0, ledger.rows[last].drift, {}, (), config)
    ledger.add(row, ledger.adapter(last, own=True), ledger.adapter(last), {})
    return row


def _next(ledger: Ledger, text: str, held_out: Sequence[str]) -> tuple[Concept, list[Concept]]:
    """What is to be forgotten, with an anchor that is still there, and what was forgotten before.

    Where any words are taken, capitals make no other concept: it is called as on the panel.
    """
    erased = asked_before(ledger)
    names = [other.name for other in erased]
    name = preview_concept(with_concept(ledger.config, text)).name
    called = next((known for known in ledger.names if known.casefold() == name.casefold()), text)
    concept = anchored(ledger.config, called, [*names, *held_out])
    if concept.name in names:
        raise ConfigError(
            f"“{concept.name}” is in the ledger already; something else is accepted.", "concept"
        )
    return concept, erased


def _lesson(
    ledger: Ledger,
    concept: Concept,
    config: RunConfig,
    erased: Sequence[Concept],
    held: Sequence[Concept],
) -> tuple[Concept, RunConfig]:
    """What is trained on, and the settings: all requests at once get a budget that grows with their
    number.
    """
    if ledger.plan.regime == "independent" or not erased:
        return without(concept, held), config
    if ledger.plan.regime == "sequential":
        return without(concept, [*erased, *held]), config
    every = all_anchored(ledger.config, [*erased, concept], [other.name for other in held])
    count, settings = len(every), config.unlearn
    grown = replace(
        settings, steps=count * settings.steps, train_pictures=count * settings.train_pictures
    )
    return without(united(every), [*every, *held]), replace(config, unlearn=grown)


def _learned(
    ledger: Ledger,
    config: RunConfig,
    lesson: Concept,
    earlier: Sequence[Concept],
    backend: Backend,
    sampler: CachedSampler,
    should_stop: Stop,
) -> Iterator[Step]:
    """Learn into the `unlearn` slot, on top of what was forgotten `earlier`, else from the
    original.
    """
    backend.drop_adapters()
    if not earlier:
        yield from forget(backend, lesson, config, should_stop, sampler)
        return
    before = ledger.adapter(len(earlier))
    terms = (
        training_terms(backend, lesson, config, should_stop, sampler) if is_trained(config) else {}
    )
    backend.load_adapter("unlearn", before)
    with backend.merged("unlearn"):
        if terms:
            yield from train(backend, lesson, terms, config, Earlier(tuple(earlier), before))
        else:
            yield from edit(backend, lesson, config)


def _combined(
    ledger: Ledger,
    concept: Concept,
    config: RunConfig,
    erased: Sequence[Concept],
    held: Sequence[Concept],
    own: dict[str, Tensor],
    backend: Backend,
) -> tuple[dict[str, Tensor], tuple[str, ...]]:
    """The adapter of all requests so far, and what there is to say about it; a merge is projected
    as `config` says.
    """
    if ledger.plan.regime == "simultaneous" or not erased:
        return own, ()
    if ledger.plan.regime == "sequential":
        return sum_adapters(ledger.adapter(len(erased)), own).state, ()
    states = [ledger.adapter(number, own=True) for number in range(1, len(ledger.rows))]
    basis = None
    if config.regularize.project == "exact":
        everything = without(united([*erased, concept]), [*erased, concept, *held])
        basis = protected_span(backend, everything, (), config.regularize.energy)
    adapter = merge([*states, own], ledger.plan, basis)
    return adapter.state, (
        f"The merged rank {adapter.rank} leaves out {adapter.error:.1%} (Frobenius norm).",
    )


def _widen(
    ledger: Ledger, name: str, backend: Backend, scorer: Scorer | None, should_stop: Stop
) -> Iterator[Stage | Painted]:
    """Put `name` on the panel, with what the model showed of it after every request so far."""
    yield Stage("compare", f"Painting {name} after every request so far", 0.0)
    wider, found = replace(ledger, names=(*ledger.names, name)), []
    for number in range(len(ledger.rows)):
        backend.drop_adapters()
        state = ledger.adapter(number)
        if state:
            backend.load_adapter("unlearn", state)
        slots = ("unlearn",) if state else ()
        look = tested(
            ledger.config, whole_panel(wider, [name]), backend, scorer, slots, should_stop
        )
        panel, pictures = yield from look
        found.append((panel[name], pictures[name]))
    ledger.widen(name, found)
