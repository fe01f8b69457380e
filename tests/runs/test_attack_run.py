"""An attack is on the weights that the run has recorded, or is refused in a sentence."""

import json
import shlex
import shutil
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from shipped import shipped

from unlearn_app.attacks.never_seen import NeverSeen
from unlearn_app.cli import main as cli
from unlearn_app.common.errors import ConfigError, ModelError, OutputError
from unlearn_app.runs import attack_run
from unlearn_app.runs.attack_run import _command, run_attacks
from unlearn_app.runs.folder import Run
from unlearn_app.settings.run_config import make_config

OTHER = SimpleNamespace(name="pocket", base_hash="f" * 64)
"""A model that was trained anew since the run."""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return Path(shutil.copytree(shipped("cat"), tmp_path / "cat"))


def test_an_adapter_of_another_run_is_not_attacked(folder: Path) -> None:
    adapter = folder / "unlearn.safetensors"
    adapter.write_bytes(adapter.read_bytes()[:-1] + b"x")
    with pytest.raises(
        OutputError, match=r"unlearn\.safetensors is not the file that was recorded"
    ):
        list(run_attacks(Run.open(folder), ["noise"], model=OTHER))


def test_an_adapter_that_the_run_has_not_made_is_none_of_it(folder: Path) -> None:
    record = json.loads((folder / "run.json").read_text(encoding="utf-8"))
    del record["files"]["unlearn.safetensors"]
    (folder / "run.json").write_text(json.dumps(record), encoding="utf-8")
    with pytest.raises(ConfigError, match="holds no unlearn adapter"):
        list(run_attacks(Run.open(folder), ["noise"], model=OTHER))


def test_a_model_that_was_trained_anew_is_not_attacked_and_both_are_named(folder: Path) -> None:
    run = Run.open(folder)
    with pytest.raises(ModelError, match="was made with the weights") as raised:
        list(run_attacks(run, ["noise"], model=OTHER))
    assert run.record["environment"]["base_sha256"] in str(raised.value)
    assert OTHER.base_hash in str(raised.value)


def test_nothing_is_computed_for_a_run_whose_findings_stand_elsewhere(folder: Path) -> None:
    elsewhere = folder.with_name("elsewhere")
    elsewhere.mkdir()
    (folder / "attacks").symlink_to(elsewhere)
    with pytest.raises(OutputError, match="attacks is no folder"):
        next(run_attacks(Run.open(folder), ["noise"], model=OTHER))


def test_the_command_of_an_attack_names_the_control_that_it_was_given(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What stands in the record is read by the command line as what was asked for."""
    told = _command(
        Run.open(folder), "noise", {"judge": "clip"}, {"tries": 2}, NeverSeen("a florp", None)
    )
    assert "--never-seen 'a florp' --never-seen-pictures DIR" in told
    asked: dict[str, Any] = {}
    monkeypatch.chdir(folder.parent)
    monkeypatch.setattr(sys, "argv", ["unlearn_app", *shlex.split(told)[3:]])
    monkeypatch.setattr(
        "unlearn_app.concepts.own_pictures.read_pictures", lambda place: f"pictures of {place}"
    )
    monkeypatch.setattr(attack_run, "run_attacks", lambda *_, **how: iter(asked.update(how) or ()))
    with pytest.raises(SystemExit) as leaving:
        cli.main()
    assert not leaving.value.code
    assert asked["never_seen"] == NeverSeen("a florp", "pictures of DIR")


def test_the_command_of_an_audit_names_its_control() -> None:
    config = make_config("cat", audited="theirs.safetensors")
    assert "--never-seen 'a florp' --pictures DIR" in config.command(never_seen="a florp")
    assert "--never-seen" not in config.command()
