"""Unified Concept Editing."""

from dataclasses import dataclass

import torch
from torch import Tensor

from ...common.registry import register
from ...models.lora import Factors
from ...settings.groups import setting


@register("closed_form", "uce")
@dataclass(frozen=True)
class UCE:
    """Solves for the key and value matrices that read the concept's tokens as the anchor's.

    Unified Concept Editing, 2308.14761, equation 7: W' = W (e sum c*_i c_i^T + p sum c_j c_j^T +
    ridge I) Minv with Minv = (e sum c_i c_i^T + p sum c_j c_j^T + ridge I)^-1, hence W' - W = e W
    sum (c*_i - c_i) c_i^T Minv, of rank N at most. Deviations: the sums are means, so that a weight
    means the same for any number of tokens (the official code's sums are e = erase_scale N, p =
    preserve_scale M); which tokens are edited and kept is the caller's choice (the official code
    takes one token per concept); it is solved in float64 and never inverted.
    """

    erase_weight: float = setting(1.0, "weight of mapping the concept to the anchor", 0.0, 100.0)
    preserve_weight: float = setting(1.0, "weight of keeping the retain prompts", 0.0, 100.0)
    ridge: float = setting(0.1, "weight of staying near the original matrices", 1e-6, 100.0)

    rank: int = setting(
        0, "rank of the adapter, which then leaves out a share; 0 is the edit's own", 0, 1024
    )

    @torch.no_grad()
    def __call__(
        self, weights: dict[str, Tensor], forget: Tensor, anchor: Tensor, retain: Tensor
    ) -> dict[str, Factors]:
        """Factors of rank N; A is the same tensor for every layer.

        Raises:
            ValueError: `forget` and `anchor` differ in shape.
            torch.linalg.LinAlgError: `ridge` is 0 and the tokens do not span all D directions.
        """
        if forget.shape != anchor.shape:
            raise ValueError(
                "Every forget token needs its anchor token, got shapes"
                f" {tuple(forget.shape)} and {tuple(anchor.shape)}."
            )
        forget, anchor, retain = forget.double(), anchor.double(), retain.double()
        moment = self.erase_weight * second_moment(forget) + self.preserve_weight * second_moment(
            retain
        )
        moment.diagonal().add_(self.ridge)
        reads = torch.linalg.solve(moment, forget.T).T * (self.erase_weight / max(len(forget), 1))
        a = reads.float().contiguous()
        return {
            name: (a, (w.double() @ (anchor - forget).T).float()) for name, w in weights.items()
        }


def second_moment(tokens: Tensor) -> Tensor:
    """Mean of c c^T (D, D) over tokens (N, D); zero when there are none."""
    return tokens.T @ tokens / max(len(tokens), 1)
