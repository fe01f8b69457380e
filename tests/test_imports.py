"""Importing does nothing: no network, no file, no random number, no heavy library that is not
needed.
"""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
MODULES = sorted(
    ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
    for path in (ROOT / "unlearn_app").rglob("*.py")
)
CORE = [name for name in MODULES if not name.startswith("unlearn_app.web")]

GUARD = """
import builtins, importlib, random, socket, sys
BLOCKED = set({blocked!r})

class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in BLOCKED:
            raise ModuleNotFoundError(f"{{name}} is not to be imported here")

def refuse(*args, **kwargs):
    raise AssertionError("network at import")

sys.meta_path.insert(0, Absent())
socket.socket.connect = socket.create_connection = socket.getaddrinfo = refuse
real_open = builtins.open
def watched(file, mode="r", *args, **kwargs):
    device = str(file).startswith(("/dev/", "/proc/"))
    assert device or not set(mode) & set("wax+"), f"writes {{file}} at import"
    return real_open(file, mode, *args, **kwargs)
"""


def python(code: str, tmp_path: Path) -> str:
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        env=_environment(),
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout.strip()


def _environment() -> dict[str, str]:
    import os

    return os.environ | {"PYTHONPATH": str(ROOT), "PYTHONDONTWRITEBYTECODE": "1"}


@pytest.mark.slow
def test_the_core_imports_alone_without_network_or_page(tmp_path: Path) -> None:
    code = (
        GUARD.format(blocked=["gradio", "gradio_client"])
        + f"""
# What libraries do while they are imported is not ours.
import torch, peft, safetensors.torch, PIL.Image, rich.progress, rich.table, typer
from diffusers import AutoencoderKL, StableDiffusionPipeline, UNet2DConditionModel
from transformers import CLIPModel, CLIPTextModel, CLIPTokenizer
random.seed(7); before = random.getstate(); torch.manual_seed(7); state = torch.get_rng_state()
builtins.open = watched
for name in {CORE!r}:
    importlib.import_module(name)
assert random.getstate() == before, "random numbers at import"
assert torch.equal(torch.get_rng_state(), state), "random numbers of torch at import"
"""
    )
    python(code, tmp_path)
    assert list(tmp_path.iterdir()) == []


def named(*folders: str) -> list[str]:
    return [name for name in MODULES if name.split(".")[1:2] in [[folder] for folder in folders]]


@pytest.mark.slow
def test_the_page_loads_without_torch(tmp_path: Path) -> None:
    """Every module that lays it out: a visitor must not wait for the libraries of the model."""
    lines = "\n".join(f"importlib.import_module({name!r})" for name in named("service", "web"))
    heavy = ("torch", "transformers", "diffusers", "peft")
    code = (
        f"import importlib, sys\n{lines}\nprint([name for name in {heavy} if name in sys.modules])"
    )
    assert python(code, tmp_path) == "[]"


def test_the_command_line_is_light(tmp_path: Path) -> None:
    """`--help`, `import unlearn_app` and settings load neither torch nor gradio."""
    names = ["unlearn_app", "unlearn_app.__main__", *named("settings", "concepts", "worlds", "cli")]
    heavy = ("torch", "gradio", "transformers", "diffusers", "peft")
    lines = "\n".join(f"importlib.import_module({name!r})" for name in names)
    code = (
        f"import importlib, sys\n{lines}\nprint([name for name in {heavy} if name in sys.modules])"
    )
    assert python(code, tmp_path) == "[]"


def test_public_names_resolve() -> None:
    import unlearn_app

    assert all(getattr(unlearn_app, name) is not None for name in unlearn_app.__all__)
    with pytest.raises(AttributeError, match="no attribute"):
        unlearn_app.does_not_exist  # noqa: B018
