"""Other noise: an adversary who can only run the model samples with more of it, and keeps the best picture."""

import itertools
import time
from collections.abc import Callable, Generator
from dataclasses import dataclass
from typing import ClassVar

from ..backend import Backend, Departure
from ..batches import PaintedSet
from ..concept import Concept, spread
from ..config import RunConfig
from ..events import Step
from ..registry import register
from ..settings import setting
from . import Tries, held_out, joined, painted

SCALES = (1.0, 1.02, 1.05, 1.1)
ETAS = (1.0, 0.75, 0.5, 0.25)
GRID = tuple(itertools.product(ETAS, SCALES))


@register("attack", "noise")
@dataclass(frozen=True)
class Noise:
    """Samples with more noise than the model is used to, and keeps the best picture.

    The noise probe of "When Are Concepts Erased From Diffusion Models?" (2505.17013), which takes eta up to 1.85: DDIM
    has no real direction left above 1 when it takes few steps, so eta stays at or below 1 here.
    """

    tries: int = setting(8, "pictures of each prompt, over a grid of eta and of the first noise's scale", 1, len(GRID))
    by_prompt: ClassVar[bool] = False
    counts: ClassVar[bool] = True

    def budget(self, config: RunConfig) -> str:
        """See `Attack`."""
        return f"no training, the best of {self.tries} noises"

    def __call__(
        self,
        backend: Backend,
        concept: Concept,
        data: PaintedSet,
        config: RunConfig,
        should_stop: Callable[[], bool] = lambda: False,
    ) -> Generator[Step, None, Tries]:
        """See `Attack`."""
        prompts, parts = held_out(concept, config), []
        states = backend.encode_text([prompt.text for prompt in prompts])
        for turn, (eta, scale) in enumerate(spread(GRID, self.tries)):
            started = time.perf_counter()
            asked = [(row, turn, f"eta {eta:g}, noise x {scale:g}: {p.text}") for row, p in enumerate(prompts)]
            departure = Departure(eta=eta, noise_scale=scale)
            parts.append(painted(backend, asked, states, config, should_stop, departure))
            yield Step("attack", turn + 1, self.tries, {}, seconds=time.perf_counter() - started)
        return joined(parts)
