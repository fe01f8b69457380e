"""Prompt search: words before the prompt, found by gradient, that bring the concept back."""

from collections.abc import Generator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import cosine_similarity, one_hot

from ..common.errors import diverging, lower
from ..common.registry import register
from ..common.seeds import stream_seed
from ..concepts.concept import Concept
from ..methods.regularizers import Regularizer
from ..models.protocols import Model, Params, TokenAccess, token_access
from ..settings.cost import GRADIENT
from ..settings.events import Step
from ..settings.groups import AttackConfig, setting
from . import Attack, AttackContext, TokenLoss, Tries, asked_in, sample_tries, teach, with_ids


@register("attack", "prompt_search")
@dataclass(frozen=True)
class PromptSearch(Attack):
    """Searches, by gradient, for words that bring the concept back when they stand before the
    prompt.

    UnlearnDiffAtk (2310.11868): a word is a point on the simplex over the vocabulary, read as its
    largest entry with a straight-through gradient, and projected back onto the simplex after each
    step of Adam. Deviations: one search for all prompts instead of one each, in fewer and ten times
    longer steps, and a vocabulary cut to the words nearest to the adversary's captions.
    """

    tries: int = setting(4, "pictures of each prompt", 1, 50)
    steps: int = setting(200, "steps of the search", 1, 5000)
    words: int = setting(3, "words before the prompt", 1, 16)
    candidates: int = setting(100, "words to choose among", 2, 50000)
    lr: float = setting(0.1, "learning rate of Adam", 1e-4, 1.0)
    batch_size: int = setting(8, "pictures per step", 1, 256)
    by_prompt = True

    def budget(self, held: AttackConfig) -> str:
        return (
            f"{self.steps} steps that search for {self.words} words with {held.pictures} pictures,"
            f" the best of {self.tries} pictures"
        )

    def forwards(self, held: AttackConfig, prompts: int, picture: int) -> int:
        trained = self.steps * self.batch_size * GRADIENT
        return super().forwards(held, prompts, picture) + trained

    def __call__(self, model: Model, context: AttackContext) -> Generator[Step, None, Tries]:
        tokens, data = token_access(model, "Prompt search"), context.data
        table = tokens.word_vectors()
        candidates = _candidates(tokens, context.concept, data.prompts, self.candidates)
        size = (self.words, len(candidates))
        simplex = torch.full(size, 1 / len(candidates), device=table.device, requires_grad=True)
        searched = range(len(table), len(table) + self.words)
        ids = [tokens.padded([*searched, *tokens.token_ids(p)[1:-1]]) for p in data.prompts]
        with diverging(*lower("prompt_search.lr", self.lr)):
            yield from teach(
                model,
                with_ids(data, torch.tensor(ids, device=tokens.device)),
                "search",
                TokenLoss(lambda: _read(simplex, table[candidates])),
                {"simplex": simplex},
                batch_size=self.batch_size,
                seed=stream_seed("prompt search batches", context.seed),
                steps=self.steps,
                lr=self.lr,
                decay=0.1,
                regularizers=(OnSimplex(),),
            )
        found = candidates[simplex.detach().argmax(1)].tolist()
        asked = asked_in(context, range(self.tries), f"{tokens.words(found)} ")
        return sample_tries(model, asked, context)


class OnSimplex(Regularizer):
    """Keeps every row of every tensor on the probability simplex, by the nearest point of it."""

    @torch.no_grad()
    def project_(self, params: Params) -> None:
        """Euclidean projection by sorting (Duchi et al., 2008)."""
        for tensor in params.values():
            ordered = tensor.sort(dim=1, descending=True).values
            rank = torch.arange(1, tensor.shape[1] + 1, device=tensor.device)
            surplus = (ordered.cumsum(1) - 1) / rank
            last = (ordered > surplus).sum(1, keepdim=True) - 1
            tensor.copy_((tensor - surplus.gather(1, last)).clamp_min(0))


def _candidates(
    tokens: TokenAccess, concept: Concept, captions: Sequence[str], count: int
) -> Tensor:
    """Ids of the words nearest to what the adversary's captions say on average.

    Only words that can be typed count, and not the concept's own, which are in every prompt
    already.
    """
    own, table = set(tokens.token_ids(concept.name)), tokens.word_vectors()
    ids = torch.tensor(
        [word for word in tokens.roundtrip_token_ids.tolist() if word not in own],
        device=tokens.device,
    )
    said = sorted({word for caption in captions for word in tokens.token_ids(caption)[1:-1]})
    near = cosine_similarity(table[ids], table[said].mean(0, keepdim=True))
    return ids[near.topk(min(count, len(ids))).indices]


def _read(simplex: Tensor, table: Tensor) -> Tensor:
    """The word vectors (words, E) of the largest entries of `simplex`, with the gradient of all
    entries.
    """
    hard = one_hot(simplex.argmax(1), simplex.shape[1]).to(simplex)
    return (hard + simplex - simplex.detach()) @ table.to(simplex)
