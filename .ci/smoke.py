"""Load, generate, run and open the page with the installed versions; fails where one of them does.

Run from the root of the repository, with the Python whose packages are tried.
"""

import os
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from importlib.metadata import version
from pathlib import Path

SMALL = (
    "unlearn.steps=2",
    "unlearn.batch_size=2",
    "unlearn.train_pictures=4",
    "attack.steps=2",
    "attack.batch_size=2",
    "attack.pictures=2",
    "compare.forget=2",
    "compare.near=1",
    "compare.far=1",
    "compare.sampling_steps=2",
)
PACKAGES = ("torch", "diffusers", "transformers", "accelerate", "peft", "gradio", "numpy", "pillow")
PORT, PATIENCE = 7923, 120


def command(*words: str) -> None:
    """Run a command of the package."""
    subprocess.run([sys.executable, "-m", "unlearn_app", *words], check=True)


def page_opens() -> None:
    """Start the page and fetch it once."""
    environment = os.environ | {"GRADIO_SERVER_PORT": str(PORT), "GRADIO_SERVER_NAME": "127.0.0.1"}
    with subprocess.Popen([sys.executable, "app.py"], env=environment) as page:
        try:
            for _ in range(PATIENCE):
                try:
                    text = urllib.request.urlopen(f"http://127.0.0.1:{PORT}/").read().decode()
                    break
                except urllib.error.URLError:
                    assert page.poll() is None, "the page ended"
                    time.sleep(1)
            assert "Can it really forget?" in text
        finally:
            page.terminate()


def main() -> None:
    print(*(f"{name} {version(name)}" for name in PACKAGES), sep=", ", flush=True)
    with tempfile.TemporaryDirectory() as folder:
        run = Path(folder) / "run"
        command("generate", "--prompt", "a photo of a cat", "--out", f"{folder}/pictures")
        settings = [word for setting in SMALL for word in ("--set", setting)]
        command("run", "--concept", "cat", "--out", str(run), *settings)
        assert (run / "unlearn.safetensors").is_file()
    page_opens()


if __name__ == "__main__":
    main()
