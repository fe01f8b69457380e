"""The ledger on disk: whole after a kill at any moment, rolled back to the very pixels, scored by
hand-made numbers.
"""

import errno
import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from safetensors import safe_open

from unlearn_app.cli import main as cli
from unlearn_app.common.atomic_files import write_bytes
from unlearn_app.common.errors import ConfigError, OutputError
from unlearn_app.continual import ledger as ledger_module
from unlearn_app.continual.ledger import ConceptScore, Ledger, Request
from unlearn_app.continual.metrics import request_metrics
from unlearn_app.models.diffusers.adapter_files import read_adapter
from unlearn_app.models.diffusers.loading import load_unet
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
        assert picture.size == (8, 8)
        assert again.adapter(0) == {}


def contents(folder: Path) -> dict[str, bytes]:
    """The files of a ledger's rows by their path."""
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in sorted(folder.glob("[0-9]*/**/*.*"))
    }


@pytest.mark.parametrize("written", [0, 1, 2, 3, "a picture"])
def test_a_full_disk_leaves_the_ledger_as_it_was_and_says_what_is_lost(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, written: int | str
) -> None:
    """The disk is full after so many files: the record, two adapters, and the record again."""
    ledger = filled(tmp_path / "ledger", ("cat",))
    rows, before, left = list(ledger.rows), contents(ledger.folder), iter(range(100))
    full = OSError(errno.ENOSPC, "No space left on device")

    def write(path: Path, content: bytes) -> None:
        if next(left) == written:
            raise full
        write_bytes(path, content)

    def save(*_: Any) -> None:
        raise full

    with monkeypatch.context() as disk:
        disk.setattr(ledger_module, "write_bytes", write)
        if written == "a picture":
            disk.setattr(Image.Image, "save", save)
        said = r"No space left.*for 'dog' is lost; the 1 requests before it are kept"
        with pytest.raises(OutputError, match=said):
            ledger.add(request(ledger, "dog"), adapter(2), adapter(12), pictures(2))
    assert ledger.rows == Ledger.open(ledger.folder).rows == rows
    assert contents(ledger.folder).items() >= before.items()
    ledger.add(request(ledger, "dog"), adapter(2), adapter(12), pictures(2))
    assert [row.concept for row in Ledger.open(ledger.folder).requests] == ["cat", "dog"]
    listed = {row.folder for row in ledger.rows}
    assert {path.name for path in ledger.folder.iterdir() if path.is_dir()} == listed


@pytest.mark.parametrize("to", [0, 1, 2, 3])
def test_rolling_back_restores_adapters_and_pictures(tmp_path: Path, to: int) -> None:
    ledger = filled(tmp_path / "ledger")
    before, listed = contents(ledger.folder), {row.folder for row in ledger.rows[: to + 1]}
    ledger.rollback(to)
    opened = Ledger.open(ledger.folder)
    assert [row.concept for row in opened.requests] == ["cat", "dog", "car"][:to]
    opened.add(request(opened, "car"), adapter(7), adapter(8), pictures(9))
    again = Ledger.open(ledger.folder)
    assert again.requests[-1].concept == "car"
    new = f"{again.rows[-1].folder}/"
    after = {name: kept for name, kept in contents(ledger.folder).items() if new not in name}
    assert after == {name: kept for name, kept in before.items() if name.split("/")[0] in listed}
    with pytest.raises(OutputError, match="not possible"):
        opened.rollback(9)


def test_a_rollback_is_undone_until_the_next_request(tmp_path: Path) -> None:
    ledger = filled(tmp_path / "ledger")
    rows, before = list(ledger.rows), contents(ledger.folder)
    ledger.rollback(2)
    ledger.rollback(0)
    Ledger.open(ledger.folder).undo_rollback()
    assert Ledger.open(ledger.folder).rows == rows
    assert contents(ledger.folder) == before
    ledger.rollback(1)
    ledger.add(request(ledger, "dog"), adapter(7), adapter(8), pictures(9))
    with pytest.raises(OutputError, match="nothing to undo"):
        ledger.undo_rollback()
    assert [row.concept for row in Ledger.open(ledger.folder).requests] == ["cat", "dog"]


def test_a_damaged_row_is_not_brought_back(tmp_path: Path) -> None:
    ledger = filled(tmp_path / "ledger")
    ledger.path(3).write_bytes(b"other")
    with pytest.raises(
        OutputError, match=r"0003-car/combined\.safetensors is not what was written"
    ):
        ledger.rollback(2)


def test_what_is_missing_is_told(tmp_path: Path) -> None:
    ledger = filled(tmp_path / "ledger")
    (ledger.folder / ledger.rows[2].folder).rename(tmp_path / "elsewhere")
    with pytest.raises(OutputError, match=r"0002-dog/.* is missing"):
        Ledger.open(ledger.folder)
    (tmp_path / "elsewhere").rename(ledger.folder / ledger.rows[2].folder)
    ledger.picture(3, "neon").rename(tmp_path / "picture")
    with pytest.raises(OutputError, match=r"0003-car/panel/004-neon\.png is missing"):
        Ledger.open(ledger.folder)
    (tmp_path / "picture").rename(ledger.picture(3, "neon"))
    for own in (True, False):
        ledger.path(1, own).rename(tmp_path / "adapter")
        with pytest.raises(
            OutputError, match=rf"0001-cat/{'own' if own else 'combined'}\.safetensors is missing"
        ):
            Ledger.open(ledger.folder)
        (tmp_path / "adapter").rename(ledger.path(1, own))
    assert len(Ledger.open(ledger.folder).requests) == 3
    with pytest.raises(OutputError, match="no readable ledger"):
        Ledger.open(tmp_path)
    with pytest.raises(OutputError, match="exists"):
        Ledger.create(ledger.folder, make_config("cat"), make_plan(), NAMES)


def dead_process() -> int:
    child = subprocess.Popen([sys.executable, "-S", "-c", ""])
    child.wait()
    return child.pid


def test_what_a_killed_process_left_goes_with_the_next_change(tmp_path: Path) -> None:
    ledger, dead = filled(tmp_path / "ledger"), dead_process()
    left = [
        ledger.folder / f".0004-x.{dead}-0a.partial",
        ledger.folder / f".ledger.json.{dead}-0a.partial",
        ledger.folder / "0001-cat" / "panel" / f".005-ship.png.{dead}-0a.partial",
    ]
    left[0].mkdir()
    for path in left[1:]:
        path.write_bytes(b"half")
    assert Ledger.open(ledger.folder).rows == ledger.rows
    assert all(path.exists() for path in left), "reading changes nothing"
    ledger.rollback(3)
    assert [path for path in left if path.exists()] == []


@pytest.mark.parametrize("change", ["add", "extend_panel"])
def test_what_a_kill_before_the_last_write_left_goes_with_the_next_change(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, change: str
) -> None:
    ledger = filled(tmp_path / "ledger")
    before, write, written = contents(ledger.folder), ledger_module.write_bytes, []

    def write_until_killed(path: Path, content: bytes) -> None:
        written.append(path.name)
        if written.count("ledger.json") == 2:
            raise KeyboardInterrupt
        write(path, content)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(ledger_module, "write_bytes", write_until_killed)
        if change == "add":
            ledger.add(request(ledger, "ship"), adapter(1), adapter(2), pictures(3))
        else:
            ledger.extend_panel("ship", [(seen("object", 4), pictures(1)["cat"])] * 4)
    assert contents(ledger.folder).keys() > before.keys()
    Ledger.open(ledger.folder).rollback(3)
    assert contents(ledger.folder) == before


def test_nothing_else_in_the_folder_is_touched(tmp_path: Path) -> None:
    """Files and folders of the user, whatever their names, and what a link leads to."""
    ledger = filled(tmp_path / "ledger")
    row = tmp_path / "0009-elsewhere"
    (row / "panel").mkdir(parents=True)
    (row / "own.safetensors").write_bytes(b"mine")
    (row / "panel" / "000-cat.png").write_bytes(b"mine")
    for name in ("notes.txt", "2027-holiday/sea.jpg", "0004-mine/panel/notes.txt", "a b/c"):
        path = ledger.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("mine")
    (ledger.folder / "0005-linked").symlink_to(row)
    (ledger.folder / "0006-dangling").symlink_to(tmp_path / "nowhere")
    (ledger.folder / "linked").symlink_to(tmp_path)
    (ledger.folder / "0007-inner" / "panel").mkdir(parents=True)
    (ledger.folder / "0007-inner" / "panel" / "000-cat.png").symlink_to(row / "own.safetensors")
    (ledger.folder / "0001-cat" / "panel" / "mine.png").write_text("mine")
    shutil.copytree(ledger.folder / "0003-car", ledger.folder / "0003-car-of-mine")
    rows = {row.folder for row in ledger.rows}

    def others() -> list[str]:
        found = [path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*")]
        return sorted(name for name in found if not rows & {*name.split("/")} or "mine" in name)

    before = others()
    ledger.rollback(1)
    ledger.add(request(ledger, "ship"), adapter(1), adapter(2), pictures(3))
    rows.add(ledger.rows[-1].folder)
    assert others() == before


def test_a_change_by_another_process_is_not_lost(tmp_path: Path) -> None:
    one = filled(tmp_path / "ledger", ("cat",))
    other = Ledger.open(one.folder)
    one.add(request(one, "dog"), adapter(1), adapter(2), pictures(1))
    with pytest.raises(OutputError, match="changed since it was opened"):
        other.add(request(other, "car"), adapter(3), adapter(4), pictures(2))
    other.add(request(other, "car"), adapter(3), adapter(4), pictures(2))
    assert [row.concept for row in Ledger.open(one.folder).requests] == ["cat", "dog", "car"]


def test_a_busy_ledger_is_read_but_not_changed(tmp_path: Path) -> None:
    ledger = filled(tmp_path / "ledger", ("cat",))
    with Ledger.open(ledger.folder).locked():
        assert Ledger.open(ledger.folder).rows == ledger.rows
        with pytest.raises(OutputError, match=f"being changed by process {os.getpid()};"):
            ledger.rollback(0)
    ledger.rollback(0)
    assert ledger.requests == []


def record_of(ledger: Ledger) -> dict[str, Any]:
    return json.loads((ledger.folder / "ledger.json").read_text())


def rewritten(ledger: Ledger, record: Any) -> None:
    (ledger.folder / "ledger.json").write_text(json.dumps(record))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda record: record["rows"].pop(2), "'0003-car' follows 2 rows"),
        (lambda record: record["rows"].insert(1, record["rows"].pop(2)), "'0002-dog' follows 1"),
        (lambda record: record["rows"][1].update(concept=""), "the concept of '0001-cat' is ''"),
        (lambda record: record["rows"][1].update(steps=-1), "rows.1.steps"),
        (lambda record: record["rows"][1].update(seconds=-1.0), "rows.1.seconds"),
        (lambda record: record["rows"][1].update(drift=float("nan")), "readable ledger"),
        (lambda record: record["rows"][1].update(folder="../0001-cat"), "name of a row's folder"),
        (lambda record: record["rows"][1].update(folder="/tmp"), "name of a row's folder"),
        (lambda record: record["rows"][1]["files"].update({"../x": "0" * 64}), "row's file"),
        (lambda record: record["rows"][1]["files"].clear(), "no hash of 0001-cat/own.safe"),
        (lambda record: record["rows"][1].pop("panel"), "rows.1.panel"),
        (lambda record: record["rows"][1]["panel"]["cat"].update(right=[True]), "1 pictures of"),
        (lambda record: record["rows"][1]["panel"]["cat"].update(right=[]), "panel.cat.right"),
        (lambda record: record["rows"][1]["panel"]["cat"].update(named=["dog"]), "other answers"),
        (lambda record: record["rows"][1]["panel"]["cat"].update(kind="thing"), "panel.cat.kind"),
        (lambda record: record["plan"].update(regime="never"), "sequence.regime is 'never'"),
        (lambda record: record["plan"].update(pictures=-4), "sequence.pictures is -4"),
        (lambda record: record["config"].update(objective="none"), "objective 'none' is unknown"),
        (lambda record: record["names"].append("cat"), "twice"),
        (lambda record: record["prompts"]["cat"][0].update(seed=-1), "prompts.cat.0.seed"),
        (lambda record: record["unlisted"].append("../x"), "no name of a row's folder or file"),
        (lambda record: record.pop("rows"), "rows"),
        (lambda record: record.update(schema="unlearn-ledger/9"), "unlearn-ledger/5 is accepted"),
    ],
)  # fmt: skip
def test_a_record_that_is_not_as_it_was_written_is_refused(
    tmp_path: Path, change: Callable[[Any], Any], said: str
) -> None:
    ledger = filled(tmp_path / "ledger")
    record = record_of(ledger)
    record["prompts"] = {"cat": [{"text": "a", "axis": "b", "expects": "c", "seed": 1}] * 4}
    rewritten(ledger, record)
    assert Ledger.open(ledger.folder).rows == ledger.rows
    change(record)
    rewritten(ledger, record)
    with pytest.raises(OutputError, match=re.escape(said)):
        Ledger.open(ledger.folder)


def test_a_swapped_adapter_is_refused(tmp_path: Path) -> None:
    ledger = filled(tmp_path / "ledger")
    shutil.copy(ledger.path(1), ledger.path(2))
    with pytest.raises(
        OutputError, match=r"0002-dog/combined\.safetensors is not what was written"
    ):
        Ledger.open(ledger.folder)


def test_a_damaged_picture_is_refused(tmp_path: Path) -> None:
    ledger = filled(tmp_path / "ledger")
    ledger.picture(2, "car").write_bytes(ledger.picture(2, "car").read_bytes()[:-1] + b"?")
    with pytest.raises(OutputError, match=r"0002-dog/panel/002-car\.png is not what was written"):
        Ledger.open(ledger.folder)


def test_a_row_that_is_a_link_out_of_the_ledger_is_refused(tmp_path: Path) -> None:
    ledger = filled(tmp_path / "ledger")
    row = ledger.folder / "0002-dog"
    row.rename(tmp_path / "elsewhere")
    row.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(OutputError, match=r"0002-dog/own.* lies outside"):
        Ledger.open(ledger.folder)


def test_a_ledger_without_hashes_gets_them_with_the_next_change(tmp_path: Path) -> None:
    ledger = filled(tmp_path / "ledger")
    record = record_of(ledger)
    for name in ("prompts", "rolled_back", "unlisted"):
        del record[name]
    for row in record["rows"]:
        del row["files"]
    rewritten(ledger, record | {"schema": "unlearn-ledger/4"})
    opened = Ledger.open(ledger.folder)
    assert (opened.rows, opened.hashed) == (ledger.rows, False)
    opened.rollback(2)
    again = Ledger.open(ledger.folder)
    assert (again.rows, again.hashed) == (ledger.rows[:3], True)
    again.undo_rollback()
    assert Ledger.open(ledger.folder).rows == ledger.rows


def metadata(path: Path) -> dict[str, str]:
    with safe_open(path, "pt") as file:
        return file.metadata()


@pytest.mark.parametrize(
    ("regime", "loads_on", "merge"),
    [
        ("sequential", "the original with the adapter of the requests before: cat", None),
        ("independent", "the original", "ties"),
        ("simultaneous", "the original", None),
    ],
)
def test_adapters_say_what_they_are(
    tmp_path: Path, regime: str, loads_on: str, merge: str | None
) -> None:
    config = make_config("cat", model=str(tmp_path / "my-model"), objective="uce")
    ledger = Ledger.create(tmp_path / "ledger", config, make_plan(regime=regime), NAMES)
    with ledger.locked():
        ledger.base = "0123"
        ledger.add(request(ledger), {}, {}, pictures(0))
    for number, concept in enumerate(("cat", "dog"), 1):
        ledger.add(request(ledger, concept), adapter(number), adapter(number), pictures(number))
    assert metadata(ledger.path(1, own=True))["loads_on"] == "the original"
    own, combined = metadata(ledger.path(2, own=True)), metadata(ledger.path(2))
    assert own["loads_on"] == loads_on
    known = {
        "base": "my-model",
        "base_sha256": "0123",
        "objective": "uce",
        "regime": regime,
        "loads_on": "the original",
    }
    assert known.items() <= combined.items()
    assert json.loads(combined["requests"]) == ["cat", "dog"]
    assert combined.get("merge") == merge
    assert json.loads(own["requests"]) == (["cat", "dog"] if regime == "simultaneous" else ["dog"])
    assert ledger.adapter(2, own=True).keys() == adapter(2).keys()
    assert str(tmp_path) not in f"{own}{combined}"


def test_a_ledger_without_rows_is_shown(tmp_path: Path, capsys, monkeypatch) -> None:
    ledger = Ledger.create(tmp_path / "ledger", make_config("cat"), make_plan(), NAMES)
    monkeypatch.setattr("sys.argv", ["unlearn_app", "continual", "show", str(ledger.folder)])
    with pytest.raises(SystemExit) as leaving:
        cli.main()
    assert (leaving.value.code or 0, capsys.readouterr().err) == (0, "")


def test_the_command_line_undoes_a_rollback(tmp_path: Path, capsys, monkeypatch) -> None:
    ledger = filled(tmp_path / "ledger")
    for words, concepts in ((["rollback", "1"], ["cat"]), (["undo"], ["cat", "dog", "car"])):
        asked = ["unlearn_app", "continual", words[0], str(ledger.folder), *words[1:]]
        monkeypatch.setattr("sys.argv", asked)
        with pytest.raises(SystemExit):
            cli.main()
        assert [row.concept for row in Ledger.open(ledger.folder).requests] == concepts
        capsys.readouterr()


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
    assert ["cat", "100%", "0%", "50%"] in rows
    assert ["dog", "100%", "75%", "25%"] in rows


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
    print("added", flush=True)
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
            for _ in range(source.randrange(3)):
                assert workers.stdout.readline() == "added\n"
            time.sleep(source.uniform(0, 0.15))
            os.kill(worker, signal.SIGKILL)
            assert "dead\n" in iter(workers.stdout.readline, "")
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
    assert request_metrics(ledger.rows, ["neon"])[1].ra_i is None
    assert request_metrics(ledger.rows, ["neon"])[1].ra_c == 1.0
    destroyed = panel(**dict.fromkeys(NAMES, 0))
    ledger.add(
        Request("car", "object", "ship", ledger.next_folder("car"), 1, 3, 9.0, destroyed),
        {},
        {},
        {},
    )
    assert request_metrics(ledger.rows)[2].ua == 1.0
    assert request_metrics(ledger.rows)[2].ra_c == 0.0


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
    assert shares == (None,) * 5
    assert found.drift == 2.0
    status = sequence_tab.ledger_status(ledger)
    assert "–" in status
    assert "100 %" not in status
    assert "/2</span>" not in sequence_tab.ledger_table(ledger)
    assert len(plots.request_table(ledger)) == 3


@pytest.mark.parametrize("command", [["export"], ["continual", "export"]])
def test_a_ledger_is_exported_for_other_programs_and_as_a_pipeline(
    pocket, tmp_path: Path, monkeypatch, command: list[str]
) -> None:
    ledger = Ledger.create(tmp_path / "ledger", make_config("cat"), make_plan(), NAMES)
    ledger.base = pocket.base_hash
    ledger.add(request(ledger), {}, {}, pictures(0))
    pocket.reset_adapter("unlearn", 2, 2.0, 0, "cross")
    state = pocket.adapter_state("unlearn")
    for name, tensor in state.items():
        if ".lora_B." in name:
            tensor.normal_(std=0.2)
    ledger.add(request(ledger, "cat"), state, state, pictures(1))
    monkeypatch.setattr("unlearn_app.models.catalog.load_model", lambda name: pocket)
    monkeypatch.chdir(tmp_path)
    words = [*command, "ledger", "x.safetensors", "--format", "kohya", "--pipeline", "fused"]
    monkeypatch.setattr("sys.argv", ["unlearn_app", *words])
    with pytest.raises(SystemExit) as leaving:
        cli.main()
    assert leaving.value.code == 0
    pocket.load_adapter("unlearn", read_adapter(tmp_path / "x.safetensors"))
    found = pocket.adapter_state("unlearn")
    assert all(torch.equal(found[name], tensor) for name, tensor in state.items())
    fused = load_unet(tmp_path / "fused" / "unet").state_dict()
    for name, weight in pocket.weights("unlearn").items():
        torch.testing.assert_close(fused[name.replace(".base_layer.", ".")], weight.detach())
    with safe_open(tmp_path / "x.safetensors", "pt") as file:
        assert file.metadata()["concept"] == "cat"


def test_a_ledger_recorded_without_adapters_is_read_checked_and_never_changed(
    tmp_path: Path,
) -> None:
    ledger = filled(tmp_path / "ledger")
    record = record_of(ledger)
    for row in record["rows"]:
        for name in ("own.safetensors", "combined.safetensors"):
            if row["files"].pop(name, None):
                (ledger.folder / row["folder"] / name).unlink()
    rewritten(ledger, record)
    with pytest.raises(OutputError, match=r"0001-cat/own\.safetensors is missing"):
        Ledger.open(ledger.folder)
    rewritten(ledger, record | {"adapters": False})
    shown = Ledger.open(ledger.folder)
    assert [row.concept for row in shown.requests] == ["cat", "dog", "car"]
    before = (ledger.folder / "ledger.json").read_bytes()
    for act in (
        lambda: shown.rollback(1),
        lambda: shown.add(request(shown, "ship"), adapter(1), adapter(2), pictures(3)),
        lambda: shown.path(3),
        lambda: shown.adapter(3, own=True),
    ):
        with pytest.raises(OutputError, match="was recorded to be shown and holds no adapters"):
            act()
    assert (ledger.folder / "ledger.json").read_bytes() == before
    shown.picture(2, "car").write_bytes(b"other")
    with pytest.raises(OutputError, match=r"0002-dog/panel/002-car\.png is not what was written"):
        Ledger.open(ledger.folder)
