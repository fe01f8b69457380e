"""Attacks on a model that is said to have forgotten a concept, one per file: each tries to get
pictures of the concept out of it.

An attack is a frozen dataclass whose fields are its budget. `runner` runs one beside its control.
"""

import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from ..common.errors import ShouldStop, never
from ..common.seeds import judged_seed
from ..concepts.concept import Concept, Prompt
from ..methods.gradient_rules.weighted_sum import WeightedSum
from ..methods.objectives import Loss
from ..methods.objectives.diffusion import Diffusion
from ..models.conditioning import Conditioning
from ..models.protocols import (
    NO_OVERRIDES,
    Model,
    NoisyBatch,
    Params,
    SamplingOverrides,
    token_access,
)
from ..settings.events import Sampling, Step
from ..settings.groups import AttackConfig
from ..training.latent_dataset import LatentDataset, noisy_batches
from ..training.loop import Term, fit

Asked = tuple[int, int, str]
"""The index of a held-out prompt, the attempt at it, and the words that ask for it."""


@dataclass(frozen=True)
class AttackContext:
    """What an attack works with beside the model: the held-out `prompts` of `concept` that it has
    to succeed at, how their pictures are sampled, and the adversary's pictures with their prompts.

    `seed` is the run's; every attack derives its own from it. `should_stop` says whether to stop.
    """

    concept: Concept
    prompts: tuple[Prompt, ...]
    sampling: Sampling
    seed: int
    data: LatentDataset
    should_stop: ShouldStop = never


@dataclass(frozen=True)
class Tries:
    """The `pictures` (N, 3, H, W) in [-1, 1] of an attack, and what was `asked` for and the seed of
    each.
    """

    pictures: Tensor
    asked: tuple[Asked, ...]
    seeds: tuple[int, ...]


class Attack(ABC):
    """A way to get the concept back, with `tries` pictures per held-out prompt.

    An attack `by_prompt` changes the prompt alone, so a filter of prompts can stop it. One that
    `counts` is evidence about the model; turning the published adapter off is not. One that
    `needs_control` gives the model a picture of the concept, so it is evidence only above its
    control.
    """

    tries: int
    by_prompt: bool = False
    counts: bool = True
    needs_control: bool = False

    @abstractmethod
    def budget(self, held: AttackConfig) -> str:
        """What the adversary may spend, in words; `held` says which pictures it has."""

    def forwards(self, held: AttackConfig, prompts: int, picture: int) -> int:
        """Forward passes of the denoiser on one picture that an attack at `prompts` prompts takes,
        beside those for the pictures that the adversary holds; a gradient counts as `GRADIENT`.

        `picture` is what sampling one picture takes. An attack that trains adds to it.
        """
        return prompts * self.tries * picture

    @abstractmethod
    def __call__(self, model: Model, context: AttackContext) -> Generator[Step, None, Tries]:
        """Attack the active model, yield a step for each piece of work, and return pictures by the
        model, `tries` of each prompt.
        """


@dataclass(frozen=True)
class TokenLoss:
    """The diffusion loss with prompts given as token ids; ids beyond the vocabulary read the rows
    of `extra`.

    The batches come from a data set made by `with_ids`.
    """

    extra: Callable[[], Tensor]

    def __call__(self, model: Model, batch: NoisyBatch, params: Params | None = None) -> Tensor:
        """The loss, a scalar, differentiable in what `extra` is made of."""
        cond = token_access(model, "The attack").encode_ids(batch.cond.extras["ids"], self.extra())
        return Diffusion()(model, replace(batch, cond=cond), params)


def with_ids(data: LatentDataset, ids: Tensor) -> LatentDataset:
    """`data` with its prompts as token ids (N, L) too, for `TokenLoss`."""
    return replace(data, cond=replace(data.cond, extras={"ids": ids}))


def teach(
    model: Model,
    data: LatentDataset,
    name: str,
    loss: Loss,
    params: Params,
    *,
    batch_size: int,
    seed: int,
    **how: Any,
) -> Iterator[Step]:
    """Train `params` on the adversary's pictures with one `loss`, called `name` in the steps.

    `seed` is that of the batches; `how` holds further arguments of `fit`.
    """
    terms = {name: Term(loss, noisy_batches(model, data, batch_size, seed))}
    return fit(model, params, terms, WeightedSum(), stage="attack", **how)


def asked_in(context: AttackContext, attempts: Iterable[int], before: str = "") -> list[Asked]:
    """Every held-out prompt in each of `attempts`, with the words `before` it."""
    return [
        (index, attempt, before + prompt.text)
        for attempt in attempts
        for index, prompt in enumerate(context.prompts)
    ]


def sample_tries(
    model: Model,
    asked: Sequence[Asked],
    context: AttackContext,
    cond: Conditioning | None = None,
    overrides: SamplingOverrides = NO_OVERRIDES,
) -> Tries:
    """Pictures by the active model of the N rows of `cond`, by default the words of `asked`."""
    seeds = tuple(judged_seed(context.seed, index, attempt) for index, attempt, _ in asked)
    latents = model.sample(
        model.encode_text([words for _, _, words in asked]) if cond is None else cond,
        seeds,
        steps=context.sampling.steps,
        guidance_scale=context.sampling.guidance_scale,
        should_stop=context.should_stop,
        overrides=overrides,
    )
    return Tries(model.decode(latents), tuple(asked), seeds)


def sample_variants(
    model: Model,
    context: AttackContext,
    ways: Iterable[tuple[str, SamplingOverrides]],
    count: int,
) -> Generator[Step, None, Tries]:
    """A picture of every held-out prompt by the active model in each of `count` `ways`, which have
    names; a step for each way.

    The next of `ways` is taken only after the pictures of the one before are sampled.
    """
    cond = model.encode_text([prompt.text for prompt in context.prompts])
    started, parts = time.perf_counter(), []
    for attempt, (name, overrides) in enumerate(ways):
        asked = asked_in(context, [attempt], f"{name}: ")
        parts.append(sample_tries(model, asked, context, cond, overrides))
        yield Step("attack", attempt + 1, count, {}, seconds=time.perf_counter() - started)
        started = time.perf_counter()
    return Tries(
        torch.cat([part.pictures for part in parts]),
        tuple(asked for part in parts for asked in part.asked),
        tuple(seed for part in parts for seed in part.seeds),
    )
