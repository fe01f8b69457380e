"""Settings of runs and attacks that end in a second."""

from unlearn_app.experiments.cells import SMOKE

TINY = {name: value for name, value in SMOKE.items() if not name.startswith("resist.")} | {
    "unlearn.steps": 3
}
QUICKEST = {
    "ring_a_bell": {"tries": 1, "population": 4, "generations": 1},
    "inversion": {"tries": 1, "steps": 1},
    "prompts": {"tries": 1},
    "noise": {"tries": 1},
}
"""The least of every attack that "quick" stands for, by its name."""
