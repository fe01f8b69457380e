"""The open world: real models, whose pictures may show anything."""

from pathlib import Path
from typing import Any

from ..common.errors import ModelError, OutputError
from ..common.record_files import read_json
from ..common.registry import register
from ..settings.presets import family_settings
from . import World

INDEX = "model_index.json"


@register("world", "open")
class OpenWorld(World):
    """A folder in diffusers format, a .safetensors file or a Hugging Face id; any words name a
    concept, and OpenCLIP judges.
    """

    def model_settings(self) -> dict[str, Any]:
        return family_settings(_pipeline_of(self.model))


def _pipeline_of(model: str) -> str:
    """The class of a model's pipeline by its index; "" where there is none on this machine."""
    if Path(model).is_file():
        return _pipeline_in(Path(model))
    index = Path(model) / INDEX
    if not Path(model).exists() and model.count("/") == 1:
        from huggingface_hub import try_to_load_from_cache
        from huggingface_hub.errors import HFValidationError

        try:
            cached = try_to_load_from_cache(model, INDEX)
        except HFValidationError:
            return ""
        index = Path(cached) if isinstance(cached, str) else index
    try:
        found = read_json(index, "model")
    except OutputError:
        return ""
    return str(found.get("_class_name")) if isinstance(found, dict) else ""


def _pipeline_in(file: Path) -> str:
    """The class of the pipeline in a single file; "" where it is refused when it is loaded."""
    from ..models.diffusers.single_file import check_checkpoint

    try:
        return str(check_checkpoint(file)[INDEX]["_class_name"])
    except ModelError:
        return ""
