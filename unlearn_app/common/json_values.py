"""Values as JSON holds them."""

import json
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from typing import Any

from pydantic_core import to_jsonable_python


def to_json(value: Any) -> Any:
    """Dataclasses, tuples and paths as plain JSON values; numbers that are not finite, for which
    JSON has no word, as None.

    Settings that came later than the first records are left out while they have their default.
    """
    return to_jsonable_python(_without_later(value), inf_nan_mode="null")


def _without_later(value: Any) -> Any:
    if is_dataclass(value) and not isinstance(value, type):
        return {
            item.name: _without_later(getattr(value, item.name))
            for item in fields(value)
            if not item.metadata.get("later") or getattr(value, item.name) != item.default
        }
    if isinstance(value, Mapping):
        return {name: _without_later(own) for name, own in value.items()}
    return [*map(_without_later, value)] if isinstance(value, list | tuple) else value


def json_text(value: Any, **layout: Any) -> str:
    """The JSON text of `value`, whatever numbers it holds; `layout` is that of `json.dumps`."""
    return json.dumps(to_json(value), allow_nan=False, **layout)
