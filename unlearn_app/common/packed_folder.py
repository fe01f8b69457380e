"""Folders that ship packed, each as one .tar.xz file: files that resemble each other, as pictures
of one run do, take least together.
"""

import io
import lzma
import re
import tarfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from .atomic_files import hidden_folder, replacement
from .record_files import LARGEST, damaged, read_bytes

ENDING = ".tar.xz"
FILTERS = [{"id": lzma.FILTER_LZMA2, "preset": 6, "lc": 4, "pb": 0}]
"""How it is compressed: as bytes that follow from the one before, which numbers of colours do."""
MEMORY = 64 * 2**20
"""The most bytes that unpacking may take beside what is unpacked."""
NAME = re.compile(r"\w[\w.-]*(/\w[\w.-]*)*", re.ASCII)
"""What a packed file may be called: nothing hidden, nothing outside of the folder."""


def pack(folder: Path, archive: Path) -> None:
    """Write the files of a folder into `archive`, without hidden ones such as locks; equal files
    make equal bytes.
    """
    archive.parent.mkdir(parents=True, exist_ok=True)
    with (
        replacement(archive) as partial,
        lzma.open(partial, "wb", filters=FILTERS) as stream,
        tarfile.open(fileobj=stream, mode="w") as packed,
    ):
        files = {path.relative_to(folder).as_posix(): path for path in folder.rglob("*")}
        for name, path in sorted(files.items()):
            if not (path.is_file() and NAME.fullmatch(name)):
                continue
            content = path.read_bytes()
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            packed.addfile(entry, io.BytesIO(content))


def unpack(archive: Path, folder: Path) -> Path:
    """Write what is packed in `archive` into the new `folder`, which is returned; it is not waited
    until that is on the disk, since it can be unpacked again.

    Raises:
        OutputError: it cannot be read, holds anything but files of the folder, or more than
            `LARGEST` bytes; or `folder` cannot be written.
    """
    try:
        content = _expanded(read_bytes(archive))
        with (
            tarfile.open(fileobj=io.BytesIO(content), mode="r:") as packed,
            hidden_folder(folder) as partial,
        ):
            for entry in packed:
                if not (entry.isreg() and NAME.fullmatch(entry.name)):
                    raise ValueError(f"{entry.name[:80]!r} is no file of the folder")
                path = partial / entry.name
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(packed.extractfile(entry).read())
            partial.replace(folder)
    except (OSError, EOFError, ValueError, lzma.LZMAError, tarfile.TarError) as error:
        raise damaged(archive.parent, "folder of recordings", f"{archive.name}: {error}") from error
    return folder


@contextmanager
def unpacked(archive: Path) -> Iterator[Path]:
    """What is packed in `archive` in a folder of the same name, which is gone after the block.

    Raises:
        OutputError: as `unpack`.
    """
    with TemporaryDirectory(prefix="unlearn-unpacked-") as parent:
        yield unpack(archive, Path(parent) / archive.name.removesuffix(ENDING))


def _expanded(content: bytes) -> bytes:
    """The decompressed bytes, at most `LARGEST`.

    Raises:
        ValueError, lzma.LZMAError: there are more, or they are not whole.
    """
    expander = lzma.LZMADecompressor(memlimit=MEMORY)
    found = expander.decompress(content, LARGEST + 1)
    if len(found) > LARGEST:
        raise ValueError(f"it holds more than {LARGEST:,} bytes")
    if not expander.eof:
        raise ValueError("its end is missing")
    return found
