"""The command `audit` refuses in a sentence what it cannot do, before anything is loaded; what it
computes is tested in tests/runs/test_audit.py.
"""

import sys
from pathlib import Path

import pytest

from unlearn_app.cli import main as cli

ASKED = ("audit", "--unlearned", "lora.safetensors", "--concept", "cat", "--out", "out")


def refused(capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch, *words: str) -> str:
    """The sentence with which a command ends."""
    monkeypatch.setattr(sys, "argv", ["unlearn_app", *ASKED, *words])
    with pytest.raises(SystemExit) as leaving:
        cli.main()
    captured = capsys.readouterr()
    assert leaving.value.code == 2
    assert captured.out == ""
    return captured.err.strip().splitlines()[-1]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--never-seen", "a florp"), "--pictures DIR are accepted together"),
        (("--pictures", "."), "--pictures DIR are accepted together"),
        (("--set", "unlearn.steps=3"), "An audit does not change 'unlearn.steps'"),
        (("--kind", "nonsense"), "'nonsense' is unknown"),
        (("--seed", "x"), "a whole number from 0"),
    ],
)
def test_what_is_not_accepted_is_said(capsys, monkeypatch, tmp_path: Path, words, said) -> None:
    monkeypatch.chdir(tmp_path)
    assert said in refused(capsys, monkeypatch, *words)
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_an_adapter_that_is_not_there_is_said(capsys, monkeypatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    assert "There is no adapter 'lora.safetensors'" in refused(capsys, monkeypatch)
    assert not (tmp_path / "out").exists()
