"""L2: a price on the square of every change of a weight."""

from dataclasses import dataclass, field, replace

from torch import Tensor

from ...common.registry import register
from ...models.lora import scaled, squared_norm, sum_factors
from ...models.protocols import Params
from ...settings.groups import setting
from . import RegularizedRun, Regularizer, check_factored


@register("regularizer", "l2")
@dataclass(frozen=True)
class L2(Regularizer):
    """Keeps the update small: `l2` times the sum of dW squared over its entries.

    The update norm of 2511.07970 with power 2; reference and deviations as of `L1`. The sum is
    computed from matrices of the rank's size.
    """

    l2: float = setting(0.0, "price of every change of a weight, squared", 0.0, 1e6)
    scale: float = 1.0
    reference: Params = field(default_factory=dict)

    def check(self, modules: str, weights: str) -> None:
        if self.l2:
            check_factored("regularize.l2", weights)

    def build(self, run: RegularizedRun) -> "L2 | None":
        return replace(self, scale=run.scale, reference=run.reference) if self.l2 else None

    def penalty(self, params: Params) -> Tensor:
        factors = sum_factors(scaled(params, self.scale), self.reference).values()
        return self.l2 * sum(map(squared_norm, factors))
