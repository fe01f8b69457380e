"""The open world: real models, whose pictures may show anything."""

from typing import TYPE_CHECKING

from ..common.registry import register
from ..concepts.concept import Concept
from ..concepts.diversification import free_concept
from . import World

if TYPE_CHECKING:
    from ..models.protocols import Backend


@register("world", "open")
class OpenWorld(World):
    """Any folder in diffusers format or Hugging Face id; any words name a concept, and OpenCLIP
    judges.
    """

    def load_backend(self) -> "Backend":
        """See `World`."""
        from ..models.diffusers.loading import load_pipeline

        return load_pipeline(self.model, self.model)

    def concept(self, text: str, anchor: str | None) -> Concept:
        """See `World`."""
        return free_concept(text, anchor)
