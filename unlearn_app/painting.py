"""Pictures without a run: prompts through a model and, if wanted, an adapter file."""

from collections.abc import Callable, Sequence
from pathlib import Path

from PIL.Image import Image
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file
from torch import Tensor

from .backend import Backend
from .errors import ModelError
from .evaluate import to_pil
from .runs import ORIGINAL


def generate(
    backend: Backend,
    prompts: Sequence[str],
    seeds: Sequence[int],
    *,
    adapter: Path | None = None,
    sampling_steps: int = 12,
    guidance_scale: float = 3.0,
    should_stop: Callable[[], bool] = lambda: False,
) -> list[Image]:
    """Pictures of `prompts`, one generator per picture, optionally through an adapter file.

    Raises:
        ModelError: the adapter file is missing, damaged or made for another model.
    """
    if adapter is not None:
        backend.load_adapter("unlearn", read_adapter(adapter))
    with backend.active(*(("unlearn",) if adapter else ())):
        latents = backend.sample(
            prompts, seeds, steps=sampling_steps, guidance_scale=guidance_scale, should_stop=should_stop
        )
    return to_pil(backend.decode(latents))


def read_adapter(path: Path) -> dict[str, Tensor]:
    """The tensors of an adapter file, without the `unet.` prefix.

    Raises:
        ModelError: the file is no safetensors file with LoRA factors, or its factors belong on another adapter's
            model and mean nothing on the original.
    """
    if path.suffix != ".safetensors":
        raise ModelError(f"The adapter {str(path)!r} is no .safetensors file.")
    try:
        with safe_open(path, "pt") as file:
            made_for = (file.metadata() or {}).get("loads_on", ORIGINAL)
        state = load_file(path)
    except (OSError, SafetensorError) as error:
        raise ModelError(f"The adapter {str(path)!r} cannot be read: {error}.") from error
    if made_for != ORIGINAL:
        raise ModelError(f"The adapter {str(path)!r} loads on {made_for}; one that loads on {ORIGINAL} is accepted.")
    if not all(name.startswith("unet.") and ".lora_" in name for name in state):
        raise ModelError(f"The adapter {str(path)!r} holds other tensors than LoRA factors of a UNet.")
    return {name.removeprefix("unet."): tensor for name, tensor in state.items()}
