"""Install the lowest and the highest versions that requirements.txt allows, each set into a folder
of its own, and run smoke.py with them.
"""

import os
import re
import subprocess
import sys
import tempfile
import venv
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent


def lowest(requirements: str) -> str:
    """The requirements with every lower bound as the one version."""
    return "\n".join(re.findall(r"^[\w-]+>=[\d.]+", requirements, re.M)).replace(">=", "==")


def check(name: str, requirements: str) -> None:
    """Install the requirements into a new environment and run smoke.py there."""
    print(f"== {name} allowed versions", flush=True)
    with tempfile.TemporaryDirectory() as folder:
        venv.create(folder, with_pip=True)
        python, wanted = f"{folder}/bin/python", Path(folder) / "requirements.txt"
        wanted.write_text(requirements)
        # A cap that this machine sets on its own installs is none of the requirements.
        environment = os.environ | {"PIP_CONSTRAINT": os.devnull}
        install = [python, "-m", "pip", "install", "--quiet", "--no-cache-dir", "-r", str(wanted)]
        subprocess.run(install, check=True, env=environment)
        subprocess.run([python, str(HERE / "smoke.py")], check=True, cwd=ROOT)


def main() -> None:
    text = (ROOT / "requirements.txt").read_text()
    check("lowest", lowest(text))
    check("highest", text)


if __name__ == "__main__":
    sys.exit(main())
