"""From settings to the regularizers of a run."""

from collections.abc import Iterator, Sequence

from ..common import registry
from ..concepts.catalog import known_concepts
from ..concepts.concept import Concept
from ..methods.closed_form.tokens import edited_tokens
from ..methods.objectives.diffusion import Diffusion
from ..methods.regularizers import RegularizedRun, Regularizer
from ..methods.regularizers.row_mask import RowMask, best_rows, dense_gradients
from ..models.protocols import Model, NoisyBatch, Params
from ..settings.run_config import RunConfig
from .loop import Term


def build_regularizers(
    model: Model,
    concept: Concept,
    config: RunConfig,
    erased: Sequence[Concept] = (),
    merged: Params | None = None,
    forget: Term | None = None,
) -> list[Regularizer]:
    """The regularizers of an update that forgets `concept` after `erased`, in the order in which
    they are applied; the mask of the objective of `forget` comes first.

    `merged` is the update of `erased` as one adapter, which is merged into the weights; `forget` is
    the term that trains the update in the `unlearn` slot.

    Raises:
        ConfigError: the projection leaves nothing to learn from.
    """
    earlier = (merged or {}) if config.regularize.reference == "original" else {}
    run = RegularizedRun(
        model,
        concept,
        lambda: edited_tokens(model, concept)[0],
        erased,
        scale=config.unlearn.alpha / config.unlearn.rank,
        reference={name: factor.to(model.device) for name, factor in earlier.items()},
        loss=forget.objective if forget else None,
        batches=forget.batches if forget else None,
        known=known_concepts(config.model),
    )
    share = forget.objective.salient if forget else 1.0
    own = [salient_rows(model, run.batches, share)] if share < 1 else []
    parts = registry.build_all("regularizer", config.regularize)
    return [*own, *(built for part in parts if (built := part.build(run)))]


def salient_rows(model: Model, batches: Iterator[NoisyBatch], share: float) -> RowMask:
    """The `share` of output units with the largest forget gradient per weight, over all layers
    together.

    SalUn (2310.12508, equation 4) with the diffusion loss of the concept's pictures, scored on the
    dense weights of the original model.
    """
    found = dense_gradients(model, Diffusion(), batches, 1)
    return best_rows(
        {n: g.reshape(len(g), -1).square().mean(1).sqrt() for n, (_, g) in found.items()}, share
    )
