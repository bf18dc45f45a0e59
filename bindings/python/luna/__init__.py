"""Luna: one frozen copy of each model, served to many callers.

    import luna
    with luna.open() as session, session.vae() as vae:
        latent = vae.encode(picture)           # any array: NumPy, torch, memoryview
        image = vae.decode(latent).numpy()

Arrays go in and out without copies where they are aligned, row-major float32; `vae.last_report` tells what each call
did. Errors are subclasses of `luna.LunaError`, one for each kind.
"""

from __future__ import annotations

from typing import Any, Optional

from .answers import Generated, Vlm
from .arrays import Tensor
from .calls import Call
from .embedded_session import EmbeddedSession, inspect, noise_levels, read_picture
from .errors import (
    Busy, Cancelled, DeviceError, Internal, InvalidFile, InvalidHandle, InvalidInput, Io, LibraryMismatch,
    LimitExceeded, LunaError, NonFinite, NotFound, OutOfMemory, TimedOut, Unsupported,
)
from .library import library as _library
from .models import Features, Model, Vae, Vision
from .process import Daemon, start_daemon
from .recipe import Lora, LoraAdapter, LoraFile, Report, StepCache
from .remote_session import RemoteSession
from .session import Component, Preprocessing, Resident, SavedPicture, SaveJob, Session
from .texts import Clip, Conditioning, LoraTag, Prompt, Token

__all__ = [
    "Busy", "Call", "Cancelled", "Clip", "Component", "Conditioning", "Daemon", "DeviceError", "EmbeddedSession",
    "Features", "Generated", "Internal", "InvalidFile", "InvalidHandle", "InvalidInput", "Io", "LibraryMismatch",
    "LimitExceeded", "Lora", "LoraAdapter", "LoraFile", "LoraTag", "LunaError", "Model", "NonFinite", "NotFound",
    "OutOfMemory", "Preprocessing", "Prompt", "RemoteSession", "Report", "Resident", "SaveJob", "SavedPicture", "Session",
    "StepCache", "Tensor", "TimedOut", "Token", "Unsupported", "Vae", "Vision", "Vlm", "auto", "connect", "inspect",
    "library_version", "noise_levels", "open", "read_picture", "start_daemon",
]


def open(**options: Any) -> EmbeddedSession:
    """Opens a session in this process; the options are those of `EmbeddedSession`."""
    return EmbeddedSession(**options)


def connect(
    address: Optional[str] = None, *, name: Optional[str] = None, token: Optional[str] = None, timeout: float = 10.0
) -> RemoteSession:
    """Connects to a daemon, at `127.0.0.1:19283` if no address is given. Needs no library. Connections of one `name`
    count as one client; `timeout` is for connecting, in seconds.

    Raises Io if nobody answers there."""
    return RemoteSession(address, name, token, timeout)


def auto(address: Optional[str] = None, *, token: Optional[str] = None, **options: Any) -> Session:
    """A daemon's session if one can be reached, else one in this process with these options; `session.remote` says
    which, and `session.where` in words."""
    try:
        return connect(address, token=token, timeout=1.0)
    except Io:
        return open(**options)


def library_version() -> str:
    """The version of the library, such as `0.1.0`."""
    version: bytes = _library().luna_version()
    return version.decode()
