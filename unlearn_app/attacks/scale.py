"""Scale: the published adapter multiplied by a factor; reported, and never counted."""

from collections.abc import Generator, Iterator
from dataclasses import dataclass

from ..common.errors import ConfigError
from ..common.registry import register
from ..concepts.concept import evenly_spaced
from ..models.lora import scaled
from ..models.protocols import NO_OVERRIDES, Model, Params, SamplingOverrides
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
        return (
            "no training, the adapter at"
            f" {', '.join(f'{scale:g}' for scale in evenly_spaced(SCALES, self.tries))}"
        )

    def __call__(self, model: Model, context: AttackContext) -> Generator[Step, None, Tries]:
        """See `Attack`.

        Raises:
            ConfigError: the model under attack has no adapter to turn down.
        """
        try:
            state = model.adapter_state("unlearn")
        except KeyError:
            raise ConfigError(
                "There is no adapter to scale; a model with an unlearn adapter is accepted."
            ) from None
        try:
            return (
                yield from sample_variants(model, context, self._ways(model, state), self.tries)
            )
        finally:
            model.load_adapter("unlearn", state)

    def _ways(self, model: Model, state: Params) -> Iterator[tuple[str, SamplingOverrides]]:
        """The names of the scales; each is in the `unlearn` slot when its name is returned."""
        for scale in evenly_spaced(SCALES, self.tries):
            model.load_adapter("unlearn", scaled(state, scale))
            yield f"adapter x {scale:g}", NO_OVERRIDES
