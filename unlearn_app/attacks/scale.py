"""Scale: the published update multiplied by a factor; reported, and never counted."""

from collections.abc import Generator, Sequence
from contextlib import closing
from dataclasses import dataclass

from ..common.errors import ConfigError
from ..common.registry import register
from ..concepts.concept import evenly_spaced
from ..models.protocols import NO_OVERRIDES, Model, SamplingOverrides
from ..settings.events import Step
from ..settings.groups import AttackConfig, setting
from . import Attack, AttackContext, Tries, sample_variants

SCALES = (0.0, 0.25, 0.5, 0.75, 1.25, 1.5)


@register("attack", "scale")
@dataclass(frozen=True)
class Scale(Attack):
    """Multiplies the published adapter by factors from 0 to 1.5: reported, but no evidence, since
    anyone can leave it out.
    """

    tries: int = setting(
        len(SCALES), "scales of the adapter, a picture of each prompt at each", 1, len(SCALES)
    )
    counts = False

    def budget(self, held: AttackConfig) -> str:
        return f"no training, {listed(evenly_spaced(SCALES, self.tries))}"

    def __call__(self, model: Model, context: AttackContext) -> Generator[Step, None, Tries]:
        """See `Attack`.

        Raises:
            ConfigError: the model under attack has no update to turn down.
        """
        return (yield from sample_scaled(model, context, evenly_spaced(SCALES, self.tries)))


def listed(factors: Sequence[float]) -> str:
    """The adapter at these factors, in words."""
    return f"the adapter at {', '.join(f'{factor:g}' for factor in factors)}"


def sample_scaled(
    model: Model, context: AttackContext, factors: Sequence[float]
) -> Generator[Step, None, Tries]:
    """A picture of every held-out prompt at each of `factors` times the published update.

    Raises:
        ConfigError: the model under attack has no update.
    """
    with closing(_ways(model, factors)) as ways:
        try:
            return (yield from sample_variants(model, context, ways, len(factors)))
        except KeyError:
            raise ConfigError(
                "There is no adapter to scale; a model with an unlearn adapter is accepted."
            ) from None


def _ways(
    model: Model, factors: Sequence[float]
) -> Generator[tuple[str, SamplingOverrides], None, None]:
    """The names of the factors; each is in force while its name is the last that was returned."""
    for factor in factors:
        with model.scaled("unlearn", factor):
            yield f"adapter x {factor:g}", NO_OVERRIDES
