"""The files from which the browser fetches pictures, so that updates stay small. Each is stored
once under the hash of its PNG, until every run and visitor that uses it is deleted.
"""

import base64
import hashlib
import threading
from pathlib import Path
from urllib.parse import quote

from gradio.utils import get_upload_folder
from PIL.Image import Image

from ..common.atomic_files import write_bytes
from ..common.images import png_bytes

_used: dict[str, set[Path]] = {}
"""The files by owner, the name of a run's or a visitor's folder."""
_lock = threading.Lock()


def address(picture: Image | Path, owner: str) -> str:
    """The address of the picture as PNG, relative to the page; the content of files is not changed.

    The file is in the folder that Gradio serves, until `forget` was called for all of its owners.
    Where it cannot be written, as on a full disk, the address holds the picture itself.
    """
    content = picture.read_bytes() if isinstance(picture, Path) else png_bytes(picture)
    folder = Path(get_upload_folder()).resolve() / "pictures"
    path = folder / f"{hashlib.sha256(content).hexdigest()}.png"
    with _lock:
        try:
            if not path.exists():
                folder.mkdir(mode=0o700, parents=True, exist_ok=True)
                write_bytes(path, content)
        except OSError:
            return f"data:image/png;base64,{base64.b64encode(content).decode()}"
        _used.setdefault(owner, set()).add(path)
    return f"gradio_api/file={quote(str(path))}"


def forget(owner: str) -> None:
    """Delete the pictures that only this owner uses."""
    with _lock:
        for path in _used.pop(owner, set()).difference(*_used.values()):
            path.unlink(missing_ok=True)
