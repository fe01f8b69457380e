"""The table of scores beside the pictures, and what separates each column from the original."""

from ..evaluation.finding import other_classes
from ..evaluation.verdict import one_number
from ..settings.events import COLUMNS, GROUPS, Column, Difference, Group, GroupScore
from .concept_texts import GROUP_TEXT
from .html import esc, folded, percent, signed, signed_span
from .view_state import COLUMN_TEXT, ViewState

MEANING = (
    "Points: accuracy less the original’s on the same prompts and seeds, its 95 % interval and"
    " McNemar’s exact p. Visual change: mean perceptual distance from the original’s picture, of"
    " what separates two different ones."
)


def score_table(state: ViewState) -> str:
    """Accuracy and mean alignment by group and column, with the change against the original."""
    if not state.scores:
        return ""
    heads = "".join(
        f'<th scope="col" class="u-{column}">{COLUMN_TEXT[column][0]}</th>' for column in COLUMNS
    )
    rows = "".join(_row(state, group) for group in GROUPS)
    lines = (one_number(state.verdict.axes if state.verdict else {}), _agreement(state))
    said = "".join(f'<p class="u-fine">{esc(line)}</p>' for line in lines if line)
    return (
        '<table class="u-summary"><caption>How often the picture shows the prompt <small>·'
        " alignment below</small></caption>"
        f'<thead><tr><th scope="col"><span class="u-hidden">Group</span></th>{heads}</tr></thead>'
        f"<tbody>{rows}</tbody></table>{said}{_differences(state)}"
    )


def _row(state: ViewState, group: Group) -> str:
    scores = {column: state.scores.get(column, {}).get(group) for column in COLUMNS}
    cells = "".join(_cell(scores[column], scores["original"], column) for column in COLUMNS)
    return f'<tr><th scope="row">{GROUP_TEXT[group][0]}</th>{cells}</tr>'


def _cell(score: GroupScore | None, original: GroupScore | None, column: Column) -> str:
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


def _agreement(state: ViewState) -> str:
    """On how many pictures the judges agree; nothing where there is but one."""
    shown = [card.picture for cards in state.cards.values() for card in cards.values()]
    checked = [picture for picture in shown if other_classes(picture.judges)]
    alike = sum({*other_classes(picture.judges)} == {picture.predicted} for picture in checked)
    said = f"Two judges of different build agree on {alike} of {len(checked)} pictures."
    return said if checked else ""


def _differences(state: ViewState) -> str:
    """What separates each column from the original, folded away."""
    rows = "".join(
        _difference(group, column, groups[group])
        for group in GROUPS
        for column, groups in state.differences.items()
    )
    if not rows:
        return ""
    heads = "".join(
        f'<th scope="col">{name}</th>' for name in ("Prompts", "Points", "Visual change")
    )
    table = f'<table class="u-summary"><thead><tr>{heads}</tr></thead><tbody>{rows}</tbody></table>'
    return folded("Statistics", f'{table}<p class="u-fine">{MEANING}</p>', "u-apart")


def _difference(group: Group, column: Column, found: Difference) -> str:
    column_name = COLUMN_TEXT[column][0].lower()
    interval = f"{signed_span(found.interval)}, p {found.p:.2g}"
    of = "" if found.apart is None else f" of {found.apart:.2f}"
    return (
        f'<tr><th scope="row">{GROUP_TEXT[group][0]}<br><small>{column_name}</small></th>'
        f"<td><b>{signed(100 * found.change, 0)}</b><br><small>{interval}</small></td>"
        f"<td><b>{found.distance:.2f}</b>{of}</td></tr>"
    )
