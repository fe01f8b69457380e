"""Captions: from the parts of a scene to an English sentence, with paraphrases and synonyms."""

import random
import re

from .vocabulary import (
    FRESH_OBJECTS,
    FRESH_STYLES,
    NO_OBJECT_TEMPLATES,
    NO_PLACE_TEMPLATES,
    NO_STYLE_TEMPLATES,
    OBJECTS,
    PLACE_PHRASES,
    SETTINGS,
    STYLE_TEMPLATES,
    STYLES,
    Entry,
    spellings,
)

PLAIN_STYLE = "photo"
"""The style a caption means when it names none."""

_BY_NAME: dict[str, Entry] = {
    entry.name: entry for entry in (*OBJECTS, *FRESH_OBJECTS, *STYLES, *FRESH_STYLES)
}


def caption(
    object_name: str | None,
    style: str | None,
    setting: str | None,
    rng: random.Random | None = None,
    template: int = 0,
) -> str:
    """A sentence for the given parts; `None` leaves a part out, one at most.

    Without `rng` the sentence is canonical: canonical names, first phrasings, the `template`-th
    template. With `rng`, template, synonyms and place phrase are drawn, in this order.
    """
    templates = _templates(object_name, style, setting)
    text = rng.choice(templates) if rng else templates[template % len(templates)]
    phrases = PLACE_PHRASES[setting] if setting else ("",)
    sentence = text.format(
        object=_spelling(object_name, rng),
        style=_spelling(style, rng),
        place=rng.choice(phrases) if rng and setting else phrases[0],
    )
    return _tidy(sentence)


def training_caption(object_name: str, style: str, setting: str, rng: random.Random) -> str:
    """A caption for pre-training: usually complete, sometimes with a part left out.

    The plain style goes unnamed half of the time, so "a cat on the beach" means a photo.
    """
    named_style = None if style == PLAIN_STYLE and rng.random() < 0.5 else style
    draw = rng.random()
    if draw < 0.06:
        return caption(object_name, style, None, rng)
    if draw < 0.08:
        return caption(None, style, setting, rng)
    return caption(object_name, named_style, setting, rng)


def caption_parts() -> list[str]:
    """Every text that captions are made of: names and synonyms, places, and empty templates."""
    texts = [spelling for entry in (*_BY_NAME.values(), *SETTINGS) for spelling in spellings(entry)]
    texts += [phrase for phrases in PLACE_PHRASES.values() for phrase in phrases]
    for templates in (STYLE_TEMPLATES, NO_STYLE_TEMPLATES, NO_PLACE_TEMPLATES, NO_OBJECT_TEMPLATES):
        texts += [template.format(object="", style="", place="") for template in templates]
    return texts


def _templates(object_name: str | None, style: str | None, setting: str | None) -> tuple[str, ...]:
    if object_name is None:
        return NO_OBJECT_TEMPLATES
    if style is None:
        return NO_STYLE_TEMPLATES
    return STYLE_TEMPLATES if setting is not None else NO_PLACE_TEMPLATES


def _spelling(name: str | None, rng: random.Random | None) -> str:
    if name is None or rng is None or rng.random() < 0.5:
        return name or ""
    return rng.choice(spellings(_BY_NAME[name]))


def _tidy(text: str) -> str:
    words = " ".join(text.replace(" ,", ",").split()).strip(", ")
    return re.sub(r"\ba (?=[aeiou])", "an ", words)
