"""VAEs, denoisers and vision encoders in this process, and what all models here share. Enters: arrays and options. Leaves:
what the library gives, as `models` has it."""

from __future__ import annotations

import ctypes
import weakref
from typing import TYPE_CHECKING, Any, Callable, Dict, List, Mapping, Optional, Sequence, Tuple, TypeVar

from . import _abi
from .arrays import Borrowed, LibraryTensor, Tensor
from .calls import Call
from .library import check, library, read_list, record
from .models import CodeWish, Features, Model, Part, Step, Vae, Vision
from .recipe import (
    ATTENTION, MODES, NOT_MERGED, OUTCOMES, PRECISIONS, SIZES, Lora, LoraAdapter, LoraFile, LoraRecipe, Recipe, Report,
    choice, group_adapters,
)
from .session import FILTERS, RESIZES, Preprocessing
from .texts import Conditioning, LoraTag

if TYPE_CHECKING:
    from .embedded_session import EmbeddedSession

T = TypeVar("T")


def text_of(value: Optional[bytes]) -> Optional[str]:
    return None if value is None else value.decode()


def report_of(told: Any) -> Report:
    """A report of the library's."""
    bits = ((_abi.LUNA_FALLBACK_TILED, "tiled"), (_abi.LUNA_FALLBACK_WIDENED, "widened_to_f32"))
    return Report(
        dtype=PRECISIONS[told.precision],
        fallbacks=tuple(name for bit, name in bits if told.fallbacks & bit),
        attention=ATTENTION[told.attention],
        tile=told.tile,
        tiles=told.tiles,
        cached=told.cached,
        copied_bytes=told.copied_bytes,
        seconds=told.nanoseconds / 1e9,
        adapters_applied=told.adapters_applied,
        adapters_missed=told.adapters_missed,
        lora_mode=MODES[told.lora_mode],
        not_merged=NOT_MERGED[told.not_merged],
        queue_seconds=told.queue_nanoseconds / 1e9,
        cache_hit=bool(told.cache_hit),
        cache_hits=told.cache_hits,
        cache_difference=told.cache_difference if told.cache_compared else None,
        layers=(told.layers_branch, told.layers_built, told.layers_merged, told.layers_bias),
    )


def copy_of(handle: Any) -> Any:
    """A handle out of a struct or an array, which ctypes hands out as a reference."""
    return type(handle).from_buffer_copy(handle)


def is_set(handle: Any) -> bool:
    return any(getattr(handle, name) for name, _ in handle._fields_)


def tensor_of(handle: Any) -> Optional[Tensor]:
    return LibraryTensor(copy_of(handle)) if is_set(handle) else None


def needed(handle: Any) -> Tensor:
    return LibraryTensor(copy_of(handle))


def facts_of(info: Any, *texts: str) -> Dict[str, Any]:
    facts = {name: getattr(info, name) for name, _ in info._fields_ if name not in ("size", "reserved")}
    return {name: value.decode() if name in texts else value for name, value in facts.items()}


def views_of(images: Sequence[Any]) -> Tuple[Any, List[Borrowed]]:
    borrowed = [Borrowed(image) for image in images]
    return (ctypes.POINTER(_abi.luna_view) * len(borrowed))(*[ctypes.pointer(one.view) for one in borrowed]), borrowed


class Stack:
    """A stack of the library's, with the Python objects that it was made of."""

    def __init__(self, session: "EmbeddedSession", recipe: LoraRecipe, prompts: Sequence[str] = ()) -> None:
        """`prompts` name further LoRAs by tags."""
        entries = (_abi.luna_lora * len(recipe.lora_stack))()
        self._keep = [self._fill(entry, lora) for entry, lora in zip(entries, recipe.lora_stack)]
        mode = MODES.index(recipe.lora_mode)
        options = record(_abi.luna_loras_options, strict=int(recipe.strict), mode=mode)
        options.forwards = recipe.forwards if recipe.lora_mode == "auto" else 0
        options.prompts = (ctypes.c_char_p * len(prompts))(*[prompt.encode() for prompt in prompts])
        options.prompt_count = len(prompts)
        self.handle = _abi.luna_loras()
        place = ctypes.byref(self.handle)
        check(library().luna_loras_new(session._handle, entries, len(entries), ctypes.byref(options), place))
        self._end = weakref.finalize(self, library().luna_loras_free, self.handle)

    @staticmethod
    def _fill(entry: Any, lora: Lora) -> Any:
        entry.path = None if lora.path is None else lora.path.encode()
        entry.name = None if lora.name is None else lora.name.encode()
        entry.model, entry.clip = lora.strength, lora.clip_strength
        if lora.data is not None:
            entry.data = ctypes.cast(ctypes.c_char_p(lora.data), ctypes.c_void_p).value
            entry.data_bytes = len(lora.data)
        return lora.data

    def tags(self) -> Tuple[Tuple[LoraTag, ...], Tuple[str, ...]]:
        """What the tags of its prompts said, and those that could not be read."""

        def tag(item: Any) -> Tuple[Optional[LoraTag], Optional[str]]:
            known = None if item.name is None else LoraTag(item.name.decode(), item.model, item.clip)
            return known, text_of(item.malformed)

        handle = _abi.luna_list()
        check(library().luna_loras_list_tags(self.handle, ctypes.byref(handle)))
        said = read_list(handle, _abi.luna_lora_tag, (library().luna_list_lora_tag, tag))
        return tuple(one for one, _ in said if one), tuple(text for _, text in said if text)

    def report(self) -> Tuple[LoraFile, ...]:
        """What became of it."""

        def adapter(item: Any) -> Tuple[Tuple[str, int], LoraAdapter]:
            targets = tuple(item.targets[index].decode() for index in range(item.target_count))
            words = (item.nearest, item.expected, item.found, item.what)
            told = LoraAdapter(
                item.key.decode(), OUTCOMES[item.outcome], text_of(item.kind), targets, *[text_of(word) for word in words]
            )
            return (item.model.decode(), item.entry), told

        handle = _abi.luna_list()
        check(library().luna_loras_list_adapters(self.handle, ctypes.byref(handle)))
        adapters = group_adapters(read_list(handle, _abi.luna_lora_adapter, (library().luna_list_lora_adapter, adapter)))

        def file(item: Any) -> LoraFile:
            return LoraFile(
                item.name.decode(), item.model.decode(), item.strength, text_of(item.made_for), MODES[item.mode],
                NOT_MERGED[item.not_merged], item.elsewhere, tuple(adapters.get((item.model.decode(), item.entry), ())),
            )

        handle = _abi.luna_list()
        check(library().luna_loras_list_files(self.handle, ctypes.byref(handle)))
        return tuple(read_list(handle, _abi.luna_lora_file, (library().luna_list_lora_file, file)))


class Handle(Recipe):
    """A handle that is freed with its object. `_family` is its part of the functions' names; what it is loaded from is
    `_source`."""

    _family = ""
    _loader = "load"
    _session: "EmbeddedSession"
    _handle: Any
    _end: Any

    def __init__(self, session: "EmbeddedSession", *source: Any) -> None:
        super().__init__()
        self._session, self._source = session, source
        self._handle = getattr(_abi, f"luna_{self._family}")()
        check(self._function(self._loader)(session._handle, *self._load(*source), ctypes.byref(self._handle)))
        self._end = weakref.finalize(self, self._function("free"), self._handle)

    def _function(self, name: str) -> Any:
        return getattr(library(), f"luna_{self._family}_{name}")

    def _load(self, *source: Any) -> Sequence[Any]:
        """What the function takes between session and handle."""
        return source

    def _info(self) -> Any:
        info = record(getattr(_abi, f"luna_{self._family}_info"))
        check(self._function("get_info")(self._handle, ctypes.byref(info)))
        return info

    def _again(self) -> Any:
        return type(self)(self._session, *self._source)

    def _call(self, name: str, arguments: Sequence[Any], made: Tuple[Any, Callable[[], T]], call: Call) -> Tuple[T, Report]:
        """Calls a function: `made` is the place of its result and what is made of it. What is made is made before a
        listener's exception is raised, so that nothing is left behind."""
        told = record(_abi.luna_report)
        status = self._function(name)(self._handle, *arguments, made[0], ctypes.byref(told))
        result = made[1]() if status == 0 else None
        call.check(status)
        assert result is not None
        return result, report_of(told)

    def close(self) -> None:
        """Frees the handle. The weights stay in memory for the next one, as the session's budget allows."""
        self._end()


class Patched(Handle, LoraRecipe):
    """A handle with LoRAs. The stack is made by the first call that needs it."""

    _stack: Optional[Stack] = None

    def _changed(self) -> None:
        self._stack = None

    def _loras_handle(self) -> Any:
        if not self.lora_stack:
            return _abi.luna_loras()
        if self._stack is None:
            self._stack = Stack(self._session, self)
        return self._stack.handle

    @property
    def lora_report(self) -> Tuple[LoraFile, ...]:
        return () if self._stack is None else self._stack.report()


class EmbeddedVae(Handle, Vae):
    _family = "vae"
    _loader = "load_with"

    def __init__(self, session: "EmbeddedSession", path: bytes, halves: int) -> None:
        super().__init__(session, path, halves)
        info = self._info()
        self.latent_channels = info.latent_channels
        self.factor = info.factor
        self.scale = info.scale if info.has_scale else None
        self.shift = info.shift if info.has_scale else None
        self.weight_bytes: int = info.weight_bytes

    def _load(self, path: bytes, halves: int) -> Sequence[Any]:
        return path, ctypes.byref(record(_abi.luna_vae_load_options, halves=halves))

    def _encode(self, image: Any, wish: CodeWish, call: Call) -> Tuple[Tensor, Report]:
        options = self._options(_abi.luna_encode_options, wish, call)
        options.sizes, options.sample = SIZES.index(wish.sizes), wish.seed is not None
        options.seed = wish.seed or 0
        return self._run("encode", image, options, call)

    def _decode(self, latent: Any, wish: CodeWish, call: Call) -> Tuple[Tensor, Report]:
        return self._run("decode", latent, self._options(_abi.luna_decode_options, wish, call), call)

    def _options(self, kind: Any, wish: CodeWish, call: Call) -> Any:
        options = record(kind, precision=self._precision, call=call._handle, scaled=int(wish.scaled), tile=wish.tile)
        options.tiling = 2 if wish.tile else 0
        return options

    def _run(self, name: str, array: Any, options: Any, call: Call) -> Tuple[Tensor, Report]:
        borrowed, handle = Borrowed(array), _abi.luna_tensor()
        arguments = (ctypes.byref(borrowed.view), ctypes.byref(options))
        return self._call(name, arguments, (ctypes.byref(handle), lambda: LibraryTensor(handle)), call)


class EmbeddedModel(Patched, Model):
    _family = "model"

    def __init__(self, session: "EmbeddedSession", path: bytes, attention: str) -> None:
        super().__init__(session, path, attention)
        self.info = facts_of(self._info(), "family")

    def _load(self, path: bytes, attention: str) -> Sequence[Any]:
        options = record(_abi.luna_model_load_options, attention=choice("attention", attention, ATTENTION))
        return path, ctypes.byref(options)

    def _forward(self, step: Step, call: Call) -> Tuple[Tensor, Report]:
        keep: List[Any] = []

        def pointer(array: Any) -> Any:
            if array is None:
                return None
            keep.append(Borrowed(array))
            return ctypes.pointer(keep[-1].view)

        given = record(_abi.luna_forward_input)
        for name in ("x", "timesteps", "context", "y", "guidance"):
            setattr(given, name, pointer(getattr(step, name)))
        for side, arrays in step.control.items():
            pointers = [pointer(array) for array in arrays]
            array = (ctypes.POINTER(_abi.luna_view) * len(pointers))(*pointers)
            keep.append(array)
            setattr(given, f"control_{side}", array)
            setattr(given, f"control_{side}_count", len(pointers))
        options, handle = self._options(step, call), _abi.luna_tensor()
        made = (ctypes.byref(handle), lambda: LibraryTensor(handle))
        return self._call("forward", (ctypes.byref(given), ctypes.byref(options)), made, call)

    def _options(self, step: Step, call: Call) -> Any:
        options = record(_abi.luna_forward_options, precision=self._precision, attention=self._attention)
        options.call, options.loras = call._handle, self._loras_handle()
        cache = step.cache
        if cache is not None:
            # 0 stands for the usual there; here it is what it says.
            options.cache_sequence, options.cache_threshold = cache.name.encode(), cache.threshold or -1.0
            options.cache_start_percent, options.cache_end_percent = cache.start, cache.end or 1e-30
            options.cache_max_hits = cache.most_hits or 0
        return options

    def pooled(self, conditioning: Conditioning, sizes: Optional[Sequence[int]] = None) -> Optional[Tensor]:
        if conditioning.pooled is None:
            return None
        told, handle, borrowed = None, _abi.luna_tensor(), Borrowed(conditioning.pooled)
        if sizes is not None:
            names = ("width", "height", "crop_left", "crop_top", "target_width", "target_height")
            told = ctypes.byref(record(_abi.luna_picture_sizes, **dict(zip(names, sizes))))
        check(library().luna_model_pooled(self._handle, ctypes.byref(borrowed.view), told, ctypes.byref(handle)))
        return tensor_of(handle)


class EmbeddedVision(Handle, Vision):
    _family = "vision"
    _loader = "load_with"

    def __init__(self, session: "EmbeddedSession", path: bytes, how: Tuple[int, Optional[Preprocessing]]) -> None:
        super().__init__(session, path, how)
        self.info = facts_of(self._info(), "kind")

    def _load(self, path: bytes, how: Tuple[int, Optional[Preprocessing]]) -> Sequence[Any]:
        options, own = record(_abi.luna_vision_load_options, activation=how[0]), how[1]
        if own is not None:
            options.preprocessing, options.resize = 1, RESIZES.index(own.resize)
            options.filter, options.rescale = FILTERS.index(own.filter), own.rescale
            (options.resize_height, options.resize_width), (options.crop_height, options.crop_width) = own.size, own.crop
            options.mean[:], options.std[:] = own.mean, own.std
        return path, ctypes.byref(options)

    def _encode(self, images: Sequence[Any], part: Optional[Part], call: Call) -> Tuple[Features, Report]:
        options = record(_abi.luna_vision_options, precision=self._precision, call=call._handle)
        if part is not None:
            options.part, (options.top, options.left, options.height, options.width) = 1, part
        (views, _keep), made = views_of(images), _abi.luna_features()

        def features() -> Features:
            return Features(
                needed(made.last_hidden_state), needed(made.penultimate), tensor_of(made.pooler_output),
                tensor_of(made.image_embeds),
            )

        arguments = (views, len(images), ctypes.byref(options))
        return self._call("encode", arguments, (ctypes.byref(made), features), call)
