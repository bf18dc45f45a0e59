"""A daemon's sessions, by the standard library alone. Enters: an address, then paths. Leaves: its models, sent to it where
it may not read them, and save jobs."""

from __future__ import annotations

import json
import mmap
import os
import pathlib
import time
from typing import Any, Dict, List, Mapping, Optional, Sequence, Tuple

from . import errors
from .answers import Vlm
from .arrays import pack
from .models import Model, Vae, Vision
from .recipe import Lora, Path
from .remote import RemoteModel, RemoteVae, RemoteVision
from .remote_answers import RemoteVlm
from .remote_texts import RemoteClip
from .session import ClipWish, Preprocessing, Resident, SavedPicture, SaveJob, SaveWish, Session
from .texts import Clip
from .wire import Connection, Packed, Reply

_BUNDLED = ("moonlet", "demo")
_STATES = {"waiting": "queued", "written": "done"}
#: Reasons for which a daemon may be sent what it cannot read.
_UNREADABLE = ("not_found", "io")
_PEFT_WEIGHTS = ("adapter_model.safetensors", "pytorch_lora_weights.safetensors")


def _tensors_of(path: str) -> Tuple[Dict[str, Packed], Dict[str, str]]:
    """Tensors and metadata of a .safetensors file, mapped into memory."""
    try:
        with open(path, "rb") as stream:
            memory = memoryview(mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ))
    except (OSError, ValueError) as error:
        kind = errors.NotFound if isinstance(error, (FileNotFoundError, IsADirectoryError)) else errors.Io
        raise kind(f"open {path}: {error}", remedy="give a file that the daemon can read, or a .safetensors file") from None
    return _tensors_in(path, memory)


def _tensors_in(path: str, memory: memoryview) -> Tuple[Dict[str, Packed], Dict[str, str]]:
    """As `_tensors_of` of a file in memory, which `path` is the name of."""
    try:
        end = 8 + int.from_bytes(memory[:8], "little")
        header = json.loads(bytes(memory[8:end]))
        metadata = header.pop("__metadata__", {})
        data = memory[end:]
        return {
            name: (info["dtype"], tuple(info["shape"]), data[slice(*info["data_offsets"])])
            for name, info in header.items()
        }, metadata
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise errors.InvalidFile(f"{path} is no .safetensors file: {error}") from None


def _lora_of(path: pathlib.Path) -> Tuple[Dict[str, Packed], Dict[str, str]]:
    """As `_tensors_of` of a LoRA, which may be a PEFT folder: its configuration goes into the metadata."""
    weights = [path / name for name in _PEFT_WEIGHTS if (path / name).is_file()]
    if not weights:
        return _tensors_of(str(path))
    tensors, metadata = _tensors_of(str(weights[0]))
    config = path / "adapter_config.json"
    if config.is_file():
        metadata = {**metadata, "lora_adapter_metadata": config.read_text(encoding="utf-8")}
    return tensors, metadata


class RemoteSaveJob(SaveJob):
    def __init__(self, session: "RemoteSession", id: str) -> None:
        self._session, self.id = session, id

    def _status(self) -> Reply:
        return self._session._connection.ask("job_status", {"job_id": self.id})

    def wait(self, timeout: Optional[float] = None) -> str:
        until, pause = None if timeout is None else time.monotonic() + timeout, 0.002
        while True:
            told = self._status()
            left = 1.0 if until is None else until - time.monotonic()
            if told["finished"] or left <= 0:
                return str(told["state"])
            time.sleep(min(pause, left))
            pause = min(2 * pause, 0.1)

    def cancel(self) -> None:
        self._session._connection.ask("job_cancel", {"job_id": self.id})

    def pictures(self) -> List[SavedPicture]:
        def picture(told: Mapping[str, Any]) -> SavedPicture:
            file = told.get("file") or {}
            state = _STATES.get(told["state"], told["state"])
            error = (told.get("error") or {}).get("message")
            return SavedPicture(
                told["image"], told["index"], state, file.get("path"), file.get("sha256"), file.get("bytes", 0), error
            )

        return [picture(told) for told in self._status()["pictures"]]


class RemoteSession(Session):
    """A daemon's models. Made by `luna.connect()`."""

    remote = True

    def __init__(self, address: Optional[str], name: Optional[str], token: Optional[str], timeout: float) -> None:
        self._connection = Connection(address, name, token, timeout)
        host, port = self._connection.address
        self.where = f"in the daemon at {host}:{port}"

    def close(self) -> None:
        """Ends the connection, and what it has under way. The daemon keeps its models."""
        self._connection.close()

    def _list(self) -> List[Dict[str, Any]]:
        models: List[Dict[str, Any]] = self._connection.ask("list_models")["models"]
        return models

    def _model(
        self,
        path: Path,
        tokenizer: Optional[Path] = None,
        encoder: Optional[str] = None,
        projector: Optional[Path] = None,
    ) -> str:
        """What the daemon knows a model by: the name of one that it has, or else the id of a file or folder, which the
        daemon reads where it may, and is sent where it may not."""
        text = os.fspath(path)
        if not text:
            raise errors.InvalidInput("path is empty")
        reading = {} if encoder is None else {"encoder": encoder}
        # Only a daemon that may read the files can be given others with them.
        others = {name: file for name, file in (("tokenizer", tokenizer), ("projector", projector)) if file is not None}
        reading.update({name: str(pathlib.Path(file).resolve()) for name, file in others.items()})
        if not reading and (text in _BUNDLED or any(text in (model["name"], model["model_id"]) for model in self._list())):
            return text
        real = str(pathlib.Path(text).resolve())
        try:
            return str(self._connection.ask("register_model_by_path", {"model_path": real, **reading})["model_id"])
        except errors.LunaError as error:
            if others or error.reason is None and error.kind not in _UNREADABLE:
                raise
        tensors, metadata = _tensors_of(text)
        fields = {"name": pathlib.Path(text).name, "metadata": metadata, **reading}
        return str(self._connection.ask("register_model", fields, tensors)["model_id"])

    def _put_lora(self, lora: Lora) -> str:
        """What the daemon knows a LoRA by."""
        if lora.data is not None:
            name = lora.name or "a LoRA in memory"
            return self._send_lora(name, _tensors_in(name, memoryview(lora.data)))
        if lora.path is None:
            assert lora.name is not None
            return lora.name
        real = str(pathlib.Path(lora.path).resolve())
        try:
            return str(self._connection.ask("lora_cache_get", {"lora": real})["lora_id"])
        except errors.LunaError as error:
            if error.reason is None:
                raise
        return self._send_lora(pathlib.Path(lora.path).stem, _lora_of(pathlib.Path(lora.path)))

    def _send_lora(self, name: str, file: Tuple[Dict[str, Packed], Dict[str, str]]) -> str:
        tensors, metadata = file
        fields = {"name": name, "metadata": metadata}
        return str(self._connection.ask("lora_cache_put", fields, tensors)["lora_id"])

    def vae(self, path: Path = "moonlet", halves: str = "both") -> Vae:
        if halves != "both":
            raise errors.Unsupported("a daemon's VAEs are whole", remedy="leave `halves` out")
        return RemoteVae(self, self._model(path))

    def _clip(self, wish: ClipWish) -> Clip:
        if wish.embedding_folders:
            raise errors.Unsupported("a daemon has its own folders of textual inversions", remedy="leave them out")
        if any(wish.activations):
            raise errors.Unsupported("a daemon's CLIPs have the activation of their files", remedy="leave it out")
        read = zip(wish.paths, wish.tokenizers, wish.encoders)
        return RemoteClip(self, [self._model(*one) for one in read], wish.recipe)

    def model(self, path: Path, attention: str = "auto") -> Model:
        return RemoteModel(self, self._model(path), attention)

    def vision(
        self, path: Path, activation: Optional[str] = None, preprocessing: Optional[Preprocessing] = None
    ) -> Vision:
        if activation is not None or preprocessing is not None:
            raise errors.Unsupported("a daemon's vision encoders are read as their files state", remedy="leave it out")
        return RemoteVision(self, self._model(path))

    def vlm(self, path: Path, tokenizer: Optional[Path] = None, projector: Optional[Path] = None) -> Vlm:
        return RemoteVlm(self, self._model(path, tokenizer, projector=projector))

    def models(self) -> List[Resident]:
        return [
            Resident(told["model_id"], told["path"] or told["name"], told["bytes"], told["leases"], False)
            for told in self._list()
            if told["loaded"]
        ]

    def unload(self, id: str) -> bool:
        return bool(self._connection.ask("unload_models", {"models": [id]})["freed"])

    def stats(self) -> "dict[str, Any]":
        """The daemon's status, as it tells it."""
        words = self._connection.ask("get_status").words
        return {name: value for name, value in words.items() if name not in ("id", "ok", "queue_ms", "compute_ms")}

    def _save(self, images: Sequence[Any], wish: SaveWish) -> SaveJob:
        each: Dict[str, Any] = {"format": wish.format.replace("-", "_")}
        if wish.quality:
            each["quality"] = wish.quality
        values = {key: value for key, value in (("prompt", wish.prompt), ("seed", wish.seed)) if value is not None}
        fields: Dict[str, Any] = {
            "images": [each] * len(images), "metadata": list(wish.metadata.items()), "values": values,
            "if_exists": wish.if_exists, "durable": wish.durable,
        }
        fields.update({key: text for key, text in (("name", wish.name), ("folder", wish.folder)) if text is not None})
        pictures = {f"image_{index}": pack(image) for index, image in enumerate(images)}
        return RemoteSaveJob(self, self._connection.ask("save_images_async", fields, pictures)["job_id"])
