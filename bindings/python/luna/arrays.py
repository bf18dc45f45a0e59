"""Numbers in and out. Enters: anything with the buffer protocol or DLPack: NumPy, torch, JAX, `array`, `memoryview`.
Leaves: views of its memory for the library, and tensors of Luna's that share theirs. Nothing is copied here."""

from __future__ import annotations

import array as array_module
import ctypes
import importlib
import math
import weakref
from typing import Any, Iterator, Optional, Sequence, Tuple

from . import _abi, errors
from .library import check, library

_api = ctypes.pythonapi
_FORMATS = {
    ("f", 4): _abi.LUNA_DTYPE_F32, ("e", 2): _abi.LUNA_DTYPE_F16, ("d", 8): _abi.LUNA_DTYPE_F64,
    ("B", 1): _abi.LUNA_DTYPE_U8, ("?", 1): _abi.LUNA_DTYPE_BOOL,
    ("i", 4): _abi.LUNA_DTYPE_I32, ("l", 4): _abi.LUNA_DTYPE_I32,
    ("l", 8): _abi.LUNA_DTYPE_I64, ("q", 8): _abi.LUNA_DTYPE_I64,
}
_NAMES = {_abi.LUNA_DTYPE_F32: "float32", _abi.LUNA_DTYPE_BOOL: "bool"}
# Of a dtype: the letter of the buffer protocol, the ctypes type, DLPack's code and bits.
_KINDS: "dict[str, Tuple[str, Any, int, int]]" = {
    "float32": ("f", ctypes.c_float, 2, 32),
    "bool": ("?", ctypes.c_bool, 6, 8),
}


class _Buffer(ctypes.Structure):
    """CPython's Py_buffer."""

    _fields_ = [
        ("buf", ctypes.c_void_p), ("obj", ctypes.c_void_p), ("len", ctypes.c_ssize_t),
        ("itemsize", ctypes.c_ssize_t), ("readonly", ctypes.c_int), ("ndim", ctypes.c_int),
        ("format", ctypes.c_char_p), ("shape", ctypes.POINTER(ctypes.c_ssize_t)),
        ("strides", ctypes.POINTER(ctypes.c_ssize_t)), ("suboffsets", ctypes.c_void_p), ("internal", ctypes.c_void_p),
    ]


_DELETER = ctypes.CFUNCTYPE(None, ctypes.c_void_p)


class _Managed(ctypes.Structure):
    """DLPack's DLManagedTensor, the tensor's own fields first."""

    _fields_ = [
        ("data", ctypes.c_void_p), ("device_type", ctypes.c_int32), ("device_id", ctypes.c_int32),
        ("ndim", ctypes.c_int32), ("code", ctypes.c_uint8), ("bits", ctypes.c_uint8), ("lanes", ctypes.c_uint16),
        ("shape", ctypes.POINTER(ctypes.c_int64)), ("strides", ctypes.POINTER(ctypes.c_int64)),
        ("byte_offset", ctypes.c_uint64), ("context", ctypes.c_void_p), ("deleter", _DELETER),
    ]


_GET_BUFFER = ctypes.PYFUNCTYPE(ctypes.c_int, ctypes.py_object, ctypes.POINTER(_Buffer), ctypes.c_int)(
    ("PyObject_GetBuffer", _api)
)
_RELEASE_BUFFER = ctypes.PYFUNCTYPE(None, ctypes.POINTER(_Buffer))(("PyBuffer_Release", _api))
_CAPSULE_POINTER = ctypes.PYFUNCTYPE(ctypes.c_void_p, ctypes.py_object, ctypes.c_char_p)(
    ("PyCapsule_GetPointer", _api)
)
# Within a capsule's destructor: its reference count is 0, so it must not become a Python object.
_CAPSULE_IS_VALID = ctypes.PYFUNCTYPE(ctypes.c_int, ctypes.c_void_p, ctypes.c_char_p)(("PyCapsule_IsValid", _api))
_DYING_POINTER = ctypes.PYFUNCTYPE(ctypes.c_void_p, ctypes.c_void_p, ctypes.c_char_p)(("PyCapsule_GetPointer", _api))
_DESTRUCTOR = ctypes.PYFUNCTYPE(None, ctypes.c_void_p)
_NEW_CAPSULE = ctypes.PYFUNCTYPE(ctypes.py_object, ctypes.c_void_p, ctypes.c_char_p, _DESTRUCTOR)(
    ("PyCapsule_New", _api)
)
_STRIDED_AND_FORMAT = 0x0018 | 0x0004
_DLTENSOR = b"dltensor"


def _give_back(managed: int) -> None:
    _Managed.from_address(managed).deleter(managed)


def _end(capsule: int) -> None:
    # A consumer that took the tensor has renamed the capsule, and calls the deleter itself.
    if _CAPSULE_IS_VALID(capsule, _DLTENSOR):
        _give_back(_DYING_POINTER(capsule, _DLTENSOR))


_end_capsule = _DESTRUCTOR(_end)


def _capsule(array: Any) -> Any:
    if not hasattr(array, "__dlpack__"):
        raise errors.InvalidInput(
            "this is not an array",
            expected="something with the buffer protocol or DLPack, such as a NumPy array or a torch tensor",
            found=type(array).__name__,
        )
    return array.__dlpack__()


def _unfit(found: str) -> errors.LunaError:
    return errors.InvalidInput(
        "the array is of a dtype that Luna does not take",
        expected="float32, float16, float64, uint8, bool, int32 or int64",
        found=found,
    )


class Borrowed:
    """A caller's array as the library looks at it, kept in place for as long as this lives."""

    def __init__(self, array: Any) -> None:
        self.view = _abi.luna_view()
        self._keep: Any = array
        if isinstance(array, LibraryTensor):
            check(library().luna_tensor_view(array._handle, ctypes.byref(self.view)))
        elif isinstance(array, Tensor):
            # Its view keeps its memory.
            self._keep = array.view()
            self._from_buffer(self._keep)
        elif not self._from_buffer(array):
            self._from_dlpack(array)

    def _from_buffer(self, array: Any) -> bool:
        buffer = _Buffer()
        try:
            _GET_BUFFER(array, ctypes.byref(buffer), _STRIDED_AND_FORMAT)
        except (TypeError, BufferError, ValueError):
            return False
        self._release = weakref.finalize(self, _RELEASE_BUFFER, buffer)
        code = (buffer.format or b"B").decode().lstrip("@=<")
        dtype = _FORMATS.get((code, buffer.itemsize))
        if dtype is None:
            raise _unfit(f"format {code!r} of {buffer.itemsize} bytes")
        if buffer.ndim > _abi.LUNA_MAX_RANK:
            raise errors.LimitExceeded("the array has too many dimensions", found=str(buffer.ndim))
        view = self.view
        view.data, view.dtype, view.rank, view.strided = buffer.buf, dtype, buffer.ndim, 1
        for axis in range(buffer.ndim):
            stride, rest = divmod(buffer.strides[axis], buffer.itemsize)
            if rest:
                raise errors.InvalidInput("the array's strides are no multiples of its elements' size")
            view.shape[axis], view.strides[axis] = buffer.shape[axis], stride
        return True

    def _from_dlpack(self, array: Any) -> None:
        capsule = _capsule(array)
        self._keep = (array, capsule)
        managed = _CAPSULE_POINTER(capsule, _DLTENSOR)
        check(library().luna_view_from_dlpack(managed, ctypes.byref(self.view)))


class Tensor:
    """Numbers that Luna computed. Reading them copies nothing: `numpy.asarray(t)`, `torch.from_dlpack(t)` and
    `t.view()` share the memory, which lives for as long as any of them. It must not be written to."""

    shape: Tuple[int, ...]
    dtype: str

    def close(self) -> None:
        """Frees it. Arrays and views that share its memory stay."""

    def __enter__(self) -> "Tensor":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _lend(self) -> int:
        """A DLManagedTensor over its memory, whose deleter is to be called."""
        raise NotImplementedError

    def view(self) -> memoryview:
        """Its memory, read-only, of this shape."""
        raise NotImplementedError

    def __dlpack__(self, **_: Any) -> Any:
        return _NEW_CAPSULE(self._lend(), _DLTENSOR, _end_capsule)

    def __dlpack_device__(self) -> Tuple[int, int]:
        return (1, 0)

    def __buffer__(self, _flags: int) -> memoryview:
        return self.view()

    def __array__(self, dtype: Any = None, copy: Optional[bool] = None) -> Any:
        import numpy

        array = numpy.asarray(self.view())
        if dtype is not None and array.dtype != dtype:
            return array.astype(dtype)
        return array.copy() if copy else array

    def numpy(self) -> Any:
        """A NumPy array over the same memory, read-only."""
        return self.__array__()

    def torch(self) -> Any:
        """A torch tensor over the same memory; do not write to it."""
        torch: Any = importlib.import_module("torch")
        return torch.from_dlpack(self)

    def tolist(self) -> Any:
        """Nested lists of its numbers."""
        return self.view().tolist()

    def __len__(self) -> int:
        return self.shape[0]

    def __iter__(self) -> Iterator[Any]:
        return iter(self.tolist())

    def __repr__(self) -> str:
        return f"luna.Tensor({self.dtype}, {list(self.shape)})"


class LibraryTensor(Tensor):
    """Numbers in the library's memory."""

    def __init__(self, handle: Any) -> None:
        self._handle = handle
        self._end = weakref.finalize(self, library().luna_tensor_free, handle)
        view = _abi.luna_view()
        check(library().luna_tensor_view(handle, ctypes.byref(view)))
        self.shape = tuple(view.shape[: view.rank])
        self.dtype = _NAMES[view.dtype]

    def close(self) -> None:
        self._end()

    def _lend(self) -> int:
        managed = ctypes.c_void_p()
        check(library().luna_tensor_to_dlpack(self._handle, ctypes.byref(managed)))
        assert managed.value is not None
        return managed.value

    def view(self) -> memoryview:
        managed = self._lend()
        view = _abi.luna_view()
        check(library().luna_view_from_dlpack(managed, ctypes.byref(view)))
        count = math.prod(self.shape)
        code, kind = _KINDS[self.dtype][:2]
        memory = (kind * count).from_address(view.data)
        # The memory is given back when the last view of it has gone.
        weakref.finalize(memory, _give_back, managed)
        return memoryview(memory).cast("B").cast(code, self.shape).toreadonly()  # type: ignore[call-overload,no-any-return]


# What was lent out of Python's memory, by the address of its struct.
_lent: "dict[int, Any]" = {}


def _take_back(address: int) -> None:
    _lent.pop(address, None)


_take_back_function = _DELETER(_take_back)


class BytesTensor(Tensor):
    """Numbers in a message of a daemon's, or in any other bytes."""

    def __init__(self, dtype: str, shape: Sequence[int], memory: memoryview) -> None:
        self.dtype, self.shape = dtype, tuple(shape)
        code = _KINDS[dtype][0]
        self._memory: Optional[memoryview] = memory.cast(code, self.shape).toreadonly()  # type: ignore[call-overload]

    def close(self) -> None:
        self._memory = None

    def view(self) -> memoryview:
        if self._memory is None:
            raise errors.InvalidHandle("the tensor was closed", remedy="use it before it is closed")
        return self._memory

    def _lend(self) -> int:
        view, buffer = self.view(), _Buffer()
        _GET_BUFFER(view, ctypes.byref(buffer), _STRIDED_AND_FORMAT)
        place = buffer.buf
        _, _, code, bits = _KINDS[self.dtype]
        shape = (ctypes.c_int64 * len(self.shape))(*self.shape)
        managed = _Managed(
            data=place, device_type=1, ndim=len(self.shape), code=code, bits=bits, lanes=1, shape=shape,
            deleter=_take_back_function,
        )
        address = ctypes.addressof(managed)
        # The view keeps the memory in place.
        _RELEASE_BUFFER(ctypes.byref(buffer))
        _lent[address] = (managed, shape, view)
        return address


def pack(array: Any) -> "Tuple[str, Tuple[int, ...], memoryview]":
    """A caller's array for a message: the dtype's name, the shape and the bytes, row-major. Bytes of pixels become
    floats, as no message has them."""
    if isinstance(array, Tensor):
        view = array.view()
    else:
        try:
            view = memoryview(array)
        except TypeError:
            return _pack_dlpack(_CAPSULE_POINTER(_capsule(array), _DLTENSOR), array)
    code = view.format.lstrip("@=<")
    if (code, view.itemsize) not in _FORMATS:
        raise _unfit(f"format {code!r} of {view.itemsize} bytes")
    names = {"f": "F32", "e": "F16", "d": "F64"}
    shape = tuple(view.shape or ())
    if code in names:
        return names[code], shape, view.cast("B") if view.c_contiguous else memoryview(view.tobytes())
    numbers: Any = memoryview(view.tobytes()).cast(code)  # type: ignore[call-overload]
    divisor = 255.0 if code == "B" else 1.0
    floats = array_module.array("f", [number / divisor for number in numbers])
    return "F32", shape, memoryview(floats).cast("B")


def _pack_dlpack(address: int, owner: Any) -> "Tuple[str, Tuple[int, ...], memoryview]":
    managed = _Managed.from_address(address)
    if managed.device_type != 1:
        raise errors.Unsupported("the tensor is not in the memory of the CPU", remedy="move it to the CPU first")
    kind = (managed.code, managed.bits, managed.lanes)
    names = {(2, 32, 1): "F32", (2, 16, 1): "F16", (2, 64, 1): "F64", (4, 16, 1): "BF16", (1, 8, 1): "U8", (0, 64, 1): "I64"}
    if kind not in names:
        raise _unfit(f"DLPack's code {kind[0]} of {kind[1]} bits")
    shape = tuple(managed.shape[axis] for axis in range(managed.ndim))
    strides = [managed.strides[axis] for axis in range(managed.ndim)] if managed.strides else None
    size = managed.bits // 8
    data = _gather(managed.data + managed.byte_offset, shape, strides, size)
    if names[kind] in ("U8", "I64"):
        return pack(memoryview(data).cast("B").cast("B" if size == 1 else "q", shape))
    del owner
    return names[kind], shape, memoryview(data)


def _gather(address: int, shape: Tuple[int, ...], strides: "Optional[list[int]]", size: int) -> bytearray:
    """The bytes of a strided array, row-major."""
    if not shape:
        return bytearray(ctypes.string_at(address, size))
    count, inner = math.prod(shape[1:]), True
    if strides is not None:
        expected = 1
        for side, stride in zip(reversed(shape[1:]), reversed(strides[1:])):
            inner = inner and (side == 1 or stride == expected)
            expected *= side
    step = count if strides is None else strides[0]
    out = bytearray()
    if inner and (step == count or shape[0] == 1):
        return bytearray(ctypes.string_at(address, shape[0] * count * size))
    for row in range(shape[0]):
        place = address + row * step * size
        out += ctypes.string_at(place, count * size) if inner else _gather(place, shape[1:], (strides or [])[1:], size)
    return out
