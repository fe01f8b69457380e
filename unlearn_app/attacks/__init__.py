"""Attacks on a model that is said to have forgotten, one per file: each tries to get pictures of
the concept out of it.

An attack is a frozen dataclass whose fields are its budget. It is called while the model under
attack is active, yields a `Step` for each piece of work, and returns its `Tries`.
"""

import time
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import torch
from torch import Tensor

from ..concepts.concept import Concept, Prompt, evenly_spaced
from ..evaluation.comparison import SEED_OFFSET
from ..methods.objectives.diffusion import Diffusion
from ..models.protocols import NO_OVERRIDES, Backend, NoisyBatch, Params, SamplingOverrides
from ..settings.events import Step
from ..settings.run_config import RunConfig
from ..training.latent_dataset import LatentDataset

TURN = 10**10
"""Seeds of one turn lie this far from those of the next; the first turn has the seeds of the
comparison.
"""


@dataclass(frozen=True)
class Tries:
    """What an attack painted: picture i of `pictures` (N, 3, H, W) in [-1, 1] is a try at the
    held-out prompt `prompt_index[i]`.

    `attempt[i]` counts the tries at that prompt, `asked[i]` says how, `seeds[i]` with which seed.
    """

    pictures: Tensor
    prompt_index: tuple[int, ...]
    attempt: tuple[int, ...]
    asked: tuple[str, ...]
    seeds: tuple[int, ...]


class Attack(Protocol):
    """A way to get the concept back, with `tries` pictures per held-out prompt."""

    tries: int
    by_prompt: bool
    """It only words the prompt otherwise: a model that merely refuses to listen withstands it."""
    counts: bool
    """It says something about the model; switching off what was published does not."""
    needs_control: bool
    """It hands the model the concept, so that without a control of the same kind it says nothing.
    """

    def budget(self, config: RunConfig) -> str:
        """What the adversary may spend, in words."""
        ...

    def __call__(
        self,
        backend: Backend,
        concept: Concept,
        data: LatentDataset,
        config: RunConfig,
        should_stop: Callable[[], bool] = lambda: False,
    ) -> Generator[Step, None, Tries]:
        """Attack the active model; `data` are the adversary's pictures of the concept, with their
        prompts.
        """
        ...


@dataclass(frozen=True)
class Reading:
    """The diffusion loss of pictures whose `cond` holds token ids, of which some read what `extra`
    gives.
    """

    extra: Callable[[], Tensor]

    def __call__(self, backend: Backend, batch: NoisyBatch, params: Params | None = None) -> Tensor:
        """The loss, a scalar, differentiable in what `extra` is made of."""
        return Diffusion()(
            backend, replace(batch, cond=backend.encode_ids(batch.cond, self.extra())), params
        )


def held_out(concept: Concept, config: RunConfig) -> tuple[Prompt, ...]:
    """The prompts that an attack has to succeed at: those of the comparison."""
    return evenly_spaced(concept.forget.test, config.compare.forget)


def sample_tries(
    backend: Backend,
    asked: Sequence[tuple[int, int, str]],
    states: Tensor,
    config: RunConfig,
    should_stop: Callable[[], bool],
    overrides: SamplingOverrides = NO_OVERRIDES,
) -> Tries:
    """Pictures by the active model of text states (N, L, D), with (row, turn, how it was asked) of
    each.
    """
    rows, turns, said = zip(*asked, strict=True)
    first = 1000 * config.seed + SEED_OFFSET
    seeds = tuple(first + row + TURN * turn for row, turn in zip(rows, turns, strict=True))
    latents = backend.sample(
        states,
        seeds,
        steps=config.compare.sampling_steps,
        guidance_scale=config.compare.guidance_scale,
        should_stop=should_stop,
        overrides=overrides,
    )
    return Tries(backend.decode(latents), rows, turns, said, seeds)


def sample_variants(
    backend: Backend,
    concept: Concept,
    config: RunConfig,
    ways: Sequence[tuple[str, SamplingOverrides]],
    should_stop: Callable[[], bool],
) -> Generator[Step, None, Tries]:
    """Every held-out prompt painted in each of `ways`, which have names, by the active model; a
    step for each.
    """
    prompts, parts = held_out(concept, config), []
    states = backend.encode_text([prompt.text for prompt in prompts])
    for turn, (name, overrides) in enumerate(ways):
        started = time.perf_counter()
        asked = [(row, turn, f"{name}: {prompt.text}") for row, prompt in enumerate(prompts)]
        parts.append(sample_tries(backend, asked, states, config, should_stop, overrides))
        yield Step("attack", turn + 1, len(ways), {}, seconds=time.perf_counter() - started)
    return joined(parts)


def joined(parts: Sequence[Tries]) -> Tries:
    """The tries of several calls as one."""
    names = ("prompt_index", "attempt", "asked", "seeds")
    together = (tuple(value for part in parts for value in getattr(part, name)) for name in names)
    return Tries(torch.cat([part.pictures for part in parts]), *together)
