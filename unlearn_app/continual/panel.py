"""The panel: the same prompts and seeds, generated and judged after every request."""

import itertools
from collections.abc import Generator, Sequence

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
    judge the pictures of `prompts`; those of the concepts `first` come before the others.

    Returns the score and the first picture of each concept. Every concept is a batch of its own:
    rounding depends on the batch, and the panel may grow.
    """
    model.drop_adapters()
    if state:
        model.load_adapter("unlearn", state)
    panel: dict[str, ConceptScore] = {}
    pictures: dict[str, Image] = {}
    order = [name for name in dict.fromkeys([*first, *prompts]) if name in prompts]
    for name in order:
        asked, seeds = zip(*prompts[name], strict=True)
        with model.active(*(["unlearn"] if state else [])):
            images = generate_images(model, asked, seeds, config.compare, should_stop)
        panel[name] = _scored(config, images, asked, scorer)
        (pictures[name],) = to_pil(images[:1])
        right = panel[name].right
        yield PanelProgress(len(panel), len(prompts), name, right, pictures[name])
    return {name: panel[name] for name in prompts}, {name: pictures[name] for name in prompts}


def _scored(
    config: RunConfig, images: Tensor, asked: Sequence[Prompt], scorer: Scorer | None
) -> ConceptScore:
    """The score of one concept of the panel."""
    verdicts = judged(images, asked, scorer)
    others = other_kind(config, asked)
    alignments = [said["alignment"] for said in verdicts]
    return ConceptScore(
        kind=asked[0].axis,
        right=tuple(said["correct"] for said in verdicts),
        alignment=None if scorer is None else sum(alignments) / len(alignments),
        other_kind_right=tuple(_right(images, others, scorer)),
        named=tuple(other.expects if other else "" for other in others),
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
