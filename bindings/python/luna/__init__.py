"""Luna: one frozen copy of each model, served to many callers.

    import luna
    with luna.open() as session, session.vae() as vae:
        latent = vae.encode(picture)           # any array: NumPy, torch, memoryview
        image = vae.decode(latent).numpy()

Arrays go in and out without copies where they are aligned, row-major float32; `vae.last_report` tells what each call
did. Errors are subclasses of `luna.LunaError`, one for each kind.
"""

from __future__ import annotations

from typing import Any

from .arrays import Tensor
from .calls import Call
from .errors import (
    Busy, Cancelled, DeviceError, Internal, InvalidFile, InvalidHandle, InvalidInput, Io, LibraryMismatch,
    LimitExceeded, LunaError, NonFinite, NotFound, OutOfMemory, Unsupported,
)
from .library import library as _library
from .models import Clip, Conditioning, Model, Report, Token, Vae
from .session import Component, Resident, SavedPicture, SaveJob, Session, inspect, read_picture

__all__ = [
    "Busy", "Call", "Cancelled", "Clip", "Component", "Conditioning", "DeviceError", "Internal", "InvalidFile",
    "InvalidHandle", "InvalidInput", "Io", "LibraryMismatch", "LimitExceeded", "LunaError", "Model", "NonFinite",
    "NotFound", "OutOfMemory", "Report", "Resident", "SaveJob", "SavedPicture", "Session", "Tensor", "Token",
    "Unsupported", "Vae", "inspect", "library_version", "open", "read_picture",
]


def open(**options: Any) -> Session:
    """Opens a session in this process; the options are those of `Session`."""
    return Session(**options)


def library_version() -> str:
    """The version of the library, such as `0.1.0`."""
    version: bytes = _library().luna_version()
    return version.decode()
