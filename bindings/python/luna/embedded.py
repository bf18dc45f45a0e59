"""Models in this process. Enters: arrays and options. Leaves: what the library gives, as `models` has it."""

from __future__ import annotations

import ctypes
import weakref
from typing import TYPE_CHECKING, Any, Dict, List, Mapping, Optional, Sequence, Tuple

from . import _abi
from .arrays import Borrowed, LibraryTensor, Tensor
from .calls import Call, Progress, call_of
from .library import check, library, read_list, record
from .models import Clip, Conditioning, Features, Generated, Model, Part, Piece, Token, Vae, Vision, Vlm
from .recipe import (
    ATTENTION, FINISHES, MODES, NOT_MERGED, OUTCOMES, PRECISIONS, SIZES, Lora, LoraAdapter, LoraFile, LoraRecipe,
    Report, choice, group_adapters,
)

if TYPE_CHECKING:
    from .session import Session


def _text(value: Optional[bytes]) -> Optional[str]:
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
    )


def copy_of(handle: Any) -> Any:
    """A handle out of a struct or an array, which ctypes hands out as a reference."""
    return type(handle).from_buffer_copy(handle)


def _set(handle: Any) -> bool:
    return any(getattr(handle, name) for name, _ in handle._fields_)


def _tensor(handle: Any) -> Optional[Tensor]:
    return LibraryTensor(copy_of(handle)) if _set(handle) else None


def _needed(handle: Any) -> Tensor:
    return LibraryTensor(copy_of(handle))


def _facts(info: Any, *texts: str) -> Dict[str, Any]:
    facts = {name: getattr(info, name) for name, _ in info._fields_ if name not in ("size", "reserved")}
    return {name: value.decode() if name in texts else value for name, value in facts.items()}


def _views(images: Sequence[Any]) -> Tuple[Any, List[Borrowed]]:
    borrowed = [Borrowed(image) for image in images]
    return (ctypes.POINTER(_abi.luna_view) * len(borrowed))(*[ctypes.pointer(one.view) for one in borrowed]), borrowed


class _Stack:
    """A stack of the library's, with the Python objects that it was made of."""

    def __init__(self, session: "Session", recipe: LoraRecipe) -> None:
        entries = (_abi.luna_lora * len(recipe.lora_stack))()
        self._keep = [self._fill(entry, lora) for entry, lora in zip(entries, recipe.lora_stack)]
        mode = MODES.index(recipe.lora_mode)
        options = record(_abi.luna_loras_options, strict=int(recipe.strict), mode=mode)
        options.forwards = recipe.forwards if recipe.lora_mode == "auto" else 0
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
            entry.data = ctypes.cast(lora.data, ctypes.c_void_p).value
            entry.data_bytes = len(lora.data)
        return lora.data

    def report(self) -> Tuple[LoraFile, ...]:
        """What became of it."""

        def adapter(item: Any) -> Tuple[Tuple[str, int], LoraAdapter]:
            targets = tuple(item.targets[index].decode() for index in range(item.target_count))
            words = (item.nearest, item.expected, item.found, item.what)
            told = LoraAdapter(
                item.key.decode(), OUTCOMES[item.outcome], _text(item.kind), targets, *[_text(word) for word in words]
            )
            return (item.model.decode(), item.entry), told

        handle = _abi.luna_list()
        check(library().luna_loras_list_adapters(self.handle, ctypes.byref(handle)))
        adapters = group_adapters(read_list(handle, _abi.luna_lora_adapter, (library().luna_list_lora_adapter, adapter)))

        def file(item: Any) -> LoraFile:
            return LoraFile(
                item.name.decode(), item.model.decode(), item.strength, _text(item.made_for), MODES[item.mode],
                NOT_MERGED[item.not_merged], item.elsewhere, tuple(adapters.get((item.model.decode(), item.entry), ())),
            )

        handle = _abi.luna_list()
        check(library().luna_loras_list_files(self.handle, ctypes.byref(handle)))
        return tuple(read_list(handle, _abi.luna_lora_file, (library().luna_list_lora_file, file)))


class _Handle:
    """A handle that is freed with its object."""

    _session: "Session"
    _handle: Any
    _end: Any

    def _own(self, session: "Session", handle: Any, free: str) -> None:
        self._session, self._handle = session, handle
        self._end = weakref.finalize(self, getattr(library(), free), handle)

    def close(self) -> None:
        """Frees the handle. The weights stay in memory for the next one, as the session's budget allows."""
        self._end()


class _Patched(_Handle, LoraRecipe):
    """A handle with LoRAs. The stack is made by the first call that needs it."""

    _stack: Optional[_Stack] = None

    def _changed(self) -> None:
        self._stack = None

    def _loras_handle(self) -> Any:
        if not self.lora_stack:
            return _abi.luna_loras()
        if self._stack is None:
            self._stack = _Stack(self._session, self)
        return self._stack.handle

    @property
    def lora_report(self) -> Tuple[LoraFile, ...]:
        return () if self._stack is None else self._stack.report()


class EmbeddedVae(_Handle, Vae):
    def __init__(self, session: "Session", path: bytes) -> None:
        super().__init__()
        handle, info, self._path = _abi.luna_vae(), record(_abi.luna_vae_info), path
        check(library().luna_vae_load(session._handle, path, ctypes.byref(handle)))
        self._own(session, handle, "luna_vae_free")
        check(library().luna_vae_get_info(handle, ctypes.byref(info)))
        self.latent_channels = info.latent_channels
        self.factor = info.factor
        self.scale = info.scale if info.has_scale else None
        self.shift = info.shift if info.has_scale else None
        self.weight_bytes: int = info.weight_bytes

    def clone(self) -> "EmbeddedVae":
        twin = EmbeddedVae(self._session, self._path)
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
        options = record(_abi.luna_encode_options, precision=self._precision, call=own._handle, scaled=int(scaled))
        options.sizes, options.sample, options.seed = choice("size rule", sizes, SIZES), seed is not None, seed or 0
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
        own = call_of(call, progress)
        options = record(_abi.luna_decode_options, precision=self._precision, call=own._handle, scaled=int(scaled))
        options.tiling, options.tile = 2 if tile else 0, tile
        return self._run(library().luna_vae_decode, latent, options, own)

    def _run(self, function: Any, array: Any, options: Any, call: Call) -> Tensor:
        borrowed, handle, told = Borrowed(array), _abi.luna_tensor(), record(_abi.luna_report)
        places = (ctypes.byref(options), ctypes.byref(handle), ctypes.byref(told))
        status = function(self._handle, ctypes.byref(borrowed.view), *places)
        if status == 0:
            self.last_report = report_of(told)
            tensor = LibraryTensor(handle)
        call.check(status)
        return tensor


class EmbeddedClip(_Patched, Clip):
    def __init__(self, session: "Session", paths: Sequence[bytes], how: Mapping[str, Any]) -> None:
        super().__init__()
        self._source = (paths, how)
        folders = how["embedding_folders"]
        options = record(_abi.luna_text_load_options, recipe=how["recipe"], cache_bytes=how["cache_bytes"])
        options.embedding_folders = (ctypes.c_char_p * len(folders))(*folders)
        options.embedding_folder_count = len(folders)
        handle, names = _abi.luna_text(), (ctypes.c_char_p * len(paths))(*paths)
        place = ctypes.byref(handle)
        check(library().luna_text_load(session._handle, names, len(paths), ctypes.byref(options), place))
        self._own(session, handle, "luna_text_free")

    def clone(self) -> "EmbeddedClip":
        twin = EmbeddedClip(self._session, *self._source)
        twin._take_recipe(self)
        twin.clip_skip = self.clip_skip
        return twin

    def tokenize(self, prompt: str) -> List[Token]:
        handle = _abi.luna_list()
        options = record(_abi.luna_text_options, clip_skip=self.clip_skip)
        place = ctypes.byref(handle)
        check(library().luna_text_tokenize(self._handle, prompt.encode(), ctypes.byref(options), place, None))

        def token(item: Any) -> Token:
            id = None if item.id < 0 else item.id
            return Token(item.encoder.decode(), item.chunk, id, item.weight, _text(item.embedding))

        return read_list(handle, _abi.luna_token, (library().luna_list_token, token))

    def encode(
        self, *prompts: str, progress: Optional[Progress] = None, call: Optional[Call] = None
    ) -> List[Conditioning]:
        own = call_of(call, progress)
        options = record(_abi.luna_text_options, precision=self._precision, clip_skip=self.clip_skip, call=own._handle)
        options.loras = self._loras_handle()
        texts = (ctypes.c_char_p * len(prompts))(*[prompt.encode() for prompt in prompts])
        places, told = (_abi.luna_conditioning * len(prompts))(), record(_abi.luna_report)
        status = library().luna_text_encode(
            self._handle, texts, len(prompts), ctypes.byref(options), places, ctypes.byref(told)
        )
        encoded = []
        if status == 0:
            self.last_report = report_of(told)
            encoded = [self._conditioning(place) for place in places]
        own.check(status)
        return encoded

    @staticmethod
    def _conditioning(place: Any) -> Conditioning:
        problems: List[str] = []
        if _set(place.problems):
            read = (library().luna_list_problem, lambda item: item.text.decode())
            problems = read_list(place.problems, _abi.luna_problem, read)
        return Conditioning(_needed(place.tokens), _tensor(place.pooled), _tensor(place.mask), tuple(problems))


class EmbeddedModel(_Patched, Model):
    def __init__(self, session: "Session", path: bytes, attention: str) -> None:
        super().__init__()
        self._source = (path, attention)
        options = record(_abi.luna_model_load_options, attention=choice("attention", attention, ATTENTION))
        handle, info = _abi.luna_model(), record(_abi.luna_model_info)
        check(library().luna_model_load(session._handle, path, ctypes.byref(options), ctypes.byref(handle)))
        self._own(session, handle, "luna_model_free")
        check(library().luna_model_get_info(handle, ctypes.byref(info)))
        self.info = _facts(info, "family")

    def clone(self) -> "EmbeddedModel":
        twin = EmbeddedModel(self._session, *self._source)
        twin._take_recipe(self)
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
            choice("side of a control", side, ("input", "middle", "output"))
            pointers = [pointer(array) for array in arrays]
            array = (ctypes.POINTER(_abi.luna_view) * len(pointers))(*pointers)
            keep.append(array)
            setattr(step, f"control_{side}", array)
            setattr(step, f"control_{side}_count", len(pointers))
        options = record(_abi.luna_forward_options, precision=self._precision, call=own._handle)
        options.loras = self._loras_handle()
        handle, told = _abi.luna_tensor(), record(_abi.luna_report)
        places = (ctypes.byref(options), ctypes.byref(handle), ctypes.byref(told))
        status = library().luna_model_forward(self._handle, ctypes.byref(step), *places)
        if status == 0:
            self.last_report = report_of(told)
            prediction = LibraryTensor(handle)
        own.check(status)
        return prediction


class EmbeddedVision(_Handle, Vision):
    def __init__(self, session: "Session", path: bytes) -> None:
        super().__init__()
        handle, info, self._path = _abi.luna_vision(), record(_abi.luna_vision_info), path
        check(library().luna_vision_load(session._handle, path, ctypes.byref(handle)))
        self._own(session, handle, "luna_vision_free")
        check(library().luna_vision_get_info(handle, ctypes.byref(info)))
        self.info = _facts(info, "kind")

    def clone(self) -> "EmbeddedVision":
        twin = EmbeddedVision(self._session, self._path)
        twin._precision = self._precision
        return twin

    def encode(
        self,
        *images: Any,
        part: Optional[Part] = None,
        progress: Optional[Progress] = None,
        call: Optional[Call] = None,
    ) -> Features:
        own = call_of(call, progress)
        options = record(_abi.luna_vision_options, precision=self._precision, call=own._handle)
        if part is not None:
            options.part, (options.top, options.left, options.height, options.width) = 1, part
        views, _keep = _views(images)
        made, told = _abi.luna_features(), record(_abi.luna_report)
        places = (ctypes.byref(options), ctypes.byref(made), ctypes.byref(told))
        status = library().luna_vision_encode(self._handle, views, len(images), *places)
        if status == 0:
            self.last_report = report_of(told)
            features = Features(
                _needed(made.last_hidden_state), _needed(made.penultimate), _tensor(made.pooler_output),
                _tensor(made.image_embeds),
            )
        own.check(status)
        return features


class EmbeddedVlm(_Handle, Vlm):
    def __init__(self, session: "Session", path: bytes, tokenizer: Optional[bytes]) -> None:
        super().__init__()
        self._source = (path, tokenizer)
        handle, info = _abi.luna_vlm(), record(_abi.luna_vlm_info)
        options = record(_abi.luna_vlm_load_options, tokenizer=tokenizer)
        check(library().luna_vlm_load(session._handle, path, ctypes.byref(options), ctypes.byref(handle)))
        self._own(session, handle, "luna_vlm_free")
        check(library().luna_vlm_get_info(handle, ctypes.byref(info)))
        self.info = _facts(info, "family")

    def clone(self) -> "EmbeddedVlm":
        twin = EmbeddedVlm(self._session, *self._source)
        twin._precision = self._precision
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
        views, _keep = _views(images)
        question = record(_abi.luna_question, prompt=prompt.encode(), images=views, image_count=len(images))
        question.system = None if system is None else system.encode()
        options = record(
            _abi.luna_generate_options, precision=self._precision, max_tokens=max_tokens, temperature=temperature,
            top_k=top_k, top_p=top_p, min_p=min_p, repetition_penalty=repetition_penalty, seed=seed, call=own._handle,
        )
        options.stop, options.stop_count = (ctypes.c_char_p * len(stop))(*[text.encode() for text in stop]), len(stop)

        def hear(_: int, text: bytes, __: Any) -> None:
            if text:
                own._guard(on_text, text.decode())

        piece = _abi.luna_piece_function(hear)
        if on_text is not None:
            options.piece = piece
        handle, told = _abi.luna_list(), record(_abi.luna_report)
        places = (ctypes.byref(options), ctypes.byref(handle), ctypes.byref(told))
        status = library().luna_vlm_generate(self._handle, ctypes.byref(question), *places)
        answers = []
        if status == 0:
            self.last_report = report_of(told)
            answers = read_list(handle, _abi.luna_generated, (library().luna_list_generated, _generated))
        own.check(status)
        return answers[0]


def _generated(item: Any) -> Generated:
    return Generated(
        item.text.decode(), tuple(item.ids[: item.id_count]), item.prompt_tokens, item.picture_tokens,
        FINISHES[item.finish], item.prompt_nanoseconds / 1e9, item.token_nanoseconds / 1e9,
    )
