"""Where the browser fetches pictures: each stored once under the hash of its PNG, so that updates
stay small, for as long as a run that is kept or a visitor who is here uses it.
"""

import hashlib
import threading
from pathlib import Path
from urllib.parse import quote

from gradio.utils import get_upload_folder
from PIL.Image import Image

from ..common.atomic_files import write_bytes
from ..common.images import png_bytes

_used: dict[str, set[Path]] = {}
"""The files by the name of the folder that they belong to: a run's or a visitor's."""
_lock = threading.Lock()


def address(picture: Image | Path, owner: str) -> str:
    """An address of the exact picture as PNG, relative to the page; files are taken as they are.

    The folder is the one Gradio serves from. The file stays until every `owner` that it was asked
    for is forgotten.
    """
    content = picture.read_bytes() if isinstance(picture, Path) else png_bytes(picture)
    folder = Path(get_upload_folder()).resolve() / "pictures"
    path = folder / f"{hashlib.sha256(content).hexdigest()}.png"
    with _lock:
        _used.setdefault(owner, set()).add(path)
        if not path.exists():
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            write_bytes(path, content)
    return f"gradio_api/file={quote(str(path))}"


def forget(owner: str) -> None:
    """Delete the pictures that only this owner uses."""
    with _lock:
        for path in _used.pop(owner, set()).difference(*_used.values()):
            path.unlink(missing_ok=True)
