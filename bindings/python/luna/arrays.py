"""Numbers in and out. Enters: anything with the buffer protocol or DLPack: NumPy, torch, JAX, `array`, `memoryview`.
Leaves: views of its memory for the library, and tensors of Luna's that share theirs. Nothing is copied here."""

from __future__ import annotations

import ctypes
import weakref
from typing import Any, Iterator, Optional, Tuple

from . import _abi, errors
from .library import check, library

_api = ctypes.pythonapi
_FORMATS = {
    ("f", 4): _abi.LUNA_DTYPE_F32, ("e", 2): _abi.LUNA_DTYPE_F16, ("d", 8): _abi.LUNA_DTYPE_F64,
    ("B", 1): _abi.LUNA_DTYPE_U8, ("?", 1): _abi.LUNA_DTYPE_BOOL,
    ("i", 4): _abi.LUNA_DTYPE_I32, ("l", 4): _abi.LUNA_DTYPE_I32,
    ("l", 8): _abi.LUNA_DTYPE_I64, ("q", 8): _abi.LUNA_DTYPE_I64,
}
_DTYPES: "dict[int, Tuple[str, str, Any]]" = {_abi.LUNA_DTYPE_F32: ("float32", "f", ctypes.c_float), _abi.LUNA_DTYPE_BOOL: ("bool", "?", ctypes.c_bool)}


class _Buffer(ctypes.Structure):
    """CPython's Py_buffer."""

    _fields_ = [
        ("buf", ctypes.c_void_p), ("obj", ctypes.c_void_p), ("len", ctypes.c_ssize_t),
        ("itemsize", ctypes.c_ssize_t), ("readonly", ctypes.c_int), ("ndim", ctypes.c_int),
        ("format", ctypes.c_char_p), ("shape", ctypes.POINTER(ctypes.c_ssize_t)),
        ("strides", ctypes.POINTER(ctypes.c_ssize_t)), ("suboffsets", ctypes.c_void_p), ("internal", ctypes.c_void_p),
    ]


class _Managed(ctypes.Structure):
    """DLPack's DLManagedTensor; of the tensor only its size matters here."""

    _fields_ = [
        ("tensor", ctypes.c_byte * (48)), ("context", ctypes.c_void_p),
        ("deleter", ctypes.CFUNCTYPE(None, ctypes.c_void_p)),
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


class Borrowed:
    """A caller's array as the library looks at it, kept in place for as long as this lives."""

    def __init__(self, array: Any) -> None:
        self.view = _abi.luna_view()
        self._keep: Any = array
        if isinstance(array, Tensor):
            check(library().luna_tensor_view(array._handle, ctypes.byref(self.view)))
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
            raise errors.InvalidInput(
                "the array is of a dtype that Luna does not take",
                expected="float32, float16, float64, uint8, bool, int32 or int64",
                found=f"format {code!r} of {buffer.itemsize} bytes",
            )
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
        if not hasattr(array, "__dlpack__"):
            raise errors.InvalidInput(
                "this is not an array",
                expected="something with the buffer protocol or DLPack, such as a NumPy array or a torch tensor",
                found=type(array).__name__,
            )
        capsule = array.__dlpack__()
        self._keep = (array, capsule)
        managed = _CAPSULE_POINTER(capsule, _DLTENSOR)
        check(library().luna_view_from_dlpack(managed, ctypes.byref(self.view)))


class Tensor:
    """Numbers that Luna computed. Reading them copies nothing: `numpy.asarray(t)`, `torch.from_dlpack(t)` and
    `t.view()` share the memory, which lives for as long as any of them. It must not be written to."""

    def __init__(self, handle: Any) -> None:
        self._handle = handle
        self._end = weakref.finalize(self, library().luna_tensor_free, handle)
        view = _abi.luna_view()
        check(library().luna_tensor_view(handle, ctypes.byref(view)))
        self.shape: Tuple[int, ...] = tuple(view.shape[: view.rank])
        self.dtype: str = _DTYPES[view.dtype][0]
        self._dtype = int(view.dtype)

    def close(self) -> None:
        """Frees it. Arrays and views that share its memory stay."""
        self._end()

    def __enter__(self) -> "Tensor":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _lend(self) -> int:
        managed = ctypes.c_void_p()
        check(library().luna_tensor_to_dlpack(self._handle, ctypes.byref(managed)))
        assert managed.value is not None
        return managed.value

    def __dlpack__(self, **_: Any) -> Any:
        return _NEW_CAPSULE(self._lend(), _DLTENSOR, _end_capsule)

    def __dlpack_device__(self) -> Tuple[int, int]:
        return (1, 0)

    def view(self) -> memoryview:
        """Its memory, read-only, of this shape."""
        managed = self._lend()
        view = _abi.luna_view()
        check(library().luna_view_from_dlpack(managed, ctypes.byref(view)))
        count = 1
        for side in self.shape:
            count *= side
        _, code, kind = _DTYPES[self._dtype]
        memory = (kind * count).from_address(view.data)
        # The memory is given back when the last view of it has gone.
        weakref.finalize(memory, _give_back, managed)
        return memoryview(memory).cast("B").cast(code, self.shape).toreadonly()  # type: ignore[call-overload,no-any-return]

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
        import torch

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
