"""Adapters in the formats of others: what diffusers, peft and kohya's trainers write is read as
factors with scale 1, and factors are written for ComfyUI and A1111.
"""

import json
import math
import re
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from ...common.errors import ModelError
from ...common.record_files import shown
from ..lora import layer_factors, update_of
from .adapter_files import LARGEST_UPDATE
from .layer_names import denoiser_part, is_text, kohya_name
from .weight_files import DENOISERS

State = dict[str, Tensor]
SIDES = {
    "lora_A": "A",
    "lora_down": "A",
    "lora.down": "A",
    "lora_linear_layer.down": "A",
    "lora_B": "B",
    "lora_up": "B",
    "lora.up": "B",
    "lora_linear_layer.up": "B",
    "lora_mid": "mid",
}
"""Which factor a tensor is by what stands behind the layer's name, and before `.weight`."""
FACTOR = re.compile(
    rf"(?P<layer>.+?)[._](?P<side>{'|'.join(map(re.escape, SIDES))})(?:\.default)?\.weight"
)
WRAPPED = "base_model.model."
"""What peft writes before every name."""
PREFIXES = tuple(f"{part}." for part in DENOISERS)
"""What stands for the denoiser in files of diffusers."""
OLD_TEXT = {
    "to_q": "q_proj",
    "to_k": "k_proj",
    "to_v": "v_proj",
    "to_out.0": "out_proj",
}
"""What diffusers called the attention layers of text encoders up to 0.20."""
OTHER_KINDS = {
    "DoRA": ("dora_scale", "lora_magnitude_vector"),
    "LoKr": ("lokr_",),
    "LoHa": ("hada_",),
    "IA3": ("ia3_", ".on_input"),
    "OFT": ("oft_",),
    "BOFT": ("boft_",),
    "GLoRA": (".a1.weight", ".b1.weight"),
    "VeRA": ("vera_lambda",),
    "LoRA with biases": (".diff_b", "lora_B.bias", "lora_up.bias"),
    "LoRA with norm layers": (".w_norm", ".b_norm"),
    "LoRA of an embedding": ("lora_embedding_",),
}
"""Parts of names that only adapters of another kind have."""
ACCEPTED = "LoRA and LoCon, with the names of diffusers, peft or kohya, are accepted"
FLUX_BLOCKS = ("double_blocks", "single_blocks.", "single_blocks_")
"""Modules of FLUX's original code, which holds queries, keys and values in one matrix."""
LARGEST_MIDDLE = 2**26
"""Numbers of a factor whose parts are multiplied; the largest convolution of SDXL has 2^24."""
LARGEST_SETTINGS, MOST_PATTERNS = 2**20, 10_000
"""Letters of an adapter's settings in its metadata, and layers with an alpha of their own."""
FLUX_TEXTS = {
    "text_encoders.clip_l.transformer.": "text_encoder.",
    "text_encoders.t5xxl.transformer.": "text_encoder_2.",
}
"""What ComfyUI calls the text encoders of FLUX, and diffusers."""
FLUX_KEPT = re.compile(
    r"(lora_unet_|diffusion_model\.)(?!.*position_embedding).+(\.lora_(down|up)\.weight|\.alpha)"
)
"""Names of kohya's for FLUX's transformer that diffusers reads; it drops many others."""
SDXL_WIDTH = 2048
BASES = {
    768: ("sd_v1", "stable-diffusion-v1/lora"),
    1024: ("sd_v2", "stable-diffusion-v2-512/lora"),
    SDXL_WIDTH: ("sdxl_base_v1-0", "stable-diffusion-xl-v1-base/lora"),
}
"""What trainers call the model whose cross-attention reads text states of this width, and what the
Stability AI metadata specification does.
"""


def from_any(
    tensors: Mapping[str, Tensor],
    metadata: Mapping[str, str],
    said: str,
    peft_config: Mapping[str, Any] | None = None,
) -> State:
    """`LAYER.lora_A.weight` and `LAYER.lora_B.weight` with scale 1 of an adapter in any format that
    is accepted; what has no partner keeps its name. Error messages begin with `said`.

    A layer has the name that the file gives it, less what stands for the denoiser of diffusers.
    `peft_config` is the `adapter_config.json` that peft writes beside its files.

    Raises:
        ModelError: an adapter of another kind, or with nonsense for a scale.
    """
    configs = _configs(metadata, said) | ({"": dict(peft_config)} if peft_config else {})
    _refuse_other_kinds(tensors, configs, said)
    tensors = _without_flux_names(tensors, said)
    parts: dict[str, dict[str, Tensor]] = {}
    state: State = {}
    for name, tensor in tensors.items():
        layer, side = _read_name(name)
        if side is None:
            state[name] = tensor
        else:
            parts.setdefault(layer, {})[side] = tensor
    for layer, own in parts.items():
        bare = without_denoiser(layer)
        if "dense" in own:
            own |= _dense_as_factors(own.pop("dense"), said)
        if "A" in own and "B" in own:
            scale = _scale(own, configs, layer, said)
            own |= _with_middle(own, said)
            own["B"] = own["B"] if scale == 1 else _wide(own["B"]) * scale
        else:
            state |= {f"{layer}.alpha": own["alpha"]} if "alpha" in own else {}
        state |= {f"{bare}.lora_{side}.weight": own[side] for side in "AB" if side in own}
    return state


def _read_name(name: str) -> tuple[str, str | None]:
    """The layer, and which part of its update a tensor holds: A, B, mid, alpha or dense; None is
    something else.
    """
    name = name.removeprefix(WRAPPED)
    for ending, side in ((".alpha", "alpha"), (".diff", "dense")):
        if name.endswith(ending):
            return _modern(name.removesuffix(ending)), side
    found = FACTOR.fullmatch(name)
    return (_modern(found["layer"]), SIDES[found["side"]]) if found else (name, None)


def _modern(layer: str) -> str:
    """The name of a layer in today's diffusers for one of its older ones."""
    if ".processor." in layer or layer.startswith("text_encoder"):
        layer = re.sub(r"\.to_out$", ".to_out.0", layer.replace(".processor.", "."))
    if layer.startswith("text_encoder"):
        for old, new in OLD_TEXT.items():
            layer = layer.replace(f".self_attn.{old}", f".self_attn.{new}")
    return layer


def without_denoiser(layer: str) -> str:
    """The name of a layer without what stands for the denoiser in files of diffusers."""
    prefix = next((prefix for prefix in PREFIXES if layer.startswith(prefix)), "")
    return layer.removeprefix(prefix)


def _refuse_other_kinds(
    tensors: Mapping[str, Tensor], configs: Mapping[str, dict[str, Any]], said: str
) -> None:
    for kind, marks in OTHER_KINDS.items():
        if any(mark in name for name in tensors for mark in marks):
            raise ModelError(f"{said} is a {kind}; {ACCEPTED}.")
    for config in configs.values():
        kind = str(config.get("peft_type", "LORA"))
        if config.get("use_dora"):
            kind = "DoRA"
        if kind.upper() != "LORA":
            raise ModelError(f"{said} is a {shown(kind)[:40]}; {ACCEPTED}.")


def _without_flux_names(tensors: Mapping[str, Tensor], said: str) -> Mapping[str, Tensor]:
    """The tensors of an adapter for FLUX by the names of diffusers, which splits what the original
    code holds in one matrix.

    The names of text encoders stay: diffusers drops those of T5 and says nothing.
    """
    if not any(block in name for name in tensors for block in FLUX_BLOCKS):
        return tensors
    from diffusers.loaders import FluxLoraLoaderMixin

    tensors = {_flux_text(name): tensor for name, tensor in tensors.items()}
    texts = {name: tensor for name, tensor in tensors.items() if _of_text(name)}
    others = {name: tensor for name, tensor in tensors.items() if name not in texts}
    kohya = any(".lora_down." in name for name in others)
    if dropped := [name for name in others if kohya and not FLUX_KEPT.fullmatch(name)]:
        raise ModelError(
            f"{said} has names of FLUX, and others such as {shown(dropped[0])[:80]!r}; {ACCEPTED}."
        )
    try:
        found, alphas = FluxLoraLoaderMixin.lora_state_dict(others, return_alphas=True)
    except Exception as error:  # nonsense can make it raise anything
        raise ModelError(
            f"{said} has names of FLUX that diffusers cannot convert; {ACCEPTED}."
        ) from error
    scales = {name: torch.tensor(alpha) for name, alpha in (alphas or {}).items()}
    return dict(found) | scales | texts


def _flux_text(name: str) -> str:
    """A name in an adapter for FLUX, that of a text encoder as diffusers has it."""
    for theirs, ours in FLUX_TEXTS.items():
        if name.startswith(theirs):
            return ours + name.removeprefix(theirs)
    return name


def _of_text(name: str) -> bool:
    return name.startswith("lora_te") or is_text(name)


def _configs(metadata: Mapping[str, str], said: str) -> dict[str, dict[str, Any]]:
    """The settings of each part of a pipeline that diffusers keeps in a file's metadata, by the
    part's name with a dot behind.
    """
    text = metadata.get("lora_adapter_metadata")
    if text is None:
        return {}
    if len(text) > LARGEST_SETTINGS:
        raise ModelError(
            f"{said} has metadata of its scale with {len(text):,} letters; up to"
            f" {LARGEST_SETTINGS:,} are accepted."
        )
    try:
        values = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ModelError(f"{said} has metadata of its scale that is no JSON object.") from error
    if not isinstance(values, dict):
        raise ModelError(f"{said} has metadata of its scale that is no JSON object.")
    found: dict[str, dict[str, Any]] = {}
    for name, value in values.items():
        part, dot, setting = name.partition(".")
        found.setdefault(part + dot, {})[setting] = value
    return found


def _scale(
    own: Mapping[str, Tensor], configs: Mapping[str, dict[str, Any]], layer: str, said: str
) -> float:
    """What the update of a layer is multiplied by: alpha / rank, 1 where no alpha is known.

    A tensor beside the factors says it, else the settings of the adapter.
    """
    rank = len(own["A"]) if own["A"].ndim else 0
    if not rank:
        return 1.0
    if "alpha" in own:
        if own["alpha"].numel() != 1 or own["alpha"].is_complex():
            raise ModelError(f"{said} has an alpha that is no number, of {shown(layer)[:80]!r}.")
        return float(own["alpha"]) / rank
    for part, config in configs.items():
        if layer.startswith(part):
            alpha = _of_layer(config, layer.removeprefix(part), said)
            if alpha is not None:
                return alpha / (math.sqrt(rank) if config.get("use_rslora") else rank)
    return 1.0


def _of_layer(config: Mapping[str, Any], layer: str, said: str) -> float | None:
    """The alpha of a layer in the settings of an adapter; peft names layers by the ends of their
    names.
    """
    own = config.get("alpha_pattern") or {}
    if not isinstance(own, dict):
        raise ModelError(f"{said} has an alpha_pattern that is no JSON object.")
    if len(own) > MOST_PATTERNS:
        raise ModelError(
            f"{said} has an alpha_pattern of {len(own):,} names; up to {MOST_PATTERNS:,} are"
            " accepted."
        )
    alpha, matched = config.get("lora_alpha"), False
    for pattern, value in own.items():
        name = pattern.removeprefix("^").removesuffix("$").replace("\\", "")
        if not re.fullmatch(r"[\w.]+", name):  # a pattern of a stranger may take forever to match
            raise ModelError(
                f"{said} has the alpha_pattern {shown(pattern)[:80]!r}; names of layers are"
                " accepted."
            )
        inside = not pattern.startswith("^") and layer.endswith(f".{name}")
        if not matched and (layer == name or inside):  # the first, as in peft
            alpha, matched = value, True
    if alpha is not None and (isinstance(alpha, bool) or not isinstance(alpha, (int, float))):
        raise ModelError(f"{said} has the alpha {shown(str(alpha))[:40]!r}, which is no number.")
    if alpha is not None and not abs(alpha) <= LARGEST_UPDATE:
        raise ModelError(
            f"{said} has an alpha that is no number of at most {LARGEST_UPDATE}; a smaller one is"
            " accepted."
        )
    return alpha


def _wide(tensor: Tensor) -> Tensor:
    """A factor that can be multiplied without losing what half precision has no room for."""
    return tensor.float() if tensor.dtype in (torch.float16, torch.bfloat16) else tensor


def _with_middle(own: dict[str, Tensor], said: str) -> dict[str, Tensor]:
    """A (rank, in, height, width) of a convolution whose A is stored in two parts (LoCon's Tucker
    form): `mid` (rank, rank, height, width) and A (rank, in, 1, 1).
    """
    middle = own.get("mid")
    if middle is None:
        return {}
    a = own["A"]
    fits = middle.ndim == 4 and a.ndim == 4 and a.shape[2:] == (1, 1)
    if not fits or middle.shape[1] != len(a) or not middle.is_floating_point():
        raise ModelError(
            f"{said} has a middle factor of shape {list(middle.shape)} for one of {list(a.shape)};"
            " (rank, rank, height, width) and (rank, in, 1, 1) are accepted."
        )
    if len(middle) * a.shape[1] * math.prod(middle.shape[2:]) > LARGEST_MIDDLE:
        raise ModelError(
            f"{said} has a middle factor of shape {list(middle.shape)}, which makes one of more"
            f" than {LARGEST_MIDDLE:,} numbers; fewer are accepted."
        )
    return {"A": torch.einsum("rshw,si->rihw", _wide(middle), _wide(a).flatten(1))}


def _dense_as_factors(update: Tensor, said: str) -> dict[str, Tensor]:
    """Exact factors of a dense update (out, in, ...): itself, and an identity on its smaller
    side.
    """
    if update.ndim < 2 or not update.numel():
        raise ModelError(
            f"{said} has a dense update of shape {list(update.shape)}; (out, in) is accepted."
        )
    rows, columns = update.flatten(1).shape
    ones = [1] * (update.ndim - 2)
    if rows <= columns:
        return {"A": update, "B": torch.eye(rows, dtype=update.dtype).reshape(rows, rows, *ones)}
    identity = torch.eye(columns, dtype=update.dtype)
    return {
        "A": identity.reshape(columns, *update.shape[1:]),
        "B": update.reshape(rows, columns, *ones),
    }


def to_kohya(state: Mapping[str, Tensor]) -> State:
    """An adapter as ComfyUI, A1111 and kohya's tools read it, with the alpha of scale 1."""
    part, several, written = _part(state), _has_several_texts(state), {}
    for name, tensor in state.items():
        layer, _, side = name.partition(".lora_")
        said = kohya_name(layer, part, several)
        if side.startswith("A."):
            written[f"{said}.lora_down.weight"] = tensor
            written[f"{said}.alpha"] = torch.tensor(float(len(tensor)))
        else:
            written[f"{said}.lora_up.weight"] = tensor
    return written


def to_dense(state: Mapping[str, Tensor]) -> State:
    """The update of every layer as ComfyUI and A1111 read a dense one."""
    part, several, written = _part(state), _has_several_texts(state), {}
    for layer, factors in layer_factors(state).items():
        a, b = (state[f"{layer}.lora_{side}.weight"] for side in "AB")
        update = update_of(tuple(factor.float() for factor in factors))
        written[f"{kohya_name(layer, part, several)}.diff"] = update.reshape(len(b), *a.shape[1:])
    return written


def _part(state: Mapping[str, Tensor]) -> str:
    return denoiser_part(name.partition(".lora_")[0] for name in state)


def _has_several_texts(state: Mapping[str, Tensor]) -> bool:
    """Whether the adapter is of a model with more than one text encoder."""
    named = any(is_text(name) and not name.startswith("text_encoder.") for name in state)
    return named or _part(state) == "transformer" or _text_width(state) == SDXL_WIDTH


def trainers_metadata(state: Mapping[str, Tensor], metadata: Mapping[str, str]) -> dict[str, str]:
    """What kohya's trainers say of an adapter, and what the Stability AI specification asks for, as
    far as it is known, beside our own `metadata`.
    """
    ranks = {len(tensor) for name, tensor in state.items() if ".lora_A." in name}
    rank = str(min(ranks)) if len(ranks) == 1 else "Dynamic"
    said = {
        "ss_network_module": "networks.lora",
        "ss_network_dim": rank,
        "ss_network_alpha": rank,
        "modelspec.sai_model_spec": "1.0.0",
        "modelspec.implementation": "diffusers",
        "modelspec.title": f"{metadata.get('concept', 'a concept')} unlearned",
    }
    base = BASES.get(_text_width(state))
    if base:
        said |= {"ss_base_model_version": base[0], "modelspec.architecture": base[1]}
        said |= {"ss_v2": str(base[0] == "sd_v2")}
    if "base" in metadata:
        said["ss_sd_model_name"] = metadata["base"]
    if "concept" in metadata:
        said["modelspec.description"] = f"Makes the model forget: {metadata['concept']}"
    return said | dict(metadata)


def _text_width(state: Mapping[str, Tensor]) -> int | None:
    """The width of the text states that a UNet's adapter reads; None where it reads none."""
    reads: Callable[[str], bool] = re.compile(r"\.attn2\.to_[kv]\.lora_A\.weight$").search
    return next((t.shape[1] for n, t in state.items() if reads(n) and not is_text(n)), None)
