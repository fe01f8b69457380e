"""The errors users see; anything else that is raised is a bug."""

import re
import reprlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from traceback import clear_frames

ShouldStop = Callable[[], bool]
"""Returns whether the work is to stop; called between steps."""


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


class HubError(UnlearnError):
    """The Hugging Face Hub cannot be reached, or does not do what it is asked for."""


class NotFinite(UnlearnError, FloatingPointError):
    """Numbers that are not finite came out of a training or a model; `what` says which."""

    def __init__(self, what: str, advice: str) -> None:
        super().__init__(f"{what[0].upper()}{what[1:]}; {advice}.")
        self.what, self._advice = what, advice

    def __reduce__(self) -> tuple[type, tuple[str, str]]:
        return type(self), (self.what, self._advice)  # processes hand errors on pickled


class Diverged(ConfigError):
    """A training ended in numbers that are not finite; `field` is the setting to change."""


class OutOfMemory(UnlearnError):
    """Memory ran out; the message says what needed it and which settings to lower."""


class Cancelled(UnlearnError):
    """The run was stopped on request; what was written so far is kept."""


def check_known(kind: str, name: str, known: Sequence[str], field: str | None = None) -> None:
    """Refuse a name that is not in `known`; `field` is the input it belongs to, `kind` by default.

    Raises:
        ConfigError: naming what is known.
    """
    if name not in known:
        raise ConfigError(
            f"The {kind} {reprlib.repr(name)} is unknown; choose one of {', '.join(known)}.",
            field or kind,
        )


def never() -> bool:
    """The default of `should_stop`: always False."""
    return False


def raise_if_stopped(should_stop: ShouldStop) -> None:
    """End the work if a stop was requested.

    Raises:
        Cancelled: it was.
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
    """The arguments of `diverging` where a lower `setting` than `value` helps."""
    return setting, f"a lower {setting} than {value:g}"


OUT_OF_MEMORY = re.compile("out of memory|not enough memory|can't allocate memory|ALLOC_FAILED")
"""What libraries say of it in errors that have no class of their own."""
ASKED = re.compile(r"(?:tried to|unable to) allocate ([\d.]+) ?(\w+)", re.IGNORECASE)


@contextmanager
def enough_memory(what: str, settings: str) -> Iterator[None]:
    """Say `what` needed how much memory, and which `settings` to lower, where there is not enough
    of it on any device.

    Raises:
        OutOfMemory: there is not.
    """
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        if not isinstance(error, MemoryError) and not OUT_OF_MEMORY.search(str(error)):
            raise
        clear_frames(error.__traceback__)  # they hold what memory there is
        asked = ASKED.search(str(error))
        much = f" ({_in_words(*asked.groups())} more)" if asked else ""
        raise OutOfMemory(
            f"{what} needs more memory than there is{much}; lower {settings}."
        ) from error


def _in_words(number: str, unit: str) -> str:
    return f"{float(number) / 1e9:.1f} GB" if unit == "bytes" else f"{number} {unit}"
