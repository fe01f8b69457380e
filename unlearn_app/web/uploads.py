"""Storing files that visitors send. No part of the page takes files yet, and `boundary` closes
Gradio's own upload route.
"""

import uuid
from collections.abc import AsyncIterable
from pathlib import Path

from ..common.errors import UnlearnError
from ..service.jobs import folder_size

SUFFIX = ".safetensors"
MAX_FILE, MAX_VISITOR = 256 * 1024**2, 512 * 1024**2
"""Bytes of a file, and of all files in the folder of a visitor."""


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
