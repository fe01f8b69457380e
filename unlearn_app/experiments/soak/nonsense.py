"""Values that are not accepted, and records and files with such a value in them, drawn from a
generator.
"""

import json
import random
from collections.abc import Callable, Iterator
from typing import Any

VALUES: tuple[Any, ...] = (
    None,
    True,
    0,
    -1,
    0.5,
    7,
    2**31,
    10**30,
    1e308,
    float("nan"),
    float("-inf"),
    "",
    " ",
    "x",
    "5",
    "cat",
    "a\u202eb\x1b[31m",
    "\ud800",
    "x" * 3000,
    "../x",
    "/etc/hostname",
    "out.png",
    "{{1}}${1}%s<b>",
    [],
    [None],
    [0, 1],
    ["x", "y"],
    {},
    {"x": 1},
    {"forget": {}},
    {"path": "/etc/hostname", "meta": {"_type": "gradio.FileData"}},
    json.loads("[" * 60 + "]" * 60),
)
"""What stands in place of a value."""
TEXTS = (
    *(value for value in VALUES if isinstance(value, str) and value != "\ud800"),
    "\udcff",
    "--",
    "-1",
    "1e9",
    "nan",
    "inf",
    "0x10",
    "\u0663",
    "=",
    "a=b=c",
    ",",
    "\n",
    "\u0301\u200d\U0001f600",
    "é" * 300,
    ".",
    "..",
    "/",
    "~",
    "a/" * 200,
    "n" * 300,
    "/dev/null",
    "/proc/self/mem",
)
"""What somebody types."""


def places(value: Any) -> Iterator[tuple[Any, Any]]:
    """Every object or list inside a value with each of its keys."""
    for key in list(value if isinstance(value, dict) else range(len(value))):
        yield value, key
        if isinstance(value[key], (dict, list)):
            yield from places(value[key])


def mutated(record: Any, draw: random.Random) -> Any:
    """The record, changed in one place: a value removed, renamed, doubled or replaced."""
    holder, key = draw.choice(list(places(record)))
    what = draw.randrange(6)
    if what == 0:
        del holder[key]
    elif what == 1 and isinstance(holder, dict):
        holder[draw.choice(["x", "original", "relearned", "near", "1", "\u202e"])] = holder.pop(key)
    elif what == 2 and isinstance(holder, list):
        holder.append(holder[key])
    else:
        holder[key] = draw.choice(VALUES)
    return record


def mutated_file(name: str, content: bytes, draw: random.Random) -> bytes:
    """A file of a run or a ledger with one thing wrong in it: in its record, in the header of its
    tensors, or anywhere.
    """
    if draw.random() < 0.3:
        return damaged(content, draw)
    if name.endswith(".json"):
        return json.dumps(mutated(json.loads(content), draw)).encode()
    if name.endswith(".jsonl"):
        lines = mutated([json.loads(line) for line in content.splitlines()], draw)
        return "\n".join(map(json.dumps, lines)).encode()
    if name.endswith(".safetensors"):
        end = 8 + int.from_bytes(content[:8], "little")
        header = json.dumps(mutated(json.loads(content[8:end]), draw)).encode()
        return len(header).to_bytes(8, "little") + header + content[end:]
    return damaged(content, draw)


def damaged(content: bytes, draw: random.Random) -> bytes:
    """The content cut off, with other bytes in it, or doubled."""
    at = draw.randrange(len(content) + 1)
    ways: tuple[Callable[[], bytes], ...] = (
        lambda: content[:at],
        lambda: content[:at] + draw.randbytes(draw.randrange(1, 9)) + content[at:],
        lambda: content[:at] + bytes([draw.randrange(256)]) + content[at + 1 :],
        lambda: content + content,
    )
    return draw.choice(ways)()
