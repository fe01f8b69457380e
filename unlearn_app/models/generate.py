"""Pictures without a run: prompts through a model and, if wanted, an adapter file."""

from collections.abc import Sequence
from pathlib import Path

from PIL.Image import Image

from ..common.errors import ShouldStop, never
from ..common.images import to_pil
from ..settings.groups import CompareConfig
from .diffusers.adapter_files import read_adapter
from .protocols import Model


def generate(
    model: Model,
    prompts: Sequence[str],
    seeds: Sequence[int],
    *,
    adapter: Path | None = None,
    sampling_steps: int = CompareConfig.sampling_steps,
    guidance_scale: float = CompareConfig.guidance_scale,
    should_stop: ShouldStop = never,
) -> list[Image]:
    """Pictures of `prompts`, one generator per picture, optionally through an adapter file.

    Raises:
        ModelError: the adapter file is missing, damaged or made for another model.
    """
    if adapter is not None:
        model.load_adapter("unlearn", read_adapter(adapter))
    with model.active(*(("unlearn",) if adapter else ())):
        latents = model.sample(
            prompts,
            seeds,
            steps=sampling_steps,
            guidance_scale=guidance_scale,
            should_stop=should_stop,
        )
    return to_pil(model.decode(latents))
