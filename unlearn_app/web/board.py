"""The pictures as HTML: the film of previews, the three columns of the comparison, and the table of
scores.
"""

from ..evaluation.finding import other_classes
from ..evaluation.verdict import one_number
from ..settings.events import COLUMNS, GROUPS, Column, Group, GroupScore
from .render import GROUP_TEXT, esc, percent, signed, span
from .view import Card, Frame, View

COLUMN_TEXT: dict[Column, tuple[str, str]] = {
    "original": ("Original", "before anything"),
    "unlearned": ("Unlearned", "after forgetting"),
    "relearned": ("Relearned", "after the attack"),
}
FIRST_ROWS = 4
LOOKS = 8


def film(view: View) -> str:
    """Preview pictures of the model in training, oldest first; folded away once there is something
    to compare.
    """
    frames = view.frames
    if not frames:
        return ""
    over = view.over and not view.stopped
    looks = "".join(_look(frame) for frame in (frames if over else frames[-LOOKS:]))
    note = "<small>the same prompts and seeds each time</small>"
    if over:
        title = f"<summary>How it changed during training {note}</summary>"
        return f'<details class="u-film">{title}<div>{looks}</div></details>'
    title = f"<h3>As it trains {note}</h3>"
    return (
        '<section class="u-film" aria-label="Pictures while it'
        f' trains">{title}<div>{looks}</div></section>'
    )


def _look(frame: Frame) -> str:
    what = "forgetting" if frame.stage == "unlearn" else "under attack"
    images = "".join(
        f'<img loading="lazy" src="{esc(src)}" alt="{esc(prompt)}, {what}, step {frame.step}"'
        f' title="{esc(prompt)}">'
        for src, prompt in zip(frame.sources, frame.prompts, strict=False)
    )
    return (
        f'<figure class="u-{esc(frame.stage)}">{images}<figcaption>{what}<br>step'
        f" {frame.step}</figcaption></figure>"
    )


def comparison(view: View) -> str:
    """Three columns of pictures, a row per prompt and seed, by group."""
    groups = "".join(
        _group(view, group) for group in GROUPS if any(key[0] == group for key in _keys(view))
    )
    if not groups:
        groups = _waiting_rows(view)
    state = "done" if view.over else "busy"
    inside = f"{_columns(view)}{_scrubber(view)}{groups}"
    return f'<section class="u-compare u-{state}" aria-label="Comparison">{inside}</section>'


def _scrubber(view: View) -> str:
    """A slider through the attack, from the unlearned model to the last step; nothing until there
    is a way to go.
    """
    steps = _scrubbed(view)
    if not steps:
        return ""
    ticks = "".join(f"<i>{step}</i>" for step in steps)
    return (
        f'<div class="u-scrub" data-steps="{",".join(map(str, steps))}"><label for="u-steps">Third'
        f" column after <b><output>{steps[-1]}</output> attack steps</b></label><span><input"
        f' id="u-steps" type="range" min="0" max="{len(steps) - 1}" value="{len(steps) - 1}"'
        f' step="1" aria-valuetext="{steps[-1]} attack steps"><span'
        f' aria-hidden="true">{ticks}</span></span></div>'
    )


def _scrubbed(view: View) -> list[int]:
    if len(view.marks) < 2 or "unlearned" not in view.cards or "relearned" not in view.cards:
        return []
    return [0, *sorted(view.marks)]


def _keys(view: View) -> list[tuple[Group, int]]:
    longest = max((view.cards.get(column, {}) for column in COLUMNS), key=len, default={})
    return list(longest)


def _columns(view: View) -> str:
    cells = []
    for column in COLUMNS:
        title, meaning = COLUMN_TEXT[column]
        score = view.scores.get(column, {}).get("forget")
        known = score is not None and score.accuracy is not None
        share, word = (f"<em>{percent(score.accuracy)}</em>", "show it") if known else ("", "")
        cells.append(
            f'<div class="u-col u-{column}"><p><b>{title}</b>{share}</p>'
            f"<p><span>{meaning}</span><span>{word}</span></p></div>"
        )
    return f'<div class="u-cols" aria-hidden="true"><div class="u-col"></div>{"".join(cells)}</div>'


def _group(view: View, group: Group) -> str:
    title, meaning = GROUP_TEXT[group]
    rows = [_row(view, key) for key in _keys(view) if key[0] == group]
    more = ""
    if len(rows) > FIRST_ROWS:
        count = len(rows) - FIRST_ROWS
        more = (
            f"<details><summary>{count} more of"
            f" these</summary>{_table(rows[FIRST_ROWS:], title)}</details>"
        )
    return (
        f'<section class="u-group u-{group}"><h3>{title} <small>{meaning}</small></h3>'
        f"{_table(rows[:FIRST_ROWS], title)}{more}</section>"
    )


def _table(rows: list[str], title: str) -> str:
    # Explicit roles: a grid layout would otherwise strip the table of its meaning for screen readers.
    heads = "".join(
        f'<th role="columnheader" scope="col">{COLUMN_TEXT[column][0]}</th>' for column in COLUMNS
    )
    return (
        f'<table role="table" aria-label="{title} prompts"><thead class="u-hidden"'
        ' role="rowgroup"><tr role="row"><th role="columnheader"'
        f' scope="col">Prompt</th>{heads}</tr></thead><tbody'
        f' role="rowgroup">{"".join(rows)}</tbody></table>'
    )


def _row(view: View, key: tuple[Group, int]) -> str:
    cards = {column: view.cards.get(column, {}).get(key) for column in COLUMNS}
    known = next(card for card in cards.values() if card)
    cells = "".join(_cell(cards[column], cards["original"], column) for column in COLUMNS[:2])
    cells += (
        _attacked_cell(view, key)
        if _scrubbed(view)
        else _cell(cards["relearned"], cards["original"], "relearned")
    )
    return (
        f'<tr role="row"><th role="rowheader" scope="row">{esc(known.prompt)} <small>seed'
        f" {known.seed}</small></th>{cells}</tr>"
    )


def _cell(card: Card | None, original: Card | None, column: Column) -> str:
    if card is None:
        return (
            f'<td role="cell" class="u-{column}"><div class="u-blank" aria-label="not painted'
            ' yet"></div></td>'
        )
    return (
        f'<td role="cell" class="u-{column}">{_figure(card, original, COLUMN_TEXT[column][0])}</td>'
    )


def _attacked_cell(view: View, key: tuple[Group, int]) -> str:
    """The same prompt and seed after every mark of the attack; all but the last are hidden."""
    steps, original = _scrubbed(view), view.cards["original"].get(key)
    figures = []
    for step in steps:
        card = (view.marks[step] if step else view.cards["unlearned"]).get(key)
        if card:
            state = f'data-step="{step}"' + ("" if step == steps[-1] else " hidden")
            figures.append(_figure(card, original, f"Attacked {step} steps", state))
    return f'<td role="cell" class="u-relearned">{"".join(figures)}</td>'


def _figure(card: Card, original: Card | None, title: str, state: str = "") -> str:
    alt = f"{title} model, prompt: {card.prompt}, seed {card.seed}"
    if card.predicted:
        alt += f"; the judge sees {card.predicted}"
    return (
        f'<figure {state}><img loading="lazy" src="{esc(card.src)}" alt="{esc(alt)}">'
        f"<figcaption>{_caption(card, original)}</figcaption></figure>"
    )


def _caption(card: Card, original: Card | None) -> str:
    parts = []
    if card.alignment is not None:
        parts.append(
            f'<b title="alignment of picture and prompt, from −1 to 1">{card.alignment:.2f}</b>'
        )
        if card.column != "original" and original and original.alignment is not None:
            change = card.alignment - original.alignment
            parts.append(f'<span title="change against the original">{signed(change)}</span>')
    if card.predicted is not None:
        state, sign, word = (
            ("u-yes", "✓", "as asked") if card.correct else ("u-no", "✕", "not as asked")
        )
        parts.append(
            f'<span class="u-seen {state}" title="the judge sees this: {word}">{sign}'
            f" {esc(card.predicted)}</span>"
        )
    parts += [
        f'<span title="a second judge, built differently, sees this">2nd: {esc(other)}</span>'
        for other in other_classes(card.judges)
        if other != card.predicted
    ]
    return " ".join(parts)


def _waiting_rows(view: View) -> str:
    blank = "".join(
        f'<td role="cell" class="u-{column}"><div class="u-blank"></div></td>' for column in COLUMNS
    )
    word = "nothing was painted" if view.over else "to come"
    row = f'<tr role="row"><th role="rowheader" scope="row"><small>{word}</small></th>{blank}</tr>'
    return f'<section class="u-group">{_table([row, row], "Coming")}</section>'


def summary(view: View) -> str:
    """Accuracy and mean alignment by group and column, with the change against the original."""
    if not view.scores:
        return ""
    heads = "".join(
        f'<th scope="col" class="u-{column}">{COLUMN_TEXT[column][0]}</th>' for column in COLUMNS
    )
    rows = ""
    for group in GROUPS:
        cells = "".join(
            _score(
                view.scores.get(column, {}).get(group),
                view.scores.get("original", {}).get(group),
                column,
            )
            for column in COLUMNS
        )
        rows += f'<tr><th scope="row">{GROUP_TEXT[group][0]}</th>{cells}</tr>'
    number = one_number(view.verdict.axes if view.verdict else {})
    said = "".join(
        f'<p class="u-fine">{esc(line)}</p>' for line in (number, _agreement(view)) if line
    )
    return (
        '<table class="u-summary"><caption>Shows what was asked <small>· below it, mean'
        " alignment</small></caption>"
        f'<thead><tr><th scope="col"><span class="u-hidden">Group</span></th>{heads}</tr></thead>'
        f"<tbody>{rows}</tbody></table>{said}{_changes(view)}"
    )


def _agreement(view: View) -> str:
    """On how many pictures the two judges agree; nothing where there is but one."""
    cards = [card for column in COLUMNS for card in view.cards.get(column, {}).values()]
    checked = [
        {card.predicted, *others} for card in cards if (others := other_classes(card.judges))
    ]
    alike = sum(len(classes) == 1 for classes in checked)
    said = f"Two judges of different build agree on {alike} of {len(checked)} pictures."
    return said if checked else ""


def _changes(view: View) -> str:
    """What separates each column from the original, folded away."""
    rows = "".join(
        "<tr><th"
        f' scope="row">{GROUP_TEXT[group][0]}<br><small>{COLUMN_TEXT[column][0].lower()}</small></th>'
        f"<td><b>{signed(100 * apart.change, 0)}</b><br><small>{span(apart.interval)}, p"
        f" {apart.p:.2g}</small></td>"
        f"<td><b>{apart.distance:.2f}</b>{'' if apart.apart is None else f' of {apart.apart:.2f}'}</td></tr>"
        for group in GROUPS
        for column, groups in view.differences.items()
        for apart in (groups[group],)
    )
    heads = "".join(f'<th scope="col">{name}</th>' for name in ("Prompts", "Points", "Look"))
    meaning = (
        "Points: accuracy less the original’s on the same prompts and seeds, its 95 % interval and"
        " McNemar’s exact p. Look: mean perceptual distance from the original’s picture, of what"
        " separates two different ones."
    )
    table = f'<table class="u-summary"><thead><tr>{heads}</tr></thead><tbody>{rows}</tbody></table>'
    inside = f'<summary>Against the original</summary>{table}<p class="u-fine">{meaning}</p>'
    return f'<details class="u-apart">{inside}</details>' if rows else ""


def _score(score: GroupScore | None, original: GroupScore | None, column: Column) -> str:
    if score is None:
        return "<td>–</td>"
    change = ""
    if column != "original" and original and None not in (score.accuracy, original.accuracy):
        change = f" <span>{signed(100 * (score.accuracy - original.accuracy), 0)}</span>"
    aligned = "–" if score.alignment is None else f"{score.alignment:.2f}"
    return (
        f'<td><b>{percent(score.accuracy)}</b>{change}<br><small title="{score.n}'
        f' pictures">{aligned}</small></td>'
    )
