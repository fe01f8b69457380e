"""Scale: the published adapter turned down, off or beyond; reported, and never counted."""

import time
from collections.abc import Callable, Generator
from dataclasses import dataclass
from typing import ClassVar

from ..common.errors import ConfigError
from ..common.registry import register
from ..concepts.concept import evenly_spaced
from ..models.lora import scaled
from ..models.protocols import Model
from ..settings.events import Step
from ..settings.groups import AttackConfig, setting
from . import AttackContext, Tries, joined, sample_tries

SCALES = (0.0, 0.25, 0.5, 0.75, 1.25, 1.5)


@register("attack", "scale")
@dataclass(frozen=True)
class Scale:
    """Turns the published adapter down, off, or beyond: reported, but no evidence, since anyone can
    leave it out.
    """

    tries: int = setting(
        len(SCALES), "scales of the adapter, a picture of each prompt at each", 1, len(SCALES)
    )
    by_prompt: ClassVar[bool] = False
    counts: ClassVar[bool] = False
    needs_control: ClassVar[bool] = False

    def budget(self, held: AttackConfig) -> str:
        """See `Attack`."""
        return (
            "no training, the adapter at"
            f" {', '.join(f'{scale:g}' for scale in evenly_spaced(SCALES, self.tries))}"
        )

    def __call__(
        self,
        model: Model,
        context: AttackContext,
        should_stop: Callable[[], bool] = lambda: False,
    ) -> Generator[Step, None, Tries]:
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
            for turn, scale in enumerate(evenly_spaced(SCALES, self.tries)):
                started = time.perf_counter()
                model.load_adapter("unlearn", scaled(state, scale))
                asked = [
                    (row, turn, f"adapter x {scale:g}: {prompt.text}")
                    for row, prompt in enumerate(prompts)
                ]
                parts.append(sample_tries(model, asked, cond, context, should_stop))
                yield Step(
                    "attack", turn + 1, self.tries, {}, seconds=time.perf_counter() - started
                )
        finally:
            model.load_adapter("unlearn", state)
        return joined(parts)
