"""Storing files that visitors send: the one way in, for adapters to audit. `boundary` closes
Gradio's own upload route.
"""

import errno
import re
import shutil
import uuid
from collections.abc import AsyncIterable, Callable
from contextlib import suppress
from functools import partial
from pathlib import Path

from ..common.errors import UnlearnError
from ..service.engine import Engine
from ..service.jobs import folder_size
from ..service.visitors import visitor_of

SUFFIX = ".safetensors"
MAX_FILE, MAX_VISITOR = 256 * 1024**2, 512 * 1024**2
"""Bytes of a file, and of all files in the folder of a visitor."""
MAX_ALL = 4 * 1024**3
"""Bytes of the files of all visitors together, those that are still arriving included."""
PORTION = 1024**2
"""Bytes of a file for which room is reserved at a time, as it arrives."""
KEEP_FREE = 256 * 1024**2
"""Bytes of the disk that files from visitors leave free."""
NO_ROOM = "There is no room for further files now; try again in a few minutes."
TOKEN = re.compile(r"[0-9a-f]{32}")
"""What the page is told of a stored file: its name without its ending, which nobody can guess."""


class UploadError(UnlearnError):
    """A file that is not taken; the message says what is."""


async def store_upload(
    name: str, chunks: AsyncIterable[bytes], folder: Path, check_room: Callable[[], None]
) -> Path:
    """Keep a file in a visitor's private `folder` as it arrives, under a name of ours; `check_room`
    is called after every portion was reserved, and raises where that was too much.

    Raises:
        UploadError: it is of another kind, too large, or cannot be stored; nothing is left of it.
    """
    if not name.casefold().endswith(SUFFIX):
        raise UploadError(f"The file {name[-80:]!r} is of another kind; {SUFFIX} is accepted.")
    path = folder / f"{uuid.uuid4().hex}{SUFFIX}"
    arriving = path.with_suffix(".part")
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        await _write(arriving, chunks, check_room)
        arriving.replace(path)
    except BaseException as error:
        with suppress(OSError):
            arriving.unlink(missing_ok=True)
        if isinstance(error, OSError):
            raise UploadError(_reason(error)) from error
        raise
    return path


async def _write(path: Path, chunks: AsyncIterable[bytes], check_room: Callable[[], None]) -> None:
    size = reserved = 0
    with path.open("xb") as file:
        async for chunk in chunks:
            size += len(chunk)
            if size > MAX_FILE:
                raise UploadError(f"The file is too large; {MAX_FILE:,} bytes are accepted.")
            if size > reserved:
                reserved = -(-size // PORTION) * PORTION
                # The length counts at once, also for others whose files arrive at the same time.
                file.truncate(reserved)
                path.stat()  # fails once the visitor has left, whose folder is deleted
                if folder_size(path.parent) > MAX_VISITOR:
                    raise UploadError(
                        f"Your files are too large; {MAX_VISITOR:,} bytes together are accepted."
                    )
                check_room()
            file.write(chunk)
        file.truncate(size)


def _reason(error: OSError) -> str:
    """Why a file was not stored, as a sentence."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return NO_ROOM
    if error.errno == errno.ENOENT:
        return "The page was closed while the file arrived; open it again and send the file anew."
    return f"The file could not be stored ({error.strerror or type(error).__name__}); try again."


def check_room(engine: Engine) -> None:
    """Check what is there of the files of all visitors, and what the disk has left.

    Raises:
        UploadError: it is too much, or too little.
    """
    held = sum(folder_size(folder) for folder in engine.root.glob("*/sent"))
    if held > MAX_ALL or shutil.disk_usage(engine.root).free < KEEP_FREE:
        raise UploadError(NO_ROOM)


async def receive(engine: Engine, key: str, name: str, chunks: AsyncIterable[bytes]) -> str:
    """Store a file of the visitor whose browser keeps `key`, and return its token.

    Raises:
        UploadError: it is not taken, or nobody has opened the page with that key.
    """
    visitor = visitor_of("", key)
    if not engine.visitors.here(visitor):
        raise UploadError("Nobody with that key has the page open; files are sent from the page.")
    room = partial(check_room, engine)
    return (await store_upload(name, chunks, engine.sent(visitor), room)).stem


def stored(engine: Engine, visitor: str, token: object) -> Path | None:
    """The file of a visitor with that token; None if there is none."""
    if not (isinstance(token, str) and TOKEN.fullmatch(token)):
        return None
    path = engine.sent(visitor) / f"{token}{SUFFIX}"
    return path if path.is_file() else None
