"""Errors by kind. Enters: a status and words of the library or the daemon. Leaves: an exception to raise."""

from __future__ import annotations

from typing import Optional, Tuple


class LunaError(Exception):
    """What every error of Luna is: what is wrong, and what can be done."""

    kind = "internal"
    status = 12
    #: What a program can act on, of a daemon's errors: `busy`, `unknown_model`, `need_lora`, `draining`, …
    reason: Optional[str] = None
    #: Models or LoRAs that the daemon lacks.
    missing: Tuple[str, ...] = ()
    #: Seconds after which to try again.
    retry_after: Optional[float] = None

    def __init__(
        self,
        message: str,
        expected: Optional[str] = None,
        found: Optional[str] = None,
        remedy: Optional[str] = None,
    ) -> None:
        self.message = message
        self.expected = expected
        self.found = found
        self.remedy = remedy
        parts = [f"{word} {text}" for word, text in (("expected", expected), ("found", found)) if text]
        text = message + (": " + ", ".join(parts) if parts else "")
        super().__init__(text + (f"; {remedy}" if remedy else ""))


class InvalidInput(LunaError, ValueError):
    """An argument is wrong: shape, range, combination."""

    kind, status = "invalid_input", 1


class InvalidFile(LunaError):
    """A file is damaged or hostile."""

    kind, status = "invalid_file", 2


class Unsupported(LunaError):
    """The file is sound, but Luna has no use for it; or this library cannot do what was asked."""

    kind, status = "unsupported", 3


class NotFound(LunaError, LookupError):
    """No such file, model, LoRA, job or tensor."""

    kind, status = "not_found", 4


class Io(LunaError, OSError):
    """The system refused: permissions, disk full, connection lost."""

    kind, status = "io", 5


class LimitExceeded(LunaError):
    """Something from outside is larger than the limit that was set for it."""

    kind, status = "limit_exceeded", 6


class OutOfMemory(LunaError, MemoryError):
    """Memory did not suffice."""

    kind, status = "out_of_memory", 7


class Cancelled(LunaError):
    """The caller cancelled."""

    kind, status = "cancelled", 8


class Busy(LunaError):
    """Too much is waiting already; try again later."""

    kind, status = "busy", 9


class NonFinite(LunaError, ArithmeticError):
    """The input or the result holds NaN or infinity."""

    kind, status = "non_finite", 10


class DeviceError(LunaError):
    """The device is missing or failed."""

    kind, status = "device", 11


class Internal(LunaError):
    """A fault of Luna's own. Please report it."""

    kind, status = "internal", 12


class InvalidHandle(LunaError):
    """The object was closed."""

    kind, status = "invalid_handle", 100


class TimedOut(LunaError, TimeoutError):
    """The call was not done within its `timeout`."""

    kind, status = "deadline", 101


class LibraryMismatch(LunaError, ImportError):
    """The library is missing, or of another version than this package can use."""

    kind, status = "unsupported", 3


ALL = (
    InvalidInput, InvalidFile, Unsupported, NotFound, Io, LimitExceeded, OutOfMemory, Cancelled, Busy, NonFinite,
    DeviceError, Internal, InvalidHandle, TimedOut,
)
BY_STATUS = {error.status: error for error in ALL}
BY_KIND = {error.kind: error for error in ALL}
