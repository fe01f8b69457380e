"""What this machine has and what it lacks, each as one line."""

import os
import platform
import re
import shutil
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

from ..common.bundled_hashes import BUNDLED, HASHES, changed_files
from ..common.paths import POCKET, ROOT

FREE_BYTES = 1 << 30
BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")


@dataclass(frozen=True)
class Check:
    """One finding; a failed check that is not `needed` costs a convenience, not the app."""

    name: str
    ok: bool
    detail: str
    needed: bool = True

    @property
    def mark(self) -> str:
        """One word for a table."""
        return "ok" if self.ok else "MISSING" if self.needed else "optional"


def checks() -> Iterator[Check]:
    """Every check, quick ones first; nothing is loaded but torch."""
    version = platform.python_version()
    yield Check("python", sys.version_info >= (3, 10), f"{version}; 3.10 or newer is needed")
    yield from _packages()
    yield _device()
    yield from _bundled()
    free = shutil.disk_usage(Path.cwd()).free
    yield Check(
        "disk", free >= FREE_BYTES, f"{free / 2**30:.1f} GiB free here; a run takes a few MiB"
    )
    browser = os.environ.get("CHROMIUM") or next(filter(None, map(shutil.which, BROWSERS)), None)
    yield Check(
        "chromium",
        bool(browser),
        browser or "absent; only the tests of the page need it",
        needed=False,
    )


def _packages() -> Iterator[Check]:
    """The lines of requirements.txt against what is installed."""
    listed = ROOT / "requirements.txt"
    lines = listed.read_text(encoding="utf-8").splitlines() if listed.exists() else []
    for line in lines:
        wanted = line.partition("#")[0].strip()
        name, bounds = re.match(r"[\w.-]*", wanted)[0], re.findall(r"(>=|<)([\d.]+)", wanted)
        if not name:
            continue
        try:
            version = metadata.version(name)
        except metadata.PackageNotFoundError:
            yield Check(name, False, f"absent; {wanted} is needed")
            continue
        fits = all((_parts(version) >= _parts(limit)) == (sign == ">=") for sign, limit in bounds)
        yield Check(name, fits, version if fits else f"{version}; {wanted} is needed")


def _parts(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in re.findall(r"\d+", version.partition("+")[0])[:3])


def _device() -> Check:
    try:
        import torch

        from ..models.device import choose_device
    except ImportError as error:
        return Check("device", False, f"torch cannot be imported: {error}")
    return Check(
        "device",
        True,
        f"{choose_device()}; {torch.get_num_threads()} threads of {os.cpu_count()} cores",
    )


def _bundled() -> Iterator[Check]:
    """The bundled files against the hashes recorded beside them."""
    for name in BUNDLED:
        folder = POCKET / name
        weights = sorted(folder.rglob("*.safetensors"))
        size = sum(file.stat().st_size for file in weights) / 2**20
        found = (
            f"{len(weights)} weight files, {size:.1f} MiB"
            if weights
            else f"absent from assets/pocket/{name}"
        )
        yield Check(f"bundled {name}", bool(weights), found)
    try:
        count, changed = changed_files()
    except (OSError, ValueError):
        yield Check("bundled hashes", False, f"no readable assets/pocket/{HASHES}")
        return
    yield Check(
        "bundled hashes",
        not changed,
        f"differ: {', '.join(changed)}" if changed else f"{count} match",
    )
