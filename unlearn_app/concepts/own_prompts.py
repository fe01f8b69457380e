"""The user's own prompts: read from lines or a file, they replace the generated ones."""

import json
import reprlib
from dataclasses import replace
from pathlib import Path
from typing import Any

from ..common.errors import ConfigError
from ..common.record_files import read_bytes, shown
from ..settings.run_config import clean_text
from .concept import Concept, Prompt, named


def own_prompts(text: str) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Forget and retain prompts from lines such as "forget: my cat asleep" and "retain: my dog
    asleep".

    Raises:
        ConfigError: an unreadable line, an empty set, or a forget prompt that is also a retain
        prompt.
    """
    groups: dict[str, list[str]] = {"forget": [], "retain": []}
    for row, line in enumerate(text.splitlines(), 1):
        if not line.strip():
            continue
        typed, _, prompt = line.partition(":")
        group = typed.strip().casefold()
        if group not in groups or not prompt.strip():
            raise _refusal(
                f"Line {row} of your own prompts is “{shown(line.strip()[:80])}”; “forget: …” or"
                " “retain: …” is accepted."
            )
        prompt = clean_text(prompt, f"{typed} prompt", limit=500)
        if prompt not in groups[group]:
            groups[group].append(prompt)
    for group, prompts in groups.items():
        if not prompts:
            raise _refusal(
                f"The {group} set of your own prompts is empty; at least one prompt is accepted."
            )
    retained = {prompt.casefold() for prompt in groups["retain"]}
    for prompt in groups["forget"]:
        if prompt.casefold() in retained:
            raise _refusal(
                f"“{prompt}” is both a forget and a retain prompt of yours; only different ones are"
                " accepted."
            )
    return tuple(groups["forget"]), tuple(groups["retain"])


def _refusal(message: str) -> ConfigError:
    return ConfigError(message, "prompts")


def with_own(concept: Concept, text: str) -> Concept:
    """`concept` with the user's own training prompts; the held-out prompts stay, and the adversary
    gets none of the user's.

    All retain prompts become `near.train`, and `far.train` is empty, since the user does not say
    which are near.

    Raises:
        ConfigError: as `own_prompts`, or a prompt that is held out, or nothing left for the
        adversary.
    """
    forget, retain = own_prompts(text)
    held_out = {
        p.text.casefold()
        for split in (concept.forget, concept.near, concept.far)
        for p in split.test
    }
    for prompt in (*forget, *retain):
        if prompt.casefold() in held_out:
            raise _refusal(f"“{prompt}” of your own prompts is held out for judging; leave it out.")
    taken = {prompt.casefold() for prompt in forget}
    relearn = tuple(p for p in concept.relearn if p.text.casefold() not in taken)
    if not relearn:
        raise _refusal(
            f"Your own prompts take all {len(concept.relearn)} of the adversary; leave it at least"
            " one."
        )
    axis = concept.forget.test[0].axis
    return replace(
        concept,
        forget=replace(concept.forget, train=tuple(Prompt(p, axis, concept.name) for p in forget)),
        anchors=tuple(named(concept, p, concept.anchor) for p in forget),
        relearn=relearn,
        near=replace(concept.near, train=tuple(Prompt(p, axis, "") for p in retain)),
        far=replace(concept.far, train=()),
    )


def read_prompts(path: str | Path) -> str:
    """The user's own prompts as the lines that `own_prompts` reads, from a text file of such lines
    or from JSON {"forget": [...], "retain": [...]}.

    Raises:
        ConfigError: an unreadable file, or JSON of another shape.
    """
    path = Path(path)
    if path.suffix.casefold() != ".json":
        try:
            return read_bytes(path).decode("utf-8-sig")
        except OSError as error:
            raise _refusal(
                f"{path} cannot be read ({error.strerror}); a text file is accepted."
            ) from None
        except ValueError:
            raise _refusal(
                f"{path.name} is not text in UTF-8; a text or JSON file is accepted."
            ) from None
    values = json_object(path, "prompts")
    groups = {group: values.get(group, []) for group in ("forget", "retain")}
    for group, lines in groups.items():
        texts = isinstance(lines, list) and all(isinstance(line, str) for line in lines)
        if not lines or not texts:
            raise _refusal(
                f"“{group}” of {path.name} is {reprlib.repr(lines)}; a list of prompts is accepted."
            )
    return "\n".join(
        f"{group}: {' '.join(line.split())}" for group, lines in groups.items() for line in lines
    )


def json_object(path: Path, field: str) -> dict[str, Any]:
    """A JSON object from a file.

    Raises:
        ConfigError: there is none; `field` names the input that the path came from.
    """
    try:
        values = json.loads(read_bytes(path))
    except OSError as error:
        raise ConfigError(
            f"{path} cannot be read ({error.strerror}); a JSON file is accepted.", field
        ) from None
    except (ValueError, RecursionError):
        raise ConfigError(
            f"{path.name} is not JSON; a file such as those in assets/prompts is accepted.", field
        ) from None
    if not isinstance(values, dict):
        raise ConfigError(
            f"{path.name} holds a {type(values).__name__}; a JSON object is accepted.", field
        )
    return values
