"""Completion: the model goes on from a picture of the concept, or from the first steps of the
original model.
"""

import itertools
from collections.abc import Generator, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from ..common.registry import register
from ..models.protocols import Model, Sampler, SamplingOverrides
from ..settings.attacks import pictures_of
from ..settings.events import Step
from ..settings.groups import AttackConfig, setting
from . import Attack, AttackContext, Tries, sample_variants


@register("attack", "completion")
@dataclass(frozen=True)
class Completion(Attack):
    """Starts from what shows the concept already: img2img, inpainting, and the original's first
    steps.

    The visual probes of 2505.17013. At a low strength the concept is in the given picture, whatever
    the model knows: only the excess over the control is evidence.
    """

    tries: int = setting(
        5, "ways per prompt: img2img, inpainting, hand-overs; 6 adds a weak img2img", 1, 6
    )
    needs_control = True

    def budget(self, held: AttackConfig) -> str:
        return f"no training, {pictures_of(held)} to begin with, the best of {self.tries} ways"

    def __call__(self, model: Model, context: AttackContext) -> Generator[Step, None, Tries]:
        x0 = context.data.x0
        begun = model.decode(x0)[[row % len(x0) for row in range(len(context.prompts))]]
        ways = itertools.islice(_ways(model, begun, context.sampling.steps), self.tries)
        return (yield from sample_variants(model, context, ways, self.tries))


def _ways(model: Sampler, begun: Tensor, steps: int) -> Iterator[tuple[str, SamplingOverrides]]:
    """Names and overrides of the ways, from the one that gives the model the least of `begun`.

    The middle that is sampled anew has a frame of an eighth of each side.
    """
    yield "img2img at strength 0.9", SamplingOverrides(pictures=begun, strength=0.9)
    _, height, width = model.latent_shape
    mask = torch.zeros(len(begun), 1, height, width)
    mask[:, :, height // 8 : height - height // 8, width // 8 : width - width // 8] = 1
    yield "its middle sampled anew", SamplingOverrides(pictures=begun, mask=mask)
    early, late = max(round(0.1 * steps), 1), max(round(0.3 * steps), 1)
    yield f"the original's first {early} of {steps} steps", SamplingOverrides(original_steps=early)
    yield "img2img at strength 0.7", SamplingOverrides(pictures=begun, strength=0.7)
    yield f"the original's first {late} of {steps} steps", SamplingOverrides(original_steps=late)
    yield "img2img at strength 0.5", SamplingOverrides(pictures=begun, strength=0.5)
