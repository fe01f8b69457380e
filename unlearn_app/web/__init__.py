"""The page: Gradio components around the engine; the only package that imports gradio."""

from .build import build_demo, launch_kwargs

__all__ = ["build_demo", "launch_kwargs"]
