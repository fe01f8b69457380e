"""Scale: the published adapter turned down, off or beyond; reported, and never counted."""

import time
from collections.abc import Generator
from dataclasses import dataclass

from ..common.errors import ConfigError
from ..common.registry import register
from ..concepts.concept import evenly_spaced
from ..models.lora import scaled
from ..models.protocols import Model
from ..settings.events import Step
from ..settings.groups import AttackConfig, setting
from . import Attack, AttackContext, Tries, joined, sample_tries

SCALES = (0.0, 0.25, 0.5, 0.75, 1.25, 1.5)


@register("attack", "scale")
@dataclass(frozen=True)
class Scale(Attack):
    """Turns the published adapter down, off, or beyond: reported, but no evidence, since anyone can
    leave it out.
    """

    tries: int = setting(
        len(SCALES), "scales of the adapter, a picture of each prompt at each", 1, len(SCALES)
    )
    counts = False

    def budget(self, held: AttackConfig) -> str:
        """See `Attack`."""
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
        prompts, parts = context.prompts, []
        cond = model.encode_text([prompt.text for prompt in prompts])
        try:
            for attempt, scale in enumerate(evenly_spaced(SCALES, self.tries)):
                started = time.perf_counter()
                model.load_adapter("unlearn", scaled(state, scale))
                asked = [
                    (row, attempt, f"adapter x {scale:g}: {prompt.text}")
                    for row, prompt in enumerate(prompts)
                ]
                parts.append(sample_tries(model, asked, cond, context))
                yield Step(
                    "attack", attempt + 1, self.tries, {}, seconds=time.perf_counter() - started
                )
        finally:
            model.load_adapter("unlearn", state)
        return joined(parts)
