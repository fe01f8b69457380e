"""The README and the documents hold: their code runs, their commands exist, their tables agree with
the code.
"""

import ast
import pkgutil
import re
import shlex
import sys
from pathlib import Path
from typing import get_args

import pytest
from small_runs import QUICKEST

from unlearn_app.attacks import runner
from unlearn_app.cli import main as cli
from unlearn_app.common import registry
from unlearn_app.continual import sequence
from unlearn_app.experiments import tables
from unlearn_app.pocket.world import vocabulary
from unlearn_app.settings import presets
from unlearn_app.settings import run_config as config
from unlearn_app.settings.events import Event
from unlearn_app.settings.run_config import make_attack, make_config
from unlearn_app.worlds.pocket import PocketWorld

ROOT = Path(__file__).resolve().parent.parent
TEXT = (ROOT / "README.md").read_text(encoding="utf-8")
DOCUMENTS = (
    ROOT / "README.md",
    *sorted((ROOT / "assets" / "docs").glob("*.md")),
    tables.RESULTS,
)
"""What a reader may read, the README first."""
ALL = "\n".join(path.read_text(encoding="utf-8") for path in DOCUMENTS)
PYTHON = ROOT / "assets" / "docs" / "python.md"
SMALL = {
    "unlearn.steps": 1,
    "unlearn.batch_size": 2,
    "unlearn.train_pictures": 4,
    "attack.steps": 1,
    "attack.batch_size": 2,
    "attack.pictures": 2,
    "compare.forget": 1,
    "compare.near": 1,
    "compare.far": 1,
    "compare.sampling_steps": 2,
}
PANEL = ("cat", "dog", "van gogh", "neon")
"""The concepts on the panel of a ledger, which an example cannot make smaller."""


def blocks(language: str, text: str = ALL) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", text, re.MULTILINE | re.DOTALL)


def commands() -> list[str]:
    lines = [line for block in blocks("sh") for line in block.splitlines()]
    return [line for line in lines if line.startswith("python -m unlearn_app")]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the examples run, one after the other as a reader would type them."""
    return tmp_path_factory.mktemp("readme")


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    """The examples as they stand, with a fast preset and attacks of a few seconds."""
    monkeypatch.setitem(config.PRESET_CHANGES, "fast", SMALL)
    # What replaces the preset: the world's own settings, and those of requests in sequence.
    monkeypatch.setattr(PocketWorld, "run_settings", lambda *_: {})
    monkeypatch.setattr(presets, "EQUAL_BUDGET", {})
    monkeypatch.setattr(sequence, "panel_names", lambda _, also: [*dict.fromkeys((*PANEL, *also))])
    monkeypatch.setattr(
        runner, "make_attack", lambda name, **own: make_attack(name, **QUICKEST.get(name, {}) | own)
    )
    # With other settings than the usual ones every attack would be made at its control too.
    monkeypatch.setattr(
        runner, "of_attack", lambda *_: {"name": "pumpkin, never seen", "hits": [False] * 12}
    )
    monkeypatch.chdir(folder)


def flat(text: str) -> str:
    """The text without its line breaks."""
    return re.sub(r"\s+", " ", text)


def front_matter() -> dict[str, str]:
    head = TEXT.split("---\n")[1]
    return {
        key: value.strip().strip('"')
        for key, value in re.findall(r"^(\w+): *(.*)$", head, re.MULTILINE)
    }


def test_front_matter_is_what_spaces_accept() -> None:
    assert TEXT.startswith("---\n")
    values = front_matter()
    assert values["sdk"] == "gradio"
    assert (ROOT / values["app_file"]).exists()
    assert values["license"] == "apache-2.0"
    assert values["python_version"] in ("3.10", "3.12")
    assert len(values["short_description"]) <= 60
    for name in ("colorFrom", "colorTo"):
        assert values[name] in (
            "red",
            "yellow",
            "green",
            "blue",
            "indigo",
            "purple",
            "pink",
            "gray",
        )
    bounds = re.search(
        r"^gradio>=([\d.]+),<(\d+)",
        (ROOT / "requirements.txt").read_text(encoding="utf-8"),
        re.MULTILINE,
    )
    assert values["sdk_version"].startswith(bounds[1])
    assert int(values["sdk_version"].split(".")[0]) < int(bounds[2])


def test_every_bound_of_the_requirements_has_its_reason() -> None:
    for line in (ROOT / "requirements.txt").read_text(encoding="utf-8").splitlines():
        if line and not line.startswith("#"):
            wanted, _, reason = line.partition("#")
            assert ">=" in wanted, line
            assert "<" in wanted, line
            assert reason.strip(), line


def imported(node: ast.AST) -> list[str]:
    """The packages that a statement imports, but for relative ones."""
    if isinstance(node, ast.Import):
        return [alias.name.partition(".")[0] for alias in node.names]
    named = isinstance(node, ast.ImportFrom) and not node.level
    return [node.module.partition(".")[0]] if named else []


def test_requirements_are_what_is_imported() -> None:
    listed = set(
        re.findall(
            r"^([a-z_]+\d?)\b",
            (ROOT / "requirements.txt").read_text(encoding="utf-8"),
            re.MULTILINE,
        )
    )
    names = {"PIL": "pillow", "pydantic_core": "pydantic"}
    files = [ROOT / "app.py", *(ROOT / "unlearn_app").rglob("*.py")]
    found = {
        names.get(name, name)
        for file in files
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8")))
        for name in imported(node)
        if name not in sys.stdlib_module_names and name != "unlearn_app"
    }
    # pandas and tokenizers come with gradio and transformers, spaces with Spaces,
    # playwright with the test tools; nudenet, ray and bitsandbytes
    # are optional. diffusers and peft load models with accelerate.
    with_others = {"pandas", "tokenizers", "spaces", "playwright"}
    with_others |= {"nudenet", "ray", "bitsandbytes"}
    assert found - with_others == listed - {"accelerate"}


@pytest.mark.parametrize("name", sorted(tables.QUOTED))
def test_quoted_tables_are_those_of_the_results(name: str) -> None:
    text = tables.RESULTS.read_text(encoding="utf-8")
    source = tables.RESULTS.with_name(f"{name}.md")
    if not source.exists():
        assert f"<!-- {name} table" not in text, "nothing is quoted that was not measured"
        return
    table = tables.last_table(source.read_text(encoding="utf-8"), tables.QUOTED[name])
    quoted = text.partition(f"<!-- {name} table: begin -->\n")[2].partition(
        f"\n<!-- {name} table: end -->"
    )[0]
    assert table
    if not (ROOT / "assets" / "experiments" / name).exists():
        table = tables.waiting(name, table)
    assert quoted.endswith(table)
    assert ("earlier edition" in quoted) == (
        "earlier edition" in source.read_text(encoding="utf-8")
    )


def headings(document: Path) -> set[str]:
    """The names by which links reach the headings of a document."""
    lines = re.findall(r"^#+ (.*)$", document.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", line).lower().replace(" ", "-") for line in lines}


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_links_and_pictures_exist(document: Path) -> None:
    for target in re.findall(r"\]\(([^)]+)\)", document.read_text(encoding="utf-8")):
        if not target.startswith("https://"):
            name, _, heading = target.partition("#")
            found = (document.parent / name).resolve() if name else document
            assert found.exists(), target
            assert not heading or heading in headings(found), target


def test_every_document_can_be_reached_from_the_readme() -> None:
    for path in DOCUMENTS[1:]:
        assert f"]({path.relative_to(ROOT).as_posix()})" in TEXT, path


def test_the_readme_is_one_screen() -> None:
    assert len(TEXT.split("---\n", 2)[2].split()) <= 750


@pytest.mark.parametrize(
    "place",
    ["README.md", "assets/docs", "assets/results/README.md", "unlearn_app", "app.py", "Makefile"],
)
def test_names_and_paths_of_the_code_exist(place: str) -> None:
    found = ROOT / place
    files = (
        [found]
        if found.is_file()
        else [f for ending in ("*.md", "*.py") for f in found.rglob(ending)]
    )
    text = "\n".join(file.read_text(encoding="utf-8") for file in files)
    for dotted in sorted(set(re.findall(r"\bunlearn_app(?:\.[A-Za-z_]\w*)+", text))):
        assert pkgutil.resolve_name(dotted) is not None, dotted
    for path in sorted(set(re.findall(r"\b(?:unlearn_app|tests)/[\w/.-]*\w", text))):
        assert (ROOT / path).exists(), path


def test_the_events_named_are_those_of_a_run() -> None:
    """`PanelProgress` belongs to requests in sequence."""
    listed = re.search(r"frozen events \(([^)]*)\)", ALL).group(1)
    named = set(re.findall(r"`(\w+)`", listed))
    assert named == {kind.__name__ for kind in get_args(Event)} - {"PanelProgress"}


def test_make_targets_exist() -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    for target in re.findall(r"(?:^|`)make ([a-z-]+)", ALL, re.MULTILINE):
        assert re.search(rf"^{target}:", makefile, re.MULTILINE), target


def test_the_counts_of_the_world() -> None:
    names = ("OBJECTS", "STYLES", "SETTINGS", "FRESH_OBJECTS", "FRESH_STYLES")
    counts = [len(getattr(vocabulary, name)) for name in names]
    known = r"(\d+) objects, (\d+) styles, (\d+) settings, captions with synonyms"
    stated = re.search(known + r", and (\d+) more objects and (\d+) more styles", flat(ALL))
    assert [int(number) for number in stated.groups()] == counts


@pytest.mark.slow
def test_the_python_example_is_ten_lines_and_runs(
    small: None, capsys: pytest.CaptureFixture
) -> None:
    (example,) = [block for block in blocks("python") if "result.verdict" in block]
    assert len([line for line in example.splitlines() if line.strip()]) <= 10
    exec(compile(example, PYTHON.name, "exec"), {})
    out = capsys.readouterr().out
    for name in (
        "Stage",
        "Step",
        "Images",
        "Scores",
        "Verdict",
        "Done",
        "original",
        "unlearned",
        "relearned",
    ):
        assert name in out


@pytest.mark.slow
def test_the_example_of_a_ledger_runs(small: None, capsys: pytest.CaptureFixture) -> None:
    (example,) = [block for block in blocks("python") if "run_request" in block]
    exec(compile(example.replace("runs/ledger", "runs/python"), PYTHON.name, "exec"), {})
    assert capsys.readouterr().out.endswith("['', 'cat']\n")


@pytest.mark.slow
@pytest.mark.parametrize(
    "line", [line for line in commands() if " pocket " not in line and " bench " not in line]
)
def test_the_commands_run(small: None, monkeypatch: pytest.MonkeyPatch, line: str) -> None:
    monkeypatch.setattr(sys, "argv", ["unlearn_app", *shlex.split(line)[3:]])
    with pytest.raises(SystemExit) as leaving:
        cli.main()
    assert leaving.value.code == 0


@pytest.mark.parametrize(
    "line", [line for line in commands() if " pocket " in line or " bench " in line]
)
def test_the_long_commands_exist(monkeypatch: pytest.MonkeyPatch, line: str) -> None:
    monkeypatch.setattr(sys, "argv", ["unlearn_app", *shlex.split(line)[3:], "--help"])
    with pytest.raises(SystemExit) as leaving:
        cli.main()
    assert leaving.value.code == 0


def test_the_example_method_trains(
    tiny_pipeline: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from unlearn_app import make_config, run

    registry.names("objective")
    monkeypatch.setitem(registry._PARTS, "objective", dict(registry._PARTS["objective"]))
    (example,) = [block for block in blocks("python") if "register" in block]
    exec(compile(example, PYTHON.name, "exec"), {"__name__": "example"})
    settings = SMALL | {"objective": "blank", "model": str(tiny_pipeline)}
    events = list(run(make_config("cat", **settings), tmp_path / "run"))
    assert type(events[-1]).__name__ == "Done"
    assert (tmp_path / "run" / "unlearn.safetensors").exists()
    assert len(example.splitlines()) <= 25


def test_what_each_kind_of_concept_takes_is_as_said() -> None:
    said = " ".join((ROOT / "assets/docs/command-line.md").read_text(encoding="utf-8").split())
    thing, style, other = (
        make_config(concept, **changes).unlearn
        for concept, changes in (("cat", {}), ("neon", {}), ("neon", {"objective": "sdd"}))
    )
    assert f"an object in {thing.steps} steps and a style in {style.steps}" in said
    assert f"each of {thing.batch_size} pictures a term" in said
    own = f"a pool of {thing.pool} noised batches and a retain weight of {thing.retain_weight:g}"
    assert own in said
    assert (style.pool, style.retain_weight) == (thing.pool, thing.retain_weight)
    usual = f"{other.steps} steps of {other.batch_size}, a pool of {other.pool}"
    assert f"other objectives take {usual}" in said
    real = make_config("cat", model="some/model").unlearn
    own = f"{real.steps} steps of {real.batch_size}, a pool of {real.pool}"
    assert f"Other models take {own} and a retain weight of {real.retain_weight:g}" in said
