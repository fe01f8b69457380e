"""From a config to events: the one entry that page, command line and library share."""

import math
import threading
import time
from collections.abc import Callable, Generator, Iterator
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from traceback import clear_frames

from ..attacks.never_seen import NeverSeen
from ..attacks.relearn import Relearn
from ..attacks.runner import (
    CHECKPOINTS,
    attack_context,
    check_judge,
    checkpoints,
    controls,
    told_apart,
)
from ..common import registry
from ..common.atomic_files import check_space, unwritable, write_bytes
from ..common.errors import (
    Cancelled,
    Diverged,
    NotFinite,
    UnlearnError,
    diverging,
    enough_memory,
    lower,
    raise_if_stopped,
)
from ..common.json_values import to_json
from ..concepts.catalog import preview_concept
from ..concepts.concept import Concept
from ..concepts.own_pictures import NONE_GIVEN, GivenPictures, check_given
from ..evaluation.base_rates import RECORDED, relearning, scores_of, taught_curve
from ..evaluation.collapse_monitor import COLLAPSE, CollapseMonitor
from ..evaluation.comparison import (
    ComparedPrompt,
    checkpoint_prompts,
    column_state,
    comparison_prompts,
    frame_prompts,
    generate_column,
    score,
)
from ..evaluation.differences import differences
from ..evaluation.judges import Scorer
from ..evaluation.judges.loading import load_scorer
from ..evaluation.relearn_curve import BaseCurve
from ..evaluation.verdict import Thresholds, judge_run, recovery
from ..models.catalog import follow, load_model, plan_memory
from ..models.diffusers.adapter_files import (
    ORIGINAL,
    adapter_bytes,
    origin,
    smaller_for_others,
)
from ..models.diffusers.replaced_parts import save_replacement
from ..models.protocols import Model, token_access
from ..models.sizes import NUMBER, adapter_size, picture_size, unlearned_size
from ..settings.attacks import pictures_of
from ..settings.events import (
    COLUMNS,
    FRESH,
    SHARES,
    AttackCheckpoint,
    Column,
    Done,
    Event,
    GroupScore,
    Images,
    Preview,
    Scores,
    Stage,
    Step,
    Verdict,
)
from ..settings.groups import EIGHT_BIT
from ..settings.judges import HOW_TO_GET
from ..settings.run_config import OWN_PROMPTS, RunConfig
from ..training.loop import adam_8bit
from ..training.unlearning import (
    edit,
    forgetting_diverging,
    harden,
    is_trained,
    train,
    training_terms,
)
from .comparison_strip import comparison_strip, heading
from .findings import own_findings
from .folder import FOR_OTHERS, REPLACEMENT, Run, RunWriter
from .provenance import environment
from .published import Published

FRAMES = 4
"""Into how many parts the frames of the timeline divide a training."""
EMPTY = 10**6
"""About how many bytes a run folder takes without pictures and adapters."""


@dataclass
class _Work:
    """What the stages of one run share."""

    config: RunConfig
    concept: Concept
    writer: RunWriter
    cancel: threading.Event
    given: GivenPictures
    sized: ExitStack
    """Closed at the end of the run, when the model's pictures have their own size again."""
    timing: dict[str, float] = field(default_factory=dict)
    columns: dict[str, Images] = field(default_factory=dict)
    taught: dict[int, GroupScore] = field(default_factory=dict)
    """The scores of the control that teaches something never seen, by attack step."""
    recorded: BaseCurve | None = None
    """What the same attack was measured to teach of something never seen, before this run."""
    unlearned: Step | None = None
    """The last step of unlearning."""
    collapsed: bool = False
    """Training was stopped because it was destroying the model, which is not attacked then."""
    model: Model | None = None
    published: Published | None = None
    """What is audited, where nothing is unlearned here."""
    never_seen: NeverSeen | None = None
    notes: tuple[str, ...] = ()
    scorer: Scorer | None = None
    status: str = "complete"
    reason: str = ""
    """Why it is not complete, as a sentence."""

    @property
    def base(self) -> BaseCurve | None:
        """The measure of the run's own attack: what is recorded, else its own control."""
        return self.recorded or taught_curve(self.taught)


def run(
    config: RunConfig,
    out: Path,
    *,
    cancel: threading.Event | None = None,
    model: Model | None = None,
    given: GivenPictures = NONE_GIVEN,
    published: Published | None = None,
    never_seen: NeverSeen | None = None,
) -> Iterator[Event]:
    """Forget, attack and compare, writing the run folder `out` and yielding what happens.

    `model` may be a model that is loaded already (it must be `config.model`), and `given` are the
    pictures that the settings name by their hashes. What is `published` is audited instead of
    forgetting anything, with the caller's own control `never_seen`. When `cancel` is
    set the run stops within one step, keeps what it has, and ends with
    `Done(stopped=True)`. The folder is beside `out` where that was taken meanwhile.

    Raises:
        UnlearnError: the request cannot be served, or was stopped before the first step, and
            nothing is left behind; or, after `Done(stopped=True)`, training diverged or the disk is
            full, and what was reached before is kept.
    """
    started = time.perf_counter()
    concept = preview_concept(config)
    check_given(config, given)
    with RunWriter(out) as writer, ExitStack() as sized:
        if config.prompts:
            write_bytes(writer.partial / OWN_PROMPTS, f"{config.prompts}\n".encode())
        audited = {"published": published, "never_seen": never_seen}
        stop = cancel or threading.Event()
        work = _Work(config, concept, writer, stop, given, sized, model=model, **audited)
        problem: UnlearnError | None = None
        try:
            problem = yield from _work_through(work)
            yield from _conclude(work, started)
        except OSError as error:
            if not work.unlearned:
                raise
            problem = unwritable(out, error)
            _end(work, error, "stopped", f"{problem} No picture is kept.")
            work.columns.clear()
            writer.make_room()
            yield from _conclude(work, started)
        if problem:
            raise problem


def _work_through(work: _Work) -> Generator[Event, None, UnlearnError | None]:
    """All stages, or as many as can be; returns what the run failed of.

    Raises:
        UnlearnError: the run failed or was stopped before the first step.
    """
    problem = None
    for name, (stage, what, to_lower) in STAGES.items():
        started = time.perf_counter()
        try:
            with enough_memory(what, to_lower):
                yield from stage(work)
        except Cancelled as error:
            if not work.unlearned:
                raise Cancelled(
                    "The run was stopped before its first step; nothing is kept."
                ) from error
            _end(work, error, "stopped", "The run was stopped before it could be judged.")
            break
        except UnlearnError as error:
            diverged = isinstance(error, (Diverged, NotFinite))
            if not work.unlearned and not isinstance(error, Diverged):
                raise
            problem = error
            _end(work, error, "diverged" if diverged else "stopped", str(error))
            break
        finally:
            work.timing[name] = time.perf_counter() - started
    return problem


def _end(work: _Work, error: Exception, status: str, reason: str) -> None:
    """Note why the run is not complete, and leave the trainings that `error` has interrupted."""
    clear_frames(error.__traceback__)
    work.status, work.reason = status, reason


def _load(work: _Work) -> Iterator[Event]:
    said = registry.advice(work.config.objective, work.concept.kind)
    if said and not work.published:
        yield Stage("load", said, SHARES["load"])
    if work.config.attack.optimizer == EIGHT_BIT:
        adam_8bit()
    yield Stage("load", f"Loading the {work.config.model} model", SHARES["load"])
    plan = plan_memory(work.config)
    if plan:
        yield Stage("load", plan.sentence(), SHARES["load"])
    work.model = work.model or load_model(work.config.model)
    work.sized.enter_context(work.model.of_resolution(work.config.compare.resolution))
    if plan:
        follow(work.model, plan)
    work.model.drop_adapters()
    needed = _size(work.config, work.concept, work.model)
    check_space(work.writer.out, needed)
    known = told_apart(work.concept, work.config, work.never_seen)
    work.scorer = load_scorer(work.config.model, known, work.config.judge)
    if work.published:
        check_judge(work.scorer, work.config)
        yield Stage("load", f"Loading {work.config.audited}", SHARES["load"])
        work.notes = work.published.put(work.model)
        check_space(work.writer.out, needed + unlearned_size(work.model))
    elif work.scorer is None:
        said = f"There is no judge for {work.config.model} here, so nothing is scored: {HOW_TO_GET}"
        yield Stage("load", said, SHARES["load"])
    raise_if_stopped(work.cancel.is_set)


def _size(config: RunConfig, concept: Concept, model: Model) -> int:
    """About how many bytes the run folder will take, with the adapter in two formats; that of an
    audit without what is audited.
    """
    marks = sum(step < config.attack.steps for step in CHECKPOINTS)
    shown = len(comparison_prompts(concept, config.compare, config.seed))
    size = EMPTY + (marks + 2 * len(COLUMNS)) * shown * picture_size(model)  # and in a strip
    if config.audited:
        pass  # known when it is read
    elif is_trained(config):
        unlearn = config.unlearn
        size += 2 * adapter_size(model, unlearn.rank, unlearn.modules, unlearn.weights)
    else:
        rank = getattr(config.build("closed_form"), "rank", 0)
        edited = token_access(model, "A closed form").cross_weights().values()
        size += 2 * NUMBER * sum((rank or min(w.shape)) * sum(w.shape) for w in edited)
    if config.attack.steps and config.attack.weights == "lora":
        size += adapter_size(model, config.attack.rank)
    return size


def _originals(work: _Work) -> Iterator[Event]:
    """The first column, before the training: somebody may be waiting for a picture."""
    yield Stage("compare", "Generating the original column", SHARES["originals"])
    with column_state(work.model, "original"):
        yield from _show(work, _generated(work, "original", None))


def _unlearn(work: _Work) -> Iterator[Event]:
    config, name = work.config, work.concept.name
    if work.published:
        yield from _published(work)
        return
    text = f"Forgetting {name}: its prompts should show {work.concept.anchor} instead"
    if is_trained(config):
        yield from _train(work, train, text, SHARES["retain"])
    else:
        yield Stage("unlearn", text, SHARES["unlearn"])
        yield from _edit(work)
        if config.resist.on and not work.collapsed:
            text = f"Training the edit to resist an adversary that teaches {name}"
            yield from _train(work, harden, text, SHARES["unlearn"])
    _save_adapter(work, "unlearn")  # before an attack fills the disk


def _published(work: _Work) -> Iterator[Event]:
    """What was published stands in the place of a training: it is one step, which loses nothing."""
    for note in work.notes:
        yield Stage("unlearn", note, SHARES["unlearn"])
    work.unlearned = Step("unlearn", 1, 1)
    work.writer.add_step(work.unlearned)
    yield work.unlearned
    _save_adapter(work, "unlearn")
    if work.model.replacement:
        save_replacement(work.writer.partial / REPLACEMENT, work.model.replacement)


def _edit(work: _Work) -> Iterator[Event]:
    steps = edit(work.model, work.concept, work.config)
    for event in _with_frames(work, steps, forgetting_diverging(work.config)):
        yield event
        if isinstance(event, Step) and event.losses["forget"]:
            lost = f"{event.losses['forget']:.1%} of the edit (Frobenius norm)"
            yield Stage("unlearn", f"The adapter's rank leaves out {lost}", SHARES["unlearn"])


def _train(
    work: _Work, learn: Callable[..., Iterator[Step]], text: str, share: float
) -> Iterator[Event]:
    yield Stage("retain", "Generating examples of what to keep with the original model", share)
    asked = (work.model, work.concept, work.config, work.cancel.is_set)
    terms = training_terms(*asked, given=work.given)
    yield Stage("unlearn", text, SHARES["unlearn"])
    steps = learn(work.model, work.concept, terms, work.config)
    diverges = diverging(*lower("unlearn.lr", work.config.unlearn.lr))
    yield from _with_frames(work, steps, diverges)


def _attack(work: _Work) -> Iterator[Event]:
    settings = work.config.attack
    if work.collapsed:
        return
    text = f"An adversary fine-tunes the published weights on {pictures_of(settings)}"
    yield Stage("attack", text, SHARES["attack"])
    if not settings.steps:  # the model stays the unlearned one
        same = [replace(p, column="relearned") for p in work.columns["unlearned"].pictures]
        yield from _show(work, Images("relearned", tuple(same)))
        return
    work.recorded = relearning(work.config, work.model) if work.scorer else None
    for step, score_there in scores_of(work.recorded).items():
        yield AttackCheckpoint(step, (), {"forget": score_there}, control=RECORDED)
    attack = Relearn(training=settings)
    asked = (work.model, work.concept, work.config, work.cancel.is_set)
    context = attack_context(*asked, given=work.given)
    for event in checkpoints(work.model, attack, context, partial(_look, work)):
        match event:
            case Step():
                work.writer.add_step(event)
            case AttackCheckpoint():
                work.writer.add_checkpoint(event)
            case Images():
                shown = event.pictures
                yield AttackCheckpoint(settings.steps, shown, score(shown))
                yield from _show(work, event)
                continue
        yield event


def _controls(work: _Work) -> Iterator[Event]:
    # Resisting an attack means nothing without the controls.
    wanted = work.config.attack.controls or work.config.resist.on
    wanted = wanted or (work.published is not None and work.recorded is None)
    if not wanted or not work.config.attack.steps or work.collapsed:
        return
    asked = (work.model, work.concept, work.config, work.scorer, work.cancel.is_set)
    for event in controls(*asked, work.given, work.never_seen):
        if isinstance(event, AttackCheckpoint):
            work.writer.add_checkpoint(event)
            if event.control == FRESH:
                work.taught[event.step] = event.scores["forget"]
        yield event


def _look(work: _Work, step: Step) -> AttackCheckpoint | Images:
    """Pictures of the attacked model: those of the concept with their score and a few others, after
    the last step the whole third column.
    """
    if step.step == step.total:
        return _generated(work, "relearned", step)
    column = _generated(work, "relearned", step, checkpoint_prompts)
    scores = {"forget": score(column.pictures)["forget"]}
    return AttackCheckpoint(step.step, column.pictures, scores)


def _with_frames(
    work: _Work, steps: Iterator[Step], diverges: AbstractContextManager[None]
) -> Iterator[Event]:
    """The steps, and between equal parts of them frames of the timeline by the model under
    training: the first are pictures of the original column, the last of the unlearned one.

    Training ends where the model is being destroyed. `diverges` names the setting to change where
    steps or pictures are not finite.
    """
    raise_if_stopped(work.cancel.is_set)
    monitor = CollapseMonitor(
        work.model, work.concept, work.config.compare, work.scorer, work.cancel.is_set
    )
    with diverges:
        for step in steps:
            work.writer.add_step(step)
            work.unlearned = step
            yield step
            if step.step in _between(step.total, FRAMES):
                shown = _generated(work, "unlearned", step, frame_prompts)
                frame = Preview(step.stage, step.step, shown.pictures)
                work.writer.add_preview(frame)
                yield frame
            if monitor.collapsed(step):
                work.collapsed = True
                text = f"Stopped at step {step.step}: {COLLAPSE}"
                yield Stage("unlearn", text, SHARES["compare"])
                steps.close()
                return
            raise_if_stopped(work.cancel.is_set)


def _between(total: int, parts: int) -> set[int]:
    """The last steps of all but the last of `parts` equal parts of a training."""
    return {-(-total * part // parts) for part in range(1, parts)} - {total}


def _compare(work: _Work) -> Iterator[Event]:
    text = "Generating the unlearned column: same prompts, same seeds"
    yield Stage("compare", text, SHARES["compare"])
    with column_state(work.model, "unlearned"):
        yield from _show(work, _generated(work, "unlearned", work.unlearned))


def _show(work: _Work, images: Images) -> Iterator[Images]:
    work.columns[images.column] = images
    work.writer.add_images(images)
    yield images


def _generated(
    work: _Work,
    column: Column,
    trained: Step | None,
    chosen: Callable[[list[ComparedPrompt]], list[ComparedPrompt]] = list,
) -> Images:
    """The pictures of the comparison, or `chosen` ones, by the model as it is active, after the
    step `trained`.
    """
    prompts = comparison_prompts(work.concept, work.config.compare, work.config.seed)
    return generate_column(
        work.model,
        column,
        chosen(prompts),
        work.config.compare,
        work.scorer,
        work.cancel.is_set,
        stage=trained.stage if trained else "unlearn",
        step=trained.step if trained else 0,
    )


def _conclude(work: _Work, started: float) -> Iterator[Event]:
    yield Stage("write", "Writing the run folder", SHARES["write"])
    scores = {
        column: score(images.pictures, work.scorer) for column, images in work.columns.items()
    }
    known = to_json({"config": work.config, "scores": scores, "base": work.base})
    own = own_findings(Run(work.writer.partial, work.writer.record | known))
    verdict = Verdict("inconclusive", (work.reason,))
    if work.status == "complete":
        verdict = judge_run(scores, own)
        verdict = replace(verdict, reasons=(*work.notes, *verdict.reasons))
    apart = {
        column: groups
        for column, groups in differences(work.columns, work.scorer).items()
        if all(math.isfinite(d.p) and math.isfinite(d.distance) for d in groups.values())
    }
    if scores:
        yield Scores(scores, apart)
    yield verdict
    pictures = [p for images in work.columns.values() for p in images.pictures]
    for slot in ("unlearn", "relearn"):
        _save_adapter(work, slot)
    if pictures:
        said = heading(work.config, work.concept.name, verdict.label)
        comparison_strip(*said, pictures).save(work.writer.partial / "comparison.png")
    timing = dict.fromkeys(STAGES, 0.0) | work.timing
    timing["total_s"] = time.perf_counter() - started
    folder = work.writer.finish(
        work.status,
        config=work.config,
        command=work.config.command(
            work.writer.out.name, work.never_seen.name if work.never_seen else ""
        ),
        concept=work.concept,
        environment=environment(work.model, work.scorer),
        timing={name: round(seconds, 3) for name, seconds in timing.items()},
        scores=scores,
        differences=apart,
        base=work.base,
        notes=work.notes,
        verdict=verdict,
        thresholds=Thresholds(),
        relearning=recovery(own[0].curve.points if own else (), scores),
    )
    yield Done(folder, work.status != "complete")


def _save_adapter(work: _Work, slot: str) -> None:
    """Save what the slot holds, unless it is saved already or is not finite."""
    try:
        state = work.model.adapter_state(slot) if work.model else {}
    except KeyError:
        return
    file = work.writer.partial / f"{slot}.safetensors"
    if state and not file.exists() and all(tensor.isfinite().all() for tensor in state.values()):
        own = {
            "concept": work.concept.name,
            "anchor": work.concept.anchor,
            "objective": _method(work.config) if slot == "unlearn" else "relearn",
            "loads_on": ORIGINAL if slot == "unlearn" else f"{ORIGINAL} with the unlearn adapter",
        }
        metadata = origin(work.config.model, work.model.base_hash) | own
        write_bytes(file, adapter_bytes(state, metadata))
        if slot == "unlearn":
            form = smaller_for_others(state)
            write_bytes(work.writer.partial / FOR_OTHERS, adapter_bytes(state, metadata, form))


def _method(config: RunConfig) -> str:
    return "audited" if config.audited else config.objective


_ATTACKING = "The attack", "attack.batch_size or attack.rank, or use attack.weights=lora"
_COMPARING = "The comparison", "compare.forget, compare.near or compare.far"
STAGES = {
    "load_s": (_load, "Loading the model", "the size of the model"),
    "originals_s": (_originals, *_COMPARING),
    "unlearn_s": (
        _unlearn,
        "Unlearning",
        "unlearn.batch_size, unlearn.rank or resist.batch_size, or use unlearn.weights=lora",
    ),
    "compare_s": (_compare, *_COMPARING),
    "attack_s": (_attack, *_ATTACKING),
    "controls_s": (_controls, *_ATTACKING),
}
"""The parts of a run in order, by the names of their seconds in run.json: the function, what it is
called, and what to lower where memory is too small for it.
"""
