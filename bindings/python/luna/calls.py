"""What a caller holds on to while calls run: cancellation and progress. Enters: functions. Leaves: a handle for
options, and what these functions raised."""

from __future__ import annotations

import asyncio
import ctypes
import weakref
from typing import Any, Callable, Optional, TypeVar

from . import _abi
from .library import check, library, record

Progress = Callable[[int, int], object]
T = TypeVar("T")


class Call:
    """Cancels calls from any thread, and hears their progress: `progress(done, total)`, called from Luna's threads.

    What `progress` raises cancels the call, which raises it in turn.
    """

    def __init__(self, progress: Optional[Progress] = None) -> None:
        self._raised: Optional[BaseException] = None
        self._handle = _abi.luna_call()
        # A callback must not keep its own call alive.
        this = weakref.ref(self)

        def hear(done: int, total: int, _: Any) -> None:
            call = this()
            if call is None or progress is None or call._raised is not None:
                return
            try:
                progress(done, total)
            except BaseException as error:  # noqa: B902 - it is raised where the call was made
                call._raised = error
                call.cancel()

        options = record(_abi.luna_call_options)
        if progress is not None:
            self._hear = _abi.luna_progress_function(hear)
            options.progress = self._hear
        check(library().luna_call_new(ctypes.byref(options), ctypes.byref(self._handle)))
        self._end = weakref.finalize(self, library().luna_call_free, self._handle)

    def cancel(self) -> None:
        """Asks every call that has this to stop: they raise `Cancelled`."""
        check(library().luna_call_cancel(self._handle))

    def check(self, status: int) -> None:
        """Raises what a call with this failed with, what `progress` raised first of all."""
        raised, self._raised = self._raised, None
        if raised is not None:
            raise raised
        check(status)


def call_of(call: Optional[Call], progress: Optional[Progress]) -> Call:
    """What was given, or a new one for this call alone."""
    if call is not None and progress is not None:
        raise ValueError("give either `call` or `progress`: a call has its own progress")
    return call if call is not None else Call(progress)


async def in_thread(call: Call, work: Callable[[], T]) -> T:
    """Runs `work` beside the event loop; a task that is cancelled cancels the call and waits for its end."""
    running = asyncio.get_running_loop().run_in_executor(None, work)
    try:
        return await asyncio.shield(running)
    except asyncio.CancelledError:
        call.cancel()
        await asyncio.wait([running])
        # Looked at, so that the event loop does not complain: the task's end is told by CancelledError.
        running.exception()
        raise
