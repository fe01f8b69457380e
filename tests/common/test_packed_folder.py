"""A packed folder comes back as it was; nothing leaves the folder, and no bomb goes off."""

import io
import lzma
import tarfile
from pathlib import Path

import pytest

from unlearn_app.common import packed_folder
from unlearn_app.common.errors import OutputError
from unlearn_app.common.packed_folder import pack, unpack, unpacked

FILES = {"run.json": b"{}", "images/a-00.png": b"\x89PNG", "empty": b""}


def contents(folder: Path) -> dict[str, bytes]:
    found = (path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in found}


def filled(folder: Path) -> Path:
    for name, content in FILES.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    return folder


def archive_of(path: Path, *entries: tarfile.TarInfo, content: bytes = b"") -> Path:
    with tarfile.open(path, "w:xz") as packed:
        for entry in entries:
            entry.size = len(content)
            packed.addfile(entry, io.BytesIO(content))
    return path


def link(name: str, target: str) -> tarfile.TarInfo:
    entry = tarfile.TarInfo(name)
    entry.type, entry.linkname = tarfile.SYMTYPE, target
    return entry


def test_what_is_packed_comes_back_and_packing_again_makes_the_same_bytes(tmp_path: Path) -> None:
    source = filled(tmp_path / "cat")
    pack(source, tmp_path / "cat.tar.xz")
    assert contents(unpack(tmp_path / "cat.tar.xz", tmp_path / "again")) == FILES
    filled(tmp_path / "other").touch()
    pack(tmp_path / "other", tmp_path / "other.tar.xz")
    assert (tmp_path / "other.tar.xz").read_bytes() == (tmp_path / "cat.tar.xz").read_bytes()
    with unpacked(tmp_path / "cat.tar.xz") as folder:
        assert folder.name == "cat"
        assert contents(folder) == FILES
    assert not folder.exists()


@pytest.mark.parametrize(
    "entry",
    [
        tarfile.TarInfo("../out"),
        tarfile.TarInfo("/out"),
        tarfile.TarInfo("images/../../out"),
        tarfile.TarInfo(".hidden"),
        tarfile.TarInfo("c:out"),
        tarfile.TarInfo("images\\out"),
        link("out", ".."),
    ],
    ids=lambda entry: entry.name,
)
def test_nothing_leaves_the_folder_and_nothing_of_it_stays(
    tmp_path: Path, entry: tarfile.TarInfo
) -> None:
    archive = archive_of(tmp_path / "bad.tar.xz", tarfile.TarInfo("run.json"), entry)
    with pytest.raises(OutputError, match=r"damaged: bad\.tar\.xz: .* is no file of the folder"):
        unpack(archive, tmp_path / "made" / "bad")
    assert [path.name for path in tmp_path.rglob("*")] == ["bad.tar.xz", "made"]


def test_more_than_the_limit_is_refused_before_it_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    archive = archive_of(tmp_path / "a.tar.xz", tarfile.TarInfo("run.json"), content=bytes(90_000))
    monkeypatch.setattr(packed_folder, "LARGEST", 80_000)
    with pytest.raises(OutputError, match="it holds more than 80,000 bytes"):
        unpack(archive, tmp_path / "a")
    assert not (tmp_path / "a").exists()


def test_what_needs_much_memory_is_refused(tmp_path: Path) -> None:
    filters = [{"id": lzma.FILTER_LZMA2, "dict_size": 2**29}]
    (tmp_path / "a.tar.xz").write_bytes(lzma.compress(b"", filters=filters))
    with pytest.raises(OutputError, match="emory"):
        unpack(tmp_path / "a.tar.xz", tmp_path / "a")


@pytest.mark.parametrize("content", [b"", b"not packed", lzma.compress(b"not an archive")])
def test_what_is_no_archive_is_one_sentence(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a.tar.xz").write_bytes(content)
    with pytest.raises(OutputError, match=r"damaged: a\.tar\.xz"):
        unpack(tmp_path / "a.tar.xz", tmp_path / "a")


def test_a_cut_archive_is_refused(tmp_path: Path) -> None:
    archive = tmp_path / "cat.tar.xz"
    pack(filled(tmp_path / "cat"), archive)
    archive.write_bytes(archive.read_bytes()[:-20])
    with pytest.raises(OutputError, match="damaged"):
        unpack(archive, tmp_path / "a")


def test_a_missing_archive_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="No such file"):
        unpack(tmp_path / "a.tar.xz", tmp_path / "a")


def test_what_is_hidden_is_not_packed(tmp_path: Path) -> None:
    source = filled(tmp_path / "cat")
    (source / ".lock").write_bytes(b"1234")
    (source / ".cache").mkdir()
    (source / ".cache" / "a").write_bytes(b"a")
    pack(source, tmp_path / "cat.tar.xz")
    assert contents(unpack(tmp_path / "cat.tar.xz", tmp_path / "again")) == FILES
