"""What is looked at after every request: the same prompts and seeds, painted and judged."""

import itertools
from collections.abc import Callable, Generator, Mapping, Sequence

import torch
from PIL.Image import Image
from torch import Tensor

from ..common.images import to_pil
from ..concepts.catalog import known_concepts, preview_concept
from ..concepts.concept import Prompt, also_named, evenly_spaced
from ..evaluation.comparison import generate_images, judged
from ..evaluation.judges import Scorer
from ..models.protocols import Backend
from ..settings.events import Painted
from ..settings.run_config import RunConfig, with_concept
from .ledger import ConceptScore, Ledger

PANEL_SEEDS = {"test": 2_000_000, "dev": 3_000_000}
"""The panel's pictures have seeds of their own, the same after every request."""
Asked = Mapping[str, Sequence[tuple[Prompt, int]]]
"""Prompts with their seeds by concept; the first picture of each concept is kept."""


def whole_panel(ledger: Ledger, names: Sequence[str] = ()) -> Asked:
    """The panel of a ledger, or what it asks of `names`: picture i of concept j has the same seed
    ever after.
    """
    count, first = ledger.plan.pictures, PANEL_SEEDS["test"] + 1000 * ledger.config.seed
    asked = {}
    for name in names or ledger.names:
        prompts = evenly_spaced(
            preview_concept(with_concept(ledger.config, name)).forget.test, count
        )
        seed = first + count * ledger.names.index(name)
        asked[name] = tuple((prompt, seed + row) for row, prompt in enumerate(prompts))
    return asked


def tested(
    config: RunConfig,
    asked: Asked,
    backend: Backend,
    scorer: Scorer | None,
    slots: Sequence[str],
    should_stop: Callable[[], bool] = lambda: False,
) -> Generator[Painted, None, tuple[dict[str, ConceptScore], dict[str, Image]]]:
    """What the model shows of everything that is asked, and one picture of each concept; told as it
    is painted.

    Every concept is painted by itself, because rounding depends on what else is in a batch, and the
    panel may grow.
    """
    prompts = [prompt for own in asked.values() for prompt, _ in own]
    painted: list[Tensor] = []
    for own in asked.values():
        with backend.active(*slots):
            painted.append(
                generate_images(backend, *zip(*own, strict=True), config.compare, should_stop)
            )
        yield Painted(len(painted), len(asked))
    images = torch.cat(painted)
    others = other_kind(config, prompts)
    seen = zip(
        to_pil(images),
        prompts,
        judged(images, prompts, scorer),
        others,
        _beside(images, others, scorer),
        strict=True,
    )
    panel, pictures, rows = {}, {}, iter(seen)
    for name, own in asked.items():
        shown, mine, verdicts, named, beside = zip(*itertools.islice(rows, len(own)), strict=True)
        pictures[name] = shown[0]
        alignment = (
            None if scorer is None else sum(said["alignment"] for said in verdicts) / len(own)
        )
        words = tuple(other.expects if other else "" for other in named)
        panel[name] = ConceptScore(
            mine[0].axis, tuple(said["correct"] for said in verdicts), alignment, beside, words
        )
    return panel, pictures


def other_kind(config: RunConfig, prompts: Sequence[Prompt]) -> list[Prompt | None]:
    """Each prompt asked about the concept of the other kind that it names; None where it names
    none.
    """
    known = [entry for entry in known_concepts(config.model) if not entry.fresh]
    return [also_named(prompt, known) for prompt in prompts]


def _beside(
    images: Tensor, others: Sequence[Prompt | None], scorer: Scorer | None
) -> list[bool | None]:
    """Whether each picture shows what its prompt of `others` asks for; None without one or a
    judge.
    """
    rows = [row for row, other in enumerate(others) if other]
    found: list[bool | None] = [None] * len(others)
    if rows:
        verdicts = judged(images[rows], [others[row] for row in rows], scorer)
        for row, said in zip(rows, verdicts, strict=True):
            found[row] = said["correct"]
    return found
