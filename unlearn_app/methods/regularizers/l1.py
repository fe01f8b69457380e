"""L1: a price on the absolute value of every change of a weight."""

from dataclasses import dataclass, field, replace

from torch import Tensor

from ...common.registry import register
from ...models.lora import scaled, sum_factors, update_of
from ...models.protocols import Params
from ...settings.groups import setting
from . import RegularizedRun, Regularizer, check_factored


@register("regularizer", "l1")
@dataclass(frozen=True)
class L1(Regularizer):
    """Keeps the update small: `l1` times the sum of |dW| over its entries.

    The update norm of 2511.07970 with power 1. The updates in `reference` count as part of dW:
    without any it is the distance to the previous request, as in the paper; with all earlier ones
    it is the distance to the original. Deviations: the norm is of the dense product, since
    a norm of the factors would be another penalty (it depends on how the product is split); the sum
    is not divided by the number of weights, so a price is the paper's lambda / N.
    """

    l1: float = setting(0.0, "price of every change of a weight, absolute", 0.0, 1e3)
    scale: float = 1.0
    reference: Params = field(default_factory=dict)

    def check(self, modules: str, weights: str) -> None:
        if self.l1:
            check_factored("regularize.l1", weights)

    def build(self, run: RegularizedRun) -> "L1 | None":
        return replace(self, scale=run.scale, reference=run.reference) if self.l1 else None

    def penalty(self, params: Params) -> Tensor:
        factors = sum_factors(scaled(params, self.scale), self.reference).values()
        return self.l1 * sum(update_of(pair).abs().sum() for pair in factors)
