"""Models. Enters: arrays and options. Leaves: tensors, each call with a report of how it was done.

An object carries its own recipe (dtype, and what else is said of it): the state is the caller's and dies with it. The
weights behind it are shared and never change."""

from __future__ import annotations

import ctypes
import weakref
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, List, Optional, Sequence, Tuple, TypeVar, Union

from . import _abi, errors
from .arrays import Borrowed, Tensor
from .calls import Call, Progress, call_of, in_thread
from .library import check, library, record

if TYPE_CHECKING:
    from .session import Session

_PRECISIONS = ("float32", "bfloat16", "float16")
_SHORT = {"f32": "float32", "bf16": "bfloat16", "f16": "float16"}
_ATTENTION = ("default", "auto", "flash", "split", "pytorch")
_SIZES = ("crop", "pad", "refuse")
Own = TypeVar("Own", bound="_Loaded")


def _choice(what: str, value: str, known: Sequence[str]) -> int:
    if value in known:
        return known.index(value)
    raise errors.InvalidInput(f"there is no such {what}", expected=", ".join(known), found=repr(value))


def _precision(dtype: Any) -> int:
    """Of a name, or of NumPy's or torch's dtype."""
    name = str(dtype).replace("torch.", "")
    return _choice("dtype", _SHORT.get(name, name), _PRECISIONS)


@dataclass(frozen=True)
class Report:
    """How a call was done."""

    dtype: str
    fallbacks: Tuple[str, ...]
    attention: str
    tile: int
    tiles: int
    cached: int
    copied_bytes: int
    seconds: float

    @classmethod
    def of(cls, told: Any) -> "Report":
        bits = ((_abi.LUNA_FALLBACK_TILED, "tiled"), (_abi.LUNA_FALLBACK_WIDENED, "widened_to_f32"))
        return cls(
            dtype=_PRECISIONS[told.precision],
            fallbacks=tuple(name for bit, name in bits if told.fallbacks & bit),
            attention=_ATTENTION[told.attention],
            tile=told.tile,
            tiles=told.tiles,
            cached=told.cached,
            copied_bytes=told.copied_bytes,
            seconds=told.nanoseconds / 1e9,
        )


class _Loaded:
    """A handle with its recipe. `last_report` tells how the last call of this object was done."""

    _free = ""

    def __init__(self, session: "Session", handle: Any) -> None:
        self._session, self._handle = session, handle
        self._end = weakref.finalize(self, getattr(library(), self._free), handle)
        self._precision = 0
        self.last_report: Optional[Report] = None

    @property
    def dtype(self) -> str:
        """The precision of activations."""
        return _PRECISIONS[self._precision]

    @dtype.setter
    def dtype(self, dtype: Any) -> None:
        self._precision = _precision(dtype)

    def close(self) -> None:
        """Frees the handle. The weights stay in memory for the next one, as the session's budget allows."""
        self._end()

    def __enter__(self: Own) -> Own:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class Vae(_Loaded):
    """Pictures to latents and back. Made by `session.vae()`."""

    _free = "luna_vae_free"

    def __init__(self, session: "Session", handle: Any) -> None:
        super().__init__(session, handle)
        info = record(_abi.luna_vae_info)
        check(library().luna_vae_get_info(handle, ctypes.byref(info)))
        self.latent_channels: int = info.latent_channels
        self.factor: int = info.factor
        self.scale: Optional[float] = info.scale if info.has_scale else None
        self.shift: Optional[float] = info.shift if info.has_scale else None
        self.weight_bytes: int = info.weight_bytes

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
        """Pictures, [batch, height, width, channels] in 0..1 (bytes: 0..255), to latents. `seed` asks for a sample
        instead of the mean, `scaled` for the latent as a sampler sees it, `tile` for tiles of that many latent pixels."""
        own = call_of(call, progress)
        options = record(_abi.luna_encode_options, precision=self._precision, call=own._handle, scaled=int(scaled))
        options.sizes, options.sample, options.seed = _choice("size rule", sizes, _SIZES), seed is not None, seed or 0
        options.tiling, options.tile = 2 if tile else 0, tile
        return self._run(library().luna_vae_encode, image, options, own)

    def decode(
        self,
        latent: Any,
        *,
        scaled: bool = False,
        tile: int = 0,
        progress: Optional[Progress] = None,
        call: Optional[Call] = None,
    ) -> Tensor:
        """Latents, [batch, channels, height, width], to pictures, [batch, height*8, width*8, 3] in 0..1."""
        own = call_of(call, progress)
        options = record(_abi.luna_decode_options, precision=self._precision, call=own._handle, scaled=int(scaled))
        options.tiling, options.tile = 2 if tile else 0, tile
        return self._run(library().luna_vae_decode, latent, options, own)

    def _run(self, function: Any, array: Any, options: Any, call: Call) -> Tensor:
        borrowed, handle, told = Borrowed(array), _abi.luna_tensor(), record(_abi.luna_report)
        places = (ctypes.byref(options), ctypes.byref(handle), ctypes.byref(told))
        status = function(self._handle, ctypes.byref(borrowed.view), *places)
        if status == 0:
            self.last_report = Report.of(told)
            tensor = Tensor(handle)
        call.check(status)
        return tensor

    async def encode_async(self, image: Any, **options: Any) -> Tensor:
        """As `encode`, beside the event loop. Cancelling the task cancels the call."""
        call = call_of(options.pop("call", None), options.pop("progress", None))
        return await in_thread(call, lambda: self.encode(image, call=call, **options))

    async def decode_async(self, latent: Any, **options: Any) -> Tensor:
        """As `decode`, beside the event loop. Cancelling the task cancels the call."""
        call = call_of(options.pop("call", None), options.pop("progress", None))
        return await in_thread(call, lambda: self.decode(latent, call=call, **options))


@dataclass(frozen=True)
class Conditioning:
    """An encoded prompt: what a denoiser takes."""

    tokens: Tensor
    pooled: Optional[Tensor]
    mask: Optional[Tensor]
    problems: Tuple[str, ...]


@dataclass(frozen=True)
class Token:
    """One token of a prompt, for one encoder. `id` is None where a textual inversion's vector stands."""

    encoder: str
    chunk: int
    id: Optional[int]
    weight: float
    embedding: Optional[str]


def _set(handle: Any) -> bool:
    return any(getattr(handle, name) for name, _ in handle._fields_)


class Clip(_Loaded):
    """The text encoders of a diffusion model. Made by `session.clip()`."""

    _free = "luna_text_free"

    def __init__(self, session: "Session", handle: Any) -> None:
        super().__init__(session, handle)
        self.clip_skip = 0

    def tokenize(self, prompt: str) -> List[Token]:
        """The tokens that each encoder reads, with ComfyUI's weights such as `(red:1.3)`."""
        from .session import read_list

        handle = _abi.luna_list()
        text = prompt.encode()
        options = record(_abi.luna_text_options, clip_skip=self.clip_skip)
        check(library().luna_text_tokenize(self._handle, text, ctypes.byref(options), ctypes.byref(handle), None))

        def token(item: Any) -> Token:
            name = None if item.embedding is None else item.embedding.decode()
            return Token(item.encoder.decode(), item.chunk, None if item.id < 0 else item.id, item.weight, name)

        return read_list(handle, _abi.luna_token, (library().luna_list_token, token))

    def encode(
        self, *prompts: str, progress: Optional[Progress] = None, call: Optional[Call] = None
    ) -> List[Conditioning]:
        """Prompts, positive and negative or any others, in one batch."""
        own = call_of(call, progress)
        options = record(_abi.luna_text_options, precision=self._precision, clip_skip=self.clip_skip, call=own._handle)
        texts = (ctypes.c_char_p * len(prompts))(*[prompt.encode() for prompt in prompts])
        places, told = (_abi.luna_conditioning * len(prompts))(), record(_abi.luna_report)
        status = library().luna_text_encode(
            self._handle, texts, len(prompts), ctypes.byref(options), places, ctypes.byref(told)
        )
        encoded = []
        if status == 0:
            self.last_report = Report.of(told)
            encoded = [self._conditioning(place) for place in places]
        own.check(status)
        return encoded

    async def encode_async(self, *prompts: str, **options: Any) -> List[Conditioning]:
        """As `encode`, beside the event loop. Cancelling the task cancels the call."""
        call = call_of(options.pop("call", None), options.pop("progress", None))
        return await in_thread(call, lambda: self.encode(*prompts, call=call, **options))

    @staticmethod
    def _conditioning(place: Any) -> Conditioning:
        from .session import read_list

        problems: List[str] = []
        if _set(place.problems):
            read = (library().luna_list_problem, lambda item: item.text.decode())
            problems = read_list(place.problems, _abi.luna_problem, read)
        pooled, mask = (Tensor(copy_of(part)) if _set(part) else None for part in (place.pooled, place.mask))
        return Conditioning(Tensor(copy_of(place.tokens)), pooled, mask, tuple(problems))


def copy_of(handle: Any) -> Any:
    """A handle out of an array, which ctypes hands out as a reference."""
    return type(handle).from_buffer_copy(handle)


Arrays = Union[Any, Sequence[Any]]


class Model(_Loaded):
    """A denoiser: `model(x, timesteps, context, y=..., guidance=..., control=...)` is one step of a sampler. Made by
    `session.model()`."""

    _free = "luna_model_free"

    def __init__(self, session: "Session", handle: Any, source: Tuple[str, str]) -> None:
        super().__init__(session, handle)
        self._source = source
        info = record(_abi.luna_model_info)
        check(library().luna_model_get_info(handle, ctypes.byref(info)))
        self.info = {name: getattr(info, name) for name, _ in info._fields_ if name not in ("size", "reserved")}
        self.info["family"] = info.family.decode()

    @classmethod
    def load(cls, session: "Session", path: str, attention: str) -> "Model":
        """As `session.model()`."""
        options = record(_abi.luna_model_load_options, attention=_choice("attention", attention, _ATTENTION))
        handle = _abi.luna_model()
        name = path.encode()
        check(library().luna_model_load(session._handle, name, ctypes.byref(options), ctypes.byref(handle)))
        return cls(session, handle, (path, attention))

    def clone(self) -> "Model":
        """Another object over the same weights, with the same recipe, that goes its own way from here on."""
        twin = Model.load(self._session, *self._source)
        twin._precision = self._precision
        return twin

    def __call__(
        self,
        x: Any,
        timesteps: Any,
        context: Any,
        *,
        y: Any = None,
        guidance: Any = None,
        control: Optional["dict[str, Sequence[Any]]"] = None,
        progress: Optional[Progress] = None,
        call: Optional[Call] = None,
    ) -> Tensor:
        """The network's raw prediction, [batch, channels, height, width]. `control` has ComfyUI's lists `input`,
        `middle` and `output`, with None for a place that nothing is added at."""
        own = call_of(call, progress)
        keep: List[Any] = []

        def pointer(array: Any) -> Any:
            if array is None:
                return None
            keep.append(Borrowed(array))
            return ctypes.pointer(keep[-1].view)

        step = record(_abi.luna_forward_input)
        step.x, step.timesteps, step.context = pointer(x), pointer(timesteps), pointer(context)
        step.y, step.guidance = pointer(y), pointer(guidance)
        for side, arrays in (control or {}).items():
            pointers = [pointer(array) for array in arrays]
            array = (ctypes.POINTER(_abi.luna_view) * len(pointers))(*pointers)
            keep.append(array)
            setattr(step, f"control_{side}", array)
            setattr(step, f"control_{side}_count", len(pointers))
        options = record(_abi.luna_forward_options, precision=self._precision, call=own._handle)
        handle, told = _abi.luna_tensor(), record(_abi.luna_report)
        places = (ctypes.byref(options), ctypes.byref(handle), ctypes.byref(told))
        status = library().luna_model_forward(self._handle, ctypes.byref(step), *places)
        if status == 0:
            self.last_report = Report.of(told)
            prediction = Tensor(handle)
        own.check(status)
        return prediction

    async def forward_async(self, x: Any, timesteps: Any, context: Any, **options: Any) -> Tensor:
        """As a call, beside the event loop. Cancelling the task cancels the call."""
        call = call_of(options.pop("call", None), options.pop("progress", None))
        return await in_thread(call, lambda: self(x, timesteps, context, call=call, **options))
