"""Where the files of a model come from: a folder, a single file, or the Hub."""

import hashlib
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from ...common.errors import ModelError
from ...common.private_folder import PrivateFolder
from .model_folder import check_folder, hash_into, hash_weights, looks_like_hub_id, plain_folder
from .single_file import check_checkpoint, write_configs
from .weight_files import PICKLES


@dataclass(frozen=True)
class Source:
    """The files of a model that have passed every check.

    `folder` is a temporary one that holds what libraries read and nothing else, without weights
    where those are in a `checkpoint`. `home` and `files` are where they really are.
    """

    folder: Path
    home: Path
    files: tuple[str, ...]
    checkpoint: Path | None = None

    @property
    def size(self) -> int:
        """The bytes of all weights."""
        weights = [name for name in self.files if name.endswith(".safetensors")]
        return sum((self.home / name).stat().st_size for name in weights)

    def base_hash(self) -> str:
        """sha256 over the weights of the denoiser, or over all that are in a single file."""
        if self.checkpoint is None:
            return hash_weights(self.home)
        digest = hashlib.sha256()
        hash_into(digest, self.checkpoint)
        return digest.hexdigest()


@contextmanager
def opened(source: str, kinds: Collection[str]) -> Iterator[Source]:
    """The model in a folder in diffusers format, in a .safetensors file, or on the Hub; `kinds` are
    the accepted classes of pipelines.

    Raises:
        ModelError: it is missing, damaged, of a kind we refuse, or cannot be downloaded.
    """
    path = Path(source)
    try:
        is_file = path.is_file()
    except OSError as error:
        raise ModelError(
            f"The model {source!r:.80} cannot be read: {error.strerror or error}."
        ) from error
    if is_file:
        with _checkpoint(path) as found:
            yield found
        return
    if not path.is_dir():
        if path.exists() or not looks_like_hub_id(source):
            raise ModelError(
                f"There is no model folder {source!r}; pocket, pocket-flow, a folder, a"
                " .safetensors file or owner/name is accepted."
            )
        from .hub import downloaded

        path = downloaded(source, kinds)
    files = check_folder(path, kinds)
    with plain_folder(path, files) as folder:
        yield Source(folder, path, tuple(files))


@contextmanager
def _checkpoint(file: Path) -> Iterator[Source]:
    if file.suffix.lower() in PICKLES:
        raise ModelError(
            f"The model file {str(file)!r} is a pickle, which can run code; safetensors are"
            " accepted."
        )
    if file.suffix != ".safetensors":
        raise ModelError(
            f"The model file {str(file)!r} is no .safetensors file; one, or a diffusers folder, is"
            " accepted."
        )
    configs = check_checkpoint(file)
    with PrivateFolder("unlearn-model-") as folder:
        write_configs(folder, configs)
        yield Source(folder, file.parent, (file.name,), file)
