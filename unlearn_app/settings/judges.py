"""Judges by name, as `--judge NAME[=PATH]` asks for them."""

import re

from ..common import registry
from ..common.errors import ConfigError, check_known

HOW_TO_GET = "`python -m unlearn_app doctor` says how to get one, and --judge names one"
"""What to do where no judge is found."""


def places_of(named: str | None) -> dict[str, str | None]:
    """The judges that `named` asks for, NAME or NAME=PATH separated by commas, and from which
    folder or Hugging Face id each one is loaded; None for its own weights.

    Raises:
        ConfigError: an unknown judge, an empty path, or a judge that is named twice.
    """
    places: dict[str, str | None] = {}
    if not named:
        return places
    known = registry.names("judge")
    for part in re.split(rf",\s*(?=(?:{'|'.join(known)})\s*(?:[=,]|$))", named):
        name, given, place = (text.strip() for text in part.partition("="))
        check_known("judge", name, known)
        if given and not place:
            raise ConfigError(
                f"The judge {part.strip()!r} has no path; {name} or {name}=FOLDER is accepted.",
                "judge",
            )
        if name in places:
            raise ConfigError(f"The judge {name} is named twice; once is accepted.", "judge")
        places[name] = place or None
    return places
