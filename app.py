"""Start the page: `python app.py`, then http://127.0.0.1:7860."""

import os
import sys

os.environ.setdefault("GOMP_SPINCOUNT", "2000")
os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")
os.environ.setdefault("GRADIO_ANALYTICS_MAX_EVENTS", "100")  # it sums all up after every call
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

import contextlib

from unlearn_app.common.private_folder import PrivateFolder
from unlearn_app.common.signals import on_signal

ending = contextlib.ExitStack()
if __name__ == "__main__":
    ending.enter_context(on_signal(lambda number: sys.exit(128 + number)))
scratch = PrivateFolder("unlearn-page-")
os.environ.setdefault("GRADIO_TEMP_DIR", str(scratch.path))

with contextlib.suppress(ImportError):
    import spaces  # noqa: F401  must come before torch where the platform lends GPUs

from unlearn_app.service.engine import Engine, InProcess
from unlearn_app.web import build_demo, launch_kwargs

MODEL = os.environ.get("UNLEARN_MODEL", "pocket")
HOST = "0.0.0.0" if os.environ.get("SPACE_ID") else "127.0.0.1"

engine = Engine(InProcess(MODEL))
demo = build_demo(engine, model=MODEL).queue(max_size=64)

if __name__ == "__main__":
    address = (
        os.environ.get("GRADIO_SERVER_NAME", HOST),
        int(os.environ.get("GRADIO_SERVER_PORT", "7860")),
    )
    try:
        demo.launch(
            prevent_thread_lock=True,
            server_name=address[0],
            server_port=address[1],
            **launch_kwargs(),
        )
        engine.start()  # after the page is up, which must not wait for the model
        demo.block_thread()
    finally:
        engine.shutdown()
