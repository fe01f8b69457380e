"""Where the browser fetches pictures: each stored once under the hash of its PNG, so that updates
stay small.
"""

import hashlib
import os
import threading
from pathlib import Path
from urllib.parse import quote

from gradio.utils import get_upload_folder
from PIL.Image import Image

from ..common.atomic_files import write_bytes
from ..common.images import png_bytes

LIMIT = 4000
_lock = threading.Lock()


def address(picture: Image | Path) -> str:
    """An address of the exact picture as PNG, relative to the page; files are taken as they are.

    The folder is the one Gradio serves from; beyond `LIMIT` files the least recently shown quarter
    goes.
    """
    content = picture.read_bytes() if isinstance(picture, Path) else png_bytes(picture)
    folder = Path(get_upload_folder()).resolve() / "pictures"
    path = folder / f"{hashlib.sha256(content).hexdigest()}.png"
    with _lock:
        if path.exists():
            os.utime(path)
        else:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            write_bytes(path, content)
            _prune(folder)
    return f"gradio_api/file={quote(str(path))}"


def _prune(folder: Path) -> None:
    files = sorted(folder.iterdir(), key=lambda file: file.stat().st_mtime)
    if len(files) > LIMIT:
        for path in files[: len(files) - LIMIT * 3 // 4]:
            path.unlink(missing_ok=True)
