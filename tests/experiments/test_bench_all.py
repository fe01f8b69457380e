"""Every benchmark at its smallest, killed once on the way: nothing is lost, nothing repeated, every
table written.
"""

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from unlearn_app.cli import main as cli
from unlearn_app.experiments.paper1.arms import ARMS, DESCENTS
from unlearn_app.experiments.paper2.arms import ALONE, M0, META, NONE
from unlearn_app.experiments.paper2.report import read_found
from unlearn_app.experiments.paper3.measure import SMOKE_ARMS, SMOKE_TRIALS
from unlearn_app.experiments.paper3.states import read_states
from unlearn_app.models.latent_store import VARIABLE

pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parents[2]
NAMES = ("main-job", "judge", "paper1", "paper2", "paper3", "lab", "models")
KILLED = {"paper1": 17, "paper3": 3}
"""Benchmarks that are killed, with the last cell after which that may be; there are more."""


def words(out: Path, name: str = "all") -> list[str]:
    return ["unlearn_app", "bench", name, "--smoke", "--out", str(out)]


def started_again(out: Path, name: str = "all") -> None:
    """Start the command where little is left to be measured, in this process, which has imported
    everything already.
    """
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", words(out, name))
        with pytest.raises(SystemExit) as leaving:
            cli.main()
    assert leaving.value.code == 0


def cells(out: Path) -> dict[Path, int]:
    """Every finished cell and when it was written."""
    return {
        path: path.stat().st_mtime_ns
        for name in NAMES
        for path in out.glob(f"{name}-smoke/[!.]*.json")
    }


@pytest.fixture(scope="module")
def killed(
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[tuple[Path, dict[Path, dict], str]]:
    """The folder after a kill of one benchmark at a random moment and a run of all, the cells there
    at the kill, and the output. What cells ask of the original is sampled once, as for a user.
    """
    draw = random.SystemRandom()
    name = draw.choice(list(KILLED))
    out, moment = tmp_path_factory.mktemp("bench"), draw.randint(1, KILLED[name])
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(VARIABLE, str(tmp_path_factory.mktemp("store")))
        kill(out, name, moment, draw.random())
        kept = {path: json.loads(path.read_text()) for path in cells(out)}
        assert len(kept) >= moment, f"ended before cell {moment}"
        for path, stored in kept.items():
            assert stored["status"] == "complete", f"{path} after a kill at cell {moment} of {name}"
        command = [sys.executable, "-m", *words(out)]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr[-3000:]
        yield out, kept, done.stdout


def kill(out: Path, name: str, moment: int, seconds: float) -> None:
    """Start a benchmark, and kill it some seconds after so many cells."""
    command = [sys.executable, "-m", *words(out, name)]
    with subprocess.Popen(
        command, cwd=ROOT, stdout=subprocess.DEVNULL, start_new_session=True
    ) as process:
        while process.poll() is None and len(cells(out)) < moment:
            time.sleep(0.05)
        time.sleep(seconds)
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)


def test_a_kill_loses_nothing_and_repeats_nothing(killed) -> None:
    """A cell of paper 3 may grow by the requests that were left; what it held stays."""
    out, kept, _ = killed
    after = cells(out)
    for path, stored in kept.items():
        found = json.loads(path.read_text())
        assert found["values"] == found["values"] | stored["values"]
        assert found == stored or (
            path.parent.name == "paper3-smoke" and len(found["values"]) > len(stored["values"])
        )
    assert len(after) > len(kept)
    started_again(out)
    assert cells(out) == after, "a third start measures nothing"
    assert not [path for path in out.rglob("*") if path.name.endswith(".partial")]


def test_every_table_is_written_and_every_cell_says_where_it_comes_from(killed) -> None:
    out, _, printed = killed
    for name in NAMES:
        assert (out / f"{name}-smoke.md").read_text().strip() in printed
    for name in ("paper1", "paper2", "paper3"):
        assert (out / f"{name}-smoke.svg").read_text().startswith("<svg")
        assert f"]({name}-smoke.svg)" in (out / f"{name}-smoke.md").read_text()
    for path in cells(out):
        stored = json.loads(path.read_text())
        assert stored["config"]
        assert stored["values"]
        assert stored["seconds"] >= 0
        assert stored["peak_gb"] > 0.1
        known = json.loads((out / "environments" / f"{stored['environment']}.json").read_text())
        assert {"commit", "packages", "cpus", "platform"} <= set(known)


def test_what_is_claimed_of_paper_1_stands_beside_every_arm(killed) -> None:
    out, _, printed = killed
    text = (out / "paper1-smoke.md").read_text()
    cut = [name for name, arm in ARMS.items() if arm.cut]
    assert all(f", {arm}, seed 0" in printed and f"| {arm} |" in text for arm in cut)
    assert all(f"| {arm} |" in text for arm in DESCENTS)
    assert "What the paper claims" in text


def test_every_defence_of_paper_2_is_measured(killed) -> None:
    out, _, printed = killed
    assert all(f", {defence}, " in printed for defence in (ALONE, META, M0, NONE))
    text = (out / "paper2-smoke.md").read_text()
    assert all(f"## {part}" in text for part in ("What the paper claims", "ESD-u", "Never seen"))
    assert all(f"## {part}" in text for part in ("The mechanism", "What was chosen on dev"))
    found = read_found(out / "paper2-smoke")
    assert len(found) == 13
    attacked = [values for cell, values in found.items() if cell.attack != NONE]
    assert all(set(values["marks"]) == {"0", "2"} for values in attacked)


def test_a_sequence_goes_on_where_it_ended(killed, tmp_path: Path) -> None:
    out, _, printed = killed
    assert all(f", {name}, " in printed for name in SMOKE_ARMS)
    for name in ("paper3-smoke", "paper3-smoke-work", "environments"):
        shutil.copytree(out / name, tmp_path / name)
    before = cells(tmp_path)
    assert len(before) == len(SMOKE_ARMS) + SMOKE_TRIALS
    assert 2 * len(SMOKE_ARMS) + SMOKE_TRIALS == len(read_states(tmp_path / "paper3-smoke"))
    (last,) = (tmp_path / "paper3-smoke").glob("objects-1-*-plain-*.json")
    whole = json.loads(last.read_text())
    first = {name: state for name, state in whole["values"].items() if name == "1"}
    last.write_text(json.dumps(whole | {"values": first}))
    before[last] = 0
    (other,) = (tmp_path / "paper3-smoke-work").glob("objects-1-*-projection-l2-*")
    shutil.rmtree(other)
    started_again(tmp_path, "paper3")
    after = cells(tmp_path)
    assert after.keys() == before.keys()
    assert {path for path in after if after[path] != before[path]} == {last}
    values = json.loads(last.read_text())["values"]
    assert values["1"] == first["1"]
    assert list(values) == list(whole["values"])
    assert not other.exists()


def test_models_under_attack_stand_beside_their_control(killed) -> None:
    found = [path.stem for path in cells(killed[0]) if path.parent.name == "lab-smoke"]
    assert len(found) == 7
    assert "control-pumpkin-0" in found


def test_the_judges_are_measured_on_all_they_may_see(killed) -> None:
    folder = killed[0] / "judge-smoke"
    assert sorted(path.stem for path in folder.glob("*.json")) == [
        "generated",
        "never-seen",
        "renderings",
        "strange",
    ]
    strange = json.loads((folder / "strange.json").read_text())["values"]["bins"]
    assert list(strange) == [
        "noise",
        "one colour",
        "tiles shuffled",
        "two pictures in one",
        "no object asked for",
        "a destroyed model",
    ]
    assert all(sum(bins) == 4 for kind in strange.values() for bins in kind.values())
    text = (killed[0] / "judge-smoke.md").read_text()
    assert all(
        said in text for said in ("## Right answers", "AUROC", "pocket-second", "→", "Refused:")
    )
