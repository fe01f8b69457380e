"""How the terminal shows a run, its scores and the lists of names."""

import math
import os
import signal
import sys
import threading
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import fields
from pathlib import Path
from typing import Annotated, Any, TextIO

from rich.console import Console
from rich.markup import escape
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    SpinnerColumn,
    TextColumn,
    TimeElapsedColumn,
)
from rich.table import Column, Table
from rich.text import Text
from typer import Option

from ..common import registry
from ..common.errors import ConfigError, OutputError
from ..common.signals import on_signal
from ..concepts.concept import Concept, evenly_spaced, kept_whole
from ..settings.events import (
    COLUMNS,
    GROUPS,
    Difference,
    Event,
    Group,
    GroupScore,
    Images,
    PanelProgress,
    Scores,
    Stage,
    Step,
    Verdict,
)
from ..settings.presets import PRESETS
from ..settings.run_config import CONCEPT_KINDS, RunConfig, setting_names

OPTIONS = {item.name: item.metadata["help"] for item in fields(RunConfig) if item.metadata}
Seed = Annotated[str, Option(help=OPTIONS["seed"], metavar="N")]
Preset = Annotated[str, Option(help=OPTIONS["preset"], metavar="|".join(PRESETS))]
Model = Annotated[str, Option(help=OPTIONS["model"], metavar="pocket|FOLDER|HUB_ID")]
Anchor = Annotated[str | None, Option(help=OPTIONS["anchor"], metavar="TEXT")]
ConceptKind = Annotated[str, Option(help=OPTIONS["concept_kind"], metavar="|".join(CONCEPT_KINDS))]
OwnPrompts = Annotated[
    Path | None,
    Option(help="file of your own forget and retain prompts, JSON or text", metavar="FILE"),
]
Judge = Annotated[
    list[str] | None,
    Option(
        help="who judges, such as clip=FOLDER, and who else, such as vqa; may be repeated",
        metavar="NAME[=PATH]",
    ),
]
Objective = Annotated[str, Option(help=OPTIONS["objective"], metavar="NAME")]
ForgetPictures = Annotated[
    Path | None,
    Option(help="folder of PNG pictures of the concept to forget it by", metavar="DIR"),
]
RetainPictures = Annotated[
    Path | None,
    Option(
        help="folder of PNG pictures to keep the rest by, each with a caption in a .txt file",
        metavar="DIR",
    ),
]
Pictures = Annotated[
    Path | None,
    Option(
        help="folder of PNG pictures of the concept that the adversary fine-tunes on, with"
        " captions in .txt files beside them",
        metavar="DIR",
    ),
]
Targets = Annotated[
    Path | None,
    Option(
        help="JSON file of your model's concepts with kind, near and far (paper1 to paper3, lab)",
        metavar="FILE",
    ),
]
Captions = Annotated[
    Path | None,
    Option(help="text file of captions, for alignment and distances (paper1)", metavar="FILE"),
]
GROUP_LABELS = {"forget": "the concept", "near": "its relatives", "far": "everything else"}
VERDICT_COLORS = {
    "removed": "green",
    "concealed": "yellow",
    "damaged": "red",
    "inconclusive": "cyan",
}


class StageBars(Progress):
    """A context that shows one bar per stage on a terminal and one line per stage in a log."""

    def __init__(self, console: Console) -> None:
        self._stage = None
        super().__init__(
            SpinnerColumn(finished_text="[green]✓"),
            TextColumn("{task.description}", markup=False, table_column=_narrowing(3)),
            BarColumn(bar_width=12),
            MofNCompleteColumn(table_column=Column(min_width=7, no_wrap=True)),
            TextColumn(
                "{task.fields[detail]}", style="dim", markup=False, table_column=_narrowing(2)
            ),
            TimeElapsedColumn(table_column=Column(min_width=7, no_wrap=True)),
            console=console,
            disable=not console.is_terminal,
            expand=True,
        )

    def __exit__(self, kind: type[BaseException] | None, *error: object) -> None:
        if kind is None:
            self._finish_stage()
        super().__exit__(kind, *error)

    def begin(self, text: str) -> None:
        """Finish the stage before and start another."""
        self._finish_stage()
        self._stage = self.add_task(text, total=None, detail="")
        if not self.console.is_terminal:
            self.console.print(text, markup=False, highlight=False, soft_wrap=True)

    def move(self, done: int, total: int | None, detail: str = "") -> None:
        """Move the bar of the current stage."""
        self.update(self._stage, completed=done, total=total, detail=detail)

    def show(self, event: Event) -> None:
        """Render one event of a run."""
        if isinstance(event, Stage):
            self.begin(event.text)
        elif isinstance(event, Step):
            losses = "  ".join(f"{name} {value:.3g}" for name, value in event.losses.items())
            self.move(event.step, event.total, losses)
        elif isinstance(event, PanelProgress):
            self.move(event.done, event.total, event.name)
        elif isinstance(event, Images):
            self.move(1, 1, f"{len(event.pictures)} pictures")

    def _finish_stage(self) -> None:
        if self._stage is not None:
            total = self.tasks[self._stage].total or 1
            self.update(self._stage, total=total, completed=total)
            self._stage = None


def _narrowing(ratio: int) -> Column:
    return Column(ratio=ratio, no_wrap=True, overflow="ellipsis")


def shortened(names: Sequence[str], count: int = 8) -> str:
    """The first `count` names, and how many more there are."""
    more = len(names) - count
    return ", ".join(names[:count]) + (f" and {more} more" if more > 0 else "")


def prompt_lines(concept: Concept, count: int = 3) -> Iterator[str]:
    """How the words were understood, and of every group of prompts its size and the first
    `count`.
    """
    yield f"{concept.kind} “{concept.name}”: the model learns to show {concept.anchor} instead."
    if kept := kept_whole(concept):
        yield f"What it is made of stays: {', '.join(kept)}."
    pairs = tuple(zip(concept.forget.train, concept.anchors, strict=True))
    yield f"forget, trained on ({len(pairs)} prompts, each with what it shall show instead)"
    for prompt, anchor in evenly_spaced(pairs, min(count, len(pairs))):
        yield f"  {prompt.text} → {anchor}"
    groups = {
        "forget, judged on": concept.forget.test,
        "near, trained on": concept.near.train,
        "near, judged on": concept.near.test,
        "far, trained on": concept.far.train,
        "far, judged on": concept.far.test,
        "the adversary's pictures": concept.relearn,
    }
    for title, prompts in groups.items():
        names = [name for name in dict.fromkeys(p.expects for p in prompts) if name]
        yield f"{title} ({len(prompts)} prompts: {shortened(names)})"
        yield from (f"  {p.text}" for p in evenly_spaced(prompts, min(count, len(prompts))))


def score_table(scores: Scores) -> Table:
    """Accuracy and alignment of every column by group of pictures."""
    cells = [score for groups in scores.columns.values() for score in groups.values()]
    checked = " (by the second judge)" * any(score.accuracies for score in cells)
    rows = []
    for group in GROUPS:
        cells = [scores.columns.get(column, {}).get(group) for column in COLUMNS]
        count = next((str(cell.n) for cell in cells if cell), "–")
        rows.append((GROUP_LABELS[group], count, *map(_score, cells)))
    title = f"Same prompts, same seeds: accuracy{checked} · alignment"
    return table(title, ("pictures of", "n", *COLUMNS), rows, right=("n", *COLUMNS))


def print_result(scores: Scores, verdict: Verdict) -> None:
    """The score table, what separates unlearned from original, and the verdict, on standard
    output.
    """
    from ..evaluation.verdict import one_number  # scipy comes with it, a second

    paper = Console()
    paper.print(score_table(scores))
    cells = [cell for groups in scores.columns.values() for cell in groups.values()]
    if all(cell.accuracy is None for cell in cells):
        paper.print("There is no judge for this model here, so its pictures are not scored.")
    for group, found in scores.differences.get("unlearned", {}).items():
        paper.print(_change(group, found), highlight=False)
    if summary := one_number(verdict.axes):
        paper.print(summary, highlight=False)
    paper.print(verdict_text(verdict))


def _change(group: Group, found: Difference) -> str:
    """How far the unlearned model's pictures of a group differ from the original's at the same
    seeds.
    """
    low, high = (100 * end for end in found.interval)
    of = f" of {found.apart:.2f}" if found.apart is not None else ""
    return (
        f"{GROUP_LABELS[group]}, unlearned against original: {100 * found.change:+.0f} points"
        f" ({low:+.0f} to {high:+.0f}, McNemar p {found.p:.2g}), looks {found.distance:.2f}"
        f" away{of}"
    )


def verdict_text(verdict: Verdict) -> Text:
    """The label and, below it, one line per reason."""
    text = Text("Verdict: ").append(verdict.label, style=f"bold {VERDICT_COLORS[verdict.label]}")
    if verdict.headline:
        text.append(f"\n  {verdict.headline}", style="bold")
    for reason in verdict.reasons:
        text.append(f"\n  - {reason}")
    return text


def table(
    title: str,
    headers: Iterable[str],
    rows: Iterable[Iterable[str | Text]],
    right: Collection[str] = (),
) -> Table:
    """A table; texts are shown as typed, never read as markup. Columns in `right` end there."""
    made = Table(title=escape(title), title_justify="left")
    for header in headers:
        made.add_column(Text(header), justify="right" if header in right else "left")
    for row in rows:
        made.add_row(*(Text(cell) if isinstance(cell, str) else cell for cell in row))
    return made


def percent(share: float | None) -> str:
    """A share as whole per cent, or a dash."""
    return "–" if share is None else f"{share:.0%}"


def check_new_file(out: Path, suffix: str) -> None:
    """Refuse a file to write that is of another kind or exists.

    Raises:
        ConfigError: it has another suffix.
        OutputError: it exists.
    """
    if out.suffix != suffix:
        raise ConfigError(f"The output {str(out)!r} is no {suffix} file.", "out")
    if out.exists() or out.is_symlink():
        raise OutputError(
            f"The output {str(out)!r} exists already; a new {suffix} file is accepted."
        )


def set_option(text: str) -> Any:
    """The option `--set NAME=VALUE` with this help."""
    return Option("--set", metavar="NAME=VALUE", help=text)


def own_settings(kind: str, part: str) -> str:
    """The hyperparameters of a part with their defaults and ranges, one a line, and what it changes
    elsewhere.
    """
    lines = [
        f"{item.name}={item.default}: {item.metadata['help']}{_accepted(item.metadata)}"
        for item in registry.settings_of(kind, part)
    ]
    lines += [f"suggests {name}={value}" for name, value in registry.suggested(part).items()]
    return "\n".join(
        lines + [said for of in ("object", "style") if (said := registry.advice(part, of))]
    )


def _accepted(metadata: Mapping[str, Any]) -> str:
    if "range" in metadata:
        return f" ({' to '.join(map(str, metadata['range']))})"
    return f" ({', '.join(metadata['choices'])})" if "choices" in metadata else ""


def whole_number(text: str, name: str, low: int, high: int) -> int:
    """A typed number.

    Raises:
        ConfigError: it is none, or out of range.
    """
    if not text.lstrip("+-").isdecimal() or not low <= int(text) <= high:
        raise ConfigError(
            f"The {name} is {text!r}; a whole number from {low} to {high} is accepted.", name
        )
    return int(text)


def real_number(text: str, name: str, low: float, high: float) -> float:
    """A typed number, which may have decimals.

    Raises:
        ConfigError: it is none, or out of range.
    """
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not low <= number <= high:
        raise ConfigError(
            f"The {name} is {text!r}; a number from {low:g} to {high:g} is accepted.", name
        )
    return number


def taken(folder: Path, out: Path) -> str:
    """What to add where the new folder had to get another name than `out`."""
    return f" ({out} was taken meanwhile)" if folder != out else ""


def named_folder(text: str | Path) -> Path:
    """The folder of that name, which may be there already.

    Raises:
        ConfigError: the name is empty, which as a path would be the current folder.
    """
    if not str(text).strip():
        raise ConfigError("The folder has no name; write . for the current one.")
    return Path(text)


def _score(cell: GroupScore | None) -> str:
    if cell is None:
        return "–"
    checked = "".join(f" ({share:.0%})" for share in cell.accuracies.values())
    alignment = "–" if cell.alignment is None else f"{cell.alignment:.2f}"
    return f"{percent(cell.accuracy)}{checked} · {alignment}"


def assignments(texts: list[str], also: str | tuple[str, ...] = ()) -> dict[str, str]:
    """What `--set NAME=VALUE` sets; names that begin with `also` are not known here and are left to
    the caller.

    Raises:
        ConfigError: no value, or an unknown name.
    """
    values = {}
    for text in texts:
        name, separator, value = (part.strip() for part in text.partition("="))
        if not separator:
            raise ConfigError(
                f"--set {text!r} has no value; write it as NAME=VALUE, such as unlearn.steps=40.",
                "set",
            )
        if name not in setting_names() and not name.startswith(also):
            raise ConfigError(
                f"--set knows no {name!r}; choose from {', '.join(setting_names())}.", name
            )
        values[name] = value
    return values


class Interruption:
    """The signal that has asked the command to end; SIGINT of Ctrl-C unless another one arrived."""

    number: int = signal.SIGINT

    def interrupt(self, number: int) -> None:
        """Interrupt the command as Ctrl-C does."""
        self.number = number
        raise KeyboardInterrupt


interruption = Interruption()


@contextmanager
def interrupt_flag() -> Iterator[threading.Event]:
    """An event that the first Ctrl-C, SIGTERM or SIGHUP sets; a second Ctrl-C interrupts as
    usual.
    """
    cancel = threading.Event()

    def stop(number: int) -> None:
        interruption.number = number
        cancel.set()

    with on_signal(stop):
        yield cancel


class Lasting:
    """A stream that ignores errors when it is written to, so that work goes on after its terminal
    was closed; the text is lost.
    """

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        """Write `text` if it can be."""
        try:
            self._stream.write(text)
            self._stream.flush()
        except OSError:
            with suppress(OSError):  # what is buffered must not fail again at the exit
                null = os.open(os.devnull, os.O_WRONLY)
                os.dup2(null, self._stream.fileno())
                os.close(null)
        return len(text)

    def flush(self) -> None:
        """Do nothing: `write` flushes."""

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


def screen() -> Console:
    """Where progress is shown: standard error."""
    return Console(file=Lasting(sys.stderr))
