"""What others have published as an unlearned model: an adapter, a folder or a Hugging Face id, put
into the slot of a model that holds what was unlearned.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from ..common.errors import ModelError
from ..common.record_files import check_files, sha256_of, shown
from ..models.diffusers.adapter_files import READ_ERRORS, read_adapter
from ..models.diffusers.model_folder import public_name
from ..models.diffusers.replaced_parts import difference, read_replacement
from ..models.lora import frobenius_norm
from ..models.protocols import Model
from ..models.weight_differences import is_difference
from .folder import ADAPTER, REPLACEMENT, Run

LARGEST_ADAPTER = 4 * 2**30
"""The most bytes of an adapter; one of rank 128 over all of SDXL has a quarter of that."""


@dataclass(frozen=True)
class Published:
    """An adapter file, a model folder or a Hugging Face id, and what to call it."""

    source: str

    @property
    def name(self) -> str:
        """Its last name where it lies on this machine, since records are shared."""
        return public_name(self.source)

    @property
    def is_adapter(self) -> bool:
        """Whether it is one file and not a model."""
        path = Path(self.source)
        try:
            return path.suffix == ".safetensors" or (path.exists() and not path.is_dir())
        except OSError:  # a name too long, of which no model is told apart later
            return False

    def put(self, model: Model) -> tuple[str, ...]:
        """Put it into the slot `unlearn` of the original `model`; returns what there is to say of
        it, in sentences.

        Raises:
            ModelError: it cannot be read, is too large, holds numbers that are not finite, or was
                made for another base.
        """
        return self._put_adapter(model) if self.is_adapter else self._put_model(model)

    def _put_adapter(self, model: Model) -> tuple[str, ...]:
        path = Path(self.source)
        said = f"The adapter {self.name!r}"
        if not path.exists():
            raise ModelError(f"There is no adapter {self.source!r}; a .safetensors file is needed.")
        if path.is_file() and path.stat().st_size > LARGEST_ADAPTER:
            raise ModelError(
                f"{said} has {path.stat().st_size:,} bytes; up to {LARGEST_ADAPTER:,} are accepted."
            )
        state = read_adapter(path)
        base = base_of(path)
        if base not in ("", model.base_hash):
            raise ModelError(
                f"{said} was made for the weights {shown(base)[:64]!r} and the original"
                f" {model.name!r} has {model.base_hash!r}; an adapter for these is accepted."
            )
        model.load_adapter("unlearn", state)
        notes = (f"What is audited is the adapter {self.name} (SHA-256 {sha256_of(path)[:12]}).",)
        changes = (tensor for name, tensor in state.items() if is_difference(name))
        if not frobenius_norm(state) and not any(tensor.any() for tensor in changes):
            notes += ("Its update is zero: with it the model is the original, byte for byte.",)
        return notes

    def _put_model(self, model: Model) -> tuple[str, ...]:
        from ..models.catalog import load_model

        other = load_model(self.source)
        replacement = difference(model, other)
        del other  # what is alike in both is held once from here on
        model.load_replacement(replacement)
        said = f"What is audited is the model {self.name}"
        if replacement.is_empty:
            return (f"{said}, which is the original, byte for byte.",)
        count = sum(len(params) for params in replacement.weights.values())
        parts = ", ".join([*replacement.weights, *replacement.tokenizers])
        return (f"{said}; it differs from the original in {parts}: {count} tensors.",)


def base_of(path: Path) -> str:
    """The hash of the weights that an adapter file says it was made for; empty where it does not.

    Raises:
        ModelError: it cannot be read.
    """
    from safetensors import safe_open

    try:
        with safe_open(path, "pt") as file:
            return (file.metadata() or {}).get("base_sha256", "")
    except READ_ERRORS as error:
        raise ModelError(f"The adapter {str(path)!r} cannot be read.") from error


def check_unlearned(run: Run) -> None:
    """Refuse a run that holds nothing that was unlearned, or not what it recorded.

    Raises:
        ConfigError: it ended before that.
        OutputError: a file has changed since.
    """
    files = run.record["files"]
    kept = {name: sha for name, sha in files.items() if name.startswith(f"{REPLACEMENT}/")}
    if kept:
        check_files(run.folder, kept, "run")
    else:
        run.adapter()


def load_unlearned(run: Run, model: Model) -> Callable[[], None]:
    """What puts the unlearned model of a run into the slot `unlearn` of `model`, whose slots may be
    emptied in between.

    Raises:
        ModelError: it cannot be read, or does not fit.
    """
    if (run.folder / REPLACEMENT).is_dir():
        replacement = read_replacement(run.folder / REPLACEMENT, model)
        return lambda: model.load_replacement(replacement)
    state = read_adapter(run.folder / ADAPTER)
    return lambda: model.load_adapter("unlearn", state)
