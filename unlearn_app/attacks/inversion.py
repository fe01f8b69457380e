"""Concept inversion: new word embeddings, learned so that the model generates the concept for
them.
"""

from collections.abc import Generator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ..common.errors import diverging, lower
from ..common.registry import register
from ..common.seeds import generator, stream_seed
from ..concepts.concept import Concept, cycled, named
from ..models.protocols import Model, TokenAccess, token_access
from ..settings.attacks import pictures_of
from ..settings.cost import GRADIENT
from ..settings.events import Step
from ..settings.groups import AttackConfig, setting
from . import Attack, AttackContext, TokenLoss, Tries, asked_in, sample_tries, teach, with_ids

PLACE = "\N{OBJECT REPLACEMENT CHARACTER}"
"""Stands in a sentence where the learned vectors go."""


@register("attack", "inversion")
@dataclass(frozen=True)
class Inversion(Attack):
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

    def budget(self, held: AttackConfig) -> str:
        return (
            f"{self.steps} steps that train {self.vectors} word vectors on {pictures_of(held)},"
            f" the best of {self.tries} pictures"
        )

    def forwards(self, held: AttackConfig, prompts: int, picture: int) -> int:
        trained = self.steps * self.batch_size * GRADIENT
        return super().forwards(held, prompts, picture) + trained

    def __call__(self, model: Model, context: AttackContext) -> Generator[Step, None, Tries]:
        tokens = token_access(model, "Concept inversion")
        table = tokens.word_vectors().float()
        concept, data = context.concept, context.data
        anchor = tokens.token_ids(concept.anchor)[1:-1]
        vectors = table[list(cycled(anchor, self.vectors))]
        source = generator(stream_seed("inversion", context.seed))
        vectors += 0.1 * table.std() * torch.randn(vectors.shape, generator=source).to(vectors)
        vectors.requires_grad_()
        ids = self._ids(tokens, concept, [prompt.text for prompt in context.prompts])
        with diverging(*lower("inversion.lr", self.lr)):
            yield from teach(
                model,
                with_ids(data, self._ids(tokens, concept, data.prompts)),
                "invert",
                TokenLoss(lambda: vectors),
                {"vectors": vectors},
                batch_size=self.batch_size,
                seed=stream_seed("inversion batches", context.seed),
                steps=self.steps,
                lr=self.lr * table.std().item(),
            )
            with torch.no_grad():
                cond = tokens.encode_ids(ids, vectors).repeat(self.tries)
            return sample_tries(model, asked_in(context, range(self.tries), "[V]: "), context, cond)

    def _ids(self, tokens: TokenAccess, concept: Concept, prompts: Sequence[str]) -> Tensor:
        """Ids (N, L) of the prompts with the learned vectors in the concept's place."""
        known = len(tokens.word_vectors())
        new, rows = range(known, known + self.vectors), []
        for prompt in prompts:
            before, _, after = named(concept, prompt, PLACE).partition(PLACE)
            ids = [*tokens.token_ids(before)[1:-1], *new, *tokens.token_ids(after)[1:-1]]
            rows.append(tokens.padded(ids))
        return torch.tensor(rows, device=tokens.device)
