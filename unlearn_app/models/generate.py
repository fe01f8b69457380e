"""Pictures without a run: prompts through a model and, if wanted, adapter files."""

from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path

from PIL.Image import Image

from ..common.errors import ConfigError, ShouldStop, never
from ..common.images import to_pil
from ..settings.groups import CompareConfig
from ..settings.run_config import checked_group
from .diffusers.adapter_files import read_adapter
from .lora import scaled, stacked
from .protocols import Model, Params, slots_kept
from .sizes import check_size

Weighted = Path | str | tuple[Path | str, float]
"""An adapter file, with weight 1, or a file and the weight of its update."""


def generate(
    model: Model,
    prompts: Sequence[str],
    seeds: Sequence[int],
    *,
    adapters: Iterable[Weighted] = (),
    sampling_steps: int = CompareConfig.sampling_steps,
    guidance_scale: float = CompareConfig.guidance_scale,
    size: tuple[int, int] | None = None,
    negative: str = "",
    should_stop: ShouldStop = never,
) -> list[Image]:
    """Pictures of `prompts`, each with the seed at its place, through the sum of adapter files.

    `size` is the width and height in pixels, by default the model's own; guidance leads away from
    the prompt `negative`. The model keeps the adapters that it had.

    Raises:
        ConfigError: as many seeds as prompts are not given, or a number is out of range.
        ModelError: an adapter file is missing, damaged or made for another model.
    """
    if len(prompts) != len(seeds):
        raise ConfigError(
            f"There are {len(prompts)} prompts and {len(seeds)} seeds; one seed for each prompt is"
            " accepted.",
            "seeds",
        )
    asked = checked_group(
        replace(CompareConfig(), sampling_steps=sampling_steps, guidance_scale=guidance_scale)
    )
    if size:
        check_size(size)
    files = [each if isinstance(each, tuple) else (each, 1.0) for each in adapters]
    states = [scaled(read_adapter(Path(path)), weight) for path, weight in files]
    with slots_kept(model):
        if states:
            load_sum(model, states)
        with model.active(*(("unlearn",) if states else ())):
            latents = model.sample(
                prompts,
                seeds,
                steps=asked.sampling_steps,
                guidance_scale=asked.guidance_scale,
                should_stop=should_stop,
                size=size,
                negative=negative,
            )
    return to_pil(model.decode(latents))


def load_sum(model: Model, states: Sequence[Params]) -> None:
    """Put the sum of adapters into the `unlearn` slot.

    Raises:
        ModelError: one of them was made for another model.
    """
    named = []
    for state in states:  # by the model's own names, which files may not have
        model.load_adapter("unlearn", state)
        named.append(model.adapter_state("unlearn"))
    if len(named) > 1:
        model.load_adapter("unlearn", stacked(named))
