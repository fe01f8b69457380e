"""Settings of runs that end in a second."""

from unlearn_app.experiments.cells import SMOKE

TINY = {name: value for name, value in SMOKE.items() if not name.startswith("resist.")} | {
    "unlearn.steps": 3
}
