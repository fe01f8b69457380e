"""The relearning attack: fine-tune the unlearned model on a few pictures of the concept."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from ..backend import Backend
from ..batches import noisy_batches, paint
from ..concept import Concept, spread
from ..config import AttackConfig
from ..events import Step
from ..gradients import WeightedSum
from ..objectives.diffusion import Diffusion
from ..registry import register
from ..train import Term, fit

SEED_OFFSET = 500_000
"""The adversary's pictures come from seeds that neither the defender's training nor the comparison uses."""


@register("attack", "relearn")
@dataclass(frozen=True)
class Relearn:
    """Fine-tunes a fresh LoRA on the merged unlearned weights, with pictures of the concept by the original model.

    The threat model of 2410.12777: the adversary holds the published weights and some pictures, never the
    defender's own factors. Prompts and seeds of the pictures are new to the defender and not those of the comparison.
    """

    sampling_steps: int
    guidance_scale: float
    seed: int

    def __call__(
        self,
        backend: Backend,
        concept: Concept,
        config: AttackConfig,
        should_stop: Callable[[], bool] = lambda: False,
    ) -> Iterator[Step]:
        """Train the `relearn` slot; the caller has merged the `unlearn` slot into the weights it attacks.

        The pictures are painted by the caller's original model before the merge, on the first `next`.
        """
        prompts = [p.text for p in spread(concept.relearn, config.pictures)]
        first = self.seed * 1000 + SEED_OFFSET
        data = paint(
            backend,
            prompts,
            None,
            [first + row for row in range(len(prompts))],
            sampling_steps=self.sampling_steps,
            guidance_scale=self.guidance_scale,
            should_stop=should_stop,
        )
        backend.reset_adapter("relearn", config.rank, config.alpha, seed=first)
        terms = {"relearn": Term(Diffusion(), noisy_batches(backend, data, config.batch_size, first + 1))}
        with backend.merged("unlearn"), backend.training("relearn") as params:
            yield from fit(backend, params, terms, WeightedSum(), stage="attack", steps=config.steps, lr=config.lr)
