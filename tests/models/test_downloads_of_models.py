"""Models by Hub id: checked before their weights are asked for, only what is read is downloaded,
and what is in the cache works without a network.
"""

import json
import shutil
from collections.abc import Sequence
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import httpx
import pytest
import torch
from absent_hub import unreachable
from huggingface_hub import snapshot_download
from huggingface_hub.errors import (
    GatedRepoError,
    HfHubHTTPError,
    HFValidationError,
    LocalEntryNotFoundError,
    OfflineModeIsEnabled,
    RemoteEntryNotFoundError,
    RepositoryNotFoundError,
)

from unlearn_app.common.errors import ModelError
from unlearn_app.models.diffusers import hub
from unlearn_app.models.diffusers.adapter_files import origin
from unlearn_app.models.diffusers.loading import load_pipeline
from unlearn_app.models.diffusers.model_folder import looks_like_hub_id
from unlearn_app.runs.published import Published

REPO, COMMIT = "somebody/tiny", "0" * 40
HOW = {"steps": 2, "guidance_scale": 2.0}


class Hub:
    """Stands in for huggingface.co: one repository, and a record of what was asked of it."""

    def __init__(self, folder: Path, cache: Path) -> None:
        self.folder, self.cache = folder, cache
        self.fetched: list[str] = []

    def model_info(self, repo: str, timeout: float) -> None:
        """It is there."""

    def list_repo_files(self, repo: str, revision: str) -> list[str]:
        files = [path for path in self.folder.rglob("*") if path.is_file()]
        return [path.relative_to(self.folder).as_posix() for path in files]

    def hf_hub_download(self, repo: str, name: str, revision: str = "main") -> str:
        return self.snapshot_download(repo, revision, [name]) + f"/{name}"

    def snapshot_download(self, repo: str, revision: str, allow_patterns: Sequence[str]) -> str:
        """As huggingface_hub lays its cache out, which notes the commit of a branch alone."""
        place = self.cache / f"models--{repo.replace('/', '--')}"
        (place / "refs").mkdir(parents=True, exist_ok=True)
        if revision != COMMIT:
            (place / "refs" / revision).write_text(COMMIT)
            revision = COMMIT
        for name in self.list_repo_files(repo, revision):
            if any(fnmatch(name, pattern) for pattern in allow_patterns):
                self.fetched.append(name)
                target = place / "snapshots" / revision / name
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(self.folder / name, target)
        return str(place / "snapshots" / revision)


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def online(tiny_pipeline: Path, tmp_path: Path, cache: Path, monkeypatch) -> Hub:
    """The small pipeline on the Hub, with much beside it that nobody needs."""
    folder = Path(shutil.copytree(tiny_pipeline, tmp_path / "repository"))
    for name in (
        "v1-5-pruned.safetensors",
        "v1-5-pruned.ckpt",
        "README.md",
        "unet/diffusion_pytorch_model.bin",
        "unet/diffusion_pytorch_model.fp16.safetensors",
        "safety_checker/model.safetensors",
        "safety_checker/config.json",
        "text_encoder/adapter_config.json",
        "pipeline.py",
    ):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_bytes(b"x")
    found = Hub(folder, cache)
    monkeypatch.setattr(hub, "HfApi", lambda: found)
    for name in ("hf_hub_download", "snapshot_download"):
        monkeypatch.setattr(hub, name, getattr(found, name))
    return found


def refused(repo: str = REPO) -> str:
    with pytest.raises(ModelError) as raised:
        load_pipeline(repo, repo)
    return str(raised.value)


def test_only_what_is_read_is_downloaded(online: Hub, tiny_pipeline: Path) -> None:
    model, folder = load_pipeline(REPO, REPO), load_pipeline(tiny_pipeline, "tiny")
    wanted = {path.relative_to(tiny_pipeline).as_posix() for path in tiny_pipeline.rglob("*.*")}
    assert set(online.fetched) == wanted
    assert model.base_hash == folder.base_hash
    assert torch.equal(model.sample(["a"], [1], **HOW), folder.sample(["a"], [1], **HOW))


def test_a_downloaded_model_works_without_a_network(online: Hub, monkeypatch) -> None:
    latents = load_pipeline(REPO, REPO).sample(["a"], [1], **HOW)
    monkeypatch.undo()
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(online.cache))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    assert torch.equal(load_pipeline(REPO, REPO).sample(["a"], [1], **HOW), latents)


def test_an_incomplete_download_is_a_sentence(online: Hub, monkeypatch) -> None:
    load_pipeline(REPO, REPO)
    (snapshot,) = online.cache.glob("models--*/snapshots/*")
    shutil.rmtree(snapshot / "vae")
    monkeypatch.setattr(hub, "_fetched", no_network)
    monkeypatch.setattr(hub, "snapshot_download", snapshot_download)
    assert "The model's vae has no weights" in refused()


def test_without_a_network_the_hub_is_asked_once(monkeypatch) -> None:
    unreachable(monkeypatch)
    assert "is not in the cache and the Hub cannot be reached" in refused()


def no_network(repo: str, kinds: object) -> Path:
    raise ConnectionError("Name or service not known")


def test_a_cache_that_huggingface_hub_calls_incomplete_is_used(tmp_path, monkeypatch) -> None:
    """It misses files of the repository that are never read."""

    def incomplete(repo: str, **_: Any) -> str:
        error = LocalEntryNotFoundError("incomplete")
        error.snapshot_path = str(tmp_path)
        raise error

    monkeypatch.setattr(hub, "_fetched", no_network)
    monkeypatch.setattr(hub, "snapshot_download", incomplete)
    assert hub.downloaded(REPO, ()) == tmp_path


def answer(kind: type[Exception], status: int) -> Exception:
    request = httpx.Request("GET", "https://huggingface.co")
    return kind("first line\nsecond", response=httpx.Response(status, request=request))


@pytest.mark.usefixtures("cache")
@pytest.mark.parametrize(
    ("error", "said"),
    [
        (answer(RepositoryNotFoundError, 404), "is not on the Hub, or is private"),
        (answer(GatedRepoError, 403), "asks for consent on its page"),
        (answer(RemoteEntryNotFoundError, 404), "has no model_index.json on the Hub"),
        (answer(HfHubHTTPError, 503), "cannot be reached (first line)"),
        (httpx.ConnectError("no route"), "cannot be reached (no route)"),
        (OfflineModeIsEnabled("offline"), "cannot be reached (offline)"),
        (HFValidationError("no id"), "is not on the Hub"),
    ],
)
def test_every_answer_of_the_hub_is_a_sentence(monkeypatch, error: Exception, said: str) -> None:
    def answers(repo: str, kinds: object) -> Path:
        raise error

    monkeypatch.setattr(hub, "_fetched", answers)
    assert said in refused()


@pytest.mark.usefixtures("cache")
def test_without_a_network_and_a_cache_it_is_a_sentence() -> None:
    said = refused("nobody/nothing")
    assert "'nobody/nothing' is not in the cache and the Hub cannot be reached" in said
    assert "\n" not in said


def test_another_pipeline_is_refused_before_its_weights_are_downloaded(online: Hub) -> None:
    index = json.loads((online.folder / "model_index.json").read_text())
    index["_class_name"] = "StableDiffusionInpaintPipeline"
    (online.folder / "model_index.json").write_text(json.dumps(index))
    assert "StableDiffusionInpaintPipeline" in refused()
    assert online.fetched == ["model_index.json"]


def test_a_part_with_nothing_but_a_pickle_is_refused_before_the_download(online: Hub) -> None:
    for file in (online.folder / "unet").glob("*.safetensors"):
        file.unlink()
    assert "The model's unet has its weights only in" in refused()
    assert online.fetched == ["model_index.json"]


@pytest.mark.parametrize("name", ["models/sd.safetensors", "a/b/c", "~/x", "./x", "x"])
def test_a_path_is_no_hub_id(name: str) -> None:
    assert not looks_like_hub_id(name)
    assert origin(name, "0")["base"] == name.rpartition("/")[2]


@pytest.mark.parametrize("name", ["x" * 300, f"{'x' * 300}.safetensors", "a/\0"])
def test_what_can_be_no_name_of_a_file_is_a_sentence(name: str) -> None:
    with pytest.raises(ModelError, match=r"The model|There is no model"):
        load_pipeline(name, name)
    assert not Published(name).name.startswith("/")
    assert Published(name).is_adapter == name.endswith(".safetensors")
