"""The way in for files: one kind, a cap while they arrive, and one for all files of a visitor."""

import asyncio
import errno
import shutil
import stat
from collections.abc import AsyncIterator
from pathlib import Path
from types import SimpleNamespace

import pytest
from asynchronous import complete

from unlearn_app.web import uploads
from unlearn_app.web.uploads import UploadError, receive, store_upload


@pytest.fixture(autouse=True)
def small(monkeypatch) -> None:
    monkeypatch.setattr(uploads, "MAX_FILE", 100)
    monkeypatch.setattr(uploads, "MAX_VISITOR", 150)
    monkeypatch.setattr(uploads, "PORTION", 10)


def anything() -> None:
    """Room for whatever arrives."""


def store(folder: Path, name: str = "lora.safetensors", size: int = 100) -> tuple[Path, list[int]]:
    """Store a file that arrives in chunks of ten bytes; its path and what was read of it."""
    read: list[int] = []

    async def chunks() -> AsyncIterator[bytes]:
        for start in range(0, size, 10):
            read.append(start)
            yield b"x" * min(10, size - start)

    try:
        return complete(store_upload(name, chunks(), folder, anything)), read
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
        complete(store_upload("lora.safetensors", broken(), tmp_path, anything))
    assert not any(tmp_path.iterdir())


def page(root: Path) -> SimpleNamespace:
    """An engine in `root` whose visitors all have the page open."""
    visitors = SimpleNamespace(here=lambda visitor: True)
    return SimpleNamespace(root=root, visitors=visitors, sent=lambda name: root / name / "sent")


async def trickle(size: int) -> AsyncIterator[bytes]:
    for start in range(0, size, 4):
        await asyncio.sleep(0)
        yield b"x" * min(4, size - start)


def test_the_limit_for_all_visitors_holds_while_many_send_at_once(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(uploads, "MAX_ALL", 300)
    engine, most = page(tmp_path), [0]

    async def send(number: int) -> str:
        return await receive(engine, f"{number:064x}", "lora.safetensors", trickle(97))

    async def watch() -> None:
        while True:
            files = [one.stat().st_size for one in tmp_path.rglob("*") if one.is_file()]
            most[0] = max(most[0], sum(files))
            await asyncio.sleep(0)

    async def all_at_once() -> list[str | BaseException]:
        watching = asyncio.create_task(watch())
        answers = await asyncio.gather(*map(send, range(20)), return_exceptions=True)
        watching.cancel()
        return answers

    answers = complete(all_at_once())
    refused = [str(one) for one in answers if isinstance(one, UploadError)]
    taken = [one for one in answers if isinstance(one, str)]
    assert len(refused) + len(taken) == 20
    assert set(refused) == {uploads.NO_ROOM}
    assert most[0] <= 300
    stored = [one.stat().st_size for one in tmp_path.rglob("*") if one.is_file()]
    assert stored == [97] * len(taken)


def test_senders_one_after_the_other_fill_the_room_of_all(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(uploads, "MAX_ALL", 200)
    engine = page(tmp_path)
    for number in range(2):
        complete(receive(engine, f"{number:064x}", "lora.safetensors", trickle(100)))
    with pytest.raises(UploadError, match="no room"):
        complete(receive(engine, f"{2:064x}", "lora.safetensors", trickle(1)))


def test_files_leave_some_of_the_disk_free(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(uploads, "KEEP_FREE", 10**18)
    with pytest.raises(UploadError, match="no room"):
        complete(receive(page(tmp_path), f"{1:064x}", "lora.safetensors", trickle(1)))


@pytest.mark.parametrize(
    ("code", "said"), [(errno.ENOSPC, "no room"), (errno.EIO, "could not be stored")]
)
def test_a_disk_that_takes_no_more_is_a_sentence(tmp_path, monkeypatch, code, said) -> None:
    def full(path: Path, target: Path) -> None:
        raise OSError(code, "said by the disk")

    monkeypatch.setattr(Path, "replace", full)
    with pytest.raises(UploadError, match=said):
        store(tmp_path)
    assert not any(tmp_path.iterdir())


@pytest.mark.parametrize("sent", [5, 95])
def test_a_visitor_who_leaves_while_sending_is_told_so(tmp_path, sent: int) -> None:
    folder = tmp_path / "visitor"

    async def chunks() -> AsyncIterator[bytes]:
        yield b"x" * sent
        shutil.rmtree(folder)  # as `Engine.leave` does
        yield b"x" * 5

    with pytest.raises(UploadError, match="page was closed"):
        complete(store_upload("lora.safetensors", chunks(), folder, anything))
    assert not folder.exists()
