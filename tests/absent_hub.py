"""A Hub that no network reaches."""

import time

import pytest
from huggingface_hub import constants


def unreachable(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let huggingface_hub go online, to where nobody listens, and fail where it waits to ask
    again.
    """
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setattr(
        constants, "HUGGINGFACE_CO_URL_TEMPLATE", "http://127.0.0.1:9/{repo_id}/{filename}"
    )
    monkeypatch.setattr(time, "sleep", _waited)


def _waited(seconds: float) -> None:
    pytest.fail(f"waits {seconds} s")
