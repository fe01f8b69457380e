"""Storing files that visitors send: the one way in, for adapters to audit. `boundary` closes
Gradio's own upload route.
"""

import re
import uuid
from collections.abc import AsyncIterable
from pathlib import Path

from ..common.errors import UnlearnError
from ..service.engine import Engine
from ..service.jobs import folder_size
from ..service.visitors import visitor_of

SUFFIX = ".safetensors"
MAX_FILE, MAX_VISITOR = 256 * 1024**2, 512 * 1024**2
"""Bytes of a file, and of all files in the folder of a visitor."""
MAX_ALL = 4 * 1024**3
"""Bytes of the files of all visitors together, beyond which no further one is begun."""
TOKEN = re.compile(r"[0-9a-f]{32}")
"""What the page is told of a stored file: its name without its ending, which nobody can guess."""


class UploadError(UnlearnError):
    """A file that is not taken; the message says what is."""


async def store_upload(name: str, chunks: AsyncIterable[bytes], folder: Path) -> Path:
    """Keep a file in a visitor's private `folder` as it arrives, under a name of ours.

    Raises:
        UploadError: it is of another kind, or too large for the visitor; nothing is left of it.
    """
    if not name.casefold().endswith(SUFFIX):
        raise UploadError(f"The file {name[-80:]!r} is of another kind; {SUFFIX} is accepted.")
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    path = folder / f"{uuid.uuid4().hex}{SUFFIX}"
    partial = path.with_suffix(".part")
    try:
        with partial.open("xb", buffering=0) as file:
            async for chunk in chunks:
                file.write(chunk)
                if file.tell() > MAX_FILE:
                    raise UploadError(f"The file is too large; {MAX_FILE:,} bytes are accepted.")
                if folder_size(folder) > MAX_VISITOR:
                    raise UploadError(
                        f"Your files are too large; {MAX_VISITOR:,} bytes together are accepted."
                    )
        partial.replace(path)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise
    return path


async def receive(engine: Engine, key: str, name: str, chunks: AsyncIterable[bytes]) -> str:
    """Store a file of the visitor whose browser keeps `key`, and return its token.

    Raises:
        UploadError: it is not taken, or nobody has opened the page with that key.
    """
    visitor = visitor_of("", key)
    if not engine.visitors.here(visitor):
        raise UploadError("Nobody with that key has the page open; files are sent from the page.")
    if sum(folder_size(folder) for folder in engine.root.glob("*/sent")) > MAX_ALL:
        raise UploadError("There is no room for further files now; try again in a few minutes.")
    return (await store_upload(name, chunks, engine.sent(visitor))).stem


def stored(engine: Engine, visitor: str, token: object) -> Path | None:
    """The file of a visitor with that token; None if there is none."""
    if not (isinstance(token, str) and TOKEN.fullmatch(token)):
        return None
    path = engine.sent(visitor) / f"{token}{SUFFIX}"
    return path if path.is_file() else None
