"""Ring-A-Bell: prompts that mean the concept to the text encoder alone, found without the model
under attack.
"""

import time
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ..common.registry import register
from ..common.seeds import generator, stream_seed
from ..concepts.concept import Concept, named
from ..models.protocols import Model, TokenAccess, token_access
from ..settings.cost import TEXTS
from ..settings.events import Step
from ..settings.groups import AttackConfig, setting
from . import Attack, AttackContext, Tries, sample_tries

PAIRS = 30


@register("attack", "ring_a_bell")
@dataclass(frozen=True)
class RingABell(Attack):
    """Evolves prompts whose text states hold the concept, with the text encoder alone.

    2310.10012: the concept is the mean difference of the states of sentences with it and without
    it; words are evolved until their states come near to those of the prompt without the concept
    plus `strength` times that. Deviations: smaller populations for fewer generations, both said,
    which begin as the prompt without the concept before random words, and of which every child
    changes a word.
    """

    tries: int = setting(4, "best prompts of each population, a picture each", 1, 50)
    words: int = setting(16, "words of a prompt, or as many as the text encoder reads", 1, 75)
    strength: float = setting(3.0, "how much of the concept is added", 0.1, 20.0)
    population: int = setting(64, "prompts that compete", 4, 2000)
    generations: int = setting(100, "rounds of selection, crossover and mutation", 1, 5000)
    mutation: float = setting(1.0, "share of children of which a word changes", 0.0, 1.0)
    crossover: float = setting(0.5, "share of children with two parents", 0.0, 1.0)
    by_prompt = True

    def budget(self, held: AttackConfig) -> str:
        return (
            f"{self.population} prompts evolved for {self.generations} generations per prompt,"
            f" the text encoder alone, the best {self.tries}"
        )

    def forwards(self, held: AttackConfig, prompts: int, picture: int) -> int:
        evolved = prompts * self.population * self.generations // TEXTS
        return super().forwards(held, prompts, picture) + evolved

    def __call__(self, model: Model, context: AttackContext) -> Generator[Step, None, Tries]:
        tokens = token_access(model, "Ring-A-Bell")
        concept, prompts = context.concept, context.prompts
        direction = meaning(tokens, concept)
        source, asked = generator(stream_seed("ring a bell", context.seed)), []
        for row, prompt in enumerate(prompts):
            started = time.perf_counter()
            plain = tokens.token_ids(named(concept, prompt.text, concept.anchor))[1:-1]
            target = states_of(tokens, [plain])[0] + self.strength * direction
            found, distance = self._evolved(tokens, plain, target, source)
            asked += [(row, attempt, tokens.words(ids)) for attempt, ids in enumerate(found)]
            seconds = time.perf_counter() - started
            yield Step("attack", row + 1, len(prompts), {"distance": distance}, seconds=seconds)
        return sample_tries(model, asked, context)

    def _evolved(
        self, tokens: TokenAccess, plain: list[int], target: Tensor, source: torch.Generator
    ) -> tuple[list[list[int]], float]:
        """The ids of the best `tries` prompts, best first, and the mean squared distance of the
        first.
        """
        usable = tokens.roundtrip_token_ids
        length = min(self.words, len(tokens.padded([])) - 2)

        def draw(*shape: int) -> Tensor:
            return usable[torch.randint(len(usable), shape, generator=source)]

        def distances(words: Tensor) -> Tensor:
            return (states_of(tokens, words.tolist()) - target).square().mean((1, 2)).cpu()

        words = draw(self.population, length)
        words[1:, : len(plain)] = torch.tensor(plain[:length])
        away = distances(words)
        for _ in range(self.generations):
            order = away.argsort()[: max(self.population // 2, 1)]
            words, away = words[order], away[order]
            children = self._children(words, self.population - len(words), draw, source)
            words, away = torch.cat([words, children]), torch.cat([away, distances(children)])
        order = away.argsort()[: self.tries]
        return words[order].tolist(), away[order[0]].item()

    def _children(
        self, parents: Tensor, count: int, draw: Callable[..., Tensor], source: torch.Generator
    ) -> Tensor:
        """Words up to a random place from one parent and the rest from another; then one word of
        some is redrawn.
        """
        length = parents.shape[1]
        one, other = (
            parents[torch.randint(len(parents), (count,), generator=source)] for _ in range(2)
        )
        cut = torch.randint(length + 1, (count, 1), generator=source)
        cut[torch.rand(count, generator=source) >= self.crossover] = length
        children = torch.where(torch.arange(length) < cut, one, other)
        chosen = torch.nonzero(torch.rand(count, generator=source) < self.mutation).flatten()
        places = torch.randint(length, (len(chosen),), generator=source)
        children[chosen, places] = draw(len(chosen))
        return children


def states_of(tokens: TokenAccess, rows: Sequence[Sequence[int]]) -> Tensor:
    """Text states (N, L, D) of rows of ids by the text encoder itself, which the adversary has as
    well.
    """
    ids = torch.tensor([tokens.padded(row) for row in rows])
    return tokens.encode_ids(ids).states.float()


def meaning(tokens: TokenAccess, concept: Concept) -> Tensor:
    """The concept as a direction (L, D) of text states: sentences with it less the same with its
    anchor, on average.
    """
    with_it = [prompt.text for prompt in concept.relearn[:PAIRS]]
    without = [named(concept, text, concept.anchor) for text in with_it]
    states = (
        states_of(tokens, [tokens.token_ids(text)[1:-1] for text in texts])
        for texts in (with_it, without)
    )
    return torch.sub(*states).mean(0)
