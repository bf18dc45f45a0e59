"""A daemon's models, by the standard library alone. Enters: arrays and options. Leaves: what the daemon gives, as `models`
and `session` have it. Works on machines without the library."""

from __future__ import annotations

import json
import mmap
import os
import pathlib
import time
from typing import Any, Dict, List, Mapping, Optional, Sequence, Tuple

from . import errors
from .arrays import Tensor, pack
from .calls import Call, Progress, call_of
from .models import Clip, Conditioning, Features, Generated, Model, Part, Piece, Token, Vae, Vision, Vlm
from .recipe import LONG, MODES, SHORT, SIZES, LoraAdapter, LoraFile, LoraRecipe, Lora, Path, Recipe, Report, choice
from .session import Resident, SavedPicture, SaveJob, Session
from .wire import Connection, Heard, Packed, Reply

_BUNDLED = ("moonlet", "demo")
_FORMATS = {"png": "png", "png16": "png16", "webp": "webp", "webp-lossless": "webp_lossless", "jpeg": "jpeg"}
_STATES = {"waiting": "queued", "written": "done"}
#: Reasons for which a daemon may be sent what it cannot read.
_UNREADABLE = ("not_found", "io")


def _report(reply: Reply, told: Mapping[str, Any], lora: Optional[Mapping[str, Any]] = None) -> Report:
    files = lora["files"] if lora else ()
    tiling = told.get("tiling") or {}
    missed = ("unmatched", "wrong_shape", "unsupported")
    return Report(
        dtype=SHORT.get(told.get("precision", "f32"), "float32"),
        fallbacks=tuple(one["name"] for one in reply.words.get("fallbacks", ())),
        attention=told.get("attention", "default"),
        tile=tiling.get("tile", 0),
        tiles=tiling.get("tiles", 0),
        cached=sum(bool(one["cached"]) for one in reply.words.get("prompts", ())),
        seconds=told.get("seconds", 0.0),
        adapters_applied=sum(len(file["applied"]) for file in files),
        adapters_missed=sum(len(file[outcome]) for file in files for outcome in missed),
        lora_mode=(lora or {}).get("mode", "functional"),
        not_merged=(lora or {}).get("not_merged"),
        queue_seconds=reply.words.get("queue_ms", 0.0) / 1000,
    )


def _lora_files(model: str, outcome: Mapping[str, Any]) -> List[LoraFile]:
    """What became of each file, from the wire's coverage."""
    files = []
    for told in outcome["files"]:
        adapters = [
            LoraAdapter(one["key"], "applied", one["kind"], tuple(one["targets"])) for one in told["applied"]
        ]
        adapters += [LoraAdapter(one["key"], "unmatched", nearest=one["nearest"]) for one in told["unmatched"]]
        adapters += [
            LoraAdapter(one["key"], "wrong_shape", None, (one["target"],), None, one["expected"], one["found"])
            for one in told["wrong_shape"]
        ]
        adapters += [LoraAdapter(one["key"], "unsupported", what=one["what"]) for one in told["unsupported"]]
        mode, why = outcome.get("mode", "functional"), outcome.get("not_merged")
        files.append(
            LoraFile(
                told["name"], model, told["strength"], told["made_for"], mode, why, told["elsewhere"], tuple(adapters)
            )
        )
    return files


def _tensors_of(path: str) -> Tuple[Dict[str, Packed], Dict[str, str]]:
    """Tensors and metadata of a .safetensors file, mapped into memory."""
    try:
        with open(path, "rb") as stream:
            memory = memoryview(mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ))
    except (OSError, ValueError) as error:
        kind = errors.NotFound if isinstance(error, (FileNotFoundError, IsADirectoryError)) else errors.Io
        raise kind(f"open {path}: {error}", remedy="give a file that the daemon can read, or a .safetensors file") from None
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


class _Remote(Recipe):
    """A model of a daemon's."""

    _session: "RemoteSession"
    _name: str

    def _ask(
        self,
        cmd: str,
        fields: Mapping[str, Any],
        tensors: Mapping[str, Any],
        call: Call,
        heard: Optional[Heard] = None,
    ) -> Reply:
        packed = {name: array if isinstance(array, tuple) else pack(array) for name, array in tensors.items()}

        def hear(event: Dict[str, Any]) -> None:
            if event.get("event") == "progress":
                call._hear(event["done"], event["total"])
            elif heard is not None:
                heard(event)

        news = hear if heard is not None or call._progress is not None else None
        return self._session._connection.ask(cmd, fields, packed, call, news)

    @property
    def _wire_precision(self) -> str:
        return LONG[self.dtype]


class _RemotePatched(_Remote, LoraRecipe):
    _ids: Optional[List[Dict[str, Any]]] = None
    _told: Tuple[LoraFile, ...] = ()

    def _changed(self) -> None:
        self._ids = None

    def _stack(self) -> List[Dict[str, Any]]:
        if self._ids is None:
            self._ids = [
                {"lora": self._session._put_lora(lora), "model": lora.strength, "clip": lora.clip_strength}
                for lora in self.lora_stack
            ]
        return self._ids

    @property
    def lora_report(self) -> Tuple[LoraFile, ...]:
        return self._told


class RemoteVae(_Remote, Vae):
    def __init__(self, session: "RemoteSession", name: str) -> None:
        super().__init__()
        self._session, self._name = session, name
        # A daemon tells of a VAE with a call's answer.
        grey = ("F32", (1, 32, 32, 3), memoryview(bytes(32 * 32 * 3 * 4)))
        self._learn(self._ask("vae_encode", {"vae": name}, {"pixels": grey}, Call()))

    def _learn(self, reply: Reply) -> None:
        told = reply["vae"]
        self.latent_channels, self.factor = told["latent_channels"], told["factor"]
        self.scale, self.shift = told["scale_factor"], told["shift_factor"]

    def clone(self) -> "RemoteVae":
        twin = RemoteVae(self._session, self._name)
        twin._precision = self._precision
        return twin

    def encode(
        self,
        image: Any,
        *,
        sizes: str = "crop",
        seed: Optional[int] = None,
        scaled: bool = False,
        tile: int = 0,
        progress: Optional[Progress] = None,
        call: Optional[Call] = None,
    ) -> Tensor:
        own = call_of(call, progress)
        choice("size rule", sizes, SIZES)
        if scaled and self.scale is None:
            raise errors.Unsupported("the VAE's file does not tell the factors of its latents")
        fields = {"vae": self._name, "size_rule": sizes, "seed": seed, "precision": self._wire_precision}
        fields.update(self._tiles(tile * self.factor))
        reply = self._ask("vae_encode", fields, {"pixels": image}, own)
        self.last_report = _report(reply, reply["report"])
        latent = reply.tensors["latents"]
        return _scaled(latent, self.scale or 1.0, self.shift or 0.0) if scaled else latent

    def decode(
        self,
        latent: Any,
        *,
        scaled: bool = False,
        tile: int = 0,
        progress: Optional[Progress] = None,
        call: Optional[Call] = None,
    ) -> Tensor:
        own = call_of(call, progress)
        fields = {"vae": self._name, "scaled": scaled, "precision": self._wire_precision, **self._tiles(tile)}
        reply = self._ask("vae_decode", fields, {"latents": latent}, own)
        self.last_report = _report(reply, reply["report"])
        return reply.tensors["pixels"]

    @staticmethod
    def _tiles(tile: int) -> Dict[str, Any]:
        return {"tiled": True, "tile_size": tile} if tile else {}


def _scaled(latent: Tensor, scale: float, shift: float) -> Tensor:
    import array
    import struct

    from .arrays import BytesTensor

    def f32(number: float) -> float:
        rounded: float = struct.unpack("f", struct.pack("f", number))[0]
        return rounded

    # As the library does it: each step is rounded to f32.
    scale, shift = f32(scale), f32(shift)
    flat = latent.view().cast("B").cast("f")
    values = array.array("f", (f32(f32(value - shift) * scale) for value in flat))
    return BytesTensor("float32", latent.shape, memoryview(values).cast("B"))


class RemoteClip(_RemotePatched, Clip):
    def __init__(self, session: "RemoteSession", names: Sequence[str], recipe: Optional[str]) -> None:
        super().__init__()
        self._session, self._names, self._recipe_name = session, list(names), recipe
        # Whether these encoders work together is told now, as it is in this process.
        self.tokenize("")

    def clone(self) -> "RemoteClip":
        twin = RemoteClip(self._session, self._names, self._recipe_name)
        twin._take_recipe(self)
        twin.clip_skip = self.clip_skip
        return twin

    def _with(self) -> Dict[str, Any]:
        wish: Dict[str, Any] = {"models": self._names, "precision": self._wire_precision}
        if self._recipe_name is not None:
            wish["recipe"] = self._recipe_name
        if self.clip_skip:
            wish["clip_skip"] = self.clip_skip
        return wish

    def tokenize(self, prompt: str) -> List[Token]:
        reply = self._ask("clip_tokenize", {"text": prompt, "with": self._with()}, {}, Call())
        return [
            Token(encoder, chunk, place.get("id"), place["weight"], (place.get("embedding") or [None])[0])
            for encoder, chunks in reply["tokens"].items()
            for chunk, places in enumerate(chunks)
            for place in places
        ]

    def encode(
        self, *prompts: str, progress: Optional[Progress] = None, call: Optional[Call] = None
    ) -> List[Conditioning]:
        own, made = call_of(call, progress), []
        wish = {**self._with(), "loras": self._stack(), "strict": self.strict}
        if not prompts:
            raise errors.InvalidInput("there is no prompt")
        for first in range(0, len(prompts), 2):
            fields: Dict[str, Any] = {"positive": prompts[first], "with": wish}
            if first + 1 < len(prompts):
                fields["negative"] = prompts[first + 1]
            reply = self._ask("clip_encode", fields, {}, own)
            names = (("cond", "pooled", "mask"), ("uncond", "pooled_neg", "mask_neg"))
            for told, (tokens, pooled, mask) in zip(reply["prompts"], names):
                problems = tuple(problem["message"] for problem in told["problems"])
                tensors = reply.tensors
                made.append(Conditioning(tensors[tokens], tensors.get(pooled), tensors.get(mask), problems))
            every = {"files": [file for one in reply["loras"] for file in one["files"]]}
            self._told = tuple(file for one in reply["loras"] for file in _lora_files(one["model"], one))
            self.last_report = _report(reply, reply.words, every)
        return made


class RemoteModel(_RemotePatched, Model):
    def __init__(self, session: "RemoteSession", name: str, attention: str) -> None:
        super().__init__()
        self._session, self._name, self._attention = session, name, attention
        #: What the daemon told of it with the last call; empty before.
        self.info = {}

    def clone(self) -> "RemoteModel":
        twin = RemoteModel(self._session, self._name, self._attention)
        twin._take_recipe(self)
        twin.info = dict(self.info)
        return twin

    def __call__(
        self,
        x: Any,
        timesteps: Any,
        context: Any,
        *,
        y: Any = None,
        guidance: Any = None,
        control: Optional[Mapping[str, Sequence[Any]]] = None,
        progress: Optional[Progress] = None,
        call: Optional[Call] = None,
    ) -> Tensor:
        own = call_of(call, progress)
        tensors = {"x": x, "timesteps": timesteps, "context": context, "y": y, "guidance": guidance}
        for side, arrays in (control or {}).items():
            choice("side of a control", side, ("input", "middle", "output"))
            tensors.update({f"control/{side}/{index}": array for index, array in enumerate(arrays)})
        fields: Dict[str, Any] = {
            "model": self._name, "loras": self._stack(), "strict": self.strict, "attention": self._attention,
            "precision": self._wire_precision, "lora_mode": self.lora_mode,
        }
        if self.lora_mode == MODES[2] and self.forwards:
            fields["forwards"] = self.forwards
        given = {name: array for name, array in tensors.items() if array is not None}
        reply = self._ask("model_forward", fields, given, own)
        self.info = dict(reply["model"])
        told = reply.words.get("loras")
        outcome = {**told["coverage"], "mode": told["mode"], "not_merged": told["not_merged"]} if told else None
        self._told = tuple(_lora_files(self.info["family"], outcome)) if outcome else ()
        self.last_report = _report(reply, reply["report"], outcome)
        return reply.tensors["out"]


class RemoteVision(_Remote, Vision):
    def __init__(self, session: "RemoteSession", name: str) -> None:
        super().__init__()
        self._session, self._name = session, name
        #: What the daemon told of it with the last call; empty before.
        self.info = {}

    def clone(self) -> "RemoteVision":
        twin = RemoteVision(self._session, self._name)
        twin._precision, twin.info = self._precision, dict(self.info)
        return twin

    def encode(
        self,
        *images: Any,
        part: Optional[Part] = None,
        progress: Optional[Progress] = None,
        call: Optional[Call] = None,
    ) -> Features:
        own = call_of(call, progress)
        fields = {"model": self._name, "precision": self._wire_precision, "regions": [part] if part else []}
        pictures = {f"image_{index}": image for index, image in enumerate(images)}
        reply = self._ask("encode_vision", fields, pictures, own)
        self.info = dict(reply["model"])
        self.last_report = _report(reply, reply.words)
        tensors = reply.tensors
        return Features(
            tensors["last_hidden_state"], tensors["penultimate"], tensors.get("pooler_output"),
            tensors.get("image_embeds"),
        )


class RemoteVlm(_Remote, Vlm):
    def __init__(self, session: "RemoteSession", name: str) -> None:
        super().__init__()
        self._session, self._name = session, name
        #: What the daemon told of it with the last call; empty before.
        self.info = {}

    def clone(self) -> "RemoteVlm":
        twin = RemoteVlm(self._session, self._name)
        twin._precision, twin.info = self._precision, dict(self.info)
        return twin

    def generate(
        self,
        prompt: str,
        *images: Any,
        system: Optional[str] = None,
        max_tokens: int = 512,
        temperature: float = 0.0,
        top_k: int = 0,
        top_p: float = 1.0,
        min_p: float = 0.0,
        repetition_penalty: float = 1.0,
        seed: int = 0,
        stop: Sequence[str] = (),
        on_text: Optional[Piece] = None,
        progress: Optional[Progress] = None,
        call: Optional[Call] = None,
    ) -> Generated:
        own = call_of(call, progress)
        sampling = {
            "temperature": temperature, "top_k": top_k, "top_p": top_p, "min_p": min_p,
            "repetition_penalty": repetition_penalty, "seed": seed,
        }
        fields: Dict[str, Any] = {
            "model": self._name, "prompt": prompt, "max_tokens": max_tokens, "sampling": sampling, "stop": list(stop),
            "precision": self._wire_precision, "stream": on_text is not None,
        }
        if system is not None:
            fields["system"] = system

        def hear(event: Dict[str, Any]) -> None:
            if event.get("event") == "text" and event["text"]:
                own._guard(on_text, event["text"])

        pictures = {f"image_{index}": image for index, image in enumerate(images)}
        reply = self._ask("vlm_generate", fields, pictures, own, hear if on_text is not None else None)
        self.info = dict(reply["model"])
        self.last_report = _report(reply, reply.words)
        return Generated(
            reply["text"] or "", tuple(reply["ids"]), reply["prompt_tokens"], reply["picture_tokens"],
            reply["finish"], reply["prompt_seconds"], reply["generation_seconds"],
        )


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

    def _model(self, path: Path) -> str:
        """What the daemon knows a model by: the name of one that it has, or else the id of a file or folder, which the
        daemon reads where it may, and is sent where it may not."""
        text = os.fspath(path)
        if not text:
            raise errors.InvalidInput("path is empty")
        if text in _BUNDLED or any(text in (model["name"], model["model_id"]) for model in self._list()):
            return text
        real = str(pathlib.Path(text).resolve())
        try:
            return str(self._connection.ask("register_model_by_path", {"model_path": real})["model_id"])
        except errors.LunaError as error:
            if error.reason is None and error.kind not in _UNREADABLE:
                raise
        tensors, metadata = _tensors_of(text)
        fields = {"name": pathlib.Path(text).name, "metadata": metadata}
        return str(self._connection.ask("register_model", fields, tensors)["model_id"])

    def _put_lora(self, lora: Lora) -> str:
        """What the daemon knows a LoRA by."""
        if lora.data is not None:
            raise errors.Unsupported("a LoRA in memory cannot be sent yet", remedy="give it as a file")
        if lora.path is None:
            assert lora.name is not None
            return lora.name
        real = str(pathlib.Path(lora.path).resolve())
        try:
            return str(self._connection.ask("lora_cache_get", {"lora": real})["lora_id"])
        except errors.LunaError as error:
            if error.reason is None:
                raise
        tensors, metadata = _tensors_of(lora.path)
        fields = {"name": pathlib.Path(lora.path).stem, "metadata": metadata}
        return str(self._connection.ask("lora_cache_put", fields, tensors)["lora_id"])

    def vae(self, path: Path = "moonlet") -> Vae:
        return RemoteVae(self, self._model(path))

    def clip(
        self,
        *paths: Path,
        recipe: Optional[str] = None,
        embedding_folders: Sequence[Path] = (),
        cache_bytes: int = 0,
    ) -> Clip:
        """As `Session.clip`; the daemon has folders of textual inversions and a cache of its own."""
        if embedding_folders:
            raise errors.Unsupported("a daemon has its own folders of textual inversions", remedy="leave them out")
        return RemoteClip(self, [self._model(path) for path in paths or ("demo",)], recipe)

    def model(self, path: Path, attention: str = "auto") -> Model:
        return RemoteModel(self, self._model(path), attention)

    def vision(self, path: Path) -> Vision:
        return RemoteVision(self, self._model(path))

    def vlm(self, path: Path, tokenizer: Optional[Path] = None) -> Vlm:
        if tokenizer is not None:
            raise errors.Unsupported("a daemon takes the tokenizer beside the weights", remedy="leave it out")
        return RemoteVlm(self, self._model(path))

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
        choice("format", format, tuple(_FORMATS))
        wish: Dict[str, Any] = {"format": _FORMATS[format]}
        if quality:
            wish["quality"] = quality
        values = {key: value for key, value in (("prompt", prompt), ("seed", seed)) if value is not None}
        fields: Dict[str, Any] = {
            "images": [wish] * len(images), "metadata": list((metadata or {}).items()), "values": values,
            "if_exists": if_exists, "durable": durable,
        }
        fields.update({key: text for key, text in (("name", name), ("folder", folder)) if text is not None})
        pictures = {f"image_{index}": pack(image) for index, image in enumerate(images)}
        return RemoteSaveJob(self, self._connection.ask("save_images_async", fields, pictures)["job_id"])
