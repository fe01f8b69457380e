"""Models from the Hub of Hugging Face: checked before they are downloaded, and of their files only
those that are read.
"""

import json
from collections.abc import Collection
from pathlib import Path

from huggingface_hub import HfApi, hf_hub_download, snapshot_download
from huggingface_hub.errors import (
    EntryNotFoundError,
    GatedRepoError,
    HfHubHTTPError,
    HFValidationError,
    LocalEntryNotFoundError,
    RepositoryNotFoundError,
)

from ...common.errors import ModelError, UnlearnError
from .model_folder import INDEX, check_kind, files_to_read, first_line

WAIT = 5
"""Seconds in which the Hub must answer."""


def answers(repo: str) -> bool:
    """Whether the Hub says anything of `repo`, owner/name; downloads ask five times more where it
    cannot be reached, for almost half a minute a file.
    """
    try:
        HfApi().model_info(repo, timeout=WAIT)
    except HfHubHTTPError:
        return True
    except Exception:  # no network, in classes of the library below
        return False
    return True


def downloaded(repo: str, kinds: Collection[str]) -> Path:
    """The folder of the model `repo`, owner/name, in the cache of this user, downloaded if need be;
    the one there is where the Hub cannot be reached. `kinds` are the accepted classes of pipelines.

    Raises:
        ModelError: there is no such model, it is of a kind we refuse, or is not in the cache
            without a network.
    """
    said = f"The model {repo!r}"
    try:
        return _fetched(repo, kinds)
    except UnlearnError:
        raise
    except GatedRepoError as error:
        raise ModelError(
            f"{said} asks for consent on its page at huggingface.co; after that and"
            " `hf auth login` it is accepted."
        ) from error
    except (RepositoryNotFoundError, HFValidationError) as error:
        raise ModelError(
            f"{said} is not on the Hub, or is private; pocket, pocket-flow, a folder, a"
            " .safetensors file or owner/name is accepted."
        ) from error
    except LocalEntryNotFoundError as error:
        return _cached(repo, error)
    except EntryNotFoundError as error:
        raise ModelError(
            f"{said} has no {INDEX} on the Hub; a diffusers pipeline is accepted."
        ) from error
    except Exception as error:  # no network, in classes of the library below
        return _cached(repo, error)


def _fetched(repo: str, kinds: Collection[str]) -> Path:
    HfApi().model_info(repo, timeout=WAIT)  # fails at once without a network
    file = Path(hf_hub_download(repo, INDEX))  # of the main branch, whose commit the cache notes
    commit, index = file.parent.name, json.loads(file.read_text())
    check_kind(index, repo, kinds)
    files = files_to_read(HfApi().list_repo_files(repo, revision=commit), index)
    return Path(snapshot_download(repo, revision=commit, allow_patterns=files))


def _cached(repo: str, error: Exception) -> Path:
    try:
        return Path(snapshot_download(repo, local_files_only=True))
    except LocalEntryNotFoundError as missing:
        # The cache holds the files that are read, not every file of the repository.
        if found := getattr(missing, "snapshot_path", None):
            return Path(found)
        raise ModelError(
            f"The model {repo!r} is not in the cache and the Hub cannot be reached"
            f" ({first_line(error)}); a network or a folder is accepted."
        ) from error
