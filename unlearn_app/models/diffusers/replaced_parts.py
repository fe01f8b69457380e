"""Another model's weights and tokenizers, found beside the original's, put into its pipeline and
taken out again, and kept in a run folder.
"""

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import nn

from ...common.errors import ModelError, UnlearnError
from ...common.record_files import shown
from ..protocols import Params
from ..replacement import Replacement, between
from .model_folder import first_line
from .plain_weights import plain_weights

WEIGHTS = "weights.safetensors"
SAMPLED_ALIKE = (
    "prediction_type",
    "num_train_timesteps",
    "beta_start",
    "beta_end",
    "beta_schedule",
    "rescale_betas_zero_snr",
    "shift",
)
"""Settings of a scheduler that say what a network predicts and at which noise."""


class ReplacedParts:
    """The parts of another model beside its denoiser, for the pipeline `pipe`: `weights` by part
    and name, and `tokenizers`; outside at first.
    """

    def __init__(
        self, pipe: Any, weights: Mapping[str, Params], tokenizers: Mapping[str, Any]
    ) -> None:
        self._pipe, self._weights, self._tokenizers = pipe, weights, tokenizers
        self._away: dict[str, Any] = {}
        """What is put away meanwhile, by part: weights by name, or a tokenizer."""
        self.inside = False

    def put(self, inside: bool) -> None:
        """Put the parts in, or take them out."""
        if inside == self.inside:
            return
        new = {**self._weights, **self._tokenizers} if inside else self._away
        self._away = {part: self._exchanged(part, own) for part, own in new.items()}
        self.inside = inside

    def _exchanged(self, part: str, new: Any) -> Any:
        """Put `new` into a part and return what was there."""
        own = getattr(self._pipe, part)
        if not isinstance(own, nn.Module):
            setattr(self._pipe, part, new)
            return own
        weights = plain_weights(own)
        before = {name: weights[name].data for name in new}
        for name, weight in new.items():
            weights[name].data = weight
        return before

    def scaled(self, factor: float) -> "ReplacedParts":
        """The same with `factor` times the difference; this one is outside meanwhile. A tokenizer
        cannot be scaled: it is the original's at 0 and below.
        """
        self.put(False)
        weights = {
            part: {name: between(own[name].data, weight, factor) for name, weight in new.items()}
            for part, new in self._weights.items()
            for own in [plain_weights(getattr(self._pipe, part))]
        }
        return ReplacedParts(self._pipe, weights, self._tokenizers if factor > 0 else {})


def difference(own: Any, other: Any) -> Replacement:
    """What the pipeline of the model `other` has in place of that of `own`, both loaded and without
    adapters. Only what differs is kept, so `other` may be let go afterwards.

    Raises:
        ModelError: `other` was made for another base: its parts have other layers or sizes, or it
            predicts something else.
    """
    weights, tokenizers = {}, {}
    for part, mine in own.pipe.components.items():
        theirs = other.pipe.components.get(part)
        if isinstance(mine, nn.Module):
            if changed := _changed(part, mine, theirs, own.name, other.name):
                weights[part] = changed
        elif part.startswith("tokenizer") and mine is not None:
            if theirs is None or _vocabulary(mine) != _vocabulary(theirs):
                tokenizers[part] = theirs
        elif part == "scheduler":
            _check_alike(mine, theirs, own.name, other.name)
    return Replacement(weights, tokenizers)


def _changed(part: str, mine: nn.Module, theirs: Any, own: str, other: str) -> Params:
    new = plain_weights(theirs) if isinstance(theirs, nn.Module) else {}
    before = plain_weights(mine)
    _check_shapes(part, new, before, f"The unlearned model {shown(other)[-200:]!r}", own)
    return {
        name: weight.detach().to(before[name])
        for name, weight in new.items()
        if not torch.equal(weight.to(before[name]), before[name])
    }


def _check_shapes(part: str, new: Mapping, before: Mapping, said: str, own: str) -> None:
    """Refuse weights that are not those of `before`, by name and shape."""
    for name in [*before, *new]:
        shapes = [list(found[name].shape) if name in found else None for found in (new, before)]
        if shapes[0] != shapes[1]:
            held, wanted = ("none" if shape is None else f"shape {shape}" for shape in shapes)
            raise ModelError(
                f"{said} was made for another base: of {part} {shown(name)[:80]} it has {held}, the"
                f" original {own!r} {wanted}; a model with the layers of the original is accepted."
            )


def _check_alike(mine: Any, theirs: Any, own: str, other: str) -> None:
    for name in SAMPLED_ALIKE:
        values = [getattr(part, "config", {}).get(name) for part in (mine, theirs)]
        if values[0] != values[1]:
            raise ModelError(
                f"The unlearned model {shown(other)[-200:]!r} was made for another base: its"
                f" {name} is {values[1]!r:.60} and that of {own!r} {values[0]!r:.60}; a model that"
                " predicts what the original does is accepted."
            )


def _vocabulary(tokenizer: Any) -> str:
    """All that a tokenizer does with a text, as a text that can be compared."""
    backend = getattr(tokenizer, "backend_tokenizer", None)
    rules = backend.to_str() if backend else ""
    return rules + repr(sorted(tokenizer.get_vocab().items()))


def save_replacement(folder: Path, replacement: Replacement) -> None:
    """Write what differs into a new folder: one safetensors file, and a folder per tokenizer."""
    folder.mkdir(parents=True)
    tensors = {
        f"{part}/{name}": weight.cpu().contiguous()
        for part, params in replacement.weights.items()
        for name, weight in params.items()
    }
    save_file(tensors, folder / WEIGHTS, metadata={"format": "pt"})
    for part, tokenizer in replacement.tokenizers.items():
        _copy_tokenizer(tokenizer, folder / part)


def _copy_tokenizer(tokenizer: Any, to: Path) -> None:
    """Copy the files that a tokenizer was read from. What the library writes is another one where
    two words have one number, which is what a filter of prompts is made of.
    """
    source = Path(str(getattr(tokenizer, "name_or_path", "")))
    if not (source / "tokenizer_config.json").is_file():
        tokenizer.save_pretrained(to)
        return
    to.mkdir()
    for path in source.iterdir():
        if path.suffix in (".json", ".txt"):
            shutil.copyfile(path, to / path.name)


def read_replacement(folder: Path, model: Any) -> Replacement:
    """What `save_replacement` wrote of another model in place of `model`.

    Raises:
        ModelError: it cannot be read, does not fit the model, or holds numbers that are not finite.
    """
    said = f"The unlearned model in {str(folder)!r}"
    parts: dict[str, Params] = {}
    components = model.pipe.components
    tokenizers = {}
    try:
        with safe_open(folder / WEIGHTS, "pt") as file:
            for key in file.keys():  # noqa: SIM118  it is no mapping
                part, _, name = key.partition("/")
                parts.setdefault(part, {})[name] = file.get_tensor(key)
        for path in sorted(path for path in folder.iterdir() if path.is_dir()):
            own = components.get(path.name) if path.name.startswith("tokenizer") else None
            if own is None:
                raise ModelError(f"{said} holds {path.name[:80]!r}, which the original does not.")
            tokenizers[path.name] = type(own).from_pretrained(path)
    except UnlearnError:
        raise
    except Exception as error:  # a damaged tokenizer can make its library raise anything
        raise ModelError(f"{said} cannot be read: {first_line(error)}.") from error
    for part, params in parts.items():
        own = components.get(part)
        before = plain_weights(own) if isinstance(own, nn.Module) else {}
        _check_shapes(part, params, {n: w for n, w in before.items() if n in params}, said, part)
        for name, weight in params.items():
            if not weight.isfinite().all():
                raise ModelError(f"{said} holds numbers that are not finite, in {name[:80]}.")
        parts[part] = {name: weight.to(before[name]) for name, weight in params.items()}
    return Replacement(parts, tokenizers)
