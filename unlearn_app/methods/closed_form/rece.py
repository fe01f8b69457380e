"""Reliable and Efficient Concept Erasure."""

from dataclasses import dataclass

import torch
from torch import Tensor

from ...common.registry import register
from ...models.lora import Factors, join_factors, product
from ...settings.groups import setting
from .uce import UCE


@register("closed_form", "rece")
@dataclass(frozen=True)
class RECE(UCE):
    """Repeats UCE on the embeddings that would revive the concept, each found in closed form.

    Gong et al., 2407.12383: after a UCE edit (their equation 3) every epoch derives the embedding
    c' that makes the edited matrices answer as the original ones did to c, and edits the already
    edited matrices again so that c' maps to the anchor. As in the official code the anchor's
    targets, the retain targets and the ridge of an epoch are those of the edited matrices.
    Deviations: those of UCE; the first edit is ours, on the same tokens and weights (the official
    code starts from a UCE checkpoint of other tokens and weights); only the regularisation of c' to
    zero is offered, the one of the paper; no epoch is chosen by an evaluation, the last one is
    returned.
    """

    preserve_weight: float = setting(4.0, "weight of keeping the retain prompts", 0.0, 100.0)
    epochs: int = setting(2, "searches for a reviving embedding", 0, 10)
    search_ridge: float = setting(
        0.1, "weight of small reviving embeddings in the search", 1e-6, 100.0
    )

    @torch.no_grad()
    def __call__(
        self, weights: dict[str, Tensor], forget: Tensor, anchor: Tensor, retain: Tensor
    ) -> dict[str, Factors]:
        """Factors of rank (1 + epochs) N relative to `weights`.

        Raises:
            ValueError: `forget` and `anchor` differ in shape.
            torch.linalg.LinAlgError: a ridge is 0 and its matrix is singular.
        """
        factors = super().__call__(weights, forget, anchor, retain)
        for _ in range(self.epochs):
            edited = {name: w.double() + product(factors[name]) for name, w in weights.items()}
            reviving = reviving_tokens(weights, edited, forget, self.search_ridge)
            again = super().__call__(edited, reviving, anchor, retain)
            factors = {name: join_factors([own, again[name]]) for name, own in factors.items()}
        return factors


def reviving_tokens(
    original: dict[str, Tensor], edited: dict[str, Tensor], tokens: Tensor, ridge: float
) -> Tensor:
    """Tokens (N, D), float64, to which the edited matrices answer most nearly as the original ones
    to `tokens`.

    2407.12383, the minimiser c' of sum_l |W'_l c' - W_l c|^2 + ridge |c'|^2, which is
    (sum_l W'_l^T W'_l + ridge I)^-1 (sum_l W'_l^T W_l) c.

    Raises:
        torch.linalg.LinAlgError: `ridge` is 0 and the edited matrices share a direction they
        ignore.
    """
    tokens = tokens.double()
    pairs = [(edited[name].double(), weight.double()) for name, weight in original.items()]
    identity = torch.eye(tokens.shape[1], dtype=tokens.dtype, device=tokens.device)
    gram = sum((new.T @ new for new, _ in pairs), ridge * identity)
    cross = sum(new.T @ old for new, old in pairs)
    return torch.linalg.solve(gram, cross @ tokens.T).T
