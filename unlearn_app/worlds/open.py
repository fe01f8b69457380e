"""The open world: real models, whose pictures may show anything."""

from functools import lru_cache
from pathlib import Path
from typing import Any

from ..common.errors import ModelError, OutputError
from ..common.record_files import read_json
from ..common.registry import register
from ..settings.presets import family_settings, usual_side
from . import World

INDEX = "model_index.json"


@register("world", "open")
class OpenWorld(World):
    """A folder in diffusers format, a .safetensors file or a Hugging Face id; any words name a
    concept, and OpenCLIP judges.
    """

    def model_settings(self) -> dict[str, Any]:
        return family_settings(_pipeline_of(self.model))

    def usual_side(self) -> int:
        return usual_side(_pipeline_of(self.model))


def _pipeline_of(model: str) -> str:
    """The class of a model's pipeline by its index; "" where there is none on this machine."""
    place = Path(model)
    try:
        here, is_file = place.exists(), place.is_file()
    except OSError:  # no name that a file can have; loading says so
        return ""
    if is_file:
        return _pipeline_in(place, place.stat().st_mtime_ns)
    index = place / INDEX
    if not here and model.count("/") == 1:
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


@lru_cache(maxsize=8)
def _pipeline_in(file: Path, changed: int) -> str:
    """The class of the pipeline in a single file that was `changed` last then; "" where it is
    refused when it is loaded.
    """
    from ..models.diffusers.single_file import check_checkpoint

    try:
        return str(check_checkpoint(file)[INDEX]["_class_name"])
    except ModelError:
        return ""
