"""The shape of the code: who may import whom, and how large a piece may grow."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = "unlearn_app"

LAYERS: tuple[tuple[str, ...], ...] = (
    (
        "errors",
        "events",
        "registry",
        "settings",
        "config",
        "concept",
        "prompts",
        "backend",
        "weights",
        "model_folder",
        "sampling",
        "text_side",
    ),
    ("objectives", "closed_form", "gradients", "regularizers", "scorers"),
    ("train", "batches", "merging"),
    (
        "attacks",
        "controls",
        "base_rates",
        "unlearning",
        "restraints",
        "ledger",
        "standings",
        "panel",
        "succession",
        "continual",
        "evaluate",
        "verdict",
        "metrics",
        "differences",
        "curves",
        "strip",
        "partials",
        "runs",
        "report",
        "comparison",
        "findings",
        "lab",
        "doctor",
        "provenance",
        "catalog",
        "painting",
        "previews",
    ),
    ("workflow",),
    ("engine", "jobs", "bench"),
    ("console", "ui", "recipe_commands", "continual_commands", "report_commands", "lab_commands", "__main__"),
)
"""From the bottom up; a module imports from its own layer or below."""

APART = {"objectives", "closed_form", "gradients", "regularizers", "scorers"}
"""Methods know nothing of each other, though they share a layer."""

BY_NAME = {"pocket", "diffusers_backend"}
"""Constructed by name inside functions; each may import the layers up to scorers."""

BUILDERS = {
    "catalog": {"pocket", "diffusers_backend"},
    "recipe_commands": {"pocket"},
    "bench": {"pocket"},
    "pocket": {"pocket", "diffusers_backend"},
    "scorers": {"pocket"},
}
"""Who may name them."""

MAX_FUNCTION, MAX_MODULE = 50, 300
SELF_NAMED = {"unlearn_app.pocket.styles"}
"""One function per entry of a vocabulary, each named as that entry: a docstring would repeat the name."""


def modules() -> list[Path]:
    return sorted((ROOT / PACKAGE).rglob("*.py"))


def dotted(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def unit(module: str) -> str:
    """The first name below the package: `unlearn_app.ui.view` is `ui`."""
    return [*module.split("."), ""][1]


def imports(path: Path, top_only: bool = False) -> Iterator[str]:
    """Absolute names of what a file imports: of modules where that can be told, else of names in them."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    home = dotted(path).split(".") if path.name == "__init__.py" else dotted(path).split(".")[:-1]
    for node in tree.body if top_only else ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = home[: len(home) - node.level + 1] if node.level else []
            source = ".".join([*base, *([node.module] if node.module else [])])
            yield from (f"{source}.{alias.name}" for alias in node.names)


def own_imports(path: Path) -> set[str]:
    found = {unit(name) for name in imports(path) if name.split(".")[0] == PACKAGE}
    return found - {unit(dotted(path))}


def third_party(path: Path) -> set[str]:
    return {name.split(".")[0] for name in imports(path)}


def level(name: str) -> int:
    found = [row for row, names in enumerate(LAYERS) if name in names]
    assert found, f"{name} is in no layer of tests/test_layers.py: give it one"
    return found[0]


@pytest.mark.parametrize("path", modules(), ids=dotted)
def test_imports_go_down(path: Path) -> None:
    name = unit(dotted(path))
    if not name:
        assert own_imports(path) == set()
        return
    for other in own_imports(path):
        if other in BY_NAME:
            assert other in BUILDERS.get(name, set()), f"{name} may not import {other}"
        elif name in BY_NAME:
            assert level(other) <= 2, f"{name} may not import {other}"
        else:
            assert level(other) <= level(name), f"{name} may not import {other}, which is above it"
            assert not (name in APART and other in APART), f"the methods {name} and {other} must not know each other"


@pytest.mark.parametrize("path", modules(), ids=dotted)
def test_models_are_built_inside_functions(path: Path) -> None:
    if unit(dotted(path)) in BY_NAME | {"bench"}:
        return
    at_top = {unit(name) for name in imports(path, top_only=True) if name.split(".")[0] == PACKAGE}
    assert not at_top & BY_NAME, "the model code is imported where it is constructed, not at the top"


def test_module_imports_have_no_cycle() -> None:
    graph = {unit(dotted(p)): set() for p in modules()}
    for path in modules():
        graph[unit(dotted(path))] |= {
            unit(n) for n in imports(path, top_only=True) if n.split(".")[0] == PACKAGE and unit(n) in graph
        } - {unit(dotted(path)), ""}
    done: set[str] = set()
    while ready := {name for name, below in graph.items() if below <= done} - done:
        done |= ready
    assert done == set(graph), f"these import each other in a circle: {sorted(set(graph) - done)}"


@pytest.mark.parametrize("path", modules(), ids=dotted)
def test_heavy_libraries_have_one_home(path: Path) -> None:
    used, name = third_party(path), unit(dotted(path))
    if dotted(path) != f"{PACKAGE}.diffusers_backend":
        assert not used & {"diffusers", "peft"}, "only diffusers_backend.py imports diffusers and peft"
    if name != "ui":
        assert not used & {"gradio", "gradio_client", "pandas"}, "only ui/ imports gradio"
    if name in ("ui", "engine", "jobs", "console", "__main__") or name.endswith("_commands"):
        assert "torch" not in used, "the surface computes nothing: no torch"
    if name in ("objectives", "gradients", "regularizers"):
        assert not used & {"transformers", "diffusers", "peft"}, "methods see the Backend protocol, not a library"
    assert not used & {"pickle", "dill", "cloudpickle", "joblib"}, "weights are safetensors, records are JSON"


def test_nothing_imports_the_page_but_app() -> None:
    for path in modules():
        if unit(dotted(path)) != "ui":
            assert "ui" not in own_imports(path), f"{dotted(path)} imports ui"
    assert "ui" in {unit(name) for name in imports(ROOT / "app.py")}


@pytest.mark.parametrize("path", modules(), ids=dotted)
def test_the_device_is_chosen_in_one_file(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    if dotted(path) == f"{PACKAGE}.backend":
        assert "cuda" in text
        return
    words = [node.value for node in ast.walk(ast.parse(text)) if isinstance(node, ast.Constant)]
    assert not [word for word in words if isinstance(word, str) and re.fullmatch(r"cuda(:\d+)?", word)]
    assert not re.search(r"\.cuda\b", text)


def test_nothing_prints_but_the_command_line() -> None:
    for path in modules():
        calls = [n.func for n in ast.walk(ast.parse(path.read_text(encoding="utf-8"))) if isinstance(n, ast.Call)]
        printed = [call for call in calls if isinstance(call, ast.Name) and call.id == "print"]
        assert not printed or unit(dotted(path)) == "__main__", f"{dotted(path)} prints"


@pytest.mark.parametrize("path", [*modules(), ROOT / "app.py"], ids=lambda p: p.stem)
def test_pieces_stay_small(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert len(text.splitlines()) <= MAX_MODULE, f"{path.name} has more than {MAX_MODULE} lines"
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            length = node.end_lineno - node.lineno + 1
            assert length <= MAX_FUNCTION, f"{path.name}: {node.name} has {length} lines"


@pytest.mark.parametrize("path", modules(), ids=dotted)
def test_public_names_say_what_they_are(path: Path) -> None:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    if path.stem != "__init__" or tree.body:
        assert ast.get_docstring(tree), f"{dotted(path)} has no docstring"
    for node in tree.body:
        if isinstance(node, (ast.FunctionDef, ast.ClassDef)) and not node.name.startswith("_"):
            if isinstance(node, ast.FunctionDef) and dotted(path) in SELF_NAMED:
                continue
            assert ast.get_docstring(node), f"{dotted(path)}.{node.name} has no docstring"


def test_the_top_level_is_fixed() -> None:
    allowed = {"app.py", PACKAGE, "assets", "tests", "requirements.txt", "README.md", "Makefile", "LICENSE"}
    ignored = {"runs", "work"}
    found = {path.name for path in ROOT.iterdir() if not path.name.startswith(".")}
    assert found - ignored <= allowed, f"not at the top level: {sorted(found - ignored - allowed)}"
