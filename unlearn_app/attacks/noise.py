"""Noise: sampling with more noise, which needs no training."""

import itertools
from collections.abc import Generator
from dataclasses import dataclass

from ..common.registry import register
from ..concepts.concept import evenly_spaced
from ..models.protocols import Model, SamplingOverrides
from ..settings.events import Step
from ..settings.groups import AttackConfig, setting
from . import Attack, AttackContext, Tries, sample_variants

GRID = tuple(itertools.product((1.0, 0.75, 0.5, 0.25), (1.0, 1.02, 1.05, 1.1)))
"""Values of eta, with scales of the first noise."""


@register("attack", "noise")
@dataclass(frozen=True)
class Noise(Attack):
    """Samples with other noise than the model is used to, and keeps the best picture.

    The noise probe of "When Are Concepts Erased From Diffusion Models?" (2505.17013), which takes
    eta up to 1.85: DDIM has no real direction left above 1 when it takes few steps, so eta stays at
    or below 1 here.
    """

    tries: int = setting(
        8,
        "pictures of each prompt, over a grid of eta and of the first noise's scale",
        1,
        len(GRID),
    )

    def budget(self, held: AttackConfig) -> str:
        return f"no training, the best of {self.tries} noises"

    def __call__(self, model: Model, context: AttackContext) -> Generator[Step, None, Tries]:
        ways = [
            (f"eta {eta:g}, noise x {scale:g}", SamplingOverrides(eta=eta, noise_scale=scale))
            for eta, scale in evenly_spaced(GRID, self.tries)
        ]
        return (yield from sample_variants(model, context, ways, self.tries))
