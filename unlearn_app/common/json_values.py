"""Values as JSON holds them."""

import json
from typing import Any

from pydantic_core import to_jsonable_python


def to_json(value: Any) -> Any:
    """Dataclasses, tuples and paths as plain JSON values; numbers that are not finite, for which
    JSON has no word, as None.
    """
    return to_jsonable_python(value, inf_nan_mode="null")


def json_text(value: Any, **layout: Any) -> str:
    """The JSON text of `value`, whatever numbers it holds; `layout` is that of `json.dumps`."""
    return json.dumps(to_json(value), allow_nan=False, **layout)
