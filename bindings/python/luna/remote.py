"""A daemon's VAEs, denoisers and vision encoders, and what all its models share, by the standard library alone. Enters: arrays
and options. Leaves: what the daemon gives, as `models` has it. Works on machines without the library."""

from __future__ import annotations

import array
import struct
from typing import TYPE_CHECKING, Any, Dict, List, Mapping, Optional, Sequence, Tuple

from . import errors
from .arrays import BytesTensor, Tensor, pack
from .calls import Call
from .models import CodeWish, Features, Model, Part, Step, Vae, Vision
from .recipe import LONG, SHORT, LoraAdapter, LoraFile, LoraRecipe, Recipe, Report
from .wire import Heard, Reply

if TYPE_CHECKING:
    from .remote_session import RemoteSession


def report_of(reply: Reply, told: Mapping[str, Any], lora: Optional[Mapping[str, Any]] = None) -> Report:
    files = lora["files"] if lora else ()
    tiling, cache = told.get("tiling") or {}, told.get("cache") or {}
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
        cache_hit=cache.get("hit", False),
        cache_hits=cache.get("consecutive_hits", 0),
        cache_difference=cache.get("difference"),
    )


def lora_files(model: str, outcome: Mapping[str, Any]) -> List[LoraFile]:
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


class Remote(Recipe):
    """A model of a daemon's; what it is known by is `_source`."""

    def __init__(self, session: "RemoteSession", *source: Any) -> None:
        super().__init__()
        self._session, self._source = session, source
        #: What the daemon told of it with the last call; empty before.
        self.info: Dict[str, Any] = {}

    def _again(self) -> Any:
        return type(self)(self._session, *self._source)

    def _take_recipe(self, other: Any) -> None:
        super()._take_recipe(other)
        self.info = dict(other.info)

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


class RemotePatched(Remote, LoraRecipe):
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

    def _fates(self, reply: Reply) -> Optional[Mapping[str, Any]]:
        """Notes what became of the stack on a model of one part, and gives it."""
        told = reply.words.get("loras")
        outcome = {**told["coverage"], "mode": told["mode"], "not_merged": told["not_merged"]} if told else None
        self._told = tuple(lora_files(self.info["family"], outcome)) if outcome else ()
        return outcome

    @property
    def lora_report(self) -> Tuple[LoraFile, ...]:
        return self._told


class RemoteVae(Remote, Vae):
    def __init__(self, session: "RemoteSession", name: str) -> None:
        super().__init__(session, name)
        self._name = name
        # A daemon tells of a VAE with a call's answer.
        grey = ("F32", (1, 32, 32, 3), memoryview(bytes(32 * 32 * 3 * 4)))
        told = self._ask("vae_encode", {"vae": name}, {"pixels": grey}, Call())["vae"]
        self.latent_channels, self.factor = told["latent_channels"], told["factor"]
        self.scale, self.shift = told["scale_factor"], told["shift_factor"]

    def _encode(self, image: Any, wish: CodeWish, call: Call) -> Tuple[Tensor, Report]:
        if wish.scaled and self.scale is None:
            raise errors.Unsupported("the VAE's file does not tell the factors of its latents")
        fields = {"size_rule": wish.sizes, "seed": wish.seed, **self._fields(wish.tile * self.factor)}
        reply = self._ask("vae_encode", fields, {"pixels": image}, call)
        latent = reply.tensors["latents"]
        if wish.scaled:
            latent = _scaled(latent, self.scale or 1.0, self.shift or 0.0)
        return latent, report_of(reply, reply["report"])

    def _decode(self, latent: Any, wish: CodeWish, call: Call) -> Tuple[Tensor, Report]:
        fields = {"scaled": wish.scaled, **self._fields(wish.tile)}
        reply = self._ask("vae_decode", fields, {"latents": latent}, call)
        return reply.tensors["pixels"], report_of(reply, reply["report"])

    def _fields(self, tile: int) -> Dict[str, Any]:
        tiles = {"tiled": True, "tile_size": tile} if tile else {}
        return {"vae": self._name, "precision": self._wire_precision, **tiles}


def _scaled(latent: Tensor, scale: float, shift: float) -> Tensor:
    def f32(number: float) -> float:
        rounded: float = struct.unpack("f", struct.pack("f", number))[0]
        return rounded

    # As the library does it: each step is rounded to f32.
    scale, shift = f32(scale), f32(shift)
    flat = latent.view().cast("B").cast("f")
    values = array.array("f", (f32(f32(value - shift) * scale) for value in flat))
    return BytesTensor("float32", latent.shape, memoryview(values).cast("B"))


class RemoteModel(RemotePatched, Model):
    def __init__(self, session: "RemoteSession", name: str, attention: str) -> None:
        super().__init__(session, name, attention)
        self._name, self._usual = name, attention

    def _forward(self, step: Step, call: Call) -> Tuple[Tensor, Report]:
        single = ("x", "timesteps", "context", "y", "guidance")
        tensors = {name: getattr(step, name) for name in single}
        for side, arrays in step.control.items():
            tensors.update({f"control/{side}/{index}": array for index, array in enumerate(arrays)})
        attention = self._usual if self.attention == "default" else self.attention
        fields: Dict[str, Any] = {
            "model": self._name, "loras": self._stack(), "strict": self.strict, "attention": attention,
            "precision": self._wire_precision, "lora_mode": self.lora_mode,
        }
        if self.lora_mode == "auto" and self.forwards:
            fields["forwards"] = self.forwards
        if step.cache is not None:
            fields["cache"] = {
                "sequence": step.cache.name, "threshold": step.cache.threshold, "start_percent": step.cache.start,
                "end_percent": step.cache.end, "max_consecutive_hits": step.cache.most_hits,
            }
        given = {name: array for name, array in tensors.items() if array is not None}
        reply = self._ask("model_forward", fields, given, call)
        self.info = dict(reply["model"])
        return reply.tensors["out"], report_of(reply, reply["report"], self._fates(reply))


class RemoteVision(Remote, Vision):
    def _encode(self, images: Sequence[Any], part: Optional[Part], call: Call) -> Tuple[Features, Report]:
        fields = {"model": self._source[0], "precision": self._wire_precision, "regions": [part] if part else []}
        pictures = {f"image_{index}": image for index, image in enumerate(images)}
        reply = self._ask("encode_vision", fields, pictures, call)
        self.info = dict(reply["model"])
        tensors = reply.tensors
        features = Features(
            tensors["last_hidden_state"], tensors["penultimate"], tensors.get("pooler_output"),
            tensors.get("image_embeds"),
        )
        return features, report_of(reply, reply.words)
