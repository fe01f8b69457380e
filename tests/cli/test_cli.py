"""The command line: what it writes, and how it refuses."""

import errno
import json
import os
import pty
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from unlearn_app.cli import main as cli
from unlearn_app.cli.console import Lasting

ROOT = Path(__file__).resolve().parents[2]
TINY = {
    "unlearn.steps": 2,
    "unlearn.batch_size": 2,
    "unlearn.train_pictures": 4,
    "unlearn.rank": 2,
    "attack.steps": 2,
    "attack.batch_size": 2,
    "attack.pictures": 2,
    "attack.rank": 2,
    "compare.forget": 1,
    "compare.near": 1,
    "compare.far": 1,
    "compare.sampling_steps": 2,
}


def tiny_settings(**changes: int) -> list[str]:
    return [
        word for name, value in (TINY | changes).items() for word in ("--set", f"{name}={value}")
    ]


def spawn(*words: str, cwd: Path) -> subprocess.Popen:
    return subprocess.Popen(
        [sys.executable, "-m", "unlearn_app", *words],
        cwd=cwd,
        env=os.environ | {"PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def call(
    capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch, *words: str
) -> tuple[int, str, str]:
    """Exit code, standard output and standard error of a command, in this process."""
    monkeypatch.setattr(sys, "argv", ["unlearn_app", *words])
    with pytest.raises(SystemExit) as leaving:
        cli.main()
    captured = capsys.readouterr()
    return leaving.value.code, captured.out, captured.err


@pytest.fixture
def command(capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    """A function that runs a command inside of an empty folder."""
    monkeypatch.chdir(tmp_path)
    return lambda *words: call(capsys, monkeypatch, *words)


def refused(result: tuple[int, str, str], *expected: str) -> None:
    code, out, err = result
    assert code == 2, err
    assert "Traceback" not in err
    assert out == ""
    last = err.strip().splitlines()[-1]
    assert last.startswith("error: "), err
    assert last[7:].strip(), err
    assert all(text in last for text in expected), last


@pytest.fixture(scope="module")
def tiny_run(tiny_pipeline: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder that a whole run on a random Stable Diffusion 1.x folder wrote, from a process of
    its own.
    """
    folder = tmp_path_factory.mktemp("cli")
    words = [
        "--concept",
        "cat",
        "--model",
        str(tiny_pipeline),
        "--seed",
        "3",
        "--out",
        "first",
        *tiny_settings(),
        "--set",
        "unlearn.lr=0.01",
    ]
    process = spawn("run", *words, cwd=folder)
    out, err = process.communicate(timeout=300)
    assert process.returncode == 0, err
    assert "Traceback" not in err
    (folder / "out.txt").write_text(out, encoding="utf-8")
    return folder / "first"


def test_a_run_writes_its_folder(tiny_run: Path) -> None:
    record = json.loads((tiny_run / "run.json").read_text(encoding="utf-8"))
    assert {"schema", "config", "command", "environment", "timing", "scores", "verdict"} <= set(
        record
    )
    assert {"load_s", "unlearn_s", "attack_s", "compare_s", "total_s"} <= set(record["timing"])
    assert set(record["scores"]) == {"original", "unlearned", "relearned"}
    for groups in record["scores"].values():
        assert set(groups) == {"forget", "near", "far"}
        assert all(
            {"accuracy", "alignment", "n"} <= set(score) and score["n"] == 1
            for score in groups.values()
        )
    assert {"label", "reasons"} <= set(record["verdict"])
    assert record["status"] == "complete"
    assert record["config"]["seed"] == 3
    assert record["config"]["unlearn"]["steps"] == 2
    for name in ("steps.jsonl", "unlearn.safetensors", "relearn.safetensors", "comparison.png"):
        assert (tiny_run / name).stat().st_size > 0
    assert len((tiny_run / "steps.jsonl").read_text(encoding="utf-8").splitlines()) == 4
    assert len(list((tiny_run / "images").glob("original-*.png"))) == 3


def test_a_run_prints_scores_and_verdict(tiny_run: Path) -> None:
    out = (tiny_run.parent / "out.txt").read_text(encoding="utf-8")
    for text in ("original", "unlearned", "relearned", "no judge", "Verdict:", "Written to first"):
        assert text in out


def test_nothing_is_left_beside_the_run(tiny_run: Path) -> None:
    assert sorted(path.name for path in tiny_run.parent.iterdir()) == ["first", "out.txt"]


@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)]
)
def test_interrupt_keeps_what_was_reached(
    tiny_pipeline: Path, tmp_path: Path, number: int, code: int
) -> None:
    words = ["--concept", "cat", "--model", str(tiny_pipeline), "--out", "stopped"]
    process = spawn("run", *words, *tiny_settings(**{"unlearn.steps": 5000}), cwd=tmp_path)
    for line in process.stderr:
        if line.startswith("Forgetting"):
            break
    time.sleep(1)
    process.send_signal(number)
    _, err = process.communicate(timeout=60)
    assert process.returncode == code, err
    assert "Traceback" not in err
    assert "Stopped" in err
    record = json.loads((tmp_path / "stopped" / "run.json").read_text(encoding="utf-8"))
    assert record["status"] == "stopped"
    assert (tmp_path / "stopped" / "unlearn.safetensors").exists()


def test_a_closed_terminal_keeps_what_was_reached(tiny_pipeline: Path, tmp_path: Path) -> None:
    """The terminal is gone when progress is shown next, which must not end the run either."""
    words = ["run", "--concept", "cat", "--model", str(tiny_pipeline), "--out", "stopped"]
    command = [sys.executable, "-m", "unlearn_app", *words]
    command += tiny_settings(**{"unlearn.steps": 5000})
    process, terminal = pty.fork()
    if not process:
        os.chdir(tmp_path)
        os.execve(command[0], command, os.environ | {"PYTHONPATH": str(ROOT)})
    shown = b""
    while b"Forgetting" not in shown:
        shown += os.read(terminal, 1024)
    time.sleep(1)
    os.close(terminal)
    _, status = os.waitpid(process, 0)
    assert os.waitstatus_to_exitcode(status) == 129
    record = json.loads((tmp_path / "stopped" / "run.json").read_text(encoding="utf-8"))
    assert record["status"] == "stopped"


BAD_TEXT = {
    "empty": "",
    "blank": "  ",
    "long": "a" * 10_000,
    "control": "ca\x07t",
    "emoji": "🐱",
    "unknown": "carrot",
}


@pytest.mark.parametrize("text", BAD_TEXT.values(), ids=BAD_TEXT.keys())
def test_bad_concepts_are_refused(command, tmp_path: Path, text: str) -> None:
    refused(command("run", "--concept", text, "--out", "x"))
    assert list(tmp_path.iterdir()) == []


def test_an_unknown_concept_gets_the_nearest_known(command) -> None:
    refused(command("run", "--concept", "catt", "--out", "x"), "catt", "cat")


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["--anchor", "kitty"], "anchor"),
        (["--anchor", "CAT"], "anchor"),
        (["--anchor", "carrot"], "carrot"),
        (["--seed", "two"], "seed"),
        (["--seed", "-1"], "seed"),
        (["--seed", "1.5"], "seed"),
        (["--objective", "magic"], "esd"),
        (["--rule", "magic"], "restricted"),
        (["--preset", "slow"], "full"),
        (["--set", "unlearn.steps=many"], "unlearn.steps"),
        (["--set", "unlearn.steps=0"], "unlearn.steps"),
        (["--set", "unlearn.steps=999999"], "unlearn.steps"),
        (["--set", "unlearn.lr=nan"], "unlearn.lr"),
        (["--set", "unlearn.lr=inf"], "unlearn.lr"),
        (["--set", "unlearn.colour=3"], "unlearn.colour"),
        (["--set", "concept=dog"], "concept"),
        (["--set", "seed=1"], "seed"),
        (["--set", "unlearn.steps"], "NAME=VALUE"),
        (["--nonsense"], "--nonsense"),
        (["extra"], "extra"),
    ],
    ids=lambda value: "_".join(value) if isinstance(value, list) else "",
)
def test_bad_settings_are_refused(command, tmp_path: Path, words: list[str], expected: str) -> None:
    refused(command("run", "--concept", "cat", "--out", "x", *words), expected)
    assert list(tmp_path.iterdir()) == []


def test_missing_options_are_named(command) -> None:
    refused(command("run", "--concept", "cat"), "--out")
    refused(command("run", "--out", "x"), "--concept")
    refused(command("fly"), "fly")


@pytest.mark.parametrize(
    "name", ["file", "full", "file/below", "/proc/below", ".", "", "/", "..", "a" * 300]
)
def test_bad_outputs_are_refused(command, tmp_path: Path, name: str) -> None:
    (tmp_path / "file").write_text("mine")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "kept").write_text("mine")
    for words in (["run", "--concept", "cat"], ["generate", "--prompt", "a cat"]):
        refused(command(*words, "--out", name), name)
    refused(command("continual", "--concepts", "cat", "--out", name), name)
    refused(command("compare", str(tmp_path), str(tmp_path), "--out", name), name)
    assert sorted(p.name for p in tmp_path.rglob("*")) == ["file", "full", "kept"]


@pytest.mark.parametrize("minutes", ["inf", "nan", "0", "-1", "1e9"])
def test_training_takes_a_number_of_minutes(command, tmp_path: Path, minutes: str) -> None:
    refused(command("pocket", "arms", "--work", str(tmp_path), "--minutes", minutes), minutes)


@pytest.mark.parametrize("words", [["bench", "judge", "--out"], ["pocket", "render", "--work"]])
def test_a_folder_without_a_name_is_not_the_current_one(
    command, tmp_path: Path, words: list[str]
) -> None:
    refused(command(*words, ""), "no name")
    assert not list(tmp_path.iterdir())


def damaged(kind: str, model: Path) -> None:
    weights = model / "unet" / "diffusion_pytorch_model.safetensors"
    if kind == "truncated":
        weights.write_bytes(weights.read_bytes()[:1000])
    elif kind == "pickle":
        weights.rename(weights.with_name("diffusion_pytorch_model.bin"))
    elif kind == "weightless":
        weights.unlink()
    elif kind == "part missing":
        shutil.rmtree(model / "vae")
    elif kind == "index":
        (model / "model_index.json").write_text("{")
    elif kind == "no index":
        (model / "model_index.json").unlink()
    elif kind == "missing":
        shutil.rmtree(model)


@pytest.mark.parametrize(
    "kind", ["truncated", "pickle", "weightless", "part missing", "index", "no index", "missing"]
)
def test_bad_models_are_refused(command, tiny_pipeline: Path, tmp_path: Path, kind: str) -> None:
    model = tmp_path / "model"
    shutil.copytree(tiny_pipeline, model)
    damaged(kind, model)
    before = sorted(tmp_path.rglob("*"))
    refused(command("run", "--concept", "cat", "--model", str(model), "--out", "x"))
    refused(command("generate", "--prompt", "a cat", "--model", str(model), "--out", "x"))
    assert sorted(tmp_path.rglob("*")) == before


def test_generate_works_with_and_without_an_adapter(
    command, tiny_pipeline: Path, tiny_run: Path
) -> None:
    words = ["--prompt", "a cat", "--prompt", "a dog", "--seed", "5", "--model", str(tiny_pipeline)]
    code, out, err = command("generate", *words, "--out", "plain")
    assert code == 0, err
    assert out.split() == ["plain/00.png", "plain/01.png"]
    code, _, err = command("generate", *words, "--out", "again")
    adapter = str(tiny_run / "unlearn.safetensors")
    changed, _, err = command("generate", *words, "--adapter", adapter, "--out", "changed")
    assert code == changed == 0, err
    plain, again, other = (
        Path(folder, "00.png").read_bytes() for folder in ("plain", "again", "changed")
    )
    assert plain == again
    assert plain != other


@pytest.mark.parametrize(
    ("model", "steps", "guidance"), [("pocket", 8, 2.0), ("pocket-flow", 12, 3.0), (None, 50, 7.5)]
)
def test_generate_samples_as_runs_do_unless_it_is_told_otherwise(
    command,
    tiny_pipeline: Path,
    monkeypatch: pytest.MonkeyPatch,
    model: str | None,
    steps: int,
    guidance: float,
) -> None:
    from unlearn_app.cli import generate

    asked = []
    monkeypatch.setattr(generate, "_write", lambda *told: asked.append(told[-1]) or Path("x"))
    words = ["generate", "--prompt", "a cat", "--model", model or str(tiny_pipeline), "--out", "x"]
    assert command(*words)[0] == command(*words, "--steps", "3", "--guidance", "1.5")[0] == 0
    how = [(told["sampling_steps"], told["guidance_scale"]) for told in asked]
    assert how == [(steps, guidance), (3, 1.5)]


@pytest.mark.parametrize(
    "content",
    [None, b"", b"\x80\x04pickle", b"\xff" * 64],
    ids=["missing", "empty", "pickle", "noise"],
)
def test_bad_adapters_are_refused(
    command, tiny_pipeline: Path, tmp_path: Path, content: bytes | None
) -> None:
    adapter = tmp_path / "adapter.safetensors"
    if content is not None:
        adapter.write_bytes(content)
    words = ["generate", "--prompt", "a cat", "--model", str(tiny_pipeline), "--out", "x"]
    refused(command(*words, "--adapter", str(adapter)), "adapter")
    assert not Path("x").exists()


def test_the_adversarys_adapter_alone_is_refused(
    command, tiny_pipeline: Path, tiny_run: Path
) -> None:
    words = ["generate", "--prompt", "a cat", "--model", str(tiny_pipeline), "--out", "x"]
    refused(
        command(*words, "--adapter", str(tiny_run / "relearn.safetensors")),
        "with the unlearn adapter",
    )
    assert not Path("x").exists()


@pytest.mark.parametrize(
    "words", [["--prompt", ""], ["--prompt", "a" * 10_000], ["--prompt", "cat", "--seed", "x"]]
)
def test_bad_prompts_are_refused(command, tmp_path: Path, words: list[str]) -> None:
    refused(command("generate", *words, "--out", "x"))
    assert list(tmp_path.iterdir()) == []


def test_generate_takes_the_options_of_a_picture(
    command, tiny_pipeline: Path, tiny_run: Path, tmp_path: Path
) -> None:
    weighted = tmp_path / "a:0.5.safetensors"
    weighted.write_bytes((tiny_run / "unlearn.kohya.safetensors").read_bytes())
    words = ["--prompt", "a cat", "--prompt", "a dog", "--model", str(tiny_pipeline)]
    words += ["--seeds", "1,7", "--seeds", "3-4, 1", "--size", "48x32", "--steps", "2"]
    words += ["--guidance", "3.5", "--negative", "a blue house"]
    code, out, err = command("generate", *words, "--out", "plain")
    assert code == 0, err
    seeds = [1, 7, 3, 4]
    assert out.split() == [f"plain/{row:02d}-{seed}.png" for row in (0, 1) for seed in seeds]
    with Image.open("plain/01-3.png") as picture:
        assert picture.size == (48, 32)
    adapters = ["--adapter", str(tiny_run / "unlearn.safetensors"), "--adapter", str(weighted)]
    assert command("generate", *words, *adapters, "--out", "twice")[0] == 0
    double = ["--adapter", f"{weighted}:2"]
    assert command("generate", *words, *double, "--out", "double")[0] == 0
    back = [*double, "--adapter", f"{weighted}:-2"]
    assert command("generate", *words, *back, "--out", "back")[0] == 0
    shown = {
        folder: np.asarray(Image.open(f"{folder}/00-1.png"), int)
        for folder in ("plain", "twice", "double", "back")
    }
    assert abs(shown["twice"] - shown["double"]).max() <= 1
    assert abs(shown["back"] - shown["plain"]).max() <= 1
    assert abs(shown["twice"] - shown["plain"]).max() > 1


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["--steps", "0"], "steps"),
        (["--steps", "many"], "steps"),
        (["--guidance", "nan"], "guidance"),
        (["--guidance", "31"], "guidance"),
        (["--size", "65"], "65x65"),
        (["--size", "64x"], "64x"),
        (["--size", "64x64x64"], "WIDTHxHEIGHT"),
        (["--size", "-64"], "-64"),
        (["--size", "99999999x8"], "99999999x8"),
        (["--negative", "a\x07"], "negative"),
        (["--seeds", "1,,2"], "seeds"),
        (["--seeds", "5-2"], "from 5"),
        (["--seeds", "0-2000000000"], "too many"),
        (["--seeds", "1", "--seed", "2"], "--seed and --seeds"),
        (["--adapter", "x.safetensors:99"], "weight of an adapter"),
        (["--adapter", "x.safetensors:nan"], "weight of an adapter"),
        (["--adapter", "x:y.safetensors"], "x:y.safetensors"),
    ],
)
def test_bad_options_of_a_picture_are_refused(
    command, tmp_path: Path, words: list[str], expected: str
) -> None:
    refused(command("generate", "--prompt", "a cat", "--out", "x", *words), expected)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("form", ["diffusers", "kohya", "dense"])
def test_a_run_is_exported_in_every_format(
    command, tiny_pipeline: Path, tiny_run: Path, form: str
) -> None:
    code, out, err = command("export", str(tiny_run), f"{form}.safetensors", "--format", form)
    assert (code, out) == (0, f"{form}.safetensors\n"), err
    content = Path(f"{form}.safetensors").read_bytes()
    own = {"diffusers": "unlearn.safetensors", "kohya": "unlearn.kohya.safetensors"}
    if form in own:
        assert content == (tiny_run / own[form]).read_bytes()
    for path in (tiny_pipeline, tiny_run, ROOT):
        assert str(path).encode() not in content
    words = ["--prompt", "a cat", "--model", str(tiny_pipeline), "--adapter"]
    files = str(tiny_run / "unlearn.safetensors"), f"{form}.safetensors"
    for number, file in enumerate(files):
        assert command("generate", *words, file, "--out", str(number))[0] == 0
    one, other = (np.asarray(Image.open(f"{number}/00.png"), int) for number in (0, 1))
    assert abs(one - other).max() <= 1


def test_a_run_is_exported_as_a_pipeline(command, tiny_pipeline: Path, tiny_run: Path) -> None:
    code, out, err = command("export", str(tiny_run), "--pipeline", "fused")
    assert (code, out) == (0, "fused\n"), err
    words = ["generate", "--prompt", "a cat", "--size", "64", "--out"]
    adapter = ["--model", str(tiny_pipeline), "--adapter", str(tiny_run / "unlearn.safetensors")]
    assert command(*words, "with", *adapter)[0] == 0
    assert command(*words, "merged", "--model", "fused")[0] == 0
    one, other = (np.asarray(Image.open(f"{name}/00.png"), int) for name in ("with", "merged"))
    assert abs(one - other).max() <= 1


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ([], "--pipeline"),
        (["x.ckpt"], "x.ckpt"),
        (["mine.safetensors"], "exists already"),
        (["x.safetensors", "--format", "onnx"], "diffusers, kohya, dense"),
        (["--pipeline", "mine"], "exists already"),
        (["x.safetensors", "--pipeline", "mine"], "exists already"),
    ],
)
def test_bad_exports_are_refused(
    command, tiny_run: Path, tmp_path: Path, words: list[str], expected: str
) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine.safetensors").write_text("mine")
    refused(command("export", str(tiny_run), *words), expected)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["mine", "mine.safetensors"]
    assert (tmp_path / "mine.safetensors").read_text() == "mine"


def test_what_is_no_run_is_not_exported(command, tiny_run: Path, tmp_path: Path) -> None:
    refused(command("export", "nowhere", "x.safetensors"), "nowhere")
    shutil.copytree(tiny_run, "changed")
    Path("changed/unlearn.safetensors").write_bytes(b"another")
    refused(command("export", "changed", "x.safetensors"), "unlearn.safetensors")
    shutil.copytree(tiny_run, "moved")
    record = json.loads(Path("moved/run.json").read_text())
    record["environment"]["base_sha256"] = "0" * 64
    Path("moved/run.json").write_text(json.dumps(record))
    refused(command("export", "moved", "--pipeline", "fused"), "weights of the run")
    assert not Path("fused").exists()


def test_concepts_lists_names_and_synonyms(command) -> None:
    code, out, _ = command("concepts")
    assert code == 0
    for text in ("cat", "kitty", "van gogh", "never shown in training"):
        assert text in out


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["red cats", "--model", "some/model"], ["“red cat”", "to show cat", "made of stays: cat"]),
        (
            ["zorblax style", "--model", "some/model"],
            ["style “zorblax”", "in the style of zorblax"],
        ),
        (["zorblax", "--model", "some/model", "--concept-kind", "style"], ["style “zorblax”"]),
        (["cat", "--anchor", "car"], ["to show car instead", "→ ", "the adversary's pictures"]),
    ],
)
def test_concepts_previews_what_a_run_would_use(command, words: list[str], said: list[str]) -> None:
    code, output, _ = command("concepts", *words)
    assert code == 0
    assert all(part in output for part in said)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["zorblax", "--model", "some/model"], "--concept-kind object or --concept-kind style"),
        (
            ["cat, dog and car"],
            "`python -m unlearn_app continual --concepts cat,dog,car --out DIR`",
        ),
        (["cat", "--concept-kind", "thing"], "one of auto, object, style is accepted"),
        (["cat", "--concept-kind", "style"], "of kind object in the bundled world"),
        (["cat in van gogh style"], "cat or van gogh is accepted"),
    ],
)
def test_concepts_that_no_run_takes_are_refused(command, words: list[str], said: str) -> None:
    code, _, error = command("concepts", *words)
    assert code == 2
    assert said in error


def test_doctor_names_every_check(command) -> None:
    code, out, _ = command("doctor")
    assert code in (0, 1)
    for text in (
        "python",
        "torch",
        "device",
        "bundled pipeline",
        "bundled judge",
        "store",
        "disk",
        "chromium",
    ):
        assert text in out


def test_help_lists_the_commands(command) -> None:
    code, out, _ = command("--help")
    assert code == 0
    assert all(name in out for name in ("run", "generate", "concepts", "doctor", "bench", "pocket"))


def test_unknown_benchmarks_are_refused(command) -> None:
    refused(command("bench", "nothing"), "main-job")
    refused(command("bench", "main-job", "--seeds", "0"), "seeds")
    refused(command("bench", "lab", "host:1"), "address 'host:1'")
    refused(command("bench", "assets", "--ray"), "--ray is not accepted with assets")


def test_pocket_commands_drive_the_recipe(
    command, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    from unlearn_app.cli import pocket
    from unlearn_app.common import bundled_hashes
    from unlearn_app.pocket import card
    from unlearn_app.pocket.training import recipe

    asked = []

    def fake(name: str):
        def steps(*arguments, **_):
            asked.append((name, *arguments))
            yield recipe.Progress(name, 1, 2, "loss 0.5")
            yield recipe.Progress(name, 2, 2)

        return steps

    (tmp_path / "pocket" / "judge").mkdir(parents=True)
    (tmp_path / "pocket" / "judge" / "judge.safetensors").write_bytes(b"weights")
    monkeypatch.setattr(bundled_hashes, "POCKET", tmp_path / "pocket")
    monkeypatch.setattr(recipe, "render", fake("render"))
    monkeypatch.setattr(recipe, "train", fake("train"))
    monkeypatch.setattr(recipe, "train_flow", fake("flow"))
    monkeypatch.setattr(card, "write_card", fake("card"))
    monkeypatch.setattr(card, "write_flow_card", fake("flow card"))
    flow = tmp_path / "flow"
    flow.mkdir()
    monkeypatch.setattr(pocket, "POCKET_FLOW", flow)
    assert command("pocket", "render", "--work", "w", "--workers", "3")[0] == 0
    assert command("pocket", "train", "--work", "w", "--part", "judge")[0] == 0
    assert not (tmp_path / "pocket" / "hashes.json").exists()
    assert (
        command("pocket", "train", "--work", "w")[0]
        == command("pocket", "card", "--work", "w")[0]
        == 0
    )
    assert command("pocket", "train", "--flow", "--work", "w")[0] == 0
    assert command("pocket", "card", "--flow", "--work", "w")[0] == 0
    assert (flow / "hashes.json").read_text() == "{}\n"
    for other in (["--part", "judge"], ["--from-assets"]):
        refused(command("pocket", "train", "--flow", *other), f"--flow and {other[0]}")
    work = Path("w")
    assert asked == [
        ("render", work, 3),
        ("train", work, ["judge"]),
        ("train", work, None),
        ("card", work),
        ("flow", work),
        ("flow card", work),
    ]
    assert list(json.loads((tmp_path / "pocket" / "hashes.json").read_text())) == [
        "judge/judge.safetensors"
    ]
    refused(command("pocket", "render", "--workers", "all"), "workers")


def test_doctor_sees_a_changed_model(
    command, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    from unlearn_app.cli import doctor
    from unlearn_app.common import bundled_hashes

    for module in (doctor, bundled_hashes):
        monkeypatch.setattr(module, "POCKET", tmp_path)
    for name in bundled_hashes.BUNDLED:
        (tmp_path / name).mkdir()
        (tmp_path / name / "model.safetensors").write_bytes(b"weights")
    bundled_hashes.record_hashes()
    assert all(mark == "ok" for mark, name, _ in doctor.checks() if name.startswith("bundled"))
    (tmp_path / "judge" / "model.safetensors").write_bytes(b"others")
    code, out, _ = command("doctor")
    assert code == 1
    assert "differ: judge/model.safetensors" in out


def test_doctor_tells_a_damaged_flow_transformer_from_none(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    from unlearn_app.cli import doctor

    flow = tmp_path / "pocket-flow"
    monkeypatch.setattr(doctor, "POCKET_FLOW", flow)

    def found() -> tuple[str, str]:
        ((mark, said),) = [(m, said) for m, name, said in doctor.checks() if name == flow.name]
        return mark, said

    assert found()[0] == doctor.OPTIONAL
    assert "absent" in found()[1]
    flow.mkdir()
    (flow / "hashes.json").write_text("{")
    assert found() == (doctor.MISSING, "no readable assets/pocket-flow/hashes.json")


def test_a_full_disk_is_a_sentence(command, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(model: str) -> None:
        raise OSError(errno.ENOSPC, "No space left on device", "images/a.png")

    monkeypatch.setattr("unlearn_app.concepts.catalog.known_concepts", full)
    refused(command("concepts"), "disk is full", "images/a.png")


def test_a_bug_keeps_its_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("unlearn_app.concepts.catalog.known_concepts", lambda model: 1 / 0)
    monkeypatch.setattr(sys, "argv", ["unlearn_app", "concepts"])
    with pytest.raises(ZeroDivisionError):
        cli.main()


def test_an_interrupt_is_a_sentence(command, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(model: str) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("unlearn_app.concepts.catalog.known_concepts", interrupted)
    assert command("concepts") == (130, "", "Stopped.\n")


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGHUP, 129)])
def test_a_signal_ends_any_command_as_an_interrupt_does(
    command, monkeypatch: pytest.MonkeyPatch, number: int, code: int
) -> None:
    monkeypatch.setattr(
        "unlearn_app.concepts.catalog.known_concepts", lambda model: os.kill(os.getpid(), number)
    )
    assert command("concepts") == (code, "", "Stopped.\n")


def test_progress_that_nobody_can_see_ends_no_work() -> None:
    read, write = os.pipe()
    os.close(read)
    with os.fdopen(write, "w", encoding="utf-8") as closed:
        stream = Lasting(closed)
        assert stream.write("one") == 3
        assert stream.write("two") == 3


def test_doctor_says_how_to_fetch_each_judge(command) -> None:
    _, out, _ = command("doctor")
    said = " ".join(out.replace("│", " ").split())
    for text in ("judge clip", "judge vqa", "hf download Salesforce/blip-vqa-base", "judge nudity"):
        assert text in said, said


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--judge", "claude"], "The judge 'claude' is unknown"),
        (["--judge", "clip="], "no path"),
        (["--judge", "clip", "--judge", "clip=x"], "named twice"),
    ],
)
def test_bad_judges_are_refused(command, tmp_path: Path, words: list[str], said: str) -> None:
    refused(command("run", "--concept", "cat", "--out", "x", *words), said)
    assert list(tmp_path.iterdir()) == []


def test_a_judge_that_is_asked_for_and_missing_ends_a_run_before_it_begins(
    command, tmp_path: Path, tiny_pipeline: Path
) -> None:
    words = ["--concept", "cat", "--model", str(tiny_pipeline), "--out", "x", *tiny_settings()]
    refused(command("run", *words, "--judge", "clip=nowhere"), "There is no judge in 'nowhere'")
    assert list(tmp_path.iterdir()) == []


def test_an_attack_without_a_judge_is_refused(command, tiny_run: Path) -> None:
    code, out, err = command("attack", str(tiny_run), "--kind", "noise")
    assert (code, out) == (2, "")
    assert "There is no judge for" in err
    assert "doctor" in err
    assert not (tiny_run / "attacks").exists()


def test_push_writes_what_it_would_upload(command, tiny_run: Path, tiny_pipeline: Path) -> None:
    code, out, err = command("push", str(tiny_run), "alice/run", "--dry-run", "published")
    assert code == 0, err
    folder = Path(out.strip())
    card = (folder / "README.md").read_text(encoding="utf-8")
    assert card.startswith("---\n")
    assert "nobody: nothing was scored" in card
    for path in folder.rglob("*"):
        if path.is_file():
            assert str(tiny_pipeline).encode() not in path.read_bytes(), path
    refused(command("push", str(tiny_run), "alice", "--dry-run", "other"), "OWNER/NAME is accepted")
    refused(command("push", str(tiny_run), "alice/run", "--dry-run", "published"), "exists already")
    refused(command("pull", "alice/run", "back"), "HF_HUB_OFFLINE")
    assert sorted(path.name for path in Path.cwd().iterdir()) == ["published"]
