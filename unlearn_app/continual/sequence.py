"""A sequence of requests to forget: each is trained, the panel is evaluated again, and the ledger
gets a row.
"""

import time
from collections.abc import Generator, Iterator, Sequence
from contextlib import ExitStack, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

from ..common.atomic_files import check_space
from ..common.errors import (
    ConfigError,
    OutputError,
    ShouldStop,
    enough_memory,
    never,
    raise_if_stopped,
)
from ..concepts.catalog import known_concepts, preview_concept, request_name
from ..concepts.concept import Concept
from ..evaluation.judges import Scorer
from ..evaluation.judges.loading import load_scorer
from ..methods.merging import merge
from ..models.lora import frobenius_norm, sum_adapters
from ..models.protocols import Model, Params
from ..models.sizes import adapter_size, picture_size
from ..settings.events import PanelProgress, Stage, Step
from ..settings.groups import SequenceConfig
from ..settings.run_config import RunConfig, with_concept
from ..training.latent_dataset import CachedSampler
from ..training.regularization import build_regularizers
from ..training.unlearning import (
    edit,
    forget,
    forgetting_diverging,
    is_trained,
    train,
    training_terms,
)
from .events import TRAINED, Added
from .ledger import Ledger, Request
from .panel import PanelPrompts, evaluate_panel, panel_prompts
from .sequence_data import (
    drop_retain_prompts,
    merged_concept,
    requested_concepts,
    with_allowed_anchor,
    with_allowed_anchors,
)

RELATIVES = 4
OTHER_KIND = {"object": ("watercolor", "Claude Monet"), "style": ("dog", "car")}
"""The panel of a model whose concepts are unknown: so many near and far relatives of the first
request, and these of the other kind.
"""

NEEDS_MEMORY = "The request", "unlearn.batch_size, unlearn.rank or sequence.pictures"
"""What to lower where memory is too small."""


def new_ledger(
    folder: Path, config: RunConfig, plan: SequenceConfig, also: Sequence[str] = ()
) -> Ledger:
    """An empty ledger whose panel holds the known concepts of the model, and `also`; one that was
    begun in the same way and killed before its first row is that ledger.

    Raises:
        ConfigError: as `check_request`.
        OutputError: the folder exists or cannot be written.
    """
    check_request(config)
    names = panel_names(config, also)
    with suppress(OutputError):
        left = Ledger.open(folder)
        same = (left.config, left.plan, left.names) == (config, plan, tuple(names))
        if same and left.untouched:
            return left
    return Ledger.create(folder, config, plan, names)


def check_request(config: RunConfig) -> None:
    """Refuse settings of requests whose updates a ledger cannot sum, merge and take back.

    Raises:
        ConfigError: the weights themselves are trained.
    """
    if config.unlearn.weights != "lora":
        raise ConfigError(
            f"unlearn.weights is {config.unlearn.weights}, and a ledger sums and merges adapters;"
            " unlearn.weights=lora is accepted in a sequence.",
            "unlearn.weights",
        )


def panel_names(config: RunConfig, also: Sequence[str]) -> list[str]:
    """The known concepts of the model, and `also`.

    For a model whose concepts are unknown it is some relatives of the concept of `config` and some
    concepts of the other kind.
    """
    names = [entry.name for entry in known_concepts(config.model) if not entry.fresh]
    if not names:
        concept = preview_concept(config)
        near, far = (
            list(dict.fromkeys(prompt.expects for prompt in split.test))[:RELATIVES]
            for split in (concept.near, concept.far)
        )
        asked = [*near, *far, *OTHER_KIND[concept.kind]]
        found = [preview_concept(with_concept(config, name)) for name in asked]
        names = [request_name(concept, config.model) for concept in found]
    return list(dict.fromkeys([*names, *also]))


def load_judge(ledger: Ledger, concepts: Sequence[str]) -> Scorer | None:
    """The judge of the ledger's panel and of `concepts`; None when it is missing."""
    names = dict.fromkeys([*ledger.names, *concepts])
    shown = [preview_concept(with_concept(ledger.config, name)) for name in names]
    return load_scorer(ledger.config.model, shown, ledger.config.judge)


def add_original(
    ledger: Ledger,
    model: Model,
    scorer: Scorer | None,
    should_stop: ShouldStop = never,
    prompts: PanelPrompts | None = None,
) -> Iterator[Stage | PanelProgress | Added]:
    """Evaluate the original model and add it to the ledger as row 0, unless it is there.

    `prompts` replace those of the whole panel.
    """
    with ledger.locked(), model.of_resolution(ledger.config.compare.resolution):
        if ledger.rows:
            return
        ledger.base = model.base_hash
        asked = _recorded(ledger, prompts)
        yield Stage("compare", "Generating the panel with the original model", 0.0)
        panel, pictures = yield from evaluate_panel(
            ledger.config, asked, model, scorer, {}, should_stop
        )
        ledger.add(Request("", "", "", "", 0.0, 0, 0.0, panel), {}, {}, pictures)
        yield Added(ledger.rows[-1])


def _recorded(ledger: Ledger, prompts: PanelPrompts | None) -> PanelPrompts:
    """The panel's prompts, or the given ones, which the ledger's next change records."""
    asked = prompts or panel_prompts(ledger)
    ledger.prompts = {**asked, **ledger.prompts}
    return asked


def check_room(ledger: Ledger, model: Model, requests: int) -> None:
    """Refuse a disk without room for the original's row and as many requests: for each row a
    picture of each concept and two adapters.

    Raises:
        OutputError: naming what is needed.
    """
    unlearn = ledger.config.unlearn
    adapters = 2 * adapter_size(model, unlearn.rank, unlearn.modules)
    with model.of_resolution(ledger.config.compare.resolution):
        row = len(ledger.names) * picture_size(model) + adapters
    check_space(ledger.folder / "ledger.json", (1 + requests) * row)


def run_request(
    config: RunConfig,
    plan: SequenceConfig,
    folder: Path,
    model: Model,
    should_stop: ShouldStop = never,
) -> Iterator[Stage | Step | PanelProgress | Added]:
    """Forget the concept of `config` and add it to the ledger in `folder`.

    A ledger without requests is replaced when `config` or `plan` differ from its own; afterwards
    the settings of the first request hold.

    Raises:
        ConfigError, OutputError: as `append`.
    """
    check_request(config)
    concept = request_name(preview_concept(config), config.model)
    if not (folder / "ledger.json").exists():
        new_ledger(folder, config, plan, [concept])
    ledger = Ledger.open(folder)
    with ledger.locked():
        same = (ledger.plan, replace(ledger.config, concept=concept)) == (plan, config)
        with ExitStack() as settings, enough_memory(*NEEDS_MEMORY):
            if not ledger.requests and not same:
                names = panel_names(config, [concept])
                settings.enter_context(ledger.restarted(config, plan, names))
            check_room(ledger, model, 1)
            scorer = load_judge(ledger, [concept])
            yield from add_original(ledger, model, scorer, should_stop)
            yield from append(ledger, concept, model, scorer, should_stop)


def append(
    ledger: Ledger,
    text: str,
    model: Model,
    scorer: Scorer | None,
    should_stop: ShouldStop = never,
    *,
    config: RunConfig | None = None,
    prompts: PanelPrompts | None = None,
    held_out: Sequence[str] = (),
    sampler: CachedSampler | None = None,
) -> Iterator[Stage | Step | PanelProgress | Added]:
    """Forget one more concept, evaluate the panel again and add the row; stopping leaves the ledger
    as it was.

    A concept that is not on the panel is added to it, with pictures of the model after every
    request so far. `config` replaces the ledger's settings for this request, `prompts` replace
    those of the whole panel, and nothing of `held_out` is trained on.

    Raises:
        ConfigError: the concept is unknown or was forgotten before.
        OutputError: the ledger is another model's, or another process is changing it.
    """
    with ledger.locked(), model.of_resolution(ledger.config.compare.resolution):
        check_request(config or ledger.config)
        concept, name, erased = _next(ledger, text, held_out)
        ledger.check_base(model.base_hash, model.name)
        if name not in ledger.names:
            yield from _extend_panel(ledger, name, model, scorer, should_stop)
        own_config = replace(config or ledger.config, concept=name, anchor=concept.anchor)
        held = [preview_concept(with_concept(ledger.config, name)) for name in held_out]
        yield Stage("unlearn", f"Request {len(ledger.rows)}: forgetting {name}", 0.0)
        asked = (own_config, erased, held, model, sampler or CachedSampler(), should_stop)
        row, own, combined = yield from _train_request(ledger, concept, *asked)
        yield Stage(
            "compare", "Generating the panel again: what was erased, and what should stay", TRAINED
        )
        with forgetting_diverging(own_config):
            panel, pictures = yield from evaluate_panel(
                ledger.config,
                _recorded(ledger, prompts),
                model,
                scorer,
                combined,
                should_stop,
                first=[name, *(row.concept for row in ledger.requests), *_relatives(concept)],
            )
        ledger.add(replace(row, panel=panel), own, combined, pictures)
        yield Added(ledger.rows[-1])


def _relatives(concept: Concept) -> list[str]:
    return [prompt.expects for prompt in concept.near.test]


def _train_request(
    ledger: Ledger,
    concept: Concept,
    config: RunConfig,
    erased: Sequence[Concept],
    held: Sequence[Concept],
    model: Model,
    sampler: CachedSampler,
    should_stop: ShouldStop,
) -> Generator[Step, None, tuple[Request, Params, Params]]:
    """Train the request; returns its row without a panel, its own adapter, and the adapter of all
    requests so far.

    Its seconds include what sampling the cached pictures would take.
    """
    started = time.perf_counter() + sampler.spared
    task, task_config = _training_task(ledger, concept, config, erased, held)
    earlier = erased if ledger.plan.regime == "sequential" else []
    steps = 0
    for step in _training_steps(ledger, task_config, task, earlier, model, sampler, should_stop):
        steps += 1
        yield step
        raise_if_stopped(should_stop)
    own = model.adapter_state("unlearn")
    combined, notes = _combined(ledger, task, config, erased, held, own, model)
    seconds = round(time.perf_counter() + sampler.spared - started, 2)
    regularizers = build_regularizers(model, task, config, earlier)
    row = _row(
        concept,
        config,
        seconds=seconds,
        steps=steps,
        drift=frobenius_norm(combined),
        notes=notes + tuple(note for part in regularizers if (note := part.note())),
    )
    return row, own, combined


def _row(concept: Concept, config: RunConfig, **measured: Any) -> Request:
    """A row to add to the ledger, without a panel."""
    return Request(
        concept=config.concept,
        kind=concept.kind,
        anchor=concept.anchor,
        folder="",
        panel={},
        config=config,
        **measured,
    )


def postpone(ledger: Ledger, text: str, held_out: Sequence[str] = ()) -> Request:
    """Add a request that is trained together with the next one, in the regime "simultaneous".

    The row has the adapters of the row before and no scores.

    Raises:
        ConfigError: the concept is unknown or was forgotten before.
    """
    with ledger.locked():
        concept, name, _ = _next(ledger, text, held_out)
        last = len(ledger.rows) - 1
        config = replace(ledger.config, concept=name, anchor=concept.anchor)
        row = _row(concept, config, seconds=0.0, steps=0, drift=ledger.rows[last].drift)
        ledger.add(row, ledger.adapter(last, own=True), ledger.adapter(last), {})
        return ledger.rows[-1]


def _next(ledger: Ledger, text: str, held_out: Sequence[str]) -> tuple[Concept, str, list[Concept]]:
    """The requested concept, with an anchor that is not erased, its name as a request, and the
    concepts erased before.

    A concept that differs from one on the panel by capitals only is the one on the panel.
    """
    erased = requested_concepts(ledger)
    names = [other.name for other in erased]
    asked = preview_concept(with_concept(ledger.config, text))
    name = request_name(asked, ledger.config.model).casefold()
    known = next((other for other in ledger.names if other.casefold() == name), text)
    concept = with_allowed_anchor(ledger.config, known, [*names, *held_out])
    if concept.name in names:
        raise ConfigError(
            f"“{concept.name}” is in the ledger already; choose another concept.", "concept"
        )
    return concept, request_name(concept, ledger.config.model), erased


def _training_task(
    ledger: Ledger,
    concept: Concept,
    config: RunConfig,
    erased: Sequence[Concept],
    held: Sequence[Concept],
) -> tuple[Concept, RunConfig]:
    """The concept whose prompts are trained on, and the settings.

    In the regime "simultaneous" it is all requests as one, with steps and pictures in proportion
    to their number.
    """
    if ledger.plan.regime == "independent" or not erased:
        return drop_retain_prompts(concept, held), config
    if ledger.plan.regime == "sequential":
        return drop_retain_prompts(concept, [*erased, *held]), config
    every = with_allowed_anchors(ledger.config, [*erased, concept], [other.name for other in held])
    unlearn = replace(
        config.unlearn,
        steps=len(every) * config.unlearn.steps,
        train_pictures=len(every) * config.unlearn.train_pictures,
    )
    task = drop_retain_prompts(merged_concept(every), [*every, *held])
    return task, replace(config, unlearn=unlearn)


def _training_steps(
    ledger: Ledger,
    config: RunConfig,
    task: Concept,
    earlier: Sequence[Concept],
    model: Model,
    sampler: CachedSampler,
    should_stop: ShouldStop,
) -> Iterator[Step]:
    """Train the `unlearn` slot on top of the requests `earlier`; without any, on the original."""
    model.drop_adapters()
    if not earlier:
        yield from forget(model, task, config, should_stop, sampler)
        return
    before = ledger.adapter(len(earlier))
    terms = training_terms(model, task, config, should_stop, sampler) if is_trained(config) else {}
    model.load_adapter("unlearn", before)
    with model.merged("unlearn"):
        if terms:
            yield from train(model, task, terms, config, earlier, before)
        else:
            yield from edit(model, task, config)


def _combined(
    ledger: Ledger,
    concept: Concept,
    config: RunConfig,
    erased: Sequence[Concept],
    held: Sequence[Concept],
    own: Params,
    model: Model,
) -> tuple[Params, tuple[str, ...]]:
    """The adapter of all requests so far, projected as `config` says, and notes on it."""
    if ledger.plan.regime == "simultaneous" or not erased:
        return own, ()
    if ledger.plan.regime == "sequential":
        return sum_adapters(ledger.adapter(len(erased)), own).state, ()
    states = [ledger.adapter(number, own=True) for number in range(1, len(ledger.rows))]
    every = [*erased, concept]
    protected = drop_retain_prompts(merged_concept(every), [*every, *held])
    regularizers = build_regularizers(model, protected, config)
    adapter = merge([*states, own], ledger.plan, [part.restrict_merged for part in regularizers])
    return adapter.state, (
        f"The merged rank {adapter.rank} leaves out {adapter.error:.1%} (Frobenius norm).",
    )


def _extend_panel(
    ledger: Ledger, name: str, model: Model, scorer: Scorer | None, should_stop: ShouldStop
) -> Iterator[Stage | PanelProgress]:
    """Add `name` to the panel, with its score and picture after every request so far."""
    yield Stage("compare", f"Generating {name} after every request so far", 0.0)
    prompts = panel_prompts(replace(ledger, names=(*ledger.names, name)), [name])
    found = []
    for number in range(len(ledger.rows)):
        panel, pictures = yield from evaluate_panel(
            ledger.config, prompts, model, scorer, ledger.adapter(number), should_stop
        )
        found.append((panel[name], pictures[name]))
    ledger.extend_panel(name, found, prompts[name])
