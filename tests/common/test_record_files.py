"""Records are read from regular files of a limited size, and are as their schema says."""

import json
import os
from pathlib import Path
from typing import Annotated, ClassVar, Literal

import pytest
from pydantic import Field

from unlearn_app.common import record_files
from unlearn_app.common.errors import OutputError
from unlearn_app.common.record_files import (
    Record,
    check_files,
    inside,
    read_json,
    read_record,
    shown,
)


class Thing(Record):
    VERSION: ClassVar[str] = "thing/1"
    count: Annotated[int, Field(ge=0)]
    share: float | None = None
    column: Literal["left", "right"] = "left"
    names: list[str] = []


def written(folder: Path, text: str) -> Path:
    path = folder / "thing.json"
    path.write_text(text)
    return path


def stored(**values: object) -> str:
    return json.dumps({"schema": "thing/1", "count": 1} | values)


def test_a_record_is_what_its_schema_lists(tmp_path: Path) -> None:
    path = written(tmp_path, stored(share=1, later={"version": 2}))
    found = {"schema": "thing/1", "count": 1, "share": 1.0, "column": "left", "names": []}
    assert read_record(path, Thing, "thing") == found


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("", "is not accepted"),
        ("[]", r"holds \[\], no object"),
        ("null", "holds None, no object"),
        ("{}", "schema None; thing/1 is accepted"),
        ('{"schema": "thing/2"}', "thing/1 is accepted"),
        ('{"schema": "thing/1"}', "holds no count"),
        ("[" * 100_000, "nested"),
        ("[" * 40 + "]" * 40, "nested"),
        (stored(count=-1), "holds -1 as count"),
        (stored(count=True), "holds True as count"),
        (stored(count="1"), "holds '1' as count"),
        (stored(count=1.0), "holds 1.0 as count"),
        (stored(column="up"), "'left' or 'right' is accepted"),
        (stored(names=[None]), r"names\.0"),
        (stored(share=float("nan")), "nan is no number"),
        (stored(share=float("inf")), "inf is no number"),
        (stored(share=0).replace("0", "1e999"), "inf is no number"),
        (stored(later=10**400), "is no number"),
    ],
)
def test_nonsense_is_a_sentence(tmp_path: Path, text: str, sentence: str) -> None:
    with pytest.raises(OutputError, match=sentence):
        read_record(written(tmp_path, text), Thing, "thing")


def test_text_in_no_known_encoding_is_a_sentence(tmp_path: Path) -> None:
    (tmp_path / "thing.json").write_bytes(b'{"\xff": 1}')
    with pytest.raises(OutputError, match="no readable thing"):
        read_record(tmp_path / "thing.json", Thing, "thing")


@pytest.mark.parametrize("kind", ["absent", "folder", "pipe", "device", "large"])
def test_only_regular_files_of_a_limited_size_are_read(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "thing.json"
    if kind == "folder":
        path.mkdir()
    elif kind == "pipe":
        os.mkfifo(path)
    elif kind == "device":
        path.symlink_to("/dev/zero")
    elif kind == "large":
        with path.open("wb") as stream:
            stream.truncate(record_files.LARGEST + 1)
    with pytest.raises(OutputError, match=r"no readable thing.*thing\.json"):
        read_json(path, "thing")


@pytest.mark.parametrize(
    ("typed", "seen"),
    [
        ("Café 猫\nnext line", "Café 猫\nnext line"),
        ("a \u202ecat\u2066", "a \\u202ecat\\u2066"),
        ("bell\x07 \x1b[31m", "bell\\x07 \\x1b[31m"),
        ("half \ud800", "half \\ud800"),
    ],
)
def test_letters_that_hide_or_reorder_text_are_shown_as_escapes(
    tmp_path: Path, typed: str, seen: str
) -> None:
    assert shown(typed) == seen
    found = read_record(written(tmp_path, stored(names=[typed])), Thing, "thing")
    assert found["names"] == [seen]


def test_lines_are_read_as_a_list(tmp_path: Path) -> None:
    assert read_json(written(tmp_path, '{"a": 1}\n2\n'), "thing", lines=True) == [{"a": 1}, 2]


@pytest.mark.parametrize(
    "name",
    ["../private", "/etc/hostname", "a/../../private", "a//b", "", ".", "out", "a\\b", "loop"],
)
def test_names_do_not_lead_out_of_the_folder(tmp_path: Path, name: str) -> None:
    folder = tmp_path / "thing"
    folder.mkdir()
    (tmp_path / "private").write_text("")
    (folder / "out").symlink_to(tmp_path / "private")
    (folder / "loop").symlink_to(folder / "loop")
    with pytest.raises(OutputError, match="damaged"):
        inside(folder, name, "thing")


def test_only_regular_files_are_inside(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_text("")
    os.mkfifo(tmp_path / "pipe.png")
    assert inside(tmp_path, "a.png", "thing") == tmp_path / "a.png"
    for name in ("pipe.png", "b.png", "a" * 5000, "a\0b"):
        with pytest.raises(OutputError, match="damaged"):
            inside(tmp_path, name, "thing")


def test_a_file_of_any_size_is_not_hashed_for_hours(tmp_path: Path) -> None:
    with (tmp_path / "a.png").open("wb") as stream:
        stream.truncate(2**40)
    with pytest.raises(OutputError, match=r"a\.png' has 1,099,511,627,776 bytes; up to"):
        check_files(tmp_path, {"a.png": "0" * 64}, "thing")


@pytest.mark.parametrize("name", ["../\x1b[2J", "\u202ea", "\x1b\0"])
def test_a_name_in_a_message_hides_nothing(tmp_path: Path, name: str) -> None:
    with pytest.raises(OutputError, match="damaged") as raised:
        inside(tmp_path, name, "thing")
    assert str(raised.value).isprintable()
