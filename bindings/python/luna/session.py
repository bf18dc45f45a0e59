"""Sessions. Enters: options. Leaves: models, their list, pictures and save jobs."""

from __future__ import annotations

import ctypes
import os
import weakref
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, Callable, List, Mapping, Optional, Sequence, TypeVar

from . import _abi
from .arrays import Borrowed, LibraryTensor, Tensor
from .embedded import EmbeddedClip, EmbeddedModel, EmbeddedVae, EmbeddedVision, EmbeddedVlm
from .library import check, library, read_list, record
from .models import Clip, Model, Vae, Vision, Vlm
from .recipe import Path

Own = TypeVar("Own", bound="Session")
Log = Callable[[str, str], object]
_LEVELS = ("info", "warning", "error")
_STATES = ("queued", "writing", "done", "failed", "rejected", "cancelled")
_FORMATS = ("png", "png16", "webp", "webp-lossless", "jpeg")
_IF_EXISTS = ("number", "refuse", "replace")


def _bytes(text: Optional[Path]) -> Optional[bytes]:
    return None if text is None else os.fspath(text).encode()


def _str(text: Optional[bytes]) -> Optional[str]:
    return None if text is None else text.decode()


@dataclass(frozen=True)
class Resident:
    """A model in memory."""

    id: str
    path: str
    bytes: int
    leases: int
    pinned: bool


@dataclass(frozen=True)
class Component:
    """One component of a model file."""

    kind: str
    family: str
    dialect: str
    prefix: str
    tensors: int
    parameters: int
    bytes: int


@dataclass(frozen=True)
class SavedPicture:
    """One picture of a save job, and what became of it."""

    image: int
    index: int
    state: str
    path: Optional[str]
    sha256: Optional[str]
    bytes: int
    error: Optional[str]


class SaveJob(ABC):
    """Pictures on their way to the disk."""

    id: Any

    @abstractmethod
    def wait(self, timeout: Optional[float] = None) -> str:
        """Waits until it is finished, or for so many seconds, and gives its state: `done`, `failed`, `rejected`,
        `cancelled`, or `queued` and `writing` while it is not."""

    @property
    def state(self) -> str:
        """How it stands now."""
        return self.wait(0)

    @abstractmethod
    def cancel(self) -> None:
        """Cancels what has not been written."""

    @abstractmethod
    def pictures(self) -> List[SavedPicture]:
        """Each picture, and what became of it."""


class Session(ABC):
    """One copy of each model, in this process or in a daemon. Made by `luna.open()`, `luna.connect()` and
    `luna.auto()`; `remote` tells which."""

    remote = False
    #: Where its models are, in words.
    where = "in this process"

    @abstractmethod
    def close(self) -> None:
        """Ends the session. Models that it gave in this process stay usable."""

    def __enter__(self: Own) -> Own:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @abstractmethod
    def vae(self, path: Path = "moonlet") -> Vae:
        """A VAE: a file or folder, or `moonlet`, the demonstration model that Luna carries."""

    @abstractmethod
    def clip(
        self,
        *paths: Path,
        recipe: Optional[str] = None,
        embedding_folders: Sequence[Path] = (),
        cache_bytes: int = 0,
    ) -> Clip:
        """The text encoders of a diffusion model: files or folders, or `demo`, the demonstration model with random
        weights that Luna carries and that is taken if there are none."""

    @abstractmethod
    def model(self, path: Path, attention: str = "auto") -> Model:
        """A denoiser: a Stable Diffusion UNet, a Flux or a Z-Image transformer."""

    @abstractmethod
    def vision(self, path: Path) -> Vision:
        """A vision encoder: a CLIP's or a SigLIP."""

    @abstractmethod
    def vlm(self, path: Path, tokenizer: Optional[Path] = None) -> Vlm:
        """A vision-language model: Qwen3-VL or LLaVA 1.5. Its `tokenizer.json` is the one beside it if none is given."""

    @abstractmethod
    def models(self) -> List[Resident]:
        """The models in memory."""

    @abstractmethod
    def unload(self, id: str) -> bool:
        """Takes a model out of memory. Whether its memory is free at once; else it is with its last use."""

    @abstractmethod
    def stats(self) -> "dict[str, Any]":
        """What the session holds and has done."""

    @abstractmethod
    def save(
        self,
        *images: Any,
        name: Optional[str] = None,
        folder: Optional[str] = None,
        format: str = "png",
        quality: int = 0,
        metadata: Optional[Mapping[str, str]] = None,
        prompt: Optional[str] = None,
        seed: Optional[int] = None,
        if_exists: str = "number",
        durable: bool = False,
    ) -> SaveJob:
        """Takes pictures in, [batch, height, width, channels], to be saved below the output folder; returns before
        they are. `name` and `folder` are templates such as `%prompt:40%_%counter:5%`."""


class EmbeddedSaveJob(SaveJob):
    def __init__(self, session: "EmbeddedSession", id: int) -> None:
        self._session, self.id = session, id

    def wait(self, timeout: Optional[float] = None) -> str:
        status = record(_abi.luna_save_status)
        milliseconds = -1 if timeout is None else int(timeout * 1000)
        check(library().luna_save_wait(self._session._handle, self.id, milliseconds, ctypes.byref(status)))
        return _STATES[status.state]

    def cancel(self) -> None:
        check(library().luna_save_cancel(self._session._handle, self.id))

    def pictures(self) -> List[SavedPicture]:
        handle = _abi.luna_list()
        check(library().luna_save_list_pictures(self._session._handle, self.id, ctypes.byref(handle)))

        def picture(item: Any) -> SavedPicture:
            return SavedPicture(
                item.image, item.index, _STATES[item.state], _str(item.path), _str(item.sha256), item.bytes,
                _str(item.error),
            )

        return read_list(handle, _abi.luna_save_picture, (library().luna_list_picture, picture))


class EmbeddedSession(Session):
    """One copy of each model in this process. Made by `luna.open()`."""

    def __init__(
        self,
        threads: int = 0,
        budget_bytes: int = 0,
        device: Optional[str] = None,
        output_folder: Optional[Path] = None,
        spool_folder: Optional[Path] = None,
        log: Optional[Log] = None,
        lora_folders: Sequence[Path] = (),
        lora_cache_bytes: int = 0,
        merged_bytes: int = 0,
    ) -> None:
        self._handle = _abi.luna_session()
        options = record(_abi.luna_open_options, threads=threads, budget_bytes=budget_bytes, device=_bytes(device))
        options.output_folder, options.spool_folder = _bytes(output_folder), _bytes(spool_folder)
        folders = [_bytes(folder) for folder in lora_folders]
        options.lora_folders = (ctypes.c_char_p * len(folders))(*folders)
        options.lora_folder_count = len(folders)
        options.lora_cache_bytes, options.merged_bytes = lora_cache_bytes, merged_bytes
        if log is not None:
            hear = log

            def tell(level: int, message: bytes, _: Any) -> None:
                hear(_LEVELS[level], message.decode())

            # Kept for as long as the library may call it.
            self._log = _abi.luna_log_function(tell)
            options.log = self._log
        check(library().luna_open(ctypes.byref(options), ctypes.byref(self._handle)))
        self._end = weakref.finalize(self, library().luna_close, self._handle)

    def close(self) -> None:
        """Ends the session; save jobs are finished first. Models that it gave stay usable."""
        self._end()

    def vae(self, path: Path = "moonlet") -> Vae:
        return EmbeddedVae(self, os.fspath(path).encode())

    def clip(
        self,
        *paths: Path,
        recipe: Optional[str] = None,
        embedding_folders: Sequence[Path] = (),
        cache_bytes: int = 0,
    ) -> Clip:
        names = [os.fspath(path).encode() for path in paths or ("demo",)]
        folders = [_bytes(folder) for folder in embedding_folders]
        how = {"recipe": _bytes(recipe), "embedding_folders": folders, "cache_bytes": cache_bytes}
        return EmbeddedClip(self, names, how)

    def model(self, path: Path, attention: str = "auto") -> Model:
        return EmbeddedModel(self, os.fspath(path).encode(), attention)

    def vision(self, path: Path) -> Vision:
        return EmbeddedVision(self, os.fspath(path).encode())

    def vlm(self, path: Path, tokenizer: Optional[Path] = None) -> Vlm:
        return EmbeddedVlm(self, os.fspath(path).encode(), _bytes(tokenizer))

    def loras(self) -> List[str]:
        """The names of the LoRAs in the session's LoRA folders."""
        handle = _abi.luna_list()
        check(library().luna_list_loras(self._handle, ctypes.byref(handle)))
        return read_list(handle, _abi.luna_lora_name, (library().luna_list_lora_name, lambda item: item.name.decode()))

    def models(self) -> List[Resident]:
        handle = _abi.luna_list()
        check(library().luna_list_residents(self._handle, ctypes.byref(handle)))

        def resident(item: Any) -> Resident:
            return Resident(item.id.decode(), item.path.decode(), item.bytes, item.leases, bool(item.pinned))

        return read_list(handle, _abi.luna_resident, (library().luna_list_resident, resident))

    def pin(self, id: str, pinned: bool = True) -> None:
        """Keeps a model in memory although idle, or lets it go again."""
        check(library().luna_pin(self._handle, id.encode(), int(pinned)))

    def unload(self, id: str) -> bool:
        fate = ctypes.c_int32()
        check(library().luna_unload(self._handle, id.encode(), ctypes.byref(fate)))
        return bool(fate.value == _abi.LUNA_UNLOADED_FREED)

    def trim(self) -> None:
        """Gives memory that finished calls left for the next ones back to the system."""
        check(library().luna_trim(self._handle))

    def stats(self) -> "dict[str, Any]":
        stats = record(_abi.luna_stats)
        check(library().luna_get_stats(self._handle, ctypes.byref(stats)))
        return {name: getattr(stats, name) for name, _ in stats._fields_ if name != "size"}

    def save(
        self,
        *images: Any,
        name: Optional[str] = None,
        folder: Optional[str] = None,
        format: str = "png",
        quality: int = 0,
        metadata: Optional[Mapping[str, str]] = None,
        prompt: Optional[str] = None,
        seed: Optional[int] = None,
        if_exists: str = "number",
        durable: bool = False,
    ) -> SaveJob:
        borrowed = [Borrowed(image) for image in images]
        pictures = (_abi.luna_save_image * len(borrowed))()
        for picture, one in zip(pictures, borrowed):
            picture.pixels = ctypes.pointer(one.view)
            picture.format, picture.quality = _FORMATS.index(format), quality
        texts = dict(metadata or {})
        job = record(_abi.luna_save_job, images=pictures, image_count=len(borrowed))
        job.name, job.folder, job.prompt = _bytes(name), _bytes(folder), _bytes(prompt)
        job.has_seed, job.seed = int(seed is not None), seed or 0
        job.metadata_keys = (ctypes.c_char_p * len(texts))(*[key.encode() for key in texts])
        job.metadata_texts = (ctypes.c_char_p * len(texts))(*[text.encode() for text in texts.values()])
        job.metadata_count = len(texts)
        job.if_exists, job.durable = _IF_EXISTS.index(if_exists), int(durable)
        id = ctypes.c_uint64()
        check(library().luna_save_submit(self._handle, ctypes.byref(job), ctypes.byref(id)))
        return EmbeddedSaveJob(self, id.value)


def inspect(path: Path) -> List[Component]:
    """The components that a model file or folder holds, from its names and shapes alone."""
    handle = _abi.luna_list()
    check(library().luna_inspect(_bytes(path), ctypes.byref(handle)))

    def component(item: Any) -> Component:
        texts = (item.kind.decode(), item.family.decode(), item.dialect.decode(), item.prefix.decode())
        return Component(*texts, item.tensors, item.parameters, item.bytes)

    return read_list(handle, _abi.luna_component, (library().luna_list_component, component))


def read_picture(path: Path) -> Tensor:
    """A PNG, JPEG or WebP as [1, height, width, channels] in 0..1, turned upright."""
    handle = _abi.luna_tensor()
    check(library().luna_picture_read(_bytes(path), ctypes.byref(handle)))
    return LibraryTensor(handle)
