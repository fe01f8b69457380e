"""L1: a price on the absolute value of every change of a weight."""

from dataclasses import dataclass

from torch import Tensor

from ...common.registry import register
from ...models.lora import Factors, update_of
from ...settings.groups import setting
from .update_norm import UpdateNorm


@register("regularizer", "l1")
@dataclass(frozen=True)
class L1(UpdateNorm):
    """Keeps the update small: `l1` times the sum of |dW| over its entries.

    The update norm of 2511.07970 with power 1; deviations as `UpdateNorm` says.
    """

    l1: float = setting(0.0, "price of every change of a weight, absolute", 0.0, 1e3)

    @property
    def price(self) -> float:
        """See `UpdateNorm`."""
        return self.l1

    def cost(self, factors: Factors) -> Tensor:
        """The sum of |dW|."""
        return update_of(factors).abs().sum()
