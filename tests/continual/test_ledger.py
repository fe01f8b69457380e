"""The ledger on disk: whole after a kill at any moment, rolled back to the very pixels, scored by
hand-made numbers.
"""

import os
import random
import re
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from PIL import Image

from unlearn_app.cli import main as cli
from unlearn_app.common.errors import ConfigError, OutputError
from unlearn_app.continual.ledger import ConceptScore, Ledger, Request
from unlearn_app.continual.metrics import request_metrics
from unlearn_app.models.lora import frobenius_norm
from unlearn_app.settings.run_config import make_config, make_plan
from unlearn_app.web import plots, sequence_tab

ROOT = Path(__file__).resolve().parents[2]
NAMES = ("cat", "dog", "car", "mosaic", "neon")


def seen(kind: str, right: int, of: int = 4) -> ConceptScore:
    return ConceptScore(kind, (True,) * right + (False,) * (of - right), 0.5)


def panel(**right: int) -> dict[str, ConceptScore]:
    return {
        name: seen("style" if name in ("mosaic", "neon") else "object", right.get(name, 4))
        for name in NAMES
    }


def request(ledger: Ledger, concept: str = "", **right: int) -> Request:
    folder = ledger.next_folder(concept)
    return Request(
        concept, "object", "rabbit", folder, 1.0, 3, float(len(ledger.rows)), panel(**right)
    )


def adapter(seed: int) -> dict[str, torch.Tensor]:
    source = torch.Generator().manual_seed(seed)
    return {f"x.lora_{part}.weight": torch.randn(3, 3, generator=source) for part in "AB"}


def pictures(seed: int) -> dict[str, Image.Image]:
    return {name: Image.new("RGB", (8, 8), (seed * 20 % 256, 10, 20)) for name in NAMES}


def filled(folder: Path, concepts: tuple[str, ...] = ("cat", "dog", "car")) -> Ledger:
    ledger = Ledger.create(folder, make_config("cat"), make_plan(), NAMES)
    ledger.add(request(ledger), {}, {}, pictures(0))
    for number, concept in enumerate(concepts, 1):
        ledger.add(
            request(ledger, concept), adapter(number), adapter(10 + number), pictures(number)
        )
    return ledger


def test_what_is_written_is_read_back(tmp_path: Path) -> None:
    made = filled(tmp_path / "ledger")
    again = Ledger.open(tmp_path / "ledger")
    assert (again.config, again.plan, again.names, again.rows) == (
        made.config,
        made.plan,
        made.names,
        made.rows,
    )
    for number in (1, 2, 3):
        torch.testing.assert_close(again.adapter(number), adapter(10 + number))
        torch.testing.assert_close(again.adapter(number, own=True), adapter(number))
    with Image.open(again.picture(2, "cat")) as picture:
        assert picture.size == (8, 8) and again.adapter(0) == {}


@pytest.mark.parametrize("to", [0, 1, 2, 3])
def test_rolling_back_restores_adapters_and_pictures(tmp_path: Path, to: int) -> None:
    ledger = filled(tmp_path / "ledger")
    before = {
        p: p.read_bytes()
        for row in ledger.rows[: to + 1]
        for p in (ledger.folder / row.folder).rglob("*.*")
    }
    ledger.rollback(to)
    opened = Ledger.open(ledger.folder)
    assert [row.concept for row in opened.requests] == ["cat", "dog", "car"][:to]
    assert {
        p: p.read_bytes() for p in ledger.folder.rglob("*.*") if p.name != "ledger.json"
    } == before
    opened.add(request(opened, "car"), adapter(7), adapter(8), pictures(9))
    assert Ledger.open(ledger.folder).requests[-1].concept == "car"
    with pytest.raises(OutputError, match="not possible"):
        opened.rollback(9)


def test_damage_is_told_and_leftovers_are_cleared(tmp_path: Path) -> None:
    ledger = filled(tmp_path / "ledger")
    (ledger.folder / ".0004-x.1.partial").mkdir()
    (ledger.folder / "0004-half").mkdir()
    opened = Ledger.open(ledger.folder)
    assert opened.rows == ledger.rows and (ledger.folder / ".0004-x.1.partial").exists(), (
        "reading changes nothing"
    )
    opened.rollback(3)
    assert (
        not (ledger.folder / ".0004-x.1.partial").exists()
        and not (ledger.folder / "0004-half").exists()
    )
    (ledger.folder / ledger.rows[2].folder).rename(tmp_path / "elsewhere")
    with pytest.raises(OutputError, match="0002-dog is missing"):
        Ledger.open(ledger.folder)
    (tmp_path / "elsewhere").rename(ledger.folder / ledger.rows[2].folder)
    ledger.picture(3, "neon").unlink()
    with pytest.raises(OutputError, match=r"0003-car/panel/004-neon\.png is missing"):
        Ledger.open(ledger.folder)
    ledger.rollback(2)
    for own in (True, False):
        ledger.path(1, own).rename(tmp_path / "adapter")
        with pytest.raises(
            OutputError, match=rf"0001-cat/{'own' if own else 'combined'}\.safetensors is missing"
        ):
            Ledger.open(ledger.folder)
        (tmp_path / "adapter").rename(ledger.path(1, own))
    assert len(Ledger.open(ledger.folder).requests) == 2
    with pytest.raises(OutputError, match="no readable ledger"):
        Ledger.open(tmp_path)
    with pytest.raises(OutputError, match="exists"):
        Ledger.create(ledger.folder, make_config("cat"), make_plan(), NAMES)


def test_concepts_with_the_same_slug_or_none_have_pictures_of_their_own(tmp_path: Path) -> None:
    names = ("C++", "C#", "猫", "犬", "long " * 40)
    ledger = Ledger.create(tmp_path / "ledger", make_config("cat"), make_plan(), names)
    shown = {name: Image.new("RGB", (8, 8), (place, 0, 0)) for place, name in enumerate(names)}
    row = Request(
        "", "", "", ledger.next_folder(""), 0.0, 0, 0.0, dict.fromkeys(names, seen("object", 4))
    )
    ledger.add(row, {}, {}, shown)
    ledger.extend_panel("兎", [(seen("object", 4), Image.new("RGB", (8, 8), (9, 0, 0)))])
    opened = Ledger.open(ledger.folder)
    found = [Image.open(opened.picture(0, name)).getpixel((0, 0))[0] for name in opened.names]
    assert found == [0, 1, 2, 3, 4, 9]


def test_the_command_line_prints_how_often_what_was_erased_still_appears(
    tmp_path: Path, capsys, monkeypatch
) -> None:
    ledger = Ledger.create(tmp_path / "ledger", make_config("cat"), make_plan(), NAMES)
    ledger.add(request(ledger), {}, {}, pictures(0))
    ledger.add(request(ledger, "cat", cat=0, dog=3), adapter(1), adapter(2), pictures(1))
    ledger.add(request(ledger, "dog", cat=2, dog=1), adapter(3), adapter(4), pictures(2))
    monkeypatch.setattr("sys.argv", ["unlearn_app", "continual", "show", str(ledger.folder)])
    with pytest.raises(SystemExit):
        cli.main()
    rows = [
        re.findall(r"\w+%?", line)
        for line in capsys.readouterr().out.partition("Pictures that")[2].splitlines()
    ]
    assert ["cat", "100%", "0%", "50%"] in rows and ["dog", "100%", "75%", "25%"] in rows


WORKER = """
import os, sys
from pathlib import Path
sys.path.insert(0, {tests!r})
from test_ledger import Ledger, adapter, pictures, request
for _ in sys.stdin:
    child = os.fork()  # the imports take seconds, so every worker is a copy of this process
    if not child:
        break
    os.waitpid(child, 0)
    print("dead", flush=True)
else:
    sys.exit()
ledger = Ledger.open(Path(sys.argv[1]))
print(os.getpid(), flush=True)
while True:
    if len(ledger.rows) > 6:
        ledger.rollback(2)
    number = len(ledger.rows)
    row = request(ledger, f"c{{number}}")
    ledger.add(row, adapter(number), adapter(10 + number), pictures(number))
"""


@pytest.mark.slow
def test_a_kill_at_any_moment_leaves_a_ledger_that_opens_and_continues(tmp_path: Path) -> None:
    """Twenty processes, one after the other, append and roll back as fast as they can; each is
    killed wherever it happens to be.
    """
    folder, source = filled(tmp_path / "ledger", ()).folder, random.Random(0)
    words = [sys.executable, "-c", WORKER.format(tests=str(Path(__file__).parent)), str(folder)]
    lengths = set()
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen(words, cwd=ROOT, text=True, bufsize=1, **pipes) as workers:
        for _ in range(20):
            workers.stdin.write("another\n")
            worker = int(workers.stdout.readline())
            time.sleep(source.uniform(0, 0.15))
            os.kill(worker, signal.SIGKILL)
            assert workers.stdout.readline() == "dead\n"
            ledger = Ledger.open(folder)
            for number, row in enumerate(ledger.requests, 1):
                assert row.concept == f"c{number}"
                torch.testing.assert_close(ledger.adapter(number), adapter(10 + number))
                assert Image.open(ledger.picture(number, "cat")).getpixel((0, 0))[0] == number * 20
            lengths.add(len(ledger.rows))
        workers.stdin.close()
    assert len(lengths) > 1, "the process was never killed in different states"


def test_metrics_by_hand(tmp_path: Path) -> None:
    """Dog stays retained until it is requested; the rise of cat from 1 to 3 of 4 pictures
    is a relapse.
    """
    ledger = Ledger.create(tmp_path / "ledger", make_config("cat"), make_plan(), NAMES)
    ledger.add(request(ledger), {}, {}, pictures(0))
    ledger.add(request(ledger, "cat", cat=1, car=3), adapter(1), adapter(1), pictures(1))
    ledger.add(
        request(ledger, "dog", cat=3, dog=0, car=2, mosaic=2), adapter(2), adapter(2), pictures(2)
    )
    one, two = request_metrics(ledger.rows)
    assert (one.ua, one.ra_i, one.ra_c, one.relapse) == (0.75, 0.75, 1.0, 0.0)
    assert (two.ua, two.ra_i, two.ra_c, two.relapse) == (1 - 3 / 8, 0.5, 0.75, 0.5)
    assert (
        request_metrics(ledger.rows, ["neon"])[1].ra_i is None
        and request_metrics(ledger.rows, ["neon"])[1].ra_c == 1.0
    )
    destroyed = panel(**dict.fromkeys(NAMES, 0))
    ledger.add(
        Request("car", "object", "ship", ledger.next_folder("car"), 1, 3, 9.0, destroyed),
        {},
        {},
        {},
    )
    assert request_metrics(ledger.rows)[2].ua == 1.0 and request_metrics(ledger.rows)[2].ra_c == 0.0


def test_an_anchor_is_not_counted_as_retained(tmp_path: Path) -> None:
    ledger = Ledger.create(tmp_path / "ledger", make_config("cat"), make_plan(), NAMES)
    ledger.add(request(ledger), {}, {}, pictures(0))
    row = Request(
        "cat", "object", "dog", ledger.next_folder("cat"), 1.0, 3, 1.0, panel(cat=0, dog=0, car=4)
    )
    ledger.add(row, adapter(1), adapter(1), pictures(1))
    assert request_metrics(ledger.rows)[0].ra_i == 1.0


def test_a_concept_joins_the_panel_with_what_earlier_models_showed(tmp_path: Path) -> None:
    ledger = filled(tmp_path / "ledger")
    before = {number: row.panel for number, row in enumerate(ledger.rows)}
    found = [
        (seen("object", number), Image.new("RGB", (8, 8), (number, 0, 0))) for number in range(4)
    ]
    ledger.extend_panel("robot", found)
    opened = Ledger.open(ledger.folder)
    assert opened.names == (*NAMES, "robot")
    for number, row in enumerate(opened.rows):
        assert row.panel == before[number] | {"robot": seen("object", number)}
        assert Image.open(opened.picture(number, "robot")).getpixel((0, 0))[0] == number


def test_pictures_that_name_something_requested_do_not_count_as_kept(tmp_path: Path) -> None:
    """Half of mosaic's prompts name the cat or the dog: from the first request on they are in no
    curve.
    """
    ledger = Ledger.create(tmp_path / "ledger", make_config("cat"), make_plan(), NAMES)
    ledger.add(request(ledger), {}, {}, pictures(0))
    for name in ("cat", "dog"):
        row = request(ledger, name, **dict.fromkeys(("cat", "dog")[: len(ledger.rows)], 0))
        mosaic = ConceptScore(
            "style", (True, False, False, True), 0.5, (None,) * 4, ("car", "cat", "dog", "car")
        )
        ledger.add(
            replace(row, panel=row.panel | {"mosaic": mosaic}), adapter(1), adapter(1), pictures(1)
        )
    one, two = request_metrics(Ledger.open(ledger.folder).rows)
    assert one.ra_c == two.ra_c == 1.0, "2 of 4 are right, and 2 of those 2 that count"
    assert request_metrics(ledger.rows, requested=["cat", "dog", "car"])[1].ra_c == 1.0, (
        "mosaic has no picture left"
    )
    assert request_metrics(ledger.rows, requested=[])[1].ra_c == 0.75


def test_the_official_retained_share_counts_what_is_erased_and_kept_only(tmp_path: Path) -> None:
    """Two styled pictures of the erased cat, one of the kept car; the anchor and what is still to
    come are left out.
    """
    ledger = Ledger.create(tmp_path / "ledger", make_config("cat"), make_plan(), (*NAMES, "rabbit"))
    ledger.add(request(ledger), {}, {}, pictures(0))
    row = request(ledger, "cat", cat=0)
    styled = {
        "cat": ConceptScore("object", (False,) * 4, 0.5, (True, False, None, None)),
        "car": ConceptScore("object", (True,) * 4, 0.5, (False, None, None, None)),
        "dog": ConceptScore("object", (True,) * 4, 0.5, (False,) * 4),
        "rabbit": ConceptScore("object", (True,) * 4, 0.5, (False,) * 4),
        "mosaic": ConceptScore(
            "style", (True, True, False, False), 0.5, (), ("", "cat", "car", "dog")
        ),
    }
    ledger.add(
        replace(row, panel=row.panel | styled),
        adapter(1),
        adapter(1),
        pictures(1) | {"rabbit": pictures(0)["cat"]},
    )
    (found,) = request_metrics(Ledger.open(ledger.folder).rows, ["car", "mosaic", "neon"])
    assert found.ra_c_official == (1 + 0 + 2 + 4) / (2 + 1 + 3 + 4)


def test_a_plan_is_checked() -> None:
    assert make_plan(regime="independent", weight="1.5").weight == 1.5
    for changes in ({"regime": "never"}, {"keep": 0}, {"nothing": 1}):
        with pytest.raises(ConfigError, match="sequence"):
            make_plan(**changes)


def test_frobenius_norm_is_that_of_the_product() -> None:
    state = adapter(3)
    assert frobenius_norm(state) == pytest.approx(
        (state["x.lora_B.weight"] @ state["x.lora_A.weight"]).norm().item(), rel=1e-5
    )


def test_what_nobody_judged_is_neither_erased_nor_kept(tmp_path: Path) -> None:
    """Without a judge nothing is right, which must not read as everything forgotten."""
    ledger = Ledger.create(tmp_path / "ledger", make_config("cat"), make_plan(), NAMES)
    unjudged = {name: ConceptScore("object", (None, None), None) for name in NAMES}
    for concept in ("", "cat"):
        row = Request(
            concept, "object", "rabbit", ledger.next_folder(concept), 1.0, 3, 2.0, unjudged
        )
        ledger.add(row, *[adapter(1) if concept else {}] * 2, pictures(0))
    (found,) = request_metrics(Ledger.open(ledger.folder).rows)
    shares = (found.ua, found.ra_i, found.ra_c, found.ra_c_official, found.relapse)
    assert shares == (None,) * 5 and found.drift == 2.0
    status = sequence_tab.ledger_status(ledger)
    assert "–" in status and "100 %" not in status
    assert "/2</span>" not in sequence_tab.ledger_table(ledger)
    assert len(plots.request_table(ledger)) == 3
