"""From settings to what holds an update back: which rows may move, which sentences are kept, what a
change costs.
"""

import itertools
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from ..common.errors import ConfigError
from ..concepts.concept import Concept, evenly_spaced
from ..methods.closed_form.tokens import EDITED_PROMPTS, edited_tokens
from ..methods.objectives.diffusion import Diffusion
from ..methods.regularizers import Regularizer
from ..methods.regularizers.gradient_clipping import Clip
from ..methods.regularizers.l1 import L1
from ..methods.regularizers.l2 import L2
from ..methods.regularizers.row_mask import RowMask, best_rows
from ..methods.regularizers.subspace_projection import SubspaceProjection, residual_energy, span_of
from ..models.protocols import Backend, NoisyBatch
from ..settings.run_config import RunConfig
from .loop import Term

ERASED_PROMPTS = 4
"""Sentences of each concept erased before whose tokens a projection keeps."""
IMPORTANCE_BATCHES = 4
LEFT = 0.05
"""The least share of a concept's text states that a projection must leave."""


def build_regularizers(
    backend: Backend,
    concept: Concept,
    terms: dict[str, Term],
    config: RunConfig,
    erased: Sequence[Concept] = (),
) -> list[Regularizer]:
    """What holds the update in the `unlearn` slot back; a method's own mask comes first, clipping
    last.

    Raises:
        ConfigError: the projection leaves nothing to learn from.
    """
    settings, found = config.regularize, []
    forget = terms.get("forget")
    if forget and (share := getattr(forget.objective, "salient", 1.0)) < 1:
        found.append(salient_rows(backend, forget.batches, share))
    if forget and settings.select < 1:
        found.append(important_rows(backend, forget, settings.select))
    if settings.project != "none":
        basis = protected_span(backend, concept, erased, settings.energy)
        found.append(
            SubspaceProjection(
                basis, tuple(backend.cross_weights()), settings.project == "gradients"
            )
        )
    scale = config.unlearn.alpha / config.unlearn.rank
    found += [
        norm(weight, scale) for norm, weight in ((L1, settings.l1), (L2, settings.l2)) if weight
    ]
    return [*found, Clip(settings.clip)] if settings.clip else found


def protected_span(
    backend: Backend, concept: Concept, erased: Sequence[Concept], energy: float
) -> Tensor:
    """A basis (D, k) of the text states of retain prompts, of the empty one and of what was erased
    before.

    2511.07970 takes one mean vector of a prompt's tokens. Ours are all its tokens and the mean of
    its padding, which the model reads too and which has seen the sentence, and of these the leading
    directions, since a few hundred would span everything: what is protected keeps its keys and
    values up to the energy that is left out. Padding by padding would leave next to nothing of the
    concept, whose own padding is close to that of its relatives.

    Raises:
        ConfigError: less than a twentieth of the concept's own states is left outside.
    """
    kept = [
        *evenly_spaced(concept.near.train, EDITED_PROMPTS),
        *evenly_spaced(concept.far.train, EDITED_PROMPTS),
    ]
    kept += [
        prompt for other in erased for prompt in evenly_spaced(other.forget.train, ERASED_PROMPTS)
    ]
    states = read_states(backend, [prompt.text for prompt in kept])
    basis = span_of(torch.cat([states, backend.encode_text([""]).states[0].float()]), energy)
    left = _left(backend, concept, basis)
    if left < LEFT:
        sentence = (
            f"The projection leaves {left:.1%} of “{concept.name}” to learn from and {LEFT:.0%} is"
            " needed"
        )
        raise ConfigError(
            f"{sentence}; regularize.energy below {energy:g} is accepted.", "regularize.energy"
        )
    return basis


def read_states(backend: Backend, texts: Sequence[str]) -> Tensor:
    """The states (N, D) of all tokens of some sentences, and the mean of each one's padding."""
    found = []
    for text, states in zip(texts, backend.encode_text(texts).states.float(), strict=True):
        own = len(backend.token_ids(text))
        found += (
            [states[:own]]
            if own >= len(states)
            else [states[:own], states[own:].mean(0, keepdim=True)]
        )
    return torch.cat(found)


def span_note(backend: Backend, concept: Concept, erased: Sequence[Concept], energy: float) -> str:
    """How much a projection left of the concept, and how many directions it held, in a sentence."""
    basis = protected_span(backend, concept, erased, energy)
    size, held = basis.shape
    left = _left(backend, concept, basis)
    return (
        f"The projection held {held} of {size} directions and left {left:.1%} of the concept's text"
        " states."
    )


def _left(backend: Backend, concept: Concept, basis: Tensor) -> float:
    return residual_energy(basis, edited_tokens(backend, concept)[0]).mean().item()


def salient_rows(backend: Backend, batches: Iterator[NoisyBatch], share: float) -> RowMask:
    """The `share` of output units with the largest forget gradient per weight, over all layers
    together.

    SalUn (2310.12508, equation 4) with the diffusion loss of the concept's pictures, scored on the
    dense weights of the original model.
    """
    found = _dense_gradients(backend, Term(Diffusion(), batches), 1)
    return best_rows(
        {n: g.flatten(1).square().mean(1).sqrt() for n, (_, g) in found.items()}, share
    )


def important_rows(backend: Backend, forget: Term, share: float) -> RowMask:
    """The `share` of output units with the largest |W dL/dW| per weight, over all layers together.

    Selective fine-tuning as 2511.07970 uses it, a first-order Taylor score of the forget loss with
    gradients summed over batches. Deviations: rows instead of single weights; batches of training
    pictures instead of the steps of one sampling.
    """
    found = _dense_gradients(backend, forget, IMPORTANCE_BATCHES)
    return best_rows({n: (w * g).abs().flatten(1).mean(1) for n, (w, g) in found.items()}, share)


def _dense_gradients(backend: Backend, term: Term, count: int) -> dict[str, tuple[Tensor, Tensor]]:
    """Dense weights under the `unlearn` slot with the sum of their gradients, by the name of the B
    factor.
    """
    with backend.active(), backend.base_weight_grads("unlearn") as weights:
        total = [torch.zeros_like(weight) for weight in weights.values()]
        for batch in itertools.islice(term.batches, count):
            gradients = torch.autograd.grad(term.objective(backend, batch), list(weights.values()))
            total = [before + gradient for before, gradient in zip(total, gradients, strict=True)]
        return {n: (w.detach(), g) for (n, w), g in zip(weights.items(), total, strict=True)}
