"""Hashes of files."""

import hashlib
from pathlib import Path

PIECE = 2**20


def sha256_of(path: Path) -> str:
    """The SHA-256 of the file in hexadecimal digits, read piece by piece."""
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        while piece := stream.read(PIECE):
            digest.update(piece)
    return digest.hexdigest()
