"""Runs on the Hub: what is published says nothing of the owner's machine, and what is fetched is
checked as anything foreign.
"""

import hashlib
import json
import re
import shutil
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from hub_stand_in import TOKEN, StandIn, hub
from huggingface_hub import constants
from recordings import kept_finding
from safetensors.torch import load_file

from unlearn_app.common import record_files
from unlearn_app.common.errors import ConfigError, HubError, OutputError, UnlearnError
from unlearn_app.common.record_files import sha256_of
from unlearn_app.runs import publication
from unlearn_app.runs.findings import read_findings
from unlearn_app.runs.folder import FOR_OTHERS, Run
from unlearn_app.runs.hub import pull, push
from unlearn_app.runs.model_card import text
from unlearn_app.runs.publication import CARD, MANIFEST, PATH, write_publication
from unlearn_app.settings.run_config import make_config

NAME = "alice/forgets-cats"
HOME = "/home/margarethe/models/My own model"
SECRET = "forget: a cat that only I know"


@pytest.fixture(scope="module")
def finished(recordings, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run with two findings."""
    folder = tmp_path_factory.mktemp("finished") / "run"
    shutil.copytree(recordings.run(make_config("cat")).folder, folder)
    for kind in ("noise", "inversion"):
        kept_finding(Run.open(folder), kind)
    return folder


@pytest.fixture
def local_run(finished: Path, tmp_path: Path) -> Path:
    """The run as if it were of a model, a judge and prompts in the owner's home folder."""
    folder = Path(shutil.copytree(finished, tmp_path / "local"))
    record = json.loads((folder / "run.json").read_text())
    config, judge = record["config"], f"clip={HOME}/my clip,vqa=~/blip"
    config |= {"model": HOME, "judge": judge, "prompts": SECRET}
    record["environment"]["base"] = Path(HOME).name
    record["command"] = f"python -m unlearn_app run --concept cat --model '{HOME}' --out {HOME}/r"
    record["verdict"]["reasons"] += [f"nobody knows what {HOME} has never seen"]
    record["environment"]["judge_note"] = r"read from C:\Users\margarethe\judge.txt"
    record["concept"]["forget"] = {"train": [{"text": SECRET}]}
    (folder / "prompts.txt").write_text(SECRET)
    record["files"]["prompts.txt"] = hashlib.sha256(SECRET.encode()).hexdigest()
    (folder / "run.json").write_text(json.dumps(record))
    (path,) = folder.glob("attacks/noise/finding.json")
    finding = json.loads(path.read_text())
    finding |= {"missing": f"nobody knows what {HOME} has never seen", "counts": False}
    finding["command"] += f" --judge 'clip={HOME}/my clip'"
    path.write_text(json.dumps(finding))
    return folder


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[StandIn]:
    """A stand-in that the client of the Hub asks, with a token for it."""
    with hub() as stand_in:
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        monkeypatch.setattr(constants, "ENDPOINT", stand_in.url)
        template = constants.HUGGINGFACE_CO_URL_TEMPLATE.partition("/{repo_id}")
        url = stand_in.url + template[1] + template[2]
        monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", url)
        monkeypatch.setenv("HF_TOKEN", TOKEN)
        yield stand_in


@pytest.fixture(scope="module")
def published(finished: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """The files that a push uploads."""
    folder = write_publication(finished, tmp_path_factory.mktemp("published") / "run", NAME)
    files = [path for path in folder.rglob("*") if path.is_file()]
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}


def everything(folder: Path, *endings: str) -> str:
    """The text of every file, or of those with these endings, and its name."""
    files = [path for path in folder.rglob("*") if path.is_file()]
    files = [path for path in files if not endings or path.suffix in endings]
    return "\n".join(f"{path.name} {path.read_bytes().decode('latin-1')}" for path in files)


def test_a_run_comes_back_as_it_was_pushed(server, finished: Path, tmp_path: Path) -> None:
    assert push(finished, NAME, private=True) == f"{server.url}/{NAME}"
    assert server.private == {NAME}
    folder = pull(NAME, tmp_path / "back")
    one, back = Run.open(finished), Run.open(folder)
    assert back.scores == one.scores
    assert back.verdict == one.verdict
    assert back.steps == one.steps
    assert [p.file.read_bytes() for p in back.pictures] == [
        p.file.read_bytes() for p in one.pictures
    ]
    assert [f.hits for f in read_findings(folder)] == [f.hits for f in read_findings(finished)]
    ours, theirs = (load_file(place / "unlearn.safetensors") for place in (finished, folder))
    assert all(torch.equal(theirs[name], tensor) for name, tensor in ours.items())
    assert not (folder / "relearn.safetensors").exists()
    assert not [path for path in folder.rglob("*") if path.name.startswith(".")]
    assert {path.name for path in tmp_path.iterdir()} == {"back"}


def test_a_second_push_replaces_the_first_and_nothing_of_others(
    server, finished: Path, tmp_path
) -> None:
    push(finished, NAME)
    server.repositories[NAME]["attacks/old/finding.json"] = b"{}"
    push(finished, NAME)
    assert len(read_findings(pull(NAME, tmp_path / "back"))) == 2
    with pytest.raises(HubError, match="is there and public"):
        push(finished, NAME, private=True)
    server.repositories["alice/other"] = {"model.safetensors": b""}
    with pytest.raises(HubError, match="holds something else"):
        push(finished, "alice/other")
    assert list(server.repositories["alice/other"]) == ["model.safetensors"]


def test_nothing_of_the_owners_machine_is_published(local_run: Path, tmp_path: Path) -> None:
    assert "margarethe" in everything(local_run)
    folder = write_publication(local_run, tmp_path / "out", NAME)
    assert "margarethe" not in everything(folder)
    said = everything(folder, ".json", ".jsonl", ".md", ".txt")
    for word in ("/home/", "~/", "C:\\", "only I know", "prompts.txt"):
        assert word not in said, word
    run = Run.open(folder)
    assert run.record["config"]["model"] == "My own model"
    assert run.record["config"]["judge"] == "clip=my clip,vqa=blip"
    assert "nobody knows what My own model has never seen" in run.verdict.reasons
    command = next(f for f in read_findings(folder) if f.kind == "noise").command
    assert command.endswith(" --judge 'clip=my clip'")
    card = (folder / CARD).read_text()
    assert "base_model" not in card
    assert "not on the Hub" in card


def test_a_folder_that_looks_like_an_id_is_none(finished: Path, tmp_path: Path) -> None:
    """Its weights may be gone since; records call a folder by its last name alone."""
    record = json.loads((finished / "run.json").read_text())
    folder = Path(shutil.copytree(finished, tmp_path / "run"))
    record["config"]["model"], record["environment"]["base"] = "models/mine", "mine"
    (folder / "run.json").write_text(json.dumps(record))
    card = (write_publication(folder, tmp_path / "out", NAME) / CARD).read_text()
    assert "models/mine" not in card
    assert "not on the Hub" in card


def test_an_audit_of_what_others_made_is_not_published(local_run: Path, tmp_path: Path) -> None:
    record = json.loads((local_run / "run.json").read_text())
    record["config"]["audited"] = "theirs.safetensors"
    (local_run / "run.json").write_text(json.dumps(record))
    with pytest.raises(ConfigError, match="is an audit of 'theirs"):
        write_publication(local_run, tmp_path / "out", NAME)
    assert not (tmp_path / "out").exists()


def test_own_prompts_are_published_where_their_owner_says_so(
    local_run: Path, tmp_path: Path
) -> None:
    folder = write_publication(local_run, tmp_path / "out", NAME, own_prompts=True)
    assert (folder / "prompts.txt").read_text() == SECRET
    assert Run.open(folder).config.prompts == SECRET
    assert "margarethe" not in everything(folder)


@pytest.mark.parametrize(
    ("said", "wanted"),
    [
        ("of /home/x/sd, there", "of sd, there"),
        ("'/a b/c'", "'/a b/c'"),
        ("~/x", "x"),
        (r"C:\Users\x\sd", "sd"),
        ("a cat/dog and 1/2 /imagine", "a cat/dog and 1/2 /imagine"),
        ("https://a.b/c/d images/a.png", "https://a.b/c/d images/a.png"),
    ],
)
def test_a_path_is_told_from_other_words(said: str, wanted: str) -> None:
    assert PATH.sub(r"\1", said) == wanted


def test_the_card_is_what_the_hub_and_readers_want(finished: Path, tmp_path: Path) -> None:
    record = json.loads((finished / "run.json").read_text())
    folder = Path(shutil.copytree(finished, tmp_path / "run"))
    record["config"]["model"] = record["environment"]["base"] = "runwayml/sd"
    assert len(record["environment"]["base_sha256"]) == 64
    (folder / "run.json").write_text(json.dumps(record))
    card = (write_publication(folder, tmp_path / "out", NAME) / CARD).read_text()
    _, front, body = card.split("---\n", 2)
    about = yaml.safe_load(front)
    assert about["base_model"] == "runwayml/sd"
    assert about["library_name"] == "diffusers"
    assert about["pipeline_tag"] == "text-to-image"
    assert {"machine-unlearning", "lora"} <= set(about["tags"])
    run = Run.open(finished)
    score = run.scores["unlearned"]["forget"]
    row = next(line for line in body.splitlines() if line.startswith("| the concept | unlearned"))
    assert f"| {score.n} |" in row
    assert re.search(r"\d+–\d+", row), "with an interval"
    for part in ("## Verdict", "## Scores", "## Attacks", "## Limits", "ComfyUI", "comparison.png"):
        assert part in body
    assert 'pipe.load_lora_weights("alice/forgets-cats", weight_name="unlearn.safetensors")' in body
    assert "DIR`.\n\n## How it was made" in body
    assert "noise" in body
    for setting in ("unlearn.steps", "attack.lr", "regularize.l2"):
        assert f"| {setting} |".replace("_", "\\_") in body
    assert f"put `{FOR_OTHERS}` into `models/loras`" in body
    assert text("a|b <i> *c*\n# d") == "a\\|b &lt;i&gt; \\*c\\* \\# d"


def test_an_adapter_without_a_copy_for_other_programs_is_to_be_converted(
    finished: Path, tmp_path: Path
) -> None:
    folder = Path(shutil.copytree(finished, tmp_path / "run"))
    (folder / FOR_OTHERS).unlink()
    record = json.loads((folder / "run.json").read_text())
    del record["files"][FOR_OTHERS]
    (folder / "run.json").write_text(json.dumps(record))
    card = (write_publication(folder, tmp_path / "out", NAME) / CARD).read_text()
    assert "export DIR FILE --format kohya" in card


def test_weights_that_were_trained_themselves_are_no_lora(finished: Path, tmp_path: Path) -> None:
    record = json.loads((finished / "run.json").read_text())
    folder = Path(shutil.copytree(finished, tmp_path / "run"))
    record["config"]["unlearn"]["weights"] = "full"
    record["config"]["model"] = record["environment"]["base"] = "runwayml/sd"
    (folder / "run.json").write_text(json.dumps(record))
    card = (write_publication(folder, tmp_path / "out", NAME) / CARD).read_text()
    _, front, body = card.split("---\n", 2)
    about = yaml.safe_load(front)
    assert "lora" not in about["tags"]
    assert about["base_model_relation"] == "finetune"
    assert "load_lora_weights" not in body
    assert "LoRA adapter" not in body
    assert "export DIR --pipeline FOLDER" in body


@pytest.fixture
def hashed(monkeypatch: pytest.MonkeyPatch) -> Counter:
    """How often each file was hashed, by its name."""
    seen = Counter()

    def counted(path: Path) -> str:
        seen[path.name] += 1
        return sha256_of(path)

    for module in (record_files, publication):
        monkeypatch.setattr(module, "sha256_of", counted)
    return seen


def test_large_files_are_hashed_once_on_their_way(
    server, finished: Path, tmp_path: Path, hashed: Counter
) -> None:
    files = ("unlearn.safetensors", FOR_OTHERS)
    push(finished, NAME)
    assert [hashed[name] for name in files] == [1, 1]
    hashed.clear()
    pull(NAME, tmp_path / "back")
    assert [hashed[name] for name in files] == [1, 1]


def manifest_of(server: StandIn) -> dict[str, Any]:
    return json.loads(server.repositories[NAME][MANIFEST])


def spoil(server: StandIn, change: Callable[[dict[str, Any], dict[str, bytes]], None]) -> None:
    manifest, files = manifest_of(server), server.repositories[NAME]
    change(manifest["files"], files)
    files[MANIFEST] = json.dumps(manifest).encode()


def listed(name: str, content: bytes = b"x") -> Callable[[dict[str, Any], dict[str, bytes]], None]:
    """A change that adds a file to the repository and to its list."""

    def change(manifest: dict[str, Any], files: dict[str, bytes]) -> None:
        digest = hashlib.sha256(content).hexdigest()
        manifest[name], files[name] = {"size": len(content), "sha256": digest}, content

    return change


def other_bytes(name: str) -> Callable[[dict[str, Any], dict[str, bytes]], None]:
    def change(manifest: dict[str, Any], files: dict[str, bytes]) -> None:
        files[name] = files[name][:-1] + bytes([files[name][-1] ^ 1])

    return change


def longer(manifest: dict[str, Any], files: dict[str, bytes]) -> None:
    files["comparison.png"] += b"more"


def gone(manifest: dict[str, Any], files: dict[str, bytes]) -> None:
    del files["comparison.png"]


def unlisted(manifest: dict[str, Any], files: dict[str, bytes]) -> None:
    del manifest["steps.jsonl"]


def huge(manifest: dict[str, Any], files: dict[str, bytes]) -> None:
    manifest["comparison.png"]["size"] = 2**39


def no_run(manifest: dict[str, Any], files: dict[str, bytes]) -> None:
    listed("run.json", b'{"schema": "unlearn-run/2"}')(manifest, files)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (listed("weights.bin"), "of the kinds"),
        (listed("run.py"), "of the kinds"),
        (listed("../outside.json"), "inside of its folder"),
        (listed("/etc/outside.json"), "inside of its folder"),
        (listed("a/../../x.json"), "inside of its folder"),
        (listed(".hidden.json"), "inside of its folder"),
        (listed("a\\b.json"), "inside of its folder"),
        (other_bytes("unlearn.safetensors"), "not the file that was recorded"),
        (other_bytes("run.json"), "not the file that was recorded"),
        (longer, "the same number"),
        (huge, "the same number"),
        (gone, "not there"),
        (unlisted, "steps.jsonl is missing"),
        (no_run, "damaged"),
        (listed("images/more.png", b"no picture"), "no readable picture"),
        (listed("unlearn.safetensors", b"\x80\x04pickle"), "not the file that was recorded"),
        (listed("unlearn-other.safetensors", b"\x80\x04pickle"), "cannot be read"),
    ],
)
def test_a_damaged_or_hostile_repository_is_refused(
    server, published, tmp_path: Path, change: Any, said: str
) -> None:
    server.repositories[NAME] = dict(published)
    spoil(server, change)
    with pytest.raises(UnlearnError, match=said) as raised:
        pull(NAME, tmp_path / "back")
    assert "\n" not in str(raised.value)
    assert list(tmp_path.iterdir()) == [], "nothing half-written, nothing outside"
    assert not {"weights.bin", "run.py"} & {*server.sent}


def test_what_the_run_does_not_list_is_never_fetched(server, published, tmp_path: Path) -> None:
    server.repositories[NAME] = dict(published)
    server.repositories[NAME]["pytorch_model.bin"] = b"\x80\x04"
    folder = pull(NAME, tmp_path / "back")
    assert "pytorch_model.bin" not in server.sent
    assert not (folder / "pytorch_model.bin").exists()


def test_the_copy_to_publish_goes_after_its_process_however_that_ends(
    finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The lock tells the next process whether this one is alive."""
    seen: list[list[str]] = []

    def fails(*_: Any) -> None:
        seen.append(sorted(path.suffix for path in tmp_path.glob("unlearn-push-*")))
        raise OutputError("no")

    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setattr("huggingface_hub.get_token", lambda: "token")
    monkeypatch.setattr("unlearn_app.runs.hub.write_publication", fails)
    with pytest.raises(OutputError):
        push(finished, "alice/new")
    assert seen == [["", ".lock"]]
    assert [*tmp_path.glob("unlearn-push-*")] == []


def test_without_network_token_or_repository_it_is_a_sentence(
    server, finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "back"
    with pytest.raises(HubError, match="There is no repository alice/forgets-cats"):
        pull(NAME, out)
    server.repositories[NAME] = {"README.md": b""}
    with pytest.raises(HubError, match="holds no run that was published"):
        pull(NAME, out)
    monkeypatch.setenv("HF_TOKEN", "hf_another")
    with pytest.raises(HubError, match="no right to do that"):
        push(finished, "alice/new")
    monkeypatch.delenv("HF_TOKEN")
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "none"))
    with pytest.raises(HubError, match="no Hugging Face token here"):
        push(finished, NAME)
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(HubError, match="cannot be reached"):
        pull(NAME, out)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(HubError, match="HF_HUB_OFFLINE is set"):
        pull(NAME, out)
    assert not out.exists()


@pytest.mark.parametrize("name", ["", "alice", "a/b/c", "../x", "alice/..", "alice/a b", "-a/b"])
def test_a_repository_has_an_owner_and_a_name(finished: Path, tmp_path: Path, name: str) -> None:
    with pytest.raises(ConfigError, match="OWNER/NAME is accepted"):
        pull(name, tmp_path / "back")
    with pytest.raises(ConfigError, match="OWNER/NAME is accepted"):
        push(finished, name)


def test_only_a_whole_run_is_published(finished: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(finished, tmp_path / "run"))
    (folder / "steps.jsonl").write_text("")
    with pytest.raises(OutputError, match=r"steps\.jsonl is not the file that was recorded"):
        write_publication(folder, tmp_path / "out", NAME)
    assert not (tmp_path / "out").exists()
