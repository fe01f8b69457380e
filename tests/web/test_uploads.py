"""The way in for files: one kind, a cap while they arrive, and one for all files of a visitor."""

import asyncio
import stat
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from asynchronous import complete

from unlearn_app.web import uploads
from unlearn_app.web.uploads import UploadError, store_upload


@pytest.fixture(autouse=True)
def small(monkeypatch) -> None:
    monkeypatch.setattr(uploads, "MAX_FILE", 100)
    monkeypatch.setattr(uploads, "MAX_VISITOR", 150)


def store(folder: Path, name: str = "lora.safetensors", size: int = 100) -> tuple[Path, list[int]]:
    """Store a file that arrives in chunks of ten bytes; its path and what was read of it."""
    read: list[int] = []

    async def chunks() -> AsyncIterator[bytes]:
        for start in range(0, size, 10):
            read.append(start)
            yield b"x" * min(10, size - start)

    try:
        return complete(store_upload(name, chunks(), folder)), read
    except UploadError as error:
        error.add_note(f"{len(read)} chunks")
        raise


def test_a_file_is_kept_under_another_name_in_a_private_folder(tmp_path) -> None:
    path, _ = store(tmp_path / "visitor", "../../LORA.SafeTensors")
    assert path.read_bytes() == b"x" * 100
    assert path.parent == tmp_path / "visitor"
    assert "LORA" not in path.name
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700


@pytest.mark.parametrize("name", ["lora.ckpt", "lora.safetensors.py", "", "safetensors"])
def test_another_kind_is_refused_unread(tmp_path, name: str) -> None:
    with pytest.raises(UploadError, match=r"\.safetensors is accepted") as caught:
        store(tmp_path, name)
    assert caught.value.__notes__ == ["0 chunks"]
    assert not any(tmp_path.iterdir())


def test_a_file_is_cut_off_while_it_arrives(tmp_path) -> None:
    with pytest.raises(UploadError, match="too large; 100 bytes") as caught:
        store(tmp_path, size=1_000_000)
    assert caught.value.__notes__ == ["11 chunks"]
    assert not any(tmp_path.iterdir())


def test_a_visitor_has_a_quota_for_all_files(tmp_path) -> None:
    kept, _ = store(tmp_path)
    with pytest.raises(UploadError, match="150 bytes together"):
        store(tmp_path)
    assert list(tmp_path.iterdir()) == [kept]
    store(tmp_path, size=50)


def test_a_sender_who_goes_away_leaves_nothing(tmp_path) -> None:
    async def broken() -> AsyncIterator[bytes]:
        yield b"x"
        raise asyncio.CancelledError

    with pytest.raises(asyncio.CancelledError):
        complete(store_upload("lora.safetensors", broken(), tmp_path))
    assert not any(tmp_path.iterdir())
