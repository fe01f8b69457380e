"""The names that files of others give to the layers of a denoiser and its text encoders.

diffusers joins the modules of a layer by dots. kohya's trainers, ComfyUI and A1111 join them by
underscores behind a prefix; files for SDXL have the modules of the original code (LDM, 2112.10752)
in place of those of diffusers.
"""

import re
from collections.abc import Collection, Iterable, Mapping

UNET_PARTS = (
    "down_blocks",
    "mid_block",
    "up_blocks",
    "conv_in",
    "conv_out",
    "time_embedding",
    "add_embedding",
)
"""The modules at the top of a UNet of diffusers."""
TEXT_PREFIXES = {
    "text_encoder": ("lora_te_", "lora_te1_"),
    "text_encoder_2": ("lora_te2_",),
    "text_encoder_3": ("lora_te3_",),
}
"""What kohya's trainers call the text encoders of a pipeline; the first where there is one alone,
the last where there are more.
"""
TEXT_MODEL = "text_model."
"""What the names of CLIP's layers begin with in files, and in transformers before 5.6."""
LDM_TOP = {
    "conv_in": "input_blocks.0.0",
    "conv_out": "out.2",
    "time_embedding.linear_1": "time_embed.0",
    "time_embedding.linear_2": "time_embed.2",
    "add_embedding.linear_1": "label_emb.0.0",
    "add_embedding.linear_2": "label_emb.0.2",
}
LDM_RESNET = {
    "conv1": "in_layers.2",
    "conv2": "out_layers.3",
    "time_emb_proj": "emb_layers.1",
    "conv_shortcut": "skip_connection",
}
INNER = re.compile(
    r"(?P<block>(?:down|up)_blocks\.\d+|mid_block)\."
    r"(?P<kind>resnets|attentions|downsamplers|upsamplers)\.(?P<place>\d+)\.(?P<rest>.+)"
)


def flat(layer: str) -> str:
    """A layer's name with underscores between its modules."""
    return layer.replace(".", "_")


def is_text(layer: str) -> bool:
    """Whether a layer's name in an adapter is that of a text encoder's."""
    return layer.partition(".")[0] in TEXT_PREFIXES


def denoiser_part(layers: Iterable[str]) -> str:
    """The pipeline's name for the denoiser that has `layers`: unet or transformer."""
    known = (layer.partition(".")[0] in UNET_PARTS for layer in layers if not is_text(layer))
    return "unet" if next(known, True) else "transformer"


def file_name(layer: str, part: str) -> str:
    """The name of a layer in files of diffusers, where the denoiser is called `part`."""
    if not is_text(layer):
        return f"{part}.{layer}"
    encoder, _, name = layer.partition(".")
    own = name.startswith("encoder.layers.")
    return f"{encoder}.{TEXT_MODEL if own else ''}{name}"


def kohya_name(layer: str, part: str, several: bool = False) -> str:
    """The name of a layer in files for ComfyUI, A1111 and kohya's tools; `several` says that the
    model has more than one text encoder.

    Their prefix of a transformer is OneTrainer's, the one whose layers are those of diffusers.
    """
    encoder, _, name = file_name(layer, part).partition(".")
    prefix = TEXT_PREFIXES[encoder][-1 if several else 0] if is_text(layer) else f"lora_{part}_"
    return prefix + flat(name)


def ldm_names(layers: Collection[str]) -> dict[str, str]:
    """The names of a UNet's layers in the original code, by those in diffusers.

    The original code counts the blocks of resnet and attention, and those that change the size,
    through the whole half of the network.
    """
    found = {layer: match for layer in layers if (match := INNER.fullmatch(layer))}
    resnets, smaller, attentive = {}, set(), set()
    for match in found.values():
        block, kind = match["block"], match["kind"]
        if kind == "resnets":
            resnets[block] = max(resnets.get(block, 0), int(match["place"]) + 1)
        smaller |= {block} if kind == "downsamplers" else set()
        attentive |= {block} if kind == "attentions" else set()
    starts = _starts("down", resnets, smaller, 1) | _starts("up", resnets, set(), 0)
    names = {layer: LDM_TOP[layer] for layer in layers if layer in LDM_TOP}
    for layer, match in found.items():
        place = _ldm_place(match, starts, resnets, attentive)
        rest = match["rest"]
        if match["kind"] == "resnets":
            rest = LDM_RESNET.get(rest, rest)
        elif match["kind"] == "downsamplers":
            rest = "op"
        names[layer] = f"{place}.{rest}"
    return names


def _starts(half: str, resnets: Mapping[str, int], smaller: set[str], at: int) -> dict[str, int]:
    """The number of the first inner block of every block in a half of the network."""
    starts = {}
    blocks = [block for block in resnets if block.startswith(half)]
    for block in sorted(blocks, key=lambda name: int(name.rpartition(".")[2])):
        starts[block] = at
        at += resnets[block] + (block in smaller)
    return starts


def _ldm_place(
    match: re.Match[str],
    starts: Mapping[str, int],
    resnets: Mapping[str, int],
    attentive: set[str],
) -> str:
    """Where the original code has what stands in an inner block of diffusers."""
    block, kind, place = match["block"], match["kind"], int(match["place"])
    if block == "mid_block":
        return f"middle_block.{2 * place if kind == 'resnets' else 1}"
    if kind == "downsamplers":
        return f"input_blocks.{starts[block] + resnets[block]}.0"
    if kind == "upsamplers":
        return f"output_blocks.{starts[block] + resnets[block] - 1}.{1 + (block in attentive)}"
    side = "input" if block.startswith("down") else "output"
    return f"{side}_blocks.{starts[block] + place}.{int(kind == 'attentions')}"


T5_LAYERS = "encoder.block."
"""How the names of T5's layers begin, and no others'."""


def aliases(layers: Collection[str], texts: Mapping[str, Collection[str]]) -> dict[str, str]:
    """The layers of a model, as adapters name them, by every name that files give them.

    `layers` are those of the denoiser and `texts` those of each text encoder by the pipeline's name
    for it; theirs begin with that name in an adapter.
    """
    part = denoiser_part(layers)
    known = {}
    prefixes = dict(TEXT_PREFIXES)
    second = texts.get("text_encoder_2", ())
    if any(name.startswith(T5_LAYERS) for name in second):  # FLUX's, which kohya calls as SD 3's
        prefixes["text_encoder_2"] += TEXT_PREFIXES["text_encoder_3"]
    for encoder, inner in texts.items():
        for name in inner:
            layer = f"{encoder}.{name}"
            whole = {name, TEXT_MODEL + name.removeprefix(TEXT_MODEL)}
            whole |= {name.removeprefix(TEXT_MODEL)}
            for said in whole:
                known |= {f"{encoder}.{said}": layer}
                known |= {prefix + flat(said): layer for prefix in prefixes[encoder]}
                known.setdefault(said, layer)  # of an adapter that was saved without its pipeline
    for layer, name in (ldm_names(layers) if part == "unet" else {}).items():
        known |= {f"lora_unet_{flat(name)}": layer, name: layer, f"diffusion_model.{name}": layer}
    for layer in layers:
        known |= {f"lora_{part}_{flat(layer)}": layer, layer: layer}
    return known
