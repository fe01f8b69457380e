"""L2: a price on the square of every change of a weight."""

from dataclasses import dataclass

from torch import Tensor

from ...common.registry import register
from ...models.lora import Factors, squared_norm
from ...settings.groups import setting
from .update_norm import UpdateNorm


@register("regularizer", "l2")
@dataclass(frozen=True)
class L2(UpdateNorm):
    """Keeps the update small: `l2` times the sum of dW squared over its entries.

    The update norm of 2511.07970 with power 2; deviations as `UpdateNorm` says. The sum is computed
    from matrices of the rank's size.
    """

    l2: float = setting(0.0, "price of every change of a weight, squared", 0.0, 1e6)

    @property
    def price(self) -> float:
        """See `UpdateNorm`."""
        return self.l2

    def cost(self, factors: Factors) -> Tensor:
        """The sum of dW squared."""
        return squared_norm(factors)
