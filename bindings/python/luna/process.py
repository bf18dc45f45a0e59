"""A daemon of this program's. Enters: settings. Leaves: a process that serves, and ends with its object."""

from __future__ import annotations

import collections
import os
import shutil
import subprocess
import tempfile
import threading
import weakref
from typing import IO, Deque, Optional, Sequence

from . import errors
from .recipe import Path
from .remote_session import RemoteSession

_READY = "listening on "


class _Words:
    """What a process says, read as it comes so that it never waits; the last lines are kept."""

    def __init__(self, stream: "IO[bytes]") -> None:
        self._lines: Deque[str] = collections.deque(maxlen=200)
        self._thread = threading.Thread(target=self._read, args=(stream,), daemon=True)
        self._thread.start()

    def _read(self, stream: "IO[bytes]") -> None:
        with stream:
            for line in stream:
                self._lines.append(line.decode(errors="replace").rstrip())

    def __str__(self) -> str:
        return "\n".join(self._lines)

    def whole(self) -> str:
        """All of them, once the process has ended."""
        self._thread.join(5)
        return str(self)


class Daemon:
    """A daemon that was started here. `stop()`, the end of a `with` block or of the object ends it."""

    def __init__(self, process: "subprocess.Popen[bytes]", address: str, token: Optional[str], words: _Words) -> None:
        self.process, self.address, self._token, self._words = process, address, token, words
        self._end = weakref.finalize(self, _end, process)

    def connect(self, name: Optional[str] = None) -> RemoteSession:
        """A session with it."""
        return RemoteSession(self.address, name, self._token, 10.0)

    @property
    def log(self) -> str:
        """The last lines of its log."""
        return str(self._words)

    def stop(self) -> None:
        """Ends it and waits for that."""
        self._end()

    def __enter__(self) -> "Daemon":
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()


def _end(process: "subprocess.Popen[bytes]") -> None:
    if process.poll() is None:
        process.terminate()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
    if process.stdout is not None:
        process.stdout.close()


def start_daemon(
    address: str = "127.0.0.1:0",
    *,
    program: Optional[Path] = None,
    arguments: Sequence[str] = (),
    token: Optional[str] = None,
) -> Daemon:
    """Starts `luna-cli serve` at this address (port 0 takes a free one), and waits until it listens. `program` is the
    `luna-cli` to use, that of `LUNA_CLI` or of the path if it is not given; `arguments` go to `serve`, such as
    `("--model-root", "/models")`. `token` is what it asks its clients for.

    Raises NotFound without a `luna-cli`, and Io with what it said if it ends at once."""
    found = os.fspath(program) if program is not None else os.environ.get("LUNA_CLI") or shutil.which("luna-cli")
    if found is None:
        raise errors.NotFound(
            "luna-cli was not found", expected="it on the path, LUNA_CLI, or `program`", remedy="install luna-cli"
        )
    command = [found, "serve", "--listen", address, *arguments]
    with tempfile.TemporaryDirectory() as folder:
        if token is not None:
            file = os.path.join(folder, "token")
            with open(os.open(file, os.O_WRONLY | os.O_CREAT, 0o600), "w") as stream:
                stream.write(token)
            command += ["--token-file", file]
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        assert process.stdout is not None and process.stderr is not None
        said = _Words(process.stderr)
        line = process.stdout.readline().decode(errors="replace").strip()
    if line.startswith(_READY):
        return Daemon(process, line[len(_READY) :], token, said)
    _end(process)
    raise errors.Io(f"the daemon did not start: {said.whole() or line or 'it said nothing'}")
