"""Negation: the published update subtracted instead of added; reported, and never counted."""

from collections.abc import Generator
from dataclasses import dataclass

from ..common.registry import register
from ..concepts.concept import evenly_spaced
from ..models.protocols import Model
from ..settings.events import Step
from ..settings.groups import AttackConfig, setting
from . import Attack, AttackContext, Tries
from .scale import listed, sample_scaled

FACTORS = (-0.25, -0.5, -1.0)


@register("attack", "negation")
@dataclass(frozen=True)
class Negation(Attack):
    """Subtracts the published update from the original: reported, but no evidence, since it needs
    the original, which shows the concept.

    Task negation (2212.04089) of what was to forget: minus the adapter, or of a whole model the
    original minus the difference. The same holds of fine-tuning that begins there: whoever has the
    original and the update has the concept already, so nothing is learned of what the update alone
    leaves behind.
    """

    tries: int = setting(
        len(FACTORS), "factors below 0, a picture of each prompt at each", 1, len(FACTORS)
    )
    counts = False

    def budget(self, held: AttackConfig) -> str:
        return f"no training, {listed(evenly_spaced(FACTORS, self.tries))}"

    def __call__(self, model: Model, context: AttackContext) -> Generator[Step, None, Tries]:
        """See `Attack`.

        Raises:
            ConfigError: the model under attack has no update to subtract.
        """
        return (yield from sample_scaled(model, context, evenly_spaced(FACTORS, self.tries)))
