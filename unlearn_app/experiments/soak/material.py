"""What kills and hostile inputs are tried on: a small run with a finding, and a small ledger."""

import shutil
import tempfile
from pathlib import Path

from ...continual.ledger import Ledger
from ...settings.run_config import make_config, make_plan
from ..cells import SMOKE, assigned
from .commands import Commands

SMALL = assigned(SMOKE)
RUN = ("run", "--concept", "cat", *SMALL)
ATTACK = ("attack", "run", "--kind", "prompts", "--set", "prompts.tries=1")
AUDIT = ("audit", "--unlearned", "run/unlearn.safetensors", "--concept", "cat")
AUDIT += ("--kind", "prompts")
AUDIT += tuple(assigned({n: v for n, v in SMOKE.items() if n.startswith(("attack.", "compare."))}))
ADD = ("continual", "add", "ledger")
PANEL = ("cat", "dog")
"""The concepts of the ledger, whose panel has one picture of each."""


class Material:
    """`commands`, whose folder holds a fresh `run` and `ledger` after `renew`. All of it is removed
    when this process ends.
    """

    def __init__(self) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="unlearn-soak-")
        top = Path(self._folder.name)
        # Deep, so that a path such as ../.. stays inside the temporary folder.
        self._kept, self._here = top / "kept", top / "a" / "b" / "here"
        for folder in (self._kept, self._here):
            folder.mkdir(parents=True)
        self.commands = Commands(self._here)
        self.seconds: dict[str, float] = {}
        """How long each command of `WORDS` in kills.py takes, by its first word."""
        plan, config = make_plan(pictures=1), make_config(PANEL[0], **SMOKE)
        Ledger.create(self._here / "ledger", config, plan, PANEL)
        audit = (*AUDIT, "--out", "audited")
        for words in ((*RUN, "--out", "run"), ATTACK, (*ADD, PANEL[0]), audit):
            ended = self.commands.run(words)
            if ended.code:
                raise RuntimeError(f"{' '.join(words)} fails: {ended.said[-2000:]}")
            self.seconds[words[0]] = ended.seconds
        for name in ("run", "ledger"):
            (self._here / name).rename(self._kept / name)

    def renew(self) -> Path:
        """Empty the folders of the commands and of their temporary files, and copy run and ledger
        into the first.
        """
        shutil.rmtree(self._here)
        shutil.rmtree(self.commands.temporary)
        self.commands.temporary.mkdir()
        shutil.copytree(self._kept, self._here, symlinks=True)
        return self._here
