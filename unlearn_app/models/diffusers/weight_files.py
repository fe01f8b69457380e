"""Which files hold the weights of a part of a pipeline, among variants, shards and pickles."""

import re
from collections.abc import Iterable
from pathlib import PurePosixPath

from ...common.errors import ModelError
from ...common.record_files import shown

DENOISERS = ("unet", "transformer")
WEIGHTED = (*DENOISERS, "vae", "text_encoder", "text_encoder_2", "text_encoder_3")
"""The parts of a pipeline that have weights and make pictures."""
WEIGHTLESS = ("scheduler", "tokenizer", "tokenizer_2", "tokenizer_3")
PICKLES = (".bin", ".ckpt", ".pt", ".pth", ".pkl", ".pickle")
PREFERRED = ("", "fp16", "bf16")
"""Variants in the order in which they are taken: full precision first, since numbers that are
rounded to one half precision and computed with in the other lose digits twice.
"""
NAMED = re.compile(
    r"(?P<stem>diffusion_pytorch_model|model)(\.(?P<variant>[a-z]\w*))?"
    r"(-(?P<number>\d{5})-of-(?P<count>\d{5}))?(\.(?P<late>[a-z]\w*))?\.safetensors"
)
"""How diffusers and transformers name files of weights; early versions put the variant last."""


def weight_files(part: str, names: Iterable[str]) -> tuple[str, ...]:
    """The files among `names`, paths below the folder of a model, that hold the weights of `part`:
    one file or all shards, of one variant. Pickles beside them are left alone.

    Raises:
        ModelError: there are no safetensors of the part, or not all shards.
    """
    own = sorted(name for name in names if str(PurePosixPath(name).parent) == part)
    sets: dict[tuple[int, str, int], list[str]] = {}
    for name in own:
        if found := NAMED.fullmatch(PurePosixPath(name).name):
            variant = found["variant"] or found["late"] or ""
            rank = PREFERRED.index(variant) if variant in PREFERRED else len(PREFERRED)
            sets.setdefault((rank, variant, int(found["count"] or 0)), []).append(name)
    ordered = [(max(key[-1], 1), sets[key]) for key in sorted(sets)]
    for count, files in ordered:
        if len(files) == count:
            return tuple(files)
    if ordered:
        count, files = ordered[0]
        raise ModelError(
            f"The model's {part} has {len(files)} of {count} files of weights, such as"
            f" {shown(files[0])[:80]!r}; all of them are accepted."
        )
    if pickles := [name for name in own if name.lower().endswith(PICKLES)]:
        raise ModelError(
            f"The model's {part} has its weights only in {shown(pickles[0])[:80]!r}, a pickle,"
            " which can run code; safetensors are accepted."
        )
    raise ModelError(f"The model's {part} has no weights; safetensors are accepted.")


def plain_name(name: str) -> str:
    """The file name of weights without their variant."""
    found = NAMED.fullmatch(PurePosixPath(name).name)
    shard = f"-{found['number']}-of-{found['count']}" if found["number"] else ""
    return f"{found['stem']}{shard}.safetensors"
