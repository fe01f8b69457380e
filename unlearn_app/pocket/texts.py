"""What reads words in the bundled models: one tokenizer and one text encoder, which both share."""

from pathlib import Path
from typing import Any

from torch import nn
from transformers import CLIPTextModel, CLIPTextModelWithProjection, CLIPTokenizer

from ..models.diffusers.loading import load_whole


def load_tower(work: Path) -> tuple[CLIPTokenizer, CLIPTextModel]:
    """The trained tokenizer and text tower.

    Raises:
        FileNotFoundError: one of them is missing.
        ModelError: weights of the text tower are missing.
    """
    for name in ("tokenizer", "text_encoder"):
        if not (work / name).is_dir():
            raise FileNotFoundError(2, "missing", str(work / name))
    tokenizer = CLIPTokenizer.from_pretrained(work / "tokenizer")
    folder = str(work / "text_encoder")
    said = f"The text encoder in {folder!r} cannot be loaded: it"
    model = load_whole(CLIPTextModel, folder, said)
    return tokenizer, model.eval().requires_grad_(False)


def shared_texts(tokenizer: CLIPTokenizer, text_model: CLIPTextModel) -> dict[str, Any]:
    """What reads words and is not stored with the pipeline, since it is the UNet's: the tokenizers,
    and the first text encoder, which has the identity as its projection and its weights rounded to
    half precision.
    """
    encoder = CLIPTextModelWithProjection(text_model.config)
    encoder.text_model.load_state_dict(text_model.state_dict())
    nn.init.eye_(encoder.text_projection.weight)
    round_to_half(encoder)
    return {"tokenizer": tokenizer, "tokenizer_2": tokenizer, "text_encoder": encoder}


def round_to_half(encoder: nn.Module) -> None:
    """Round the weights to half precision, in which they are stored, and freeze them."""
    encoder.half().float().eval().requires_grad_(False)
