"""The errors users see; anything else that is raised is a bug."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

ShouldStop = Callable[[], bool]
"""Whether the work is to be stopped, asked between two pieces of it."""


class UnlearnError(Exception):
    """A request that cannot be served; the message is one sentence naming the value and what is
    accepted.
    """


class ConfigError(UnlearnError):
    """A setting or typed text outside of what is accepted; `field` names the input it belongs
    to.
    """

    def __init__(self, message: str, field: str = "") -> None:
        super().__init__(message)
        self.field = field


class ModelError(UnlearnError):
    """A model folder, hub id or weight file that is missing, damaged or of a kind we refuse."""


class OutputError(UnlearnError):
    """A folder or file that cannot be written."""


class NotFinite(UnlearnError, FloatingPointError):
    """Numbers that are not finite came out of a training or a model; `what` says which."""

    def __init__(self, what: str, advice: str) -> None:
        super().__init__(f"{what[0].upper()}{what[1:]}; {advice}.")
        self.what = what


class Diverged(ConfigError):
    """A training ended in numbers that are not finite; `field` is the setting to change."""


class Cancelled(UnlearnError):
    """The run was stopped on request; what was written so far is kept."""


def check_known(kind: str, name: str, known: Sequence[str], field: str | None = None) -> None:
    """Refuse a name that is not in `known`; `field` is the input it belongs to, `kind` by default.

    Raises:
        ConfigError: naming what is known.
    """
    if name not in known:
        raise ConfigError(
            f"The {kind} {name!r} is unknown; choose one of {', '.join(known)}.", field or kind
        )


def never() -> bool:
    """False: nobody asks to stop."""
    return False


def raise_if_stopped(should_stop: ShouldStop) -> None:
    """Leave the work when its user asked for it.

    Raises:
        Cancelled: they did.
    """
    if should_stop():
        raise Cancelled("It was stopped.")


@contextmanager
def diverging(field: str, accepted: str) -> Iterator[None]:
    """Say what is `accepted` instead where numbers that are not finite come out of a training.

    Raises:
        Diverged: they do.
    """
    try:
        yield
    except NotFinite as error:
        raise Diverged(
            f"The training diverged: {error.what}; {accepted} is accepted.", field
        ) from error


def lower(setting: str, value: float) -> tuple[str, str]:
    """The arguments of `diverging` for a training that `setting` makes too fast."""
    return setting, f"a lower {setting} than {value:g}"
