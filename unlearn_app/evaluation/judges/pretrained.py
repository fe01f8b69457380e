"""Networks that judges are made of, from a folder in the format of transformers or from a Hugging
Face id: safetensors only, checked before they are read.
"""

import hashlib
import logging
import warnings
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import torch
from pydantic import Field
from torch import Tensor
from torch.nn.functional import interpolate

from ...common.errors import ModelError, OutputError, UnlearnError, enough_memory
from ...common.record_files import Record, checked, read_json, sha256_of
from ...models.diffusers.hub import answers
from ...models.diffusers.model_folder import Few, Many, TextSizes, first_line, looks_like_hub_id

MEAN = (0.48145466, 0.4578275, 0.40821073)
DEVIATION = (0.26862954, 0.26130258, 0.27577711)
"""How CLIP and BLIP normalise the channels of a picture."""
ENDING = ".safetensors"
CONFIG = "config.json"


class _Tower(TextSizes):
    """As `TextSizes`, of either half of a network."""

    image_size: Annotated[int, Field(ge=8, le=1024)] = 224
    patch_size: Few = 32


class _Config(Record):
    model_type: str
    text_config: _Tower = _Tower()
    vision_config: _Tower = _Tower()
    projection_dim: Many = 512


class NotFetched(ModelError):
    """The weights of a judge are not on this machine and cannot be fetched."""


class Pretrained(NamedTuple):
    """A network with its tokenizer, what it is called in records, which never hold its path, and
    the commit or the hash of its weights.
    """

    network: Any
    tokenizer: Any
    name: str
    version: str


def load_pretrained(kind: Any, place: str) -> Pretrained:
    """The network of class `kind` in the folder, or of the Hugging Face id, `place`, in single
    precision on the CPU, and its tokenizer.

    Raises:
        ModelError: it is missing, damaged, of another kind, or has no safetensors.
    """
    from transformers.utils import logging as transformers_logging

    transformers_logging.set_verbosity(logging.CRITICAL)  # our sentence says what is wrong
    transformers_logging.disable_progress_bar()
    from transformers import AutoTokenizer

    from ...models.diffusers.loading import load_whole

    folder, said = Path(place), f"The judge {place!r} cannot be loaded"
    local = folder.is_dir()
    if local:
        _check(folder, kind.config_class.model_type)
    elif folder.exists() or not looks_like_hub_id(place):
        raise ModelError(f"There is no judge in {place!r}; a folder or owner/name is accepted.")
    reach = {"local_files_only": local or not answers(place)}
    how = {"use_safetensors": True, "dtype": torch.float32}
    try:
        with warnings.catch_warnings(), enough_memory(f"The judge {place!r}", "its size"):
            warnings.simplefilter("ignore")
            network = (
                load_whole(kind, place, f"{said}: it", **how | reach).eval().requires_grad_(False)
            )
            tokenizer = AutoTokenizer.from_pretrained(place, trust_remote_code=False, **reach)
    except UnlearnError:
        raise
    except OSError as error:
        failed = ModelError if local else NotFetched
        raise failed(f"{said}: {first_line(error).rstrip('.')}.") from error
    except Exception as error:  # a configuration can make the libraries raise anything
        raise ModelError(f"{said}: {first_line(error).rstrip('.')}.") from error
    rows = network.config.text_config.vocab_size
    if not rows <= 2 * len(tokenizer) <= 2 * rows:  # without files it would be made of nothing
        raise ModelError(
            f"{said}: its tokenizer knows {len(tokenizer):,} words; the {rows:,} of its weights are"
            " accepted."
        )
    commit = getattr(network.config, "_commit_hash", None) or ""
    name = folder.resolve().name if local else place
    return Pretrained(network, tokenizer, name, _hash(folder) if local else commit[:12])


def _check(folder: Path, kind: str) -> None:
    """Refuse what cannot or must not be loaded, before anything reads the weights.

    Raises:
        ModelError: no readable configuration of that kind, no safetensors, or no plain files.
    """
    said = f"The judge in {str(folder)!r}"
    try:
        found = checked(read_json(folder / CONFIG, "judge"), _Config, folder / CONFIG, "judge")
    except OutputError as error:
        raise ModelError(str(error)) from error
    if found["model_type"] != kind:
        raise ModelError(f"{said} is of the type {found['model_type']!r:.60}; {kind} is accepted.")
    for path in sorted(folder.iterdir()):
        if path.exists() and not path.is_dir() and not path.is_file():  # a FIFO would wait
            raise ModelError(f"{said} holds {path.name!r}, which is no regular file.")
    if not [*folder.glob(f"*{ENDING}")]:
        raise ModelError(f"{said} holds no {ENDING} file, and no other weights are read.")


def _hash(folder: Path) -> str:
    digest = hashlib.sha256()
    for path in sorted(folder.glob(f"*{ENDING}")):
        digest.update(sha256_of(path).encode())
    return digest.hexdigest()[:12]


def normalised(images: Tensor, side: int) -> Tensor:
    """Pictures (B, 3, H, W) in [-1, 1] as CLIP and BLIP see them, (B, 3, side, side) on the CPU.

    Deviation: other than square pictures are squeezed and not cropped, since what is asked for may
    stand at the edge.
    """
    pixels = interpolate(
        (images.float().cpu() + 1) / 2, size=(side, side), mode="bicubic", antialias=True
    ).clamp(0, 1)
    mean, deviation = (pixels.new_tensor(v).view(1, 3, 1, 1) for v in (MEAN, DEVIATION))
    return (pixels - mean) / deviation


def is_cached(hub_id: str) -> bool:
    """Whether the files of a Hugging Face id are on this machine; asks no network."""
    from huggingface_hub import try_to_load_from_cache

    files = (CONFIG, f"model{ENDING}")
    return all(isinstance(try_to_load_from_cache(hub_id, file), str) for file in files)


def fetching(hub_id: str) -> str:
    """The command that fetches what a judge reads of a Hugging Face id, and no pickles."""
    wanted = " ".join(f"--include '{file}'" for file in ("*.json", "*.txt", f"model{ENDING}"))
    return f"hf download {hub_id} {wanted}"
