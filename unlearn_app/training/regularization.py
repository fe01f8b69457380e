"""From settings to the regularizers of a run."""

from collections.abc import Iterator, Mapping, Sequence

from ..concepts.concept import Concept
from ..methods.closed_form.tokens import edited_tokens
from ..methods.objectives.diffusion import Diffusion
from ..methods.regularizers import RegularizedRun, Regularizer
from ..methods.regularizers.row_mask import RowMask, best_rows, dense_gradients
from ..models.lora import Updates
from ..models.protocols import Model, NoisyBatch
from ..settings.run_config import RunConfig
from .loop import Term


def build_regularizers(
    model: Model,
    concept: Concept,
    terms: Mapping[str, Term],
    config: RunConfig,
    erased: Sequence[Concept] = (),
) -> list[Regularizer]:
    """The regularizers of the update in the `unlearn` slot; the objective's own mask comes first.

    Raises:
        ConfigError: the projection leaves nothing to learn from.
    """
    forget = terms.get("forget")
    run = _run(model, concept, config, erased, forget)
    share = getattr(forget.objective, "salient", 1.0) if forget else 1.0
    own = [salient_rows(model, forget.batches, share)] if share < 1 else []
    built = [part.build(run) for part in config.regularize.parts()]
    return [*own, *(part for part in built if part is not None)]


def regularization_notes(
    model: Model, concept: Concept, config: RunConfig, erased: Sequence[Concept]
) -> tuple[str, ...]:
    """What the regularizers of a run say about it afterwards, a sentence each."""
    run = _run(model, concept, config, erased)
    return tuple(text for part in config.regularize.parts() if (text := part.note(run)))


def restrict_merged(updates: Updates, model: Model, concept: Concept, config: RunConfig) -> Updates:
    """Merged dense updates, restricted as the regularizers of a run restrict its own."""
    run = _run(model, concept, config)
    for part in config.regularize.parts():
        updates = part.restrict_merged(updates, run)
    return updates


def salient_rows(model: Model, batches: Iterator[NoisyBatch], share: float) -> RowMask:
    """The `share` of output units with the largest forget gradient per weight, over all layers
    together.

    SalUn (2310.12508, equation 4) with the diffusion loss of the concept's pictures, scored on the
    dense weights of the original model.
    """
    found = dense_gradients(model, Diffusion(), batches, 1)
    return best_rows(
        {n: g.flatten(1).square().mean(1).sqrt() for n, (_, g) in found.items()}, share
    )


def _run(
    model: Model,
    concept: Concept,
    config: RunConfig,
    erased: Sequence[Concept] = (),
    forget: Term | None = None,
) -> RegularizedRun:
    return RegularizedRun(
        model,
        concept,
        lambda: edited_tokens(model, concept)[0],
        erased,
        scale=config.unlearn.alpha / config.unlearn.rank,
        loss=forget.objective if forget else None,
        batches=forget.batches if forget else iter(()),
    )
