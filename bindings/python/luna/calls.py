"""What a caller holds on to while calls run: cancellation, progress, deadlines. Enters: functions. Leaves: a handle for the
library's options, news for requests to a daemon, and what these functions raised."""

from __future__ import annotations

import asyncio
import ctypes
import math
import threading
import weakref
from typing import Any, Callable, List, Optional, TypeVar

from . import _abi, errors
from .library import check, library, record

Progress = Callable[[int, int], object]
T = TypeVar("T")


class Call:
    """Cancels calls from any thread, and hears their progress: `progress(done, total)`, called from any thread. Each call
    that is not done within `timeout` seconds of its start raises `TimedOut`.

    What `progress` raises cancels the call, which raises it in turn.
    """

    def __init__(self, progress: Optional[Progress] = None, timeout: Optional[float] = None) -> None:
        self._progress = progress
        self._milliseconds = _milliseconds(timeout)
        self._raised: Optional[BaseException] = None
        self._lock = threading.Lock()
        self._cancelled = False
        self._cancels: List[Callable[[], object]] = []
        self._library_handle: Any = None

    @property
    def _handle(self) -> Any:
        """The library's handle, made when a call of the library first needs it."""
        with self._lock:
            if self._library_handle is None:
                self._library_handle = self._open()
            handle = self._library_handle
            if self._cancelled:
                check(library().luna_call_cancel(handle))
            return handle

    def _open(self) -> Any:
        handle, options = _abi.luna_call(), record(_abi.luna_call_options, deadline_ms=self._milliseconds)
        if self._progress is not None:
            # A callback must not keep its own call alive.
            this = weakref.ref(self)

            def tell(done: int, total: int, _: Any) -> None:
                call = this()
                if call is not None:
                    call._hear(done, total)

            self._tell = _abi.luna_progress_function(tell)
            options.progress = self._tell
        check(library().luna_call_new(ctypes.byref(options), ctypes.byref(handle)))
        self._end = weakref.finalize(self, library().luna_call_free, handle)
        return handle

    def _hear(self, done: int, total: int) -> None:
        self._guard(self._progress, done, total)

    def _guard(self, function: Optional[Callable[..., object]], *arguments: Any) -> None:
        """Calls a function of the caller's; what it raises is kept for `check`, and cancels the call."""
        if function is None or self._raised is not None:
            return
        try:
            function(*arguments)
        except BaseException as error:  # noqa: B902 - it is raised where the call was made
            self._raised = error
            self.cancel()

    def _on_cancel(self, cancel: Callable[[], object]) -> None:
        """Calls this once the call is cancelled, which it may be already."""
        with self._lock:
            self._cancels.append(cancel)
            cancelled = self._cancelled
        if cancelled:
            cancel()

    def _done(self, cancel: Callable[[], object]) -> None:
        with self._lock:
            self._cancels.remove(cancel)

    def cancel(self) -> None:
        """Asks every call that has this to stop: they raise `Cancelled`."""
        with self._lock:
            self._cancelled = True
            handle, cancels = self._library_handle, list(self._cancels)
        if handle is not None:
            check(library().luna_call_cancel(handle))
        for cancel in cancels:
            cancel()

    def _raise(self) -> None:
        """Raises what a function of the caller's raised."""
        raised, self._raised = self._raised, None
        if raised is not None:
            raise raised

    def check(self, status: int) -> None:
        """Raises what a call with this failed with, what `progress` raised first of all."""
        self._raise()
        check(status)


def _milliseconds(timeout: Optional[float]) -> int:
    """A timeout as the library has it: 0 for none, and at least 1."""
    if timeout is None:
        return 0
    if not 0 <= timeout < 1e15:
        raise errors.InvalidInput("this is no timeout", expected="seconds, at least 0", found=str(timeout))
    return max(1, math.ceil(timeout * 1000))


def call_of(call: Optional[Call], progress: Optional[Progress], timeout: Optional[float] = None) -> Call:
    """What was given, or a new one for this call alone."""
    if call is not None and (progress is not None or timeout is not None):
        raise ValueError("give either `call`, or `progress` and `timeout`: a call has its own")
    return call if call is not None else Call(progress, timeout)


async def beside(work: Callable[..., T], *arguments: Any, **options: Any) -> T:
    """Runs `work` beside the event loop; a task that is cancelled cancels the call and waits for its end."""
    call = call_of(options.pop("call", None), options.pop("progress", None), options.pop("timeout", None))
    running = asyncio.get_running_loop().run_in_executor(None, lambda: work(*arguments, call=call, **options))
    try:
        return await asyncio.shield(running)
    except asyncio.CancelledError:
        call.cancel()
        await asyncio.wait([running])
        # Looked at, so that the event loop does not complain: the task's end is told by CancelledError.
        running.exception()
        raise
