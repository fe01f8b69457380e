"""A concept: what the user typed, turned into forget prompts, an anchor, and near and far retain prompts."""

import json
import random
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from .config import clean_text
from .errors import ConfigError
from .settings import RETAIN_ARMS

Kind = Literal["object", "style"]
SAID_AN = re.compile(r"(?!uni(?![ndm])|us[eu]|eu|one\b|once|ukulele|ut[ie])[aeiou]|hour|honest|heir", re.I)


@dataclass(frozen=True)
class Prompt:
    """A prompt and what a judge should see in its picture: class `expects` among the classes of `axis`."""

    text: str
    axis: str
    expects: str


@dataclass(frozen=True)
class PromptSplit:
    """Training and held-out prompts; apart from the concept itself they share no sub-concept."""

    train: tuple[Prompt, ...]
    test: tuple[Prompt, ...]


@dataclass(frozen=True)
class KnownConcept:
    """One entry of a model's vocabulary, for chips and tables; `fresh` ones were never in its training pictures."""

    name: str
    kind: Kind
    family: str
    synonyms: tuple[str, ...] = ()
    fresh: bool = False


@dataclass(frozen=True)
class Concept:
    """Everything a run needs to know about the concept; pure, so it can be shown before anything runs.

    `anchors[i]` is `forget.train[i]` with the concept replaced by the anchor. `relearn` are prompts for the
    adversary's pictures, and `benign` harmless ones for them: neither the defender's training prompts nor the
    held-out ones. `synonyms` are other words for it. `instead` is the anchor as prompts name it, for judges that choose
    among such phrases; empty where the judge has classes of its own.
    """

    text: str
    name: str
    kind: Kind
    anchor: str
    forget: PromptSplit
    anchors: tuple[str, ...]
    relearn: tuple[Prompt, ...]
    near: PromptSplit
    far: PromptSplit
    benign: tuple[Prompt, ...] = ()
    synonyms: tuple[str, ...] = ()
    instead: str = ""


def shared_out(
    prompts: Sequence[Prompt], anchors: Sequence[Prompt]
) -> tuple[tuple[Prompt, ...], tuple[str, ...], tuple[Prompt, ...]]:
    """Forget prompts for the defender, their anchor sentences, and the other half of the prompts for the adversary."""
    return tuple(prompts[::2]), tuple(p.text for p in anchors[::2]), tuple(prompts[1::2])


def also_named(prompt: Prompt, known: Sequence[KnownConcept]) -> Prompt | None:
    """The same prompt, asked about the concept of another kind that its text names; None when there is none."""
    others = [entry for entry in known if entry.kind != prompt.axis]
    named = [entry for entry in others if re.search(rf"\b{re.escape(entry.name)}\b", prompt.text, re.I)]
    found = max(named, key=lambda entry: len(entry.name), default=None)
    return replace(prompt, axis=found.kind, expects=found.name) if found else None


def spread(items: Sequence[Prompt], count: int) -> tuple[Prompt, ...]:
    """`count` prompts evenly over `items`, starting again when there are fewer."""
    if not items:
        return ()
    if count >= len(items):
        return tuple(items[row % len(items)] for row in range(count))
    return tuple(items[row * len(items) // count] for row in range(count))


def halves(names: Sequence[str], salt: str) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """A fixed split of `names` into (train, test), the same for everyone who types `salt`."""
    shuffled = sorted(names)
    random.Random(salt).shuffle(shuffled)
    middle = len(shuffled) // 2
    return tuple(shuffled[:middle]), tuple(shuffled[middle:])


def restricted_retain(concept: Concept, arm: str) -> Concept:
    """The training prompts of one arm of the diversification comparison of 2412.07808; test prompts never change.

    "diversified" changes nothing, "near" keeps near retain prompts only, and "uniform" keeps the shortest forget and
    the shortest retain sentence, as SalUn's fixed pair. Deviation: the paper compares the first and the last only.

    Raises:
        ConfigError: an unknown arm, or a concept without near training prompts.
    """
    if arm not in RETAIN_ARMS:
        raise ConfigError(f"The arm {arm!r} is unknown; choose one of {', '.join(RETAIN_ARMS)}.", "arm")
    if arm == "diversified":
        return concept
    if not concept.near.train:
        raise ConfigError(f"The retain set of “{concept.name}” has no near prompt; at least one is accepted.", "arm")
    near = concept.near.train
    if arm == "uniform":
        near = (min(near, key=_length),)
        row = min(range(len(concept.anchors)), key=lambda row: _length(concept.forget.train[row]))
        forget = replace(concept.forget, train=(concept.forget.train[row],))
        concept = replace(concept, forget=forget, anchors=(concept.anchors[row],))
    return replace(concept, near=replace(concept.near, train=near), far=replace(concept.far, train=()))


def _length(prompt: Prompt) -> tuple[int, str]:
    return len(prompt.text), prompt.text


def own_prompts(text: str) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Forget and retain prompts from lines such as "forget: my cat asleep" and "retain: my dog asleep".

    Raises:
        ConfigError: an unreadable line, an empty set, or a forget prompt that is also a retain prompt.
    """
    groups: dict[str, list[str]] = {"forget": [], "retain": []}
    for row, line in enumerate(text.splitlines(), 1):
        group, colon, prompt = line.partition(":")
        if not line.strip():
            continue
        if not colon or group.strip().casefold() not in groups or not prompt.strip():
            raise _no_prompts(f"Line {row} of your own prompts is “{line.strip()}”; “forget: …” or “retain: …” is")
        prompt = clean_text(prompt, f"{group} prompt", limit=500)
        if prompt not in groups[group.strip().casefold()]:
            groups[group.strip().casefold()].append(prompt)
    for group, prompts in groups.items():
        if not prompts:
            raise _no_prompts(f"The {group} set of your own prompts is empty; at least one prompt is")
    retained = {prompt.casefold() for prompt in groups["retain"]}
    for prompt in groups["forget"]:
        if prompt.casefold() in retained:
            raise _no_prompts(f"“{prompt}” is both a forget and a retain prompt of yours; only different ones are")
    return tuple(groups["forget"]), tuple(groups["retain"])


def _no_prompts(message: str) -> ConfigError:
    return ConfigError(f"{message} accepted.", "prompts")


def with_own(concept: Concept, text: str) -> Concept:
    """`concept` trained on prompts of one's own; what is judged stays, and the adversary gets none of them.

    All retain prompts become `near.train`; `far.train` is empty, since nobody said which is which.

    Raises:
        ConfigError: as `own_prompts`, or a prompt that is held out, or nothing left for the adversary.
    """
    forget, retain = own_prompts(text)
    held_out = {p.text.casefold() for split in (concept.forget, concept.near, concept.far) for p in split.test}
    for prompt in (*forget, *retain):
        if prompt.casefold() in held_out:
            raise ConfigError(f"“{prompt}” of your own prompts is held out for judging; leave it out.", "prompts")
    taken = {prompt.casefold() for prompt in forget}
    relearn = tuple(p for p in concept.relearn if p.text.casefold() not in taken)
    if not relearn:
        raise ConfigError(
            f"Your own prompts take all {len(concept.relearn)} of the adversary; leave it at least one.", "prompts"
        )
    axis = concept.forget.test[0].axis
    return replace(
        concept,
        forget=replace(concept.forget, train=tuple(Prompt(text, axis, concept.name) for text in forget)),
        anchors=tuple(named(concept, text, concept.anchor) for text in forget),
        relearn=relearn,
        near=replace(concept.near, train=tuple(Prompt(text, axis, "") for text in retain)),
        far=replace(concept.far, train=()),
    )


def named(concept: Concept, sentence: str, instead: str) -> str:
    """`sentence` with the concept's words replaced by `instead`; the bare `instead` where they do not occur."""
    names = "|".join(re.escape(name) for name in sorted({concept.text, concept.name}, key=len, reverse=True))
    plain = re.sub(r"^an? ", "", instead, flags=re.I)

    def other(match: re.Match[str]) -> str:
        return f"{article(match['article'], plain)} {plain}" if match["article"] else instead

    found = re.compile(rf"(?<!\w)(?:(?P<article>an?) )?(?:{names})(?:e?s)?(?!\w)", re.I)
    replaced, count = found.subn(other, sentence)
    return replaced if count else instead


def read_prompts(path: str | Path) -> str:
    """One's own prompts as lines, from such a text file or from JSON {"forget": [...], "retain": [...]}.

    Raises:
        ConfigError: an unreadable file, or JSON of another shape.
    """
    path = Path(path)
    if path.suffix.casefold() != ".json":
        try:
            return path.read_text(encoding="utf-8-sig")
        except OSError as error:
            raise _no_prompts(f"{path} cannot be read ({error.strerror}); a text file is") from None
        except ValueError:
            raise _no_prompts(f"{path.name} is not text in UTF-8; a text or JSON file is") from None
    values = read_json(path, "prompts")
    groups = {group: values.get(group, []) for group in ("forget", "retain")}
    for group, lines in groups.items():
        if not lines or not isinstance(lines, list) or not all(isinstance(line, str) for line in lines):
            raise _no_prompts(f"“{group}” of {path.name} is {lines!r}; a list of prompts is")
    return "\n".join(f"{group}: {' '.join(line.split())}" for group, lines in groups.items() for line in lines)


def read_json(path: Path, field: str) -> dict[str, Any]:
    """A JSON object from a file.

    Raises:
        ConfigError: there is none; `field` names the input that the path came from.
    """
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"{path} cannot be read ({error.strerror}); a JSON file is accepted.", field) from None
    except (ValueError, RecursionError):
        raise ConfigError(
            f"{path.name} is not JSON; a file such as those in assets/prompts is accepted.", field
        ) from None
    if not isinstance(values, dict):
        raise ConfigError(f"{path.name} holds a {type(values).__name__}; a JSON object is accepted.", field)
    return values


def article(letter: str, word: str) -> str:
    """The indefinite article for `word` as it is spoken, a capital one when `letter` is."""
    return letter[0] + ("n" if SAID_AN.match(word) else "")
