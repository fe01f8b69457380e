"""Runs to and from the Hugging Face Hub."""

import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open

from ..common.errors import ConfigError, HubError, ModelError
from ..common.images import open_png
from ..common.new_folder import NewFolder
from ..common.private_folder import PrivateFolder
from ..common.record_files import (
    LARGEST,
    LARGEST_HASHED,
    check_files,
    damaged,
    inside,
    read_record,
    shown,
)
from ..models.diffusers.adapter_files import read_adapter
from .findings import read_findings
from .folder import ADAPTER, Run
from .publication import CARD, MANIFEST, Manifest, write_publication

REPOSITORY = re.compile(r"[A-Za-z0-9][\w.-]{0,95}/[A-Za-z0-9][\w.-]{0,95}")
FETCHED = ".fetched"
"""Where files are fetched to inside of the new folder; no run names a hidden one."""
NAME = re.compile(r"(?:[A-Za-z0-9][\w.-]{0,200}/){0,3}[A-Za-z0-9][\w.-]{0,200}")
"""Names of files in a published run: no hidden ones, nothing outside of the folder."""
ENDINGS = {".json": LARGEST, ".jsonl": LARGEST, ".txt": LARGEST, ".png": LARGEST}
ENDINGS[".safetensors"] = LARGEST_HASHED
"""The files of a run and their most bytes."""
LARGEST_RUN = 2 * LARGEST_HASHED
"""The most bytes of all files of a run together."""


def check_repository(name: str) -> None:
    """Refuse what cannot be the name of a repository.

    Raises:
        ConfigError: it is not of the form owner/name.
    """
    if not REPOSITORY.fullmatch(name) or ".." in name or "--" in name:
        raise ConfigError(
            f"The repository {name!r:.120} is no name on the Hub; OWNER/NAME is accepted.", "name"
        )


def push(run: Path, name: str, *, private: bool = False, own_prompts: bool = False) -> str:
    """Upload a run with a model card to the repository `name`, which is made where there is none;
    returns its address.

    Raises:
        ConfigError: `name` is no owner/name.
        OutputError: there is no whole run in the folder.
        HubError: no network, no token, or the repository holds something else.
    """
    check_repository(name)
    from huggingface_hub import CommitOperationAdd, HfApi, get_token

    if not get_token():
        raise HubError(
            "There is no Hugging Face token here; one with the right to write is accepted, by"
            " `hf auth login` or as HF_TOKEN."
        )
    api = HfApi()
    with PrivateFolder("unlearn-push-") as place:
        folder = write_publication(run, place / "run", name, own_prompts)
        with _answers(name):
            address = api.create_repo(name, private=private, exist_ok=True)
            _check_free(api.model_info(name), private)
            files = sorted(path for path in folder.rglob("*") if path.is_file())
            added = [
                CommitOperationAdd(path.relative_to(folder).as_posix(), path) for path in files
            ]
            api.create_commit(name, added, commit_message="Publish a run")
    return str(address)


def _check_free(info: Any, private: bool) -> None:
    """Refuse to publish over something else, or openly what is to be private.

    Raises:
        HubError: the repository is one that was there before, and not what it should be.
    """
    there = {sibling.rfilename for sibling in info.siblings or ()} - {".gitattributes"}
    if there and MANIFEST not in there:
        raise HubError(
            f"The repository {info.id} holds something else; an empty or new one, or one with a"
            " published run, is accepted."
        )
    if private and not info.private:
        raise HubError(f"The repository {info.id} is there and public; a private one is accepted.")


def pull(name: str, out: Path) -> Path:
    """Fetch a published run into the new folder `out`, and return it; nothing of what is there is
    trusted.

    Only files that the run lists are fetched, of kinds and sizes that a run has, and they are what
    their hashes say before the folder gets its name.

    Raises:
        ConfigError: `name` is no owner/name.
        HubError: no network, or no published run there.
        UnlearnError: the run is damaged, or `out` exists or cannot be written.
    """
    check_repository(name)
    with NewFolder(out) as new:
        fetched = new.partial / FETCHED
        fetched.mkdir()
        with _answers(name):
            files = _fetch(name, fetched)
        for file in files:
            (new.partial / file).parent.mkdir(parents=True, exist_ok=True)
            shutil.move(inside(fetched, file, "run"), new.partial / file)
        shutil.rmtree(fetched)  # with what the Hub's client keeps beside what it fetches
        _check(new.partial, files)
        return new.settle()


def _fetch(name: str, place: Path) -> dict[str, str]:
    """Fetch the files of the published run into `place`; returns their hashes by name."""
    from huggingface_hub import HfApi
    from huggingface_hub.errors import EntryNotFoundError

    api = HfApi()
    info = api.model_info(name, files_metadata=True)
    sizes = {sibling.rfilename: sibling.size for sibling in info.siblings or ()}
    fetch = partial(api.hf_hub_download, name, revision=info.sha, local_dir=place)
    if MANIFEST not in sizes:
        raise HubError(f"The repository {name} holds no run that was published with `push`.")
    if not 0 < (sizes[MANIFEST] or 0) <= LARGEST:
        raise damaged(place, "run", f"{MANIFEST} has {sizes[MANIFEST]} bytes")
    fetch(MANIFEST)
    listed = read_record(place / MANIFEST, Manifest, "published run")["files"]
    for file, entry in listed.items():
        _check_listed(name, file, entry["size"], sizes)
    if (total := sum(entry["size"] for entry in listed.values())) > LARGEST_RUN:
        raise HubError(f"The run in {name} has {total:,} bytes; {LARGEST_RUN:,} are accepted.")
    try:
        for file in listed:
            fetch(file)
    except EntryNotFoundError as error:
        raise HubError(f"The run in {name} is not whole: a file that it lists is gone.") from error
    return {file: entry["sha256"] for file, entry in listed.items()}


def _check_listed(name: str, file: str, size: int, sizes: dict[str, int | None]) -> None:
    """Refuse a file before it is fetched."""
    said = f"The run in {name} lists {shown(file)[:80]!r}"
    ending = Path(file).suffix
    if not NAME.fullmatch(file) or ".." in file:
        raise HubError(f"{said}; names of letters inside of its folder are accepted.")
    if ending not in ENDINGS or file == CARD:
        raise HubError(f"{said}; files of the kinds {', '.join(ENDINGS)} are accepted.")
    if file not in sizes:
        raise HubError(f"{said}, which is not there; a whole run is accepted.")
    if sizes[file] != size or size > ENDINGS[ending]:
        raise HubError(
            f"{said} with {size:,} bytes, and it has {sizes[file] or 0:,}; the same number, up to"
            f" {ENDINGS[ending]:,}, is accepted."
        )


def _check(folder: Path, files: dict[str, str]) -> None:
    """See that the folder is a run, file by file.

    Raises:
        UnlearnError: it is not.
    """
    check_files(folder, files, "run")
    for file, digest in Run.open(folder).record["files"].items():
        if files.get(file) != digest:
            raise damaged(folder, "run", f"{file[:80]} is not the file that was recorded")
    read_findings(folder)
    for file in files:
        if file.endswith(".png"):
            open_png(folder / file)
        elif file == ADAPTER:
            read_adapter(folder / file)
        elif file.endswith(".safetensors"):
            try:
                with safe_open(folder / file, "pt"):
                    pass
            except (OSError, SafetensorError) as error:
                raise ModelError(f"The adapter {file!r} of the run cannot be read.") from error


@contextmanager
def _answers(name: str) -> Iterator[None]:
    """Turn what the Hub's library raises into sentences.

    Raises:
        HubError: the Hub cannot be reached, or refuses.
    """
    from huggingface_hub.errors import (
        HfHubHTTPError,
        HTTPError,
        LocalEntryNotFoundError,
        OfflineModeIsEnabled,
        RepositoryNotFoundError,
    )

    try:
        yield
    except OfflineModeIsEnabled as error:
        raise HubError(
            "The Hugging Face Hub is not asked while HF_HUB_OFFLINE is set; unset it to reach it."
        ) from error
    except RepositoryNotFoundError as error:
        raise HubError(
            f"There is no repository {name} on the Hub, or only its owner may see it."
        ) from error
    except HfHubHTTPError as error:
        raise HubError(f"The Hub refuses {name}: {_reason(error)}.") from error
    except (HTTPError, LocalEntryNotFoundError, ConnectionError) as error:
        raise HubError(
            f"The Hugging Face Hub cannot be reached ({type(error).__name__}); a network is needed."
        ) from error


def _reason(error: Any) -> str:
    code = getattr(error.response, "status_code", "")
    if code in (401, 403):
        return "the token has no right to do that"
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return shown(lines[0])[:160].rstrip(".")
