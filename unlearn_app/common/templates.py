"""Jinja templates that refuse a name they were not given."""

from functools import cache
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined


@cache
def templates(folder: Path, **options: bool) -> Environment:
    """The templates in `folder`; a line that holds only a tag leaves none. `options` are Jinja's
    own.
    """
    return Environment(
        loader=FileSystemLoader(folder), undefined=StrictUndefined, trim_blocks=True, **options
    )
