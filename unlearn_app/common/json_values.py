"""Values as JSON holds them."""

import dataclasses
import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any


def to_json(value: Any) -> Any:
    """Dataclasses, tuples and paths as plain JSON values; numbers that are not finite, for which
    JSON has no word, as None.
    """
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {item.name: to_json(getattr(value, item.name)) for item in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {str(key): to_json(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [to_json(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value.as_posix() if isinstance(value, Path) else value


def json_text(value: Any, **layout: Any) -> str:
    """The JSON text of `value`, whatever numbers it holds; `layout` is that of `json.dumps`."""
    return json.dumps(to_json(value), allow_nan=False, **layout)
