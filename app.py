"""Start the page: `python app.py`, then http://127.0.0.1:7860."""

import os
import tempfile

os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ.setdefault("GRADIO_TEMP_DIR", tempfile.mkdtemp(prefix="unlearn-page-"))

import atexit
import contextlib

with contextlib.suppress(ImportError):
    import spaces  # noqa: F401  must come before torch where the platform lends GPUs

from unlearn_app.engine import Engine, InProcess
from unlearn_app.ui import build_demo, launch_kwargs

MODEL = os.environ.get("UNLEARN_MODEL", "pocket")

engine = Engine(InProcess(MODEL))
demo = build_demo(engine, model=MODEL)
demo.queue(max_size=64)

if __name__ == "__main__":
    atexit.register(engine.shutdown)
    engine.start()
    default = "0.0.0.0" if os.environ.get("SPACE_ID") else "127.0.0.1"
    demo.launch(
        server_name=os.environ.get("GRADIO_SERVER_NAME", default),
        server_port=int(os.environ.get("GRADIO_SERVER_PORT", "7860")),
        **launch_kwargs(),
    )
