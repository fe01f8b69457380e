"""The panel: the same prompts and seeds, generated and judged after every request."""

import itertools
from collections.abc import Generator, Iterator, Sequence

from PIL.Image import Image
from torch import Tensor

from ..common.errors import ShouldStop, never
from ..common.images import to_pil
from ..concepts.catalog import known_concepts, preview_concept
from ..concepts.concept import Prompt, also_named, evenly_spaced
from ..evaluation.comparison import generate_images, judged
from ..evaluation.judges import Scorer
from ..models.protocols import Model, Params
from ..settings.events import PanelProgress
from ..settings.run_config import RunConfig, with_concept
from .ledger import ConceptScore, Ledger, PanelPrompts

PANEL_SEEDS = {"test": 2_000_000, "dev": 3_000_000}
"""The first seeds of the panel's pictures by split, far above those of a run with a small seed."""
BATCH = 16
"""How many pictures are generated together."""


def panel_prompts(ledger: Ledger, names: Sequence[str] = ()) -> PanelPrompts:
    """The prompts of `names`, by default of the whole panel, as the ledger holds them; a picture
    has the same seed after every request.
    """
    count = ledger.plan.pictures
    first = PANEL_SEEDS["test"] + 1000 * ledger.config.seed
    prompts = {}
    for name in names or ledger.names:
        if name in ledger.prompts:
            prompts[name] = ledger.prompts[name]
            continue
        concept = preview_concept(with_concept(ledger.config, name))
        seeds = itertools.count(first + count * ledger.names.index(name))
        prompts[name] = tuple(zip(evenly_spaced(concept.forget.test, count), seeds, strict=False))
    return prompts


def evaluate_panel(
    config: RunConfig,
    prompts: PanelPrompts,
    model: Model,
    scorer: Scorer | None,
    state: Params,
    should_stop: ShouldStop = never,
    first: Sequence[str] = (),
) -> Generator[PanelProgress, None, tuple[dict[str, ConceptScore], dict[str, Image]]]:
    """Make the adapter `state` the only one of the model, none if it is empty, and generate and
    judge the pictures of `prompts`; batches with any of the concepts `first` come before the
    others, and these before the rest of their batch.

    Returns the score and the first picture of each concept.
    """
    model.drop_adapters()
    if state:
        model.load_adapter("unlearn", state)
    panel: dict[str, ConceptScore] = {}
    pictures: dict[str, Image] = {}
    wanted = {name: place for place, name in enumerate(dict.fromkeys(first))}

    def turn(name: str) -> int:
        return wanted.get(name, len(wanted))

    for names in sorted(_batches(config, prompts), key=lambda names: min(map(turn, names))):
        asked, seeds = zip(*(row for name in names for row in prompts[name]), strict=True)
        with model.active(*(["unlearn"] if state else [])):
            images = generate_images(model, asked, seeds, config.compare, should_stop)
        counts = [len(prompts[name]) for name in names]
        scores = dict(zip(names, _scored(config, images, asked, counts, scorer), strict=True))
        parts = dict(zip(names, images.split(counts), strict=True))
        for name in sorted(names, key=turn):
            panel[name] = scores[name]
            (pictures[name],) = to_pil(parts[name][:1])
            yield PanelProgress(len(panel), len(prompts), name, panel[name].right, pictures[name])
    return {name: panel[name] for name in prompts}, {name: pictures[name] for name in prompts}


def _batches(config: RunConfig, prompts: PanelPrompts) -> list[tuple[str, ...]]:
    """The concepts of a panel whose pictures are generated together.

    Rounding depends on what a picture is batched with, so a concept keeps its batch when the panel
    grows: the model's known concepts, all of which a panel holds from the beginning, share full
    batches, and every other one has its own.
    """
    known = {entry.name for entry in known_concepts(config.model)}
    shared = [name for name in prompts if name in known]
    size = max(BATCH // max(map(len, prompts.values())), 1)
    whole = len(shared) // size * size
    batches = [tuple(shared[start : start + size]) for start in range(0, whole, size)]
    return batches + [(name,) for name in prompts if name not in shared[:whole]]


def _scored(
    config: RunConfig,
    images: Tensor,
    asked: Sequence[Prompt],
    counts: Sequence[int],
    scorer: Scorer | None,
) -> Iterator[ConceptScore]:
    """The scores of the concepts of a batch, which have `counts` pictures, one after the other."""
    verdicts, others = judged(images, asked, scorer), other_kind(config, asked)
    rows = zip(asked, verdicts, others, _right(images, others, scorer), strict=True)
    for count in counts:
        own = list(itertools.islice(rows, count))
        alignments = [said["alignment"] for _, said, _, _ in own]
        yield ConceptScore(
            kind=own[0][0].axis,
            right=tuple(said["correct"] for _, said, _, _ in own),
            alignment=None if scorer is None else sum(alignments) / len(alignments),
            other_kind_right=tuple(right for *_, right in own),
            named=tuple(other.expects if other else "" for _, _, other, _ in own),
        )


def other_kind(config: RunConfig, prompts: Sequence[Prompt]) -> list[Prompt | None]:
    """For each prompt the concept of the other kind that it names, as a prompt that expects it, or
    None.
    """
    known = [entry for entry in known_concepts(config.model) if not entry.fresh]
    return [also_named(prompt, known) for prompt in prompts]


def _right(
    images: Tensor, prompts: Sequence[Prompt | None], scorer: Scorer | None
) -> list[bool | None]:
    """Whether each picture shows what its prompt expects; None without a prompt or a judge."""
    rows = [row for row, prompt in enumerate(prompts) if prompt]
    if not rows:
        return [None] * len(prompts)
    verdicts = iter(judged(images[rows], [prompts[row] for row in rows], scorer))
    return [next(verdicts)["correct"] if prompt else None for prompt in prompts]
