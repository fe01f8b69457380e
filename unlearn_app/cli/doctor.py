"""What this machine has and what it lacks, each as one line."""

import os
import platform
import re
import shutil
import sys
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path

from ..common import registry
from ..common.bundled_hashes import BUNDLED, HASHES, changed_files
from ..common.errors import OutputError
from ..common.paths import POCKET, POCKET_FLOW, ROOT

FREE_BYTES = 1 << 30
BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
OK, MISSING, OPTIONAL = "ok", "MISSING", "optional"
"""The marks of a check; the app works without what is optional."""
Check = tuple[str, str, str]
"""A mark, what was checked, and what was found."""


def _check(name: str, ok: bool, detail: str) -> Check:
    return OK if ok else MISSING, name, detail


def checks() -> Iterator[Check]:
    """Every check, quick ones first; nothing is loaded but torch."""
    yield _check(
        "python",
        sys.version_info >= (3, 10),
        f"{platform.python_version()}; 3.10 or newer is needed",
    )
    yield from _packages()
    yield _device()
    yield from _bundled()
    yield _pocket_flow()
    yield from _judges()
    yield _store()
    free = shutil.disk_usage(Path.cwd()).free
    yield _check(
        "disk", free >= FREE_BYTES, f"{free / 2**30:.1f} GiB free here; a run takes a few MiB"
    )
    browser = os.environ.get("CHROMIUM") or next(filter(None, map(shutil.which, BROWSERS)), None)
    yield (
        OK if browser else OPTIONAL,
        "chromium",
        browser or "absent; only the tests of the page need it",
    )


def _packages() -> Iterator[Check]:
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
            yield MISSING, name, f"absent; {wanted} is needed"
            continue
        fits = all((_parts(version) >= _parts(limit)) == (sign == ">=") for sign, limit in bounds)
        yield _check(name, fits, version if fits else f"{version}; {wanted} is needed")


def _parts(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in re.findall(r"\d+", version.partition("+")[0])[:3])


def _device() -> Check:
    try:
        import torch

        from ..models.device import choose_device, processor
    except ImportError as error:
        return MISSING, "device", f"torch cannot be imported: {error}"
    threads = f"{torch.get_num_threads()} threads of {os.cpu_count()} cores"
    return OK, "device", f"{choose_device()}; {processor()}; {threads}"


def _judges() -> Iterator[Check]:
    """Which judges are here; asks no network."""
    try:
        parts = {name: registry.get("judge", name) for name in registry.names("judge")}
    except ImportError as error:
        yield MISSING, "judges", f"cannot be imported: {error}"
        return
    for name, part in parts.items():
        here, what, command = part.installed()
        said = what if here else f"{what} is not here; fetch it with: {command}"
        yield OK if here else OPTIONAL if command else MISSING, f"judge {name}", said


def _store() -> Check:
    try:
        from ..models.latent_store import OFF, VARIABLE, user_store
    except ImportError as error:
        return MISSING, "store", f"cannot be imported: {error}"
    store = user_store()
    if store is None:
        return OPTIONAL, "store", f"{VARIABLE}={OFF}: the original's pictures are not kept"
    size = store.file.stat().st_size / 2**20 if store.file.is_file() else 0
    return OK, "store", f"{size:.0f} MiB of the original's pictures in {store.file}"


def _bundled() -> Iterator[Check]:
    for name in BUNDLED:
        weights = sorted((POCKET / name).rglob("*.safetensors"))
        size = sum(file.stat().st_size for file in weights) / 2**20
        found = f"{len(weights)} weight files, {size:.1f} MiB"
        absent = f"absent from assets/pocket/{name}"
        yield _check(f"bundled {name}", bool(weights), found if weights else absent)
    try:
        count, changed = changed_files()
    except OutputError:
        yield MISSING, "bundled hashes", f"no readable assets/pocket/{HASHES}"
        return
    found = f"differ: {', '.join(changed)}" if changed else f"{count} match"
    yield _check("bundled hashes", not changed, found)


def _pocket_flow() -> Check:
    name = POCKET_FLOW.name
    if not POCKET_FLOW.is_dir():
        return OPTIONAL, name, "absent; `pocket render` and `pocket train --flow` make it"
    try:
        count, changed = changed_files(POCKET_FLOW)
    except OutputError:
        return MISSING, name, f"no readable assets/{name}/{HASHES}"
    found = f"differ: {', '.join(changed)}" if changed else f"{count} hashes match"
    return _check(name, not changed, found)
