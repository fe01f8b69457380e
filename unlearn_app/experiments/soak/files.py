"""Hostile files: each must be refused in a sentence, within a limited time and memory."""

import io
import json
import os
import random
import shutil
import struct
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from PIL import Image
from PIL.PngImagePlugin import PngInfo

from ...common.atomic_files import remove
from ...common.paths import POCKET
from .commands import PATIENCE_S
from .material import RUN, Material
from .rows import none_of, values

SECONDS, MEGABYTES = 10.0, 200.0
"""What a refusal may take: time, and memory beside what every command holds."""
SPARSE = 100 * 2**20
"""Bytes of a file that holds nothing."""
MANY = 20_000
"""Pictures of a run, which may all be one file."""
Put = Callable[[Path], object]
"""Puts something at a path."""
REPORT, SHOW = ("report", "run"), ("continual", "show", "ledger")
GENERATE = ("generate", "--prompt", "a cat", "--out", "new")
LOAD = (*GENERATE, "--model", "model")
PICTURE, ADAPTER = "run/attacks/*/*.png", "run/unlearn.safetensors"
WEIGHTS = "diffusion_pytorch_model-00001-of-00002.safetensors"
PLACES: dict[str, tuple[str, ...]] = {
    "run/run.json": REPORT,
    "run/steps.jsonl": REPORT,
    "run/images/*.png": REPORT,
    "run/attacks/*/finding.json": REPORT,
    PICTURE: REPORT,
    "ledger/ledger.json": SHOW,
    "ledger/0001-*/combined.safetensors": SHOW,
    ADAPTER: (*GENERATE, "--adapter", ADAPTER),
    "model/model_index.json": LOAD,
    "model/unet/config.json": LOAD,
    "model/text_encoder/model.safetensors": LOAD,
    "prompts.json": (*RUN, "--prompts", "prompts.json", "--out", "new"),
}
"""Where a file is put, and the command that reads it; a star stands for the first name."""
FOLDERS = {"run": REPORT, "ledger": SHOW, "ledger/0001-*": SHOW}
"""Where something is put in place of a folder."""


def _sparse(path: Path) -> None:
    with path.open("wb") as file:
        file.truncate(SPARSE)


ANYWHERE: dict[str, Put] = {
    "nothing": lambda path: path.write_bytes(b""),
    "noise": lambda path: path.write_bytes(random.Random(0).randbytes(5000)),
    "a pickle": lambda path: path.write_bytes(b"cos\nsystem\n(S'true'\ntR."),
    "a pipe": os.mkfifo,
    "a device": lambda path: path.symlink_to("/dev/zero"),
    "a link outside": lambda path: path.symlink_to("/etc/passwd"),
    "100 MB of zeros": _sparse,
    "deep nesting": lambda path: path.write_text("[" * 100_000),
}
"""What is hostile in any place."""


def _picture(kind: str, mode: str = "1", side: int = 64, text: PngInfo | None = None) -> bytes:
    """A black square in the format `kind`, of one bit a pixel by default."""
    stream = io.BytesIO()
    Image.new(mode, (side, side)).save(stream, kind, pnginfo=text)
    return stream.getvalue()


def _pictures() -> dict[str, bytes]:
    """Files in place of a PNG that are no picture, another format, or too large once unpacked."""
    small, size = _picture("PNG"), struct.pack(">II", 64, 64)
    text = PngInfo()
    text.add_text("Comment", "\0" * (64 * 2**20), zip=True)
    return {
        "144 megapixels": _picture("PNG", side=12_000),
        "2**31 - 1 pixels a side": small.replace(size, struct.pack(">II", 2**31 - 1, 2**31 - 1)),
        "text that unpacks to 64 MB": _picture("PNG", text=text),
        "EPS": _picture("EPS", "RGB"),
        "GIF": _picture("GIF", "RGB"),
        "half a PNG": small[: len(small) // 2],
    }


def _tensors(header: Any, data: bytes = b"") -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + data


def _adapters(whole: bytes) -> dict[str, bytes]:
    """Adapters with two tensors of the `whole` one, or with none."""
    names = sorted(json.loads(whole[8 : 8 + int.from_bytes(whole[:8], "little")]))
    pair = [name for name in names if not name.startswith("__")][:2]

    def factors(dtype: str, shape: list[int], data: bytes) -> bytes:
        places = [0, len(data)], [len(data), 2 * len(data)]
        entries = ({"dtype": dtype, "shape": shape, "data_offsets": place} for place in places)
        return _tensors(dict(zip(pair, entries, strict=True)), 2 * data)

    return {
        "a header of 2**63 bytes": struct.pack("<Q", 2**63) + b"{}",
        "a header of 90 MB": struct.pack("<Q", 90 * 2**20) + b"{" + b" " * 1000,
        "a nested header": _tensors(b'{"x":' * 50_000),
        "tensors beyond the end": factors("F32", [8, 8], bytes(256))[:-100],
        "a shape of 2**40 numbers": factors("F32", [2**20, 2**20], bytes(16)),
        "rank 0": factors("F32", [0, 0], b""),
        "no dimensions": factors("F32", [], bytes(4)),
        "NaN": factors("F32", [4, 4], struct.pack("<f", float("nan")) * 16),
        "infinity": factors("F16", [4, 4], b"\x00\x7c" * 16),
        "whole numbers": factors("I64", [4, 4], bytes(128)),
        "complex numbers": factors("C64", [4, 4], bytes(128)),
        "no tensors": _tensors({"__metadata__": {"format": "pt"}}),
        "metadata that is a list": _tensors({"__metadata__": ["x"]}),
    }


def _records(whole: dict[str, Any]) -> dict[str, bytes]:
    """Records of runs that would be shown for hours."""
    many = MANY * whole["pictures"][:1]
    return {
        f"{MANY:,} {name}": json.dumps(whole | {name: many}).encode()
        for name in ("pictures", "previews")
    }


def _nan_weights(path: Path) -> None:
    """The bundled weights with all bits set, which is NaN in half precision."""
    content = (POCKET / "pipeline" / "unet" / path.name).read_bytes()
    end = 8 + int.from_bytes(content[:8], "little")
    path.write_bytes(content[:end] + b"\xff" * (len(content) - end))


@dataclass(frozen=True)
class Hostile:
    """What is put in a place, and the command that must refuse it."""

    name: str
    place: str
    put: Put
    words: tuple[str, ...]


def hostile(adapter: bytes, record: bytes) -> list[Hostile]:
    """All hostile files, some of which name the tensors of a good `adapter`, or repeat the pictures
    of a good run's `record`.
    """
    numbers = {"NaN": b'{"schema": NaN}', "a number of 10**5 digits": b"[" + b"9" * 10**5 + b"]"}
    folders: dict[str, Put] = {
        "a file": lambda path: path.write_bytes(b"x"),
        "an empty folder": Path.mkdir,
        "a link to itself": lambda path: path.symlink_to(path.name),
        "a link outside": lambda path: path.symlink_to("/usr"),
    }
    ways = {place: dict(ANYWHERE) for place in PLACES}
    ways[PICTURE] |= _written(_pictures())
    ways[ADAPTER] |= _written(_adapters(adapter))
    ways["run/run.json"] |= _written(_records(json.loads(record)))
    for place in ("run/run.json", "ledger/ledger.json"):
        ways[place] |= _written(numbers)
    ways |= dict.fromkeys(FOLDERS, folders)
    ways[f"model/unet/{WEIGHTS}"] = {"NaN in place of all weights": _nan_weights}
    commands = PLACES | FOLDERS
    return [
        Hostile(name, place, put, commands.get(place, LOAD))
        for place, own in ways.items()
        for name, put in own.items()
    ]


def _written(contents: Mapping[str, bytes]) -> dict[str, Put]:
    return {name: partial(Path.write_bytes, data=data) for name, data in contents.items()}


def _tried(one: Hostile, material: Material, usual: float) -> Iterator[str]:
    """Put a file in its place, run the command, and yield what is wrong with its answer."""
    here = material.renew()
    shutil.copytree(POCKET / "pipeline", here / "model", copy_function=os.symlink)
    (here / "prompts.json").write_text("{}")
    path = next(iter(sorted(here.glob(one.place))), here / one.place)
    remove(path)
    one.put(path)
    ended = material.commands.run(one.words, kill_after=PATIENCE_S)
    if ended.fault:
        yield ended.fault
    elif not ended.sentence:
        yield f"is not refused: exit code {ended.code}, {ended.said[-200:]!r}"
    if ended.seconds > SECONDS:
        yield f"takes {ended.seconds:.0f} s"
    if ended.megabytes - usual > MEGABYTES:
        yield f"takes {ended.megabytes - usual:.0f} MB"


def measure(seed: int, count: int, material: Material) -> dict[str, Any]:
    """The rows on `count` hostile files, or all there are."""
    here = material.renew()
    every = hostile((here / ADAPTER).read_bytes(), (here / "run" / "run.json").read_bytes())
    chosen = random.Random(seed).sample(every, min(count, len(every)))
    usual = material.commands.run(["concepts"]).megabytes
    faults, wrong = [], 0
    for one in chosen:
        found = list(_tried(one, material, usual))
        wrong += bool(found)
        faults += [f"{one.name} as {one.place}: {text}" for text in found]
    what = f"not refused in a sentence within {SECONDS:.0f} s and {MEGABYTES:.0f} MB"
    return values([none_of(what, wrong, f"{len(chosen)} files")], faults)
