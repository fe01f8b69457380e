"""Subspace projection: text states in a span keep their keys and values."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from ...common.errors import ConfigError
from ...common.registry import register
from ...concepts.concept import Prompt, also_named, evenly_spaced
from ...models.lora import Updates, layer_factors
from ...models.protocols import Model, Params, token_access
from ...settings.groups import setting
from . import RegularizedRun, Regularizer, check_factored

RETAINED_PROMPTS = 24
"""Near prompts whose tokens are protected, and as many far ones."""
ERASED_PROMPTS = 4
"""Prompts of each concept erased before whose tokens are protected."""
ALIKE = 0.95
"""The cosine from which a vector of a concept counts as one that is protected already."""
LEFT = 0.05
"""The least share of a concept's text states that must stay outside the protected span."""


@register("regularizer", "subspace_projection")
@dataclass(frozen=True)
class SubspaceProjection(Regularizer):
    """Keeps what keys and values make of text states in a span: dW c = 0 for every c in it.

    The semantic gradient projection of 2511.07970, on the input side of LoRA: A <- A P with P = I -
    Q Q^T after each step, which is exact for any optimizer, decay and clipping. Deviations: the
    paper projects gradients only, which Adam's elementwise step undoes, and protects one vector of
    each sentence; `project` "gradients" (with an A that begins projected) and `protect` "concepts"
    do as the paper. Layers that read no text states are left alone;
    an adapter on those would still change what the model makes of c, so `check` refuses it.

    `basis` is Q (in, k) with orthonormal columns, `left` the mean share of the concept's text
    states outside its span, `layers` the names of the layers that turn text states into keys and
    values.
    """

    project: str = setting(
        "none",
        "keep what is read from other sentences: exact, or gradients only",
        choices=("none", "exact", "gradients"),
    )
    energy: float = setting(
        0.99, "share of those sentences' text states that the projection holds", 0.1, 1.0
    )
    protect: str = setting(
        "tokens",
        "what of those sentences it keeps: all tokens, or one vector of each one's concept",
        choices=("tokens", "concepts"),
        later=True,
    )
    basis: Tensor | None = None
    left: float = 1.0
    layers: tuple[str, ...] = ()

    def check(self, modules: str, weights: str) -> None:
        if self.project != "none":
            check_factored("regularize.project", weights)
        if self.project != "none" and modules != "keys_values":
            raise ConfigError(
                f"unlearn.modules is {modules}, which would void regularize.project={self.project};"
                " keys_values is accepted, or regularize.project=none.",
                "unlearn.modules",
            )

    def build(self, run: RegularizedRun) -> "SubspaceProjection | None":
        if self.project == "none":
            return None
        basis, left = protected_span(run, self.energy, self.protect)
        return replace(self, basis=basis, left=left, layers=tuple(run.model.cross_weights()))

    def note(self) -> str:
        size, held = self.basis.shape
        return (
            f"The projection held {held} of {size} directions and left {self.left:.1%} of the"
            " concept's text states."
        )

    def restrict_merged(self, updates: Updates) -> Updates:
        if self.project != "exact":
            return updates
        return {layer: self._projected(update) for layer, update in updates.items()}

    def begin_(self, params: Params) -> None:
        for a in self._inputs(params):
            a.data.copy_(self._projected(a.data))

    def modify_grads_(self, params: Params) -> None:
        if self.project == "gradients":
            for a in self._inputs(params):
                a.grad.copy_(self._projected(a.grad))

    def project_(self, params: Params) -> None:
        if self.project != "gradients":
            self.begin_(params)

    def _projected(self, rows: Tensor) -> Tensor:
        wide, basis = rows.double(), self.basis.to(rows.device, torch.float64)
        return (wide - wide @ basis @ basis.T).to(rows.dtype)

    def _inputs(self, params: Params) -> Iterable[Tensor]:
        return [a for layer, (a, _) in layer_factors(params).items() if layer in self.layers]


def protected_span(
    run: RegularizedRun, energy: float, protect: str = "tokens"
) -> tuple[Tensor, float]:
    """A basis (D, k) of the text states of retain prompts, of the empty one and of what was erased
    before, and the mean share of the concept's own text states that is left outside its span.

    2511.07970 takes one mean vector of a prompt's tokens, as `protect` "concepts" does
    (`concept_vectors`), without the empty prompt; its prompts are of both kinds, so that one more
    vector is of the known concept of the other kind that a prompt names. Ours are all its tokens
    and the mean of its padding, which the model reads too and which depends on the sentence, and
    of these the leading directions, since a few hundred would span everything: what is protected
    keeps its keys and values up to the energy that is left out. Every single padding would leave
    next to nothing of the concept, whose own padding is close to that of its relatives.

    Raises:
        ConfigError: less than a twentieth of the concept's own states is left outside.
    """
    concept = run.concept
    kept = [
        *evenly_spaced(concept.near.train, RETAINED_PROMPTS),
        *evenly_spaced(concept.far.train, RETAINED_PROMPTS),
    ]
    for other in run.erased:
        kept += evenly_spaced(other.forget.train, ERASED_PROMPTS)
    if protect == "concepts":
        others = [also_named(prompt, run.known) for prompt in kept]
        kept += [other for other in others if other and other.expects != concept.name]
        basis = span_of(unlike(concept_vectors(run.model, kept)), energy)
    else:
        states = read_states(run.model, [prompt.text for prompt in kept])
        basis = span_of(torch.cat([states, run.model.encode_text([""]).states[0].float()]), energy)
    left = residual_energy(basis, run.concept_states()).mean().item()
    if left < LEFT:
        raise ConfigError(
            f"The projection leaves {left:.1%} of “{concept.name}” to learn from and {LEFT:.0%} is"
            f" needed; regularize.energy below {energy:g} is accepted.",
            "regularize.energy",
        )
    return basis, left


def read_states(model: Model, texts: Sequence[str]) -> Tensor:
    """The states (N, D) of all tokens of some sentences, and the mean of each one's padding."""
    found, tokens = [], token_access(model, "The projection")
    for text, states in zip(texts, model.encode_text(texts).states.float(), strict=True):
        own = len(tokens.token_ids(text))
        found.append(states[:own])
        if own < len(states):
            found.append(states[own:].mean(0, keepdim=True))
    return torch.cat(found)


def concept_vectors(model: Model, prompts: Sequence[Prompt]) -> Tensor:
    """One vector (N, D) of each prompt: the mean state of the tokens that name what it expects; of
    a prompt without these words that of its last word, as the released code does.
    """
    tokens, found = token_access(model, "The projection"), []
    states = model.encode_text([prompt.text for prompt in prompts]).states.float()
    for prompt, own in zip(prompts, states, strict=True):
        ids, name = (
            list(tokens.token_ids(prompt.text)),
            list(tokens.token_ids(prompt.expects))[1:-1],
        )
        places = [at for at in range(len(ids)) if ids[at : at + len(name)] == name]
        first, size = (places[0], len(name)) if places else (len(ids) - 2, 1)
        found.append(own[first : first + size].mean(0))
    return torch.stack(found)


def unlike(vectors: Tensor) -> Tensor:
    """The vectors (N, in) of which none has a cosine of `ALIKE` or more to one before it."""
    kept: list[Tensor] = []
    for vector in vectors:
        if all(torch.cosine_similarity(vector, own, 0) < ALIKE for own in kept):
            kept.append(vector)
    return torch.stack(kept)


def span_of(vectors: Tensor, energy: float = 1.0) -> Tensor:
    """An orthonormal basis (in, k), float64, of the leading directions of `vectors` (N, in).

    The fewest that hold the share `energy` of the sum of squares; at 1 all whose singular value is
    not rounding error.
    """
    _, values, right = torch.linalg.svd(vectors.double(), full_matrices=False)
    squares = values.square()
    real = values > 1e-6 * values[:1]
    before = torch.cat([squares.new_zeros(1), squares.cumsum(0)[:-1]]) / squares.sum().clamp(
        min=1e-300
    )
    return right[real & ((before < energy) | (energy >= 1))].T.contiguous()


def residual_energy(basis: Tensor, vectors: Tensor) -> Tensor:
    """The share (N,) of the squared length of `vectors` (N, in) outside the span of `basis` (in,
    k).
    """
    wide = vectors.double()
    return 1 - (wide @ basis.to(wide)).square().sum(1) / wide.square().sum(1)
