"""Where the shipped files are."""

from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
"""The top folder of the repository."""
ASSETS = ROOT / "assets"
POCKET = ASSETS / "pocket"
"""The bundled model with its judges and base rates."""
POCKET_FLOW = ASSETS / "pocket-flow"
"""The flow transformer of the same world."""
