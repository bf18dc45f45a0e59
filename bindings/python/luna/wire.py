"""The daemon's wire, by the standard library alone. Enters: requests with tensors. Leaves: replies with tensors, events
as they come, and errors as exceptions. PROTOCOL.md tells of it."""

from __future__ import annotations

import json
import math
import socket
import struct
import threading
from typing import Any, Callable, Dict, List, Mapping, Optional, Tuple

from . import errors
from .arrays import BytesTensor, Tensor
from .calls import Call

VERSION = 1
PORT = 19283
Packed = Tuple[str, Tuple[int, ...], memoryview]
Heard = Callable[[Dict[str, Any]], object]


def split(address: Optional[str]) -> Tuple[str, int]:
    """Host and port of `HOST:PORT`, `HOST`, `:PORT` or nothing."""
    host, _, port = (address or "").rpartition(":") if ":" in (address or "") else (address or "", "", "")
    if port and not port.isdigit():
        raise errors.InvalidInput("the address has no port", expected="HOST:PORT", found=repr(address))
    return host or "127.0.0.1", int(port or PORT)


def encode(request: Mapping[str, Any], tensors: Mapping[str, Packed]) -> "List[Any]":
    """The parts of a frame."""
    header: Dict[str, Any] = {"__metadata__": {"request": json.dumps(request, allow_nan=False)}}
    place = 0
    for name, (dtype, shape, data) in tensors.items():
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": [place, place + data.nbytes]}
        place += data.nbytes
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    length = 8 + len(text) + place
    if length > 0xFFFFFFFF:
        raise errors.LimitExceeded("the request is too large for a frame", found=f"{length} bytes")
    return [struct.pack(">I", length) + struct.pack("<Q", len(text)) + text] + [one[2] for one in tensors.values()]


def decode(body: bytearray) -> Tuple[str, Dict[str, Any], Dict[str, Tensor]]:
    """Role, words and tensors of a body."""
    end = 8 + struct.unpack_from("<Q", body)[0]
    header = json.loads(bytes(body[8:end]))
    [(role, text)] = header.pop("__metadata__").items()
    memory = memoryview(body)[end:]
    tensors: Dict[str, Tensor] = {}
    for name, info in header.items():
        start, stop = info["data_offsets"]
        dtype = {"F32": "float32", "U8": "bool", "BOOL": "bool"}.get(info["dtype"])
        if dtype is None or math.prod(info["shape"]) * (4 if dtype == "float32" else 1) != stop - start:
            raise errors.Internal("the daemon sent a tensor that cannot be read", found=repr(info))
        tensors[name] = BytesTensor(dtype, info["shape"], memory[start:stop])
    return role, json.loads(text), tensors


def fault(told: Mapping[str, Any]) -> errors.LunaError:
    """The exception of an error of the daemon's."""
    # A deadline is a reason on the wire, as the daemon cancels what is late.
    name = "deadline" if told.get("reason") == "deadline" else told.get("kind", "")
    kind = errors.BY_KIND.get(name, errors.Internal)
    error = kind(told.get("message", ""), told.get("expected"), told.get("found"), told.get("remedy"))
    error.reason, error.missing = told.get("reason"), tuple(told.get("missing", ()))
    retry = told.get("retry_after_ms")
    error.retry_after = None if retry is None else retry / 1000
    return error


class Reply:
    """What a daemon answered."""

    def __init__(self, words: Dict[str, Any], tensors: Dict[str, Tensor]) -> None:
        self.words, self.tensors = words, tensors

    def __getitem__(self, name: str) -> Any:
        return self.words[name]


class Connection:
    """One connection. Any number of threads may ask; whoever waits first reads for all."""

    def __init__(self, address: Optional[str], name: Optional[str], token: Optional[str], timeout: float) -> None:
        self.address = split(address)
        try:
            self._socket = socket.create_connection(self.address, timeout)
        except OSError as error:
            host, port = self.address
            raise errors.Io(
                f"cannot connect to a daemon at {host}:{port}: {error}",
                remedy="start one with luna.start_daemon() or `luna-cli start`, or correct the address",
            ) from None
        self._socket.settimeout(None)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._ids, self._reading = 0, False
        self._sending, self._changed = threading.Lock(), threading.Condition()
        self._arrived: Dict[int, List[Tuple[str, Dict[str, Any], Dict[str, Tensor]]]] = {}
        self._lost: Optional[str] = None
        hello: Dict[str, Any] = {"protocol": VERSION}
        hello.update({key: value for key, value in (("client", name), ("token", token)) if value is not None})
        try:
            self.welcome = self.ask("hello", hello)
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Ends the connection, and what it has under way."""
        try:
            self._socket.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass
        self._socket.close()

    def ask(
        self,
        cmd: str,
        fields: Optional[Mapping[str, Any]] = None,
        tensors: Optional[Mapping[str, Packed]] = None,
        call: Optional[Call] = None,
        heard: Optional[Heard] = None,
    ) -> Reply:
        """Asks and waits. `heard` hears events; a call that is cancelled cancels the request, and its timeout is the
        request's deadline."""
        head: Dict[str, Any] = {"progress": True} if heard is not None else {}
        if call is not None and call._milliseconds:
            head["deadline_ms"] = call._milliseconds
        id = self._send(cmd, {**(fields or {}), **head}, tensors or {}, True)

        def cancel() -> None:
            self._send("cancel", {"request": id}, {}, False)

        if call is not None:
            call._on_cancel(cancel)
        try:
            while True:
                role, words, received = self._receive(id)
                if role == "reply":
                    break
                if heard is not None:
                    heard(words)
        finally:
            with self._changed:
                self._arrived.pop(id, None)
            if call is not None:
                call._done(cancel)
        if call is not None:
            call._raise()
        if not words["ok"]:
            raise fault(words["error"])
        return Reply(words, received)

    def _send(self, cmd: str, fields: Mapping[str, Any], tensors: Mapping[str, Packed], wait: bool) -> int:
        with self._changed:
            self._ids += 1
            id = self._ids
            if wait:
                self._arrived[id] = []
        parts = encode({"id": id, "cmd": cmd, **fields}, tensors)
        try:
            with self._sending:
                for part in parts:
                    self._socket.sendall(part)
        except OSError as error:
            raise errors.Io(f"the connection to the daemon is lost: {error}") from None
        return id

    def _receive(self, id: int) -> Tuple[str, Dict[str, Any], Dict[str, Tensor]]:
        while True:
            with self._changed:
                while True:
                    if self._arrived[id]:
                        return self._arrived[id].pop(0)
                    if self._lost is not None:
                        raise errors.Io(f"the connection to the daemon is lost: {self._lost}")
                    if not self._reading:
                        break
                    self._changed.wait()
                self._reading = True
            message, lost = None, None
            try:
                message = self._read()
            except (OSError, ValueError, KeyError, errors.LunaError) as error:
                lost = str(error) or type(error).__name__
            with self._changed:
                self._reading = False
                if message is None:
                    self._lost = lost
                elif message[1].get("id") in self._arrived:
                    self._arrived[message[1]["id"]].append(message)
                elif message[1].get("id") == 0:
                    self._lost = message[1].get("error", {}).get("message", "the daemon refused it")
                self._changed.notify_all()

    def _read(self) -> Tuple[str, Dict[str, Any], Dict[str, Tensor]]:
        (length,) = struct.unpack(">I", self._exactly(4))
        return decode(self._exactly(length))

    def _exactly(self, count: int) -> bytearray:
        data = bytearray(count)
        view, got = memoryview(data), 0
        while got < count:
            part = self._socket.recv_into(view[got:], min(count - got, 1 << 22))
            if part == 0:
                raise ConnectionError("the daemon closed it")
            got += part
        return data
