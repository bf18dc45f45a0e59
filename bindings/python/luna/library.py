"""The library. Enters: a path, or nothing. Leaves: libluna, loaded and checked, and errors as exceptions."""

from __future__ import annotations

import ctypes
import ctypes.util
import os
import pathlib
import sys
from typing import Any, List, Optional

from . import _abi, errors

_NAMES = {"win32": "luna.dll", "darwin": "libluna.dylib"}
_loaded: Optional[ctypes.CDLL] = None


def _candidates() -> "list[str]":
    name = _NAMES.get(sys.platform, "libluna.so")
    named = os.environ.get("LUNA_LIBRARY")
    if named:
        return [named]
    inside = pathlib.Path(__file__).resolve().parent / "lib" / name
    found = ctypes.util.find_library("luna")
    return [str(inside)] * inside.exists() + [found] * (found is not None)  # type: ignore[list-item]


def load(path: Optional[str] = None) -> ctypes.CDLL:
    """Loads a library and checks that this package can use it.

    Raises LibraryMismatch if there is none, or an older or newer one than this package was written for.
    """
    candidates = [path] if path else _candidates()
    if not candidates:
        raise errors.LibraryMismatch(
            "libluna was not found",
            expected="a wheel that carries it, a system that has it, or LUNA_LIBRARY",
            remedy="build it with `cargo build --release -p luna-ffi` and set LUNA_LIBRARY to it, or use"
            " luna.connect() with a daemon, which needs no library",
        )
    try:
        library = ctypes.CDLL(candidates[0])
        version = library.luna_abi_version
    except (OSError, AttributeError) as error:
        raise errors.LibraryMismatch(f"{candidates[0]} is not libluna: {error}") from None
    version.restype = ctypes.c_uint32
    check_version(version(), candidates[0])
    _abi.declare(library)
    return library


def check_version(found: int, path: str) -> None:
    """Refuses a library that this package cannot use; `found` is what `luna_abi_version` answers."""
    major, minor = found >> 16, found & 0xFFFF
    wanted = f"ABI {_abi.LUNA_ABI_MAJOR}.{_abi.LUNA_ABI_MINOR} or a later minor version"
    if major > _abi.LUNA_ABI_MAJOR:
        problem, remedy = "is newer than this package", "upgrade the Python package, or use an older library"
    elif major < _abi.LUNA_ABI_MAJOR or minor < _abi.LUNA_ABI_MINOR:
        problem, remedy = "is older than this package", "upgrade the library, or use an older Python package"
    else:
        return
    raise errors.LibraryMismatch(
        f"the library {path} {problem}", expected=wanted, found=f"ABI {major}.{minor}", remedy=remedy
    )


def library() -> ctypes.CDLL:
    """The library of this process, loaded when it is first needed."""
    global _loaded
    if _loaded is None:
        _loaded = load()
    return _loaded


def _text(value: Optional[bytes]) -> Optional[str]:
    return None if value is None else value.decode()


def error_of(status: int) -> errors.LunaError:
    """The exception of a status, with the words that this thread's last error left."""
    told = _abi.luna_error()
    told.size = ctypes.sizeof(told)
    library().luna_last_error(ctypes.byref(told))
    kind = errors.BY_STATUS.get(status, errors.Internal)
    message = _text(told.message) or "Luna gave no reason"
    return kind(message, _text(told.expected), _text(told.found), _text(told.remedy))


def check(status: int) -> None:
    """Raises what a function failed with."""
    if status != 0:
        raise error_of(status)


def record(kind: Any, **fields: Any) -> Any:
    """A struct of the header with its size set."""
    return kind(size=ctypes.sizeof(kind), **fields)


def read_list(handle: Any, kind: Any, getter: Any) -> List[Any]:
    """The items of a list of the library's, each turned into what `getter`, a function of the library's and one of the
    package's, makes of it."""
    count = ctypes.c_size_t()
    items = []
    try:
        check(library().luna_list_count(handle, ctypes.byref(count)))
        for index in range(count.value):
            item = record(kind)
            check(getter[0](handle, index, ctypes.byref(item)))
            items.append(getter[1](item))
    finally:
        library().luna_list_free(handle)
    return items
