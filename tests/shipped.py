"""What ships recorded, unpacked once for every process of the tests."""

from functools import cache
from pathlib import Path

from unlearn_app.common.packed_folder import ENDING, unpack
from unlearn_app.common.paths import ASSETS
from unlearn_app.common.private_folder import PrivateFolder

RECORDED = ASSETS / "recorded"
NAMES = sorted(path.name.removesuffix(ENDING) for path in RECORDED.glob(f"*{ENDING}"))
RUNS = [name for name in NAMES if name != "ledger"]


@cache
def shipped(name: str) -> Path:
    """The folder of a recorded run, or of the ledger; tests that change it make a copy."""
    return unpack(RECORDED / f"{name}{ENDING}", _folder().path / "recorded" / name)


@cache
def _folder() -> PrivateFolder:
    return PrivateFolder("unlearn-shipped-")
