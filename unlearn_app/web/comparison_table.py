"""The pictures of original, unlearned and relearned model beside each other, by prompt and seed."""

from ..evaluation.finding import other_classes
from ..settings.events import COLUMNS, GROUPS, Column, Group, Picture
from .concept_texts import GROUP_TEXT
from .html import esc, folded, percent, signed
from .view_state import COLUMN_TEXT, Card, ViewState

FIRST_ROWS = 4
"""Rows of a group that are not folded away."""


def comparison_table(state: ViewState) -> str:
    """Three columns of pictures, a row per prompt and seed, by group."""
    groups = "".join(
        _group(state, group) for group in GROUPS if any(key[0] == group for key in _keys(state))
    )
    style = "done" if state.over else "busy"
    inside = f"{_column_heads(state)}{_slider(state)}{groups or _blank_rows(state)}"
    return f'<section class="u-compare u-{style}" aria-label="Comparison">{inside}</section>'


def _slider(state: ViewState) -> str:
    """A slider through the attack, from the unlearned model to the last step; nothing before the
    attack has come somewhere.
    """
    steps = _attack_steps(state)
    if not steps:
        return ""
    ticks = "".join(f"<i>{step}</i>" for step in steps)
    return (
        f'<div class="u-scrub" data-steps="{",".join(map(str, steps))}"><label for="u-steps">Attack'
        f" progress: <b><output>{steps[-1]}</output> steps</b></label><span><input"
        f' id="u-steps" type="range" min="0" max="{len(steps) - 1}" value="{len(steps) - 1}"'
        f' step="1" aria-valuetext="{steps[-1]} attack steps"><span'
        f' aria-hidden="true">{ticks}</span></span></div>'
    )


def _attack_steps(state: ViewState) -> list[int]:
    """The steps of the attack at which there are pictures, if there are several."""
    if len(state.checkpoints) < 2 or not {"unlearned", "relearned"} <= state.cards.keys():
        return []
    return [0, *sorted(state.checkpoints)]


def _keys(state: ViewState) -> list[tuple[Group, int]]:
    """Group and index of every row: those of the longest column."""
    return list(max(state.cards.values(), key=len, default={}))


def _column_heads(state: ViewState) -> str:
    cells = ""
    for column in COLUMNS:
        title, meaning = COLUMN_TEXT[column]
        score = state.scores.get(column, {}).get("forget")
        known = score is not None and score.accuracy is not None
        share = f"<em>{percent(score.accuracy)}</em>" if known else ""
        cells += (
            f'<div class="u-col u-{column}"><p><b>{title}</b>{share}</p>'
            f"<p><span>{meaning}</span><span>{'show it' if known else ''}</span></p></div>"
        )
    return f'<div class="u-cols" aria-hidden="true"><div class="u-col"></div>{cells}</div>'


def _group(state: ViewState, group: Group) -> str:
    title, meaning = GROUP_TEXT[group]
    rows = [_row(state, key) for key in _keys(state) if key[0] == group]
    rest = rows[FIRST_ROWS:]
    more = folded(f"{len(rest)} more of these", _table(rest, title)) if rest else ""
    return (
        f'<section class="u-group u-{group}"><h3>{title} <small>{meaning}</small></h3>'
        f"{_table(rows[:FIRST_ROWS], title)}{more}</section>"
    )


def _table(rows: list[str], title: str) -> str:
    # Explicit roles: a grid layout would otherwise hide from screen readers that this is a table.
    heads = "".join(
        f'<th role="columnheader" scope="col">{name}</th>'
        for name in ("Prompt", *(COLUMN_TEXT[column][0] for column in COLUMNS))
    )
    return (
        f'<table role="table" aria-label="{title} prompts">'
        f'<thead class="u-hidden" role="rowgroup"><tr role="row">{heads}</tr></thead>'
        f'<tbody role="rowgroup">{"".join(rows)}</tbody></table>'
    )


def _row(state: ViewState, key: tuple[Group, int]) -> str:
    cards = {column: state.cards.get(column, {}).get(key) for column in COLUMNS}
    known = next(card.picture for card in cards.values() if card)
    cells = ""
    for column in COLUMNS:
        if column == "relearned" and _attack_steps(state):
            inside = _attacked(state, key)
        elif cards[column]:
            inside = _figure(cards[column], cards["original"], COLUMN_TEXT[column][0])
        else:
            inside = '<div class="u-blank" aria-label="waiting"></div>'
        cells += _cell(column, inside)
    return _table_row(f"{esc(known.prompt)} <small>seed {known.seed}</small>", cells)


def _table_row(head: str, cells: str) -> str:
    return f'<tr role="row"><th role="rowheader" scope="row">{head}</th>{cells}</tr>'


def _cell(column: Column, inside: str) -> str:
    return f'<td role="cell" class="u-{column}">{inside}</td>'


def _attacked(state: ViewState, key: tuple[Group, int]) -> str:
    """The same prompt and seed at every checkpoint of the attack; all but the last are hidden."""
    steps, original, figures = _attack_steps(state), state.cards["original"].get(key), ""
    for step in steps:
        card = (state.checkpoints[step] if step else state.cards["unlearned"]).get(key)
        if card:
            shown = f'data-step="{step}"' + ("" if step == steps[-1] else " hidden")
            figures += _figure(card, original, f"Attacked {step} steps", shown)
    return figures


def _figure(card: Card, original: Card | None, title: str, attributes: str = "") -> str:
    picture = card.picture
    alt = f"{title} model, prompt: {picture.prompt}, seed {picture.seed}"
    if picture.predicted:
        alt += f"; the judge sees {picture.predicted}"
    return (
        f'<figure {attributes}><img loading="lazy" src="{esc(card.src)}" alt="{esc(alt)}">'
        f"<figcaption>{_caption(picture, original and original.picture)}</figcaption></figure>"
    )


def _caption(picture: Picture, original: Picture | None) -> str:
    parts = []
    if picture.alignment is not None:
        parts.append(
            f'<b title="alignment of picture and prompt, from −1 to 1">{picture.alignment:.2f}</b>'
        )
        if picture.column != "original" and original and original.alignment is not None:
            change = signed(picture.alignment - original.alignment)
            parts.append(f'<span title="change against the original">{change}</span>')
    if picture.predicted is not None:
        style, sign, word = ("no", "✕", "not as asked")
        if picture.correct:
            style, sign, word = ("yes", "✓", "as asked")
        parts.append(
            f'<span class="u-seen u-{style}" title="the judge sees this: {word}">{sign}'
            f" {esc(picture.predicted)}</span>"
        )
    parts += [
        '<span title="a second judge, built differently, sees this">second judge:'
        f" {esc(other)}</span>"
        for other in other_classes(picture.judges)
        if other != picture.predicted
    ]
    return " ".join(parts)


def _blank_rows(state: ViewState) -> str:
    """Two rows of blanks where there is no picture yet."""
    cells = "".join(_cell(column, '<div class="u-blank"></div>') for column in COLUMNS)
    word = "No pictures" if state.over else "Waiting"
    row = _table_row(f"<small>{word}</small>", cells)
    return f'<section class="u-group">{_table([row, row], "Waiting")}</section>'
