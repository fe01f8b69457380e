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
import importlib.util


def refuse(sentence: str) -> None:
    """End with a sentence on what a user has to mend."""
    sys.stderr.write(f"error: {sentence}\n")
    sys.exit(2)


PORT = os.environ.get("GRADIO_SERVER_PORT", "7860")
if not PORT.isdecimal() or not 0 < int(PORT[:6]) < 2**16:  # Gradio reads it when it is imported
    refuse(f"The port GRADIO_SERVER_PORT is {PORT[:40]!r}; a number from 1 to 65535 is accepted.")

MCP = os.environ.get("GRADIO_MCP_SERVER", "").lower() == "true"  # Gradio reads it at launch
if MCP and importlib.util.find_spec("mcp") is None:
    refuse(
        "GRADIO_MCP_SERVER is true, but mcp is not installed;"
        f" {sys.executable} -m pip install 'mcp<2' brings it."
    )

from unlearn_app.common.private_folder import PrivateFolder
from unlearn_app.common.signals import on_signal

ending = contextlib.ExitStack()
if __name__ == "__main__":
    ending.enter_context(on_signal(lambda number: sys.exit(128 + number)))
scratch = PrivateFolder("unlearn-page-")
os.environ.setdefault("GRADIO_TEMP_DIR", str(scratch.path))

try:
    import spaces  # must come before torch where the platform lends GPUs
except ImportError:
    spaces = None

from unlearn_app.service.engine import Engine, InProcess
from unlearn_app.service.lent_gpu import OnLentGpu
from unlearn_app.web import build_demo, launch_kwargs

MODEL = os.environ.get("UNLEARN_MODEL", "pocket")
HOST = "0.0.0.0" if os.environ.get("SPACE_ID") else "127.0.0.1"

runner = InProcess(MODEL)
engine = Engine(OnLentGpu(runner, spaces.GPU) if spaces else runner)
demo = build_demo(engine, model=MODEL).queue(max_size=64)

if __name__ == "__main__":
    host = os.environ.get("GRADIO_SERVER_NAME", HOST)
    place = {"server_name": host, "server_port": int(PORT)}
    try:
        try:
            demo.launch(prevent_thread_lock=True, **place, **launch_kwargs())
        except OSError:
            refuse(
                f"The port {PORT} of {host} is taken or not to be had; another one is accepted as"
                " GRADIO_SERVER_PORT."
            )
        engine.start()  # after the page is up, which must not wait for the model
        demo.block_thread()
    finally:
        engine.shutdown()
