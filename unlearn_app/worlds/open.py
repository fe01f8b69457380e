"""The open world: real models, whose pictures may show anything."""

from ..common.registry import register
from . import World


@register("world", "open")
class OpenWorld(World):
    """Any folder in diffusers format or Hugging Face id; any words name a concept, and OpenCLIP
    judges.
    """
