"""Unlearning one concept: from its settings to an adapter in the `unlearn` slot, by training or in
closed form.
"""

import random
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import fields
from functools import partial

import torch

from ..common import registry
from ..common.errors import ConfigError, ModelError, NotFinite, ShouldStop, diverging, lower, never
from ..common.seeds import stream_seed, stream_seeds
from ..concepts.concept import Concept, cycled, evenly_spaced, named
from ..concepts.own_pictures import NONE_GIVEN, GivenPictures, given_for
from ..methods.closed_form.tokens import EDITED_PROMPTS, edited_tokens
from ..methods.objectives import Objective
from ..methods.objectives.concept_ablation import ConceptAblation
from ..methods.objectives.diffusion import Diffusion
from ..methods.objectives.meta_unlearning import MetaUnlearning
from ..methods.objectives.preserve import Preserve
from ..models.lora import sum_adapters, to_adapter
from ..models.protocols import Model, NoisyBatch, Params
from ..models.sizes import picture_shape
from ..settings.events import Step
from ..settings.run_config import RunConfig
from .latent_dataset import (
    LatentDataset,
    encoded,
    meta_batches,
    noisy_batches,
    pooled,
    sample_latents,
)
from .loop import Term, fit
from .regularization import build_regularizers
from .teacher import OriginalTeacher, RememberingTeacher


def forget(
    model: Model,
    concept: Concept,
    config: RunConfig,
    should_stop: ShouldStop = never,
    sampler: Callable[..., LatentDataset] = sample_latents,
    given: GivenPictures = NONE_GIVEN,
) -> Iterator[Step]:
    """Unlearn `concept`, from the original model to an adapter in the `unlearn` slot."""
    if not is_trained(config):
        yield from edit(model, concept, config)
        if not config.resist.on:
            return
    terms = training_terms(model, concept, config, should_stop, sampler, given)
    yield from (train if is_trained(config) else harden)(model, concept, terms, config)


def training_terms(
    model: Model,
    concept: Concept,
    config: RunConfig,
    should_stop: ShouldStop,
    sampler: Callable[..., LatentDataset] = sample_latents,
    given: GivenPictures = NONE_GIVEN,
) -> dict[str, Term]:
    """The terms of the training by name: forget, retain unless the settings keep nothing, and, if
    they ask for it, resist.

    Their pictures are samples of the original model, or `given` ones, of which all retain pictures
    count as near, since the user does not say which are; simulated attacks have samples. Hardening
    an edit has no forget term.

    Raises:
        ConfigError: the retain set is empty, or the settings name pictures that are not given.
    """
    settings = config.unlearn
    sample = partial(
        sampler,
        model,
        sampling_steps=config.compare.sampling_steps,
        guidance_scale=config.compare.guidance_scale,
        should_stop=should_stop,
    )
    objective = config.build("objective") if is_trained(config) else None
    keeps = settings.retain_loss != "none"
    terms = {}
    if keeps or config.resist.on:
        retain, near = _retain_data(model, concept, config, sample, given)
        retained: Sequence[str] = retain.prompts
    else:
        retained = retain_prompts(concept, settings.train_pictures)
    if objective:
        terms["forget"] = _forget_term(model, concept, config, objective, retained, sample, given)
    on_pictures = settings.retain_loss == "diffusion" or (
        objective is not None and objective.trains_on_pictures
    )
    if keeps:
        terms["retain"] = Term(
            Diffusion() if on_pictures else Preserve(),
            _batches(model, retain, config, "retain"),
            settings.retain_weight,
        )
    if config.resist.on:
        asked = objective or ConceptAblation()
        terms["resist"] = _resist_term(model, concept, config, asked, retain, near, sample)
    return terms


def _retain_data(
    model: Model,
    concept: Concept,
    config: RunConfig,
    sample: Callable[..., LatentDataset],
    given: GivenPictures,
) -> tuple[LatentDataset, int]:
    """The retain pictures, and how many of them, the first ones, are near."""
    count = config.unlearn.train_pictures
    own = given_for("retain_pictures", config, given)
    if own:
        return encoded(model, *own.lesson("", count, picture_shape(model))), count
    prompts = retain_prompts(concept, count)
    retain = sample(prompts, None, stream_seeds("retain pictures", config.seed, count))
    return retain, (count + 1) // 2 if concept.far.train else count


def _forget_term(
    model: Model,
    concept: Concept,
    config: RunConfig,
    objective: Objective,
    retained: Sequence[str],
    sample: Callable[..., LatentDataset],
    given: GivenPictures,
) -> Term:
    """The term that unlearns; objectives with random labels get retain prompts as anchors.

    Where an objective mixes in the anchor's pictures, every second picture is a sample of the
    anchor also where those of the concept are given.
    """
    count, seed = max(config.unlearn.train_pictures // 2, 1), config.seed
    own = given_for("forget_pictures", config, given)
    if own:
        shown, prompts = own.lesson(concept.name, count, picture_shape(model))
        anchors = [named(concept, prompt, concept.anchor) for prompt in prompts]
    else:
        prompts = cycled([prompt.text for prompt in concept.forget.train], count)
        anchors = cycled(concept.anchors, count)
    if objective.random_labels:
        anchors = random.Random(stream_seed("labels", seed)).choices(retained, k=count)
    seeds = stream_seeds("forget pictures", seed, count)
    if own:
        forget = encoded(model, shown, prompts, anchors)
        if objective.mixes_anchor_pictures and count > 1:
            forget.x0[1::2] = sample(anchors[1::2], None, seeds[1::2]).x0.to(forget.x0)
    else:
        mixed = objective.mixes_anchor_pictures
        forget = sample(prompts, anchors, seeds, sample_anchors=mixed)
    return Term(objective, _batches(model, forget, config, "forget"))


def _batches(
    model: Model, data: LatentDataset, config: RunConfig, term: str
) -> Iterator[NoisyBatch]:
    """The batches of a term of the training, drawn from a pool if the settings say so."""
    settings, seed = config.unlearn, config.seed
    drawn = noisy_batches(model, data, settings.batch_size, stream_seed(f"{term} batches", seed))
    return pooled(drawn, settings.pool, stream_seed(f"{term} order", seed))


def _resist_term(
    model: Model,
    concept: Concept,
    config: RunConfig,
    objective: Objective,
    retain: LatentDataset,
    near: int,
    sample: Callable[..., LatentDataset],
) -> Term:
    """The meta-unlearning term, with its own pictures of the concept; the first `near` of the
    retain pictures are related.
    """
    settings = config.resist
    count = max(config.unlearn.train_pictures // 2, 2)
    prompts = [prompt.text for prompt in evenly_spaced(concept.forget.train, count)]
    anchors = evenly_spaced(concept.anchors, count)
    forget = sample(prompts, anchors, stream_seeds("meta pictures", config.seed, count))
    chosen = {
        item.name: getattr(settings, item.name)
        for item in fields(MetaUnlearning)
        if hasattr(settings, item.name)
    }
    batches = meta_batches(
        model,
        forget,
        retain,
        near,
        batch_size=settings.batch_size,
        steps=settings.steps,
        seed=config.seed,
    )
    return Term(MetaUnlearning(Diffusion(), objective, **chosen), batches, settings.weight)


def retain_prompts(concept: Concept, count: int) -> list[str]:
    """`count` training prompts, half near and half far; all near where there are no far ones.

    Row i of either half is forget prompt i with another name, the pairing of 2412.07808, appendix
    D.

    Raises:
        ConfigError: there are no near ones.
    """
    near, far = concept.near.train, concept.far.train
    if not near:
        raise ConfigError(
            f"The retain set of “{concept.name}” is empty; at least one prompt is needed.",
            "concept",
        )
    half = (count + 1) // 2 if far else count
    return [prompt.text for prompt in cycled(near, half) + cycled(far, count - half)]


def train(
    model: Model,
    concept: Concept,
    terms: dict[str, Term],
    config: RunConfig,
    erased: Sequence[Concept] = (),
    merged: Params | None = None,
) -> Iterator[Step]:
    """Train a fresh adapter, or copies of weights, in the `unlearn` slot on `terms`, regularized as
    the settings say.

    `erased` are the concepts unlearned before, and `merged` is their update as one adapter, which
    is merged into the weights; the settings say whether the model with it teaches, or the original.

    Raises:
        ConfigError: the projection leaves nothing to learn from.
        Diverged: a loss or a weight is not finite; the adapter is as after the step before.
    """
    settings = config.unlearn
    params = fresh_update(model, config)
    original = merged and config.regularize.teacher == "original"
    teacher = OriginalTeacher(model, merged) if original else model
    forget = terms.get("forget")
    held = build_regularizers(model, concept, config, erased, merged, forget)
    with diverging(*lower("unlearn.lr", settings.lr)), model.training("unlearn"):
        yield from fit(
            RememberingTeacher(teacher) if settings.pool else teacher,
            params,
            terms,
            config.build("rule"),
            stage="unlearn",
            steps=settings.steps,
            lr=settings.lr,
            decay=config.regularize.decay,
            regularizers=held,
        )


def fresh_update(model: Model, config: RunConfig) -> Params:
    """Put what the settings train into the `unlearn` slot, with no effect yet, and return it.

    Raises:
        ConfigError: the model has no such layers.
    """
    settings = config.unlearn
    if settings.weights == "full":
        return model.reset_weights("unlearn", settings.modules)
    seed = stream_seed("adapter", config.seed)
    return model.reset_adapter("unlearn", settings.rank, settings.alpha, seed, settings.modules)


def edit(model: Model, concept: Concept, config: RunConfig) -> Iterator[Step]:
    """Solve the closed-form edit and put it into the `unlearn` slot as an adapter; one step.

    The step's loss is the share of the update (Frobenius norm) that a truncated rank leaves out.

    Raises:
        ConfigError: the model offers no single tokens.
        Diverged: the edit is not finite; the slot is as it was.
    """
    started = time.perf_counter()
    forget, anchor = edited_tokens(model, concept)
    retained = model.encode_text(retain_prompts(concept, EDITED_PROMPTS)).states
    method = config.build("closed_form")
    with forgetting_diverging(config):
        try:
            factors = method(model.cross_weights(), forget, anchor, retained.flatten(0, 1).float())
            adapter = to_adapter(factors, getattr(method, "rank", 0) or None)
            model.load_adapter("unlearn", adapter.state)
        except (torch.linalg.LinAlgError, ModelError) as error:
            what = "the edit has no solution that an adapter can hold"
            raise NotFinite(what, "a larger ridge is accepted") from error
    with model.active("unlearn"):
        yield Step(
            "unlearn", 1, 1, {"forget": adapter.error}, seconds=time.perf_counter() - started
        )


def forgetting_diverging(config: RunConfig) -> AbstractContextManager[None]:
    """Name the settings to change where what forgets, or pictures after it, are not finite."""
    if is_trained(config):
        return diverging(*lower("unlearn.lr", config.unlearn.lr))
    name, method = config.objective, config.build("closed_form")
    used = [
        f"{name}.{item.name}={getattr(method, item.name)}"
        for item in registry.settings_of("closed_form", name)
    ]
    return diverging(name, f"an edit nearer to its defaults than {', '.join(used)}")


def harden(
    model: Model, concept: Concept, terms: dict[str, Term], config: RunConfig
) -> Iterator[Step]:
    """Train on top of the edit in the `unlearn` slot and leave the sum there, as one exact adapter
    or as weights.

    2410.12777 starts from UCE or RECE weights with the meta term alone; so do we, and keep the
    edited model's predictions on retain prompts.
    """
    edited = model.adapter_state("unlearn")
    resist_first = {name: terms[name] for name in ("resist", "retain") if name in terms}
    try:
        with model.merged("unlearn"):
            yield from train(model, concept, resist_first, config)
    finally:  # a training that is stopped leaves the sum as well; weights hold it already
        if config.unlearn.weights != "full":
            whole = sum_adapters(edited, model.adapter_state("unlearn"))
            model.load_adapter("unlearn", whole.state)


def is_trained(config: RunConfig) -> bool:
    """Whether the chosen method trains; otherwise it has a closed form."""
    return registry.kind_of(config.objective) == "objective"
