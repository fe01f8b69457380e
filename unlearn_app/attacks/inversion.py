"""Concept inversion: a word that no dictionary has, learned so that the model paints the concept
when it reads it.
"""

from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

import torch
from torch import Tensor

from ..common.registry import register
from ..common.seeds import generator
from ..concepts.concept import Concept, named
from ..methods.gradient_rules.weighted_sum import WeightedSum
from ..models.protocols import Backend
from ..settings.attacks import pictures_of
from ..settings.events import Step
from ..settings.groups import AttackConfig, setting
from ..training.latent_dataset import noisy_batches
from ..training.loop import Term, fit
from . import AttackContext, Reading, Tries, sample_tries

PLACE = "\N{OBJECT REPLACEMENT CHARACTER}"
"""Stands in a sentence where the learned vectors go."""
SEED_OFFSET = 600_000


@register("attack", "inversion")
@dataclass(frozen=True)
class Inversion:
    """Learns new word vectors from the adversary's pictures, all weights frozen: concept inversion.

    Textual inversion (2208.01618) on the model that has forgotten (2308.01508). The vectors begin
    as the anchor's.
    """

    tries: int = setting(4, "pictures of each prompt", 1, 50)
    steps: int = setting(100, "steps of learning the vectors", 1, 5000)
    vectors: int = setting(2, "word vectors in the concept's place", 1, 16)
    lr: float = setting(
        0.1, "learning rate of Adam, in spreads of the model's own word vectors", 1e-4, 10.0
    )
    batch_size: int = setting(8, "pictures per step", 1, 256)
    by_prompt: ClassVar[bool] = False
    counts: ClassVar[bool] = True
    needs_control: ClassVar[bool] = False

    def budget(self, held: AttackConfig) -> str:
        """See `Attack`."""
        trained = (
            f"{self.steps} steps that train {self.vectors} word vectors on {pictures_of(held)}"
        )
        return f"{trained}, the best of {self.tries} pictures"

    def __call__(
        self,
        backend: Backend,
        context: AttackContext,
        should_stop: Callable[[], bool] = lambda: False,
    ) -> Generator[Step, None, Tries]:
        """See `Attack`."""
        table, first = backend.word_vectors().float(), 1000 * context.seed + SEED_OFFSET
        concept, data = context.concept, context.data
        anchor = backend.token_ids(concept.anchor)[1:-1]
        vectors = table[[anchor[row % len(anchor)] for row in range(self.vectors)]]
        vectors += (
            0.1 * table.std() * torch.randn(vectors.shape, generator=generator(first)).to(vectors)
        )
        vectors.requires_grad_()
        ids = self._ids(backend, concept, data.prompts)
        rows = replace(data, cond=ids, anchor=ids)
        terms = {
            "invert": Term(
                Reading(lambda: vectors), noisy_batches(backend, rows, self.batch_size, first + 1)
            )
        }
        lr = self.lr * table.std().item()
        yield from fit(
            backend,
            {"vectors": vectors},
            terms,
            WeightedSum(),
            stage="attack",
            steps=self.steps,
            lr=lr,
        )
        prompts = [prompt.text for prompt in context.prompts]
        asked = [
            (row, turn, f"[V]: {text}")
            for turn in range(self.tries)
            for row, text in enumerate(prompts)
        ]
        with torch.no_grad():
            states = backend.encode_ids(self._ids(backend, concept, prompts), vectors).repeat(
                self.tries, 1, 1
            )
        return sample_tries(backend, asked, states, context, should_stop)

    def _ids(self, backend: Backend, concept: Concept, prompts: Sequence[str]) -> Tensor:
        """Ids (N, L) of the prompts with the learned vectors in the concept's place."""
        new = list(range(len(backend.word_vectors()), len(backend.word_vectors()) + self.vectors))
        rows = []
        for prompt in prompts:
            before, _, after = named(concept, prompt, PLACE).partition(PLACE)
            rows.append(
                backend.padded(
                    [*backend.token_ids(before)[1:-1], *new, *backend.token_ids(after)[1:-1]]
                )
            )
        return torch.tensor(rows, device=backend.device)
