"""The shape of the code: who may import whom, and how large a function may grow."""

import ast
import re
from collections.abc import Iterable, Iterator, Sequence
from functools import cache
from pathlib import Path

import pytest

from unlearn_app.common import registry

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = "unlearn_app"

LAYERS: tuple[tuple[str, ...], ...] = (
    ("common",),
    ("settings",),
    ("concepts", "models"),
    ("methods",),
    ("training",),
    ("evaluation",),
    ("attacks",),
    ("continual", "runs"),
    ("experiments",),
    ("service",),
    ("cli", "web"),
)
"""The folders from the bottom up. A folder imports from folders below it, never from one beside it
in the same row.
"""

WORLDS = "worlds"
"""The worlds stand beside the layers: they answer what the layers ask of a world, and nobody
imports them, since `common.registry.world` builds them by name.
"""
BUNDLED = "pocket"
"""The bundled world itself, which its module in `WORLDS` and the experiments import."""
BESIDE = {WORLDS, BUNDLED}
WORLD_USES = {"common", "settings", "concepts", "models", "evaluation"}
BUNDLED_COMMANDS = "cli.pocket"
"""The commands that train the bundled world import it, inside a function."""

APART = {"objectives", "closed_form", "gradient_rules", "regularizers", "merging"}
"""Folders of `methods` that know nothing of each other; what they share is `models.lora`."""

LIBRARY_HOMES = {
    "diffusers": "models.diffusers",
    "peft": "models.diffusers",
    "gradio": "web",
    "pandas": "web",
    "typer": "cli",
}
"""Libraries that one folder alone imports."""
HEAVY = {"torch", "transformers", "diffusers", "peft", "accelerate"}
LIGHT = ("settings", "concepts", "worlds", "service", "cli", "web")
"""Importing these folders loads nothing heavy, whatever their modules import in turn."""

MAX_FUNCTION = 50
"""Lines of a function; a file is one idea, however long."""
SELF_NAMED = {"pocket.world.styles"}
"""One function per entry of a vocabulary, each named as that entry: a docstring would repeat the
name.
"""


def modules() -> list[Path]:
    return sorted((ROOT / PACKAGE).rglob("*.py"))


def dotted(path: Path) -> str:
    """The name below the package: `web.view`, or `web` for its `__init__`; empty for the package
    itself.
    """
    parts = path.relative_to(ROOT / PACKAGE).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


NAMES = {dotted(path): path for path in modules()}


def folder(module: str) -> str:
    return module.partition(".")[0]


def statements(tree: ast.Module, top_only: bool) -> Iterator[ast.AST]:
    """All statements, or those that run at import; what only a type checker reads is left out of
    those.
    """
    if not top_only:
        yield from ast.walk(tree)
        return
    waiting = list(tree.body)
    while waiting:
        node = waiting.pop()
        yield node
        if isinstance(node, ast.If) and getattr(node.test, "id", "") == "TYPE_CHECKING":
            waiting += node.orelse
        elif isinstance(node, (ast.If, ast.Try, ast.With)):
            waiting += [
                child for child in ast.iter_child_nodes(node) if isinstance(child, ast.stmt)
            ]


def imports(path: Path, top_only: bool = False) -> Iterator[str]:
    """Absolute names of what a file imports: of modules where that can be told, else of names in
    them.
    """
    inside = (
        [PACKAGE, *path.relative_to(ROOT / PACKAGE).parent.parts]
        if path.is_relative_to(ROOT / PACKAGE)
        else []
    )
    for node in statements(ast.parse(path.read_text(encoding="utf-8")), top_only):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = inside[: len(inside) - node.level + 1] if node.level else []
            source = ".".join([*base, *([node.module] if node.module else [])])
            yield from (f"{source}.{alias.name}" for alias in node.names)


@cache
def own_imports(module: str, top_only: bool = False) -> frozenset[str]:
    """Modules of the package, by the names below it, that a module asks for."""
    asked = [
        name.split(".")[1:]
        for name in imports(NAMES[module], top_only)
        if name.partition(".")[0] == PACKAGE
    ]
    known = [[one for one in heads(parts) if one in NAMES] for parts in asked]
    return frozenset(found[-1] for found in known if found) - {module}


def heads(parts: Sequence[str]) -> list[str]:
    """`a`, `a.b` and `a.b.c` of a, b, c."""
    return [".".join(parts[:count]) for count in range(1, len(parts) + 1)]


@cache
def third_party(module: str, top_only: bool = False) -> frozenset[str]:
    return frozenset(name.partition(".")[0] for name in imports(NAMES[module], top_only)) - {
        PACKAGE
    }


def closure(starts: Iterable[str], top_only: bool = False, without: Iterable[str] = ()) -> set[str]:
    """Everything that is imported with `starts`, in turn; importing a module runs the packages
    around it too.
    """
    reached, waiting = set(), list(starts)
    while waiting:
        module = waiting.pop()
        if module not in reached and module not in without:
            reached.add(module)
            waiting += [*own_imports(module, top_only), *heads(module.split("."))[:-1]]
    return reached


def level(name: str) -> int:
    found = [row for row, names in enumerate(LAYERS) if name in names]
    assert found, f"the folder {name} is in no layer of tests/test_layers.py: give it one"
    return found[0]


def may_import(module: str, other: str) -> bool:
    one, two = folder(module), folder(other)
    if one == two:
        return True
    if two == BUNDLED:
        return one in (WORLDS, "experiments") or module == BUNDLED_COMMANDS
    if one in BESIDE:
        return two in WORLD_USES
    if two == WORLDS:
        return False
    return level(two) < level(one)


def test_the_root_of_the_package_is_folders() -> None:
    assert {path.name for path in (ROOT / PACKAGE).glob("*.py")} == {"__init__.py", "__main__.py"}
    found = {
        path.name
        for path in (ROOT / PACKAGE).iterdir()
        if path.is_dir() and path.name != "__pycache__"
    }
    assert found == {name for row in LAYERS for name in row} | BESIDE


@pytest.mark.parametrize("module", NAMES)
def test_imports_go_down(module: str) -> None:
    if module in ("", "__main__"):
        assert own_imports(module) <= {"cli", "cli.main"}
        return
    up = sorted(other for other in own_imports(module) if not may_import(module, other))
    assert not up, f"{module} may not import {up}"
    bundled = [other for other in own_imports(module, top_only=True) if folder(other) == BUNDLED]
    if folder(module) not in (*BESIDE, "experiments"):
        assert not bundled, "the bundled world is imported where it is trained, not at the top"


@pytest.mark.parametrize("name", [name for row in LAYERS for name in row])
def test_imports_go_down_all_the_way(name: str) -> None:
    """What a folder reaches through others is below it too; worlds are reached by name only, so
    they are left out.
    """
    beside = [module for module in NAMES if folder(module) in BESIDE]
    reached = {folder(m) for m in closure((m for m in NAMES if folder(m) == name), without=beside)}
    assert {other for other in reached if level(other) >= level(name)} == {name}


NAMES_A_WORLD = {
    "common.registry",
    "common.paths",
    "cli.main",
    "experiments.assets",
    "experiments.soak.inputs",
}
"""Who may hold the name of a bundled model beside its own folders: the default, and the names of
folders and of a command.
"""


@pytest.mark.parametrize("module", sorted(set(NAMES) - NAMES_A_WORLD))
def test_nobody_asks_whether_a_model_is_a_bundled_one(module: str) -> None:
    """What depends on the world is asked of the world, which the registry builds by name."""
    if folder(module) not in BESIDE:
        tree = ast.parse(NAMES[module].read_text(encoding="utf-8"))
        known = {node.value for node in ast.walk(tree) if isinstance(node, ast.Constant)}
        assert not set(registry.names("world")) & known - {registry.OPEN_WORLD}


def test_methods_know_nothing_of_each_other() -> None:
    for module in NAMES:
        parts = module.split(".")
        if parts[0] == "methods" and len(parts) > 1 and parts[1] in APART:
            others = {
                other.split(".")[1] for other in own_imports(module) if other.startswith("methods.")
            }
            assert others <= {parts[1]}, f"{module} imports {sorted(others)}"


def test_module_imports_have_no_cycle() -> None:
    graph = {module: own_imports(module, top_only=True) for module in NAMES}
    done: set[str] = set()
    while ready := {module for module, below in graph.items() if below <= done} - done:
        done |= ready
    assert done == set(graph), f"these import each other in a circle: {sorted(set(graph) - done)}"


LAYER_WORDS = {
    "attn2": ("models.diffusers",),
    "to_q": ("models.diffusers",),
    "to_k": ("models.diffusers",),
    "to_v": ("models.diffusers",),
    "to_out": ("models.diffusers",),
    "base_layer": ("models.diffusers",),
    "alphas_cumprod": ("models.diffusers", "models.parameterization", "pocket"),
    "prediction_type": ("models.diffusers", "models.parameterization", "pocket"),
    "lora_A": ("models",),
    "lora_B": ("models",),
}
"""Names of one library's layers and schedulers, and whose code may hold them."""


class WithoutProse(ast.NodeTransformer):
    """Drops docstrings."""

    def visit_Expr(self, node: ast.Expr) -> ast.stmt:
        return ast.Pass() if isinstance(node.value, ast.Constant) else node


@pytest.mark.parametrize("module", NAMES)
def test_names_of_layers_and_schedulers_stay_with_the_models(module: str) -> None:
    text = ast.unparse(WithoutProse().visit(ast.parse(NAMES[module].read_text(encoding="utf-8"))))
    for word, homes in LAYER_WORDS.items():
        if not any(module == home or module.startswith(f"{home}.") for home in homes):
            known = re.search(rf"(?<![a-z]){word}(?![a-z0-9])", text)
            assert not known, f"{module} knows {word}; ask the model"


@pytest.mark.parametrize("module", NAMES)
def test_heavy_libraries_have_one_home(module: str) -> None:
    used = third_party(module)
    for library, home in LIBRARY_HOMES.items():
        if library in used:
            assert module == home or module.startswith(f"{home}."), f"only {home} imports {library}"
    if folder(module) in ("web", "service") or (folder(module) == "cli" and module != "cli.doctor"):
        assert "torch" not in used, "the surface computes nothing: no torch"
    if folder(module) == "methods":
        assert not used & {"transformers", "diffusers", "peft"}, (
            "methods see protocols of a model, not a library"
        )
    assert not used & {"pickle", "dill", "cloudpickle", "joblib"}, (
        "weights are safetensors, records are JSON"
    )


@pytest.mark.parametrize(
    "module",
    [module for module in NAMES if folder(module) in LIGHT or module in ("", "__main__")],
)
def test_what_lays_out_the_page_loads_nothing_heavy(module: str) -> None:
    for reached in closure([module], top_only=True):
        assert not third_party(reached, top_only=True) & HEAVY, (
            f"{module} loads {reached}, which is heavy"
        )


def test_nothing_imports_the_page_but_app() -> None:
    assert not [
        module for module in NAMES if folder(module) != "web" and "web" in own_imports(module)
    ]
    assert f"{PACKAGE}.web.build_demo" in set(imports(ROOT / "app.py"))


def test_tests_mirror_the_tree() -> None:
    found = {
        path.name
        for path in (ROOT / "tests").iterdir()
        if path.is_dir() and path.name != "__pycache__"
    }
    assert found == {name for row in LAYERS for name in row} | BESIDE
    names = [path.name for path in (ROOT / "tests").rglob("test_*.py")]
    assert len(names) == len(set(names)), (
        "files of tests have names of their own, whatever their folder"
    )


@pytest.mark.parametrize("path", modules(), ids=dotted)
def test_the_device_is_chosen_in_one_file(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    if dotted(path) == "models.device":
        assert "cuda" in text
        return
    words = [node.value for node in ast.walk(ast.parse(text)) if isinstance(node, ast.Constant)]
    assert not [
        word for word in words if isinstance(word, str) and re.fullmatch(r"cuda(:\d+)?", word)
    ]
    assert not re.search(r"\.cuda\b", text)


def test_nothing_prints_but_the_command_line() -> None:
    for path in modules():
        calls = [
            n.func
            for n in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
            if isinstance(n, ast.Call)
        ]
        printed = [call for call in calls if isinstance(call, ast.Name) and call.id == "print"]
        assert not printed or dotted(path) == "cli.main", f"{dotted(path)} prints"


@pytest.mark.parametrize("path", [*modules(), ROOT / "app.py"], ids=lambda p: p.stem)
def test_functions_stay_small(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
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
    allowed = {
        "app.py",
        PACKAGE,
        "assets",
        "tests",
        "requirements.txt",
        "README.md",
        "Makefile",
        "LICENSE",
    }
    ignored = {"runs", "work"}
    found = {path.name for path in ROOT.iterdir() if not path.name.startswith(".")}
    assert found - ignored <= allowed, f"not at the top level: {sorted(found - ignored - allowed)}"
