"""Sessions in this process. Enters: options. Leaves: models, their list, pictures and save jobs, by the library."""

from __future__ import annotations

import ctypes
import os
import weakref
from typing import Any, Callable, List, Optional, Sequence, Tuple

from . import _abi
from .arrays import Borrowed, LibraryTensor, Tensor
from .answers import Vlm
from .embedded import EmbeddedModel, EmbeddedVae, EmbeddedVision
from .embedded_answers import EmbeddedVlm
from .embedded_texts import EmbeddedClip
from .library import check, library, read_list, record
from .models import Model, Vae, Vision
from .recipe import Path, choice
from .session import (
    CLIP_ACTIVATIONS, FORMATS, HALVES, IF_EXISTS, VISION_ACTIVATIONS, ClipWish, Component, Preprocessing, Resident,
    SavedPicture, SaveJob, SaveWish, Session,
)
from .texts import Clip

Log = Callable[[str, str], object]
_LEVELS = ("info", "warning", "error")
_STATES = ("queued", "writing", "done", "failed", "rejected", "cancelled")


def _bytes(text: Optional[Path]) -> Optional[bytes]:
    return None if text is None else os.fspath(text).encode()


def _str(text: Optional[bytes]) -> Optional[str]:
    return None if text is None else text.decode()


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
        step_cache_bytes: int = 0,
    ) -> None:
        self._handle = _abi.luna_session()
        options = record(_abi.luna_open_options, threads=threads, budget_bytes=budget_bytes, device=_bytes(device))
        options.output_folder, options.spool_folder = _bytes(output_folder), _bytes(spool_folder)
        folders = [_bytes(folder) for folder in lora_folders]
        options.lora_folders = (ctypes.c_char_p * len(folders))(*folders)
        options.lora_folder_count = len(folders)
        options.lora_cache_bytes, options.merged_bytes = lora_cache_bytes, merged_bytes
        options.step_cache_bytes = step_cache_bytes
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

    def vae(self, path: Path = "moonlet", halves: str = "both") -> Vae:
        return EmbeddedVae(self, os.fspath(path).encode(), choice("half of a VAE", halves, HALVES))

    def _clip(self, wish: ClipWish) -> Clip:
        folders = [_bytes(folder) for folder in wish.embedding_folders]
        how = {
            "recipe": _bytes(wish.recipe), "embedding_folders": folders, "cache_bytes": wish.cache_bytes,
            "tokenizers": [_bytes(path) for path in wish.tokenizers],
            "encoders": [_bytes(name) for name in wish.encoders],
            "activations": [choice("activation", name, CLIP_ACTIVATIONS) for name in wish.activations],
        }
        return EmbeddedClip(self, [_bytes(path) for path in wish.paths], how)

    def model(self, path: Path, attention: str = "auto") -> Model:
        return EmbeddedModel(self, os.fspath(path).encode(), attention)

    def vision(
        self, path: Path, activation: Optional[str] = None, preprocessing: Optional[Preprocessing] = None
    ) -> Vision:
        how = (choice("activation", activation, VISION_ACTIVATIONS), preprocessing)
        return EmbeddedVision(self, os.fspath(path).encode(), how)

    def vlm(self, path: Path, tokenizer: Optional[Path] = None, projector: Optional[Path] = None) -> Vlm:
        return EmbeddedVlm(self, os.fspath(path).encode(), _bytes(tokenizer), _bytes(projector))

    def forget_steps(self, prefix: str = "") -> int:
        """Drops samplings whose names start so from the first-block cache; how many there were."""
        dropped = ctypes.c_size_t()
        check(library().luna_steps_forget(self._handle, prefix.encode(), ctypes.byref(dropped)))
        return dropped.value

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

    def _save(self, images: Sequence[Any], wish: SaveWish) -> SaveJob:
        borrowed = [Borrowed(image) for image in images]
        pictures = (_abi.luna_save_image * len(borrowed))()
        for picture, one in zip(pictures, borrowed):
            picture.pixels = ctypes.pointer(one.view)
            picture.format, picture.quality = FORMATS.index(wish.format), wish.quality
        texts = wish.metadata
        job = record(_abi.luna_save_job, images=pictures, image_count=len(borrowed))
        job.name, job.folder, job.prompt = _bytes(wish.name), _bytes(wish.folder), _bytes(wish.prompt)
        job.has_seed, job.seed = int(wish.seed is not None), wish.seed or 0
        job.metadata_keys = (ctypes.c_char_p * len(texts))(*[key.encode() for key in texts])
        job.metadata_texts = (ctypes.c_char_p * len(texts))(*[text.encode() for text in texts.values()])
        job.metadata_count = len(texts)
        job.if_exists, job.durable = IF_EXISTS.index(wish.if_exists), int(wish.durable)
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


def noise_levels(steps: int) -> List[Tuple[float, float]]:
    """Timestep and standard deviation of the noise for each of so many steps, and behind them the end without noise: for
    UNets of Stable Diffusion, ComfyUI's schedule "normal"."""
    levels = (_abi.luna_noise_level * (steps + 1))()
    check(library().luna_noise_levels(steps, levels))
    return [(level.timestep, level.sigma) for level in levels]
