"""Records read back from disk: JSON out of regular files of a limited size, checked once against
the schema that stands beside their writer.

Whoever hands over a folder may have written anything into it.
"""

import hashlib
import json
import os
import re
import reprlib
import stat
import unicodedata
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, ClassVar

from pydantic import BaseModel, ConfigDict, ValidationError
from pydantic_core import to_json

from .errors import OutputError, UnlearnError

LARGEST = 32 * 2**20
"""The most bytes of a record; one of the largest run has a third of that."""
DEEPEST = 32
"""How deep lists and objects may be nested, so that whatever walks them comes to an end."""
LARGEST_HASHED = 16 * 2**30
"""The most bytes of a file that is hashed; all weights of a Stable Diffusion 1.x model in single
precision have a quarter of that.
"""
LARGEST_NUMBER = 1e300
HIDDEN = ("Cc", "Cf", "Cs", "Zl", "Zp")
"""Categories of letters that hide or reorder text, or cannot be written at all."""
SURROUNDINGS = re.compile("Input should be |.* should have | after validation, not .*")
"""What pydantic's messages say around what is accepted."""


class Record(BaseModel):
    """The schema of a record: values of exactly these types, nothing converted. Names that it does
    not list are left out, since later versions may add some.
    """

    model_config = ConfigDict(
        strict=True, extra="ignore", allow_inf_nan=False, arbitrary_types_allowed=True
    )
    VERSION: ClassVar[str] = ""
    """What `schema` of the record must say."""


def read_record(
    path: Path, schema: type[Record], what: str, current: Callable[[Any], Any] = lambda value: value
) -> dict[str, Any]:
    """The record that `read_model` reads and checks, as JSON values."""
    values = read_model(path, schema, what, current).model_dump(mode="json")
    return {"schema": schema.VERSION} | values


def read_model(path: Path, schema: type[Record], what: str, current: Callable[[Any], Any]) -> Any:
    """The record in the file `path`, which belongs to the folder of a `what`, such as a "run".

    `current` turns records of earlier versions into those that are written now.

    Raises:
        OutputError: there is none, or it is of another version or not as its schema says.
    """
    value = read_json(path, what)
    if not isinstance(value, dict):
        raise damaged(path.parent, what, f"{path.name} holds {reprlib.repr(value)}, no object")
    try:
        value = current(value)
        version = value.get("schema")
    except (LookupError, TypeError, AttributeError, ValueError) as error:
        raise damaged(path.parent, what, f"{path.name} is not whole ({error!s:.80})") from error
    if version != schema.VERSION:
        raise OutputError(
            f"The {what} in {str(path.parent)!r} has schema {version!r:.60}; {schema.VERSION} is"
            " accepted."
        )
    return _model(value, schema, path, what)


def checked(value: Any, schema: type[Record], path: Path, what: str) -> dict[str, Any]:
    """What `schema` lists of the `value` that was read from `path`, defaults where it says none.

    Raises:
        OutputError: the value is not as the schema says.
    """
    return _model(value, schema, path, what).model_dump(mode="json")


def _model(value: Any, schema: type[Record], path: Path, what: str) -> Any:
    try:
        return schema.model_validate_json(to_json(value))
    except ValidationError as error:
        raise damaged(path.parent, what, f"{path.name} {_mistake(error, value)}") from error


def accepted(make: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """A validator for pydantic that calls `make` and turns its errors into `ValueError`."""

    def made(values: Any) -> Any:
        try:
            return make(values)
        except (UnlearnError, TypeError, LookupError, AttributeError, ValueError) as error:
            raise ValueError(f"{error!s:.300}".rstrip(".")) from error

    return made


def _mistake(error: ValidationError, value: Any) -> str:
    """The first mistake in `value`: its place, what is there, and what is accepted."""
    first, names = error.errors(include_url=False)[0], []
    for name in first["loc"]:
        if isinstance(value, dict if isinstance(name, str) else list):
            names.append(str(name))  # further names are those of types to choose among
            items = value if isinstance(value, dict) else dict(enumerate(value))
            value = items.get(name)
    place = ".".join(names) or "the record"
    if first["type"] == "missing":
        return f"holds no {place}"
    if first["type"] == "value_error":
        return f"is wrong at {place}: {first['ctx']['error']}"
    objects = first["type"] in ("model_type", "dict_type", "dataclass_type")
    accepted = "an object" if objects else SURROUNDINGS.sub("", first["msg"])
    return f"holds {reprlib.repr(first['input'])} as {place}; {accepted} is accepted"


def read_json(path: Path, what: str, lines: bool = False, largest: float = LARGEST_NUMBER) -> Any:
    """The JSON value in the file `path`, or a list of those in its `lines`. Its texts are as
    `shown`, and its numbers up to `largest`; NaN is none.

    Raises:
        OutputError: there is none; it names the folder as that of a `what`.
    """
    try:
        text = read_bytes(path).decode()
        value = json.loads(f"[{','.join(text.splitlines())}]" if lines else text)
        return _plain(value, DEEPEST, largest)
    except OSError as error:
        reason = f"cannot be read ({error.strerror or error})"
    except RecursionError:
        reason = f"is nested more than {DEEPEST} deep"
    except ValueError as error:
        reason = f"is not accepted: {error!s:.80}"
    raise OutputError(f"There is no readable {what} in {str(path.parent)!r}: {path.name} {reason}.")


def read_bytes(path: Path, limit: int = LARGEST) -> bytes:
    """The content of a regular file; never waits, as for a FIFO or a device.

    Raises:
        OSError: it cannot be read.
        ValueError: it is no regular file, or larger than `limit` bytes.
    """
    content = read_beginning(path, limit + 1)
    if len(content) > limit:
        raise ValueError(f"it has more than {limit:,} bytes")
    return content


def read_beginning(path: Path, size: int) -> bytes:
    """At most the first `size` bytes of a regular file; never waits, as for a FIFO or a device.

    Raises:
        OSError: it cannot be read.
        ValueError: it is no regular file.
    """
    with os.fdopen(os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0)), "rb") as stream:
        if not stat.S_ISREG(os.fstat(stream.fileno()).st_mode):
            raise ValueError("it is no regular file")
        return stream.read(size)


def sha256_of(path: Path) -> str:
    """The SHA-256 of a file's content, in hexadecimal digits.

    Raises:
        OutputError: it has more than `LARGEST_HASHED` bytes, which would take minutes to hours.
    """
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        size = os.fstat(stream.fileno()).st_size
        if size > LARGEST_HASHED:
            raise OutputError(
                f"The file {str(path)!r} has {size:,} bytes; up to {LARGEST_HASHED:,} are accepted."
            )
        while part := stream.read(2**20):
            digest.update(part)
    return digest.hexdigest()


def check_files(folder: Path, files: Mapping[str, str], what: str) -> None:
    """Compare files in `folder`, that of a `what`, with their recorded SHA-256, by name.

    Raises:
        OutputError: one is missing, or is not the file that was recorded.
    """
    for name, digest in files.items():
        if sha256_of(inside(folder, name, what)) != digest:
            raise damaged(folder, what, f"{shown(name)[:80]} is not the file that was recorded")


def _plain(value: Any, depth: int, largest: float) -> Any:
    """A JSON value with its texts as `shown`; refuses NaN, large numbers and deep nesting."""
    if isinstance(value, str):
        return shown(value)
    if isinstance(value, (int, float)) and not abs(value) <= largest:
        raise ValueError(f"{value!s:.20} is no number up to {largest}")
    if not isinstance(value, (list, dict)):
        return value
    if not depth:
        raise RecursionError
    if isinstance(value, list):
        return [_plain(item, depth - 1, largest) for item in value]
    return {shown(name): _plain(item, depth - 1, largest) for name, item in value.items()}


def shown(text: str) -> str:
    """The text with letters that hide or reorder others, such as control characters and
    right-to-left marks, written as escapes; line breaks stay.
    """
    if text.isprintable():
        return text
    return "".join(
        letter.encode("unicode_escape").decode()
        if unicodedata.category(letter) in HIDDEN and letter != "\n"
        else letter
        for letter in text
    )


def inside(folder: Path, name: str, what: str) -> Path:
    """The file that the record in `folder`, that of a `what`, calls `name`.

    Raises:
        OutputError: it is no regular file in there; links may not lead out of the folder either.
    """
    path = folder / name
    parts = name.split("/")
    try:
        within = path.resolve().is_relative_to(folder.resolve())
        found = path.is_file()
    except (OSError, ValueError, RuntimeError):  # a name too long, a zero byte, a loop of links
        raise damaged(folder, what, f"{shown(name)[:80]} is no file") from None
    if not within or {"", ".", ".."} & {*parts} or {"\\", ":"} & {*name}:
        raise damaged(folder, what, f"{shown(name)[:80]} lies outside of it")
    if not found:
        raise damaged(folder, what, f"{shown(name)[:80]} is missing")
    return path


def damaged(folder: Path, what: str, mistake: str) -> OutputError:
    """The error to raise where the folder of a `what` is not as it was written."""
    return OutputError(f"The {what} in {str(folder)!r} is damaged: {mistake}.")
