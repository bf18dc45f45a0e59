"""Text encoders in this process. Enters: prompts, token ids, options. Leaves: what the library gives, as `texts` has it."""

from __future__ import annotations

import array
import ctypes
from typing import Any, Dict, List, Mapping, Optional, Sequence, Tuple

from . import _abi
from .arrays import Borrowed
from .calls import Call
from .embedded import Patched, Stack, facts_of, is_set, needed, tensor_of, text_of
from .library import check, library, read_list, record
from .recipe import LoraFile, Report
from .texts import Clip, Conditioning, Prompt, Rows, Token


class EmbeddedClip(Patched, Clip):
    _family = "text"
    #: The stack of the last call, where tags were looked for.
    _tag_stack: Optional[Stack] = None

    def _load(self, paths: Sequence[bytes], how: Mapping[str, Any]) -> Sequence[Any]:
        folders = how["embedding_folders"]
        options = record(_abi.luna_text_load_options, recipe=how["recipe"], cache_bytes=how["cache_bytes"])
        options.embedding_folders = (ctypes.c_char_p * len(folders))(*folders)
        options.embedding_folder_count = len(folders)
        options.tokenizers = (ctypes.c_char_p * len(paths))(*how["tokenizers"])
        options.encoders = (ctypes.c_char_p * len(paths))(*how["encoders"])
        options.activations = (ctypes.c_int32 * len(paths))(*how["activations"])
        return (ctypes.c_char_p * len(paths))(*paths), len(paths), ctypes.byref(options)

    def _options(self, call: Optional[Call] = None) -> Any:
        options = record(_abi.luna_text_options, precision=self._precision, clip_skip=self.clip_skip)
        options.attention, options.lora_tags = self._attention, int(self.lora_tags)
        options.break_chunks, options.square_brackets = int(self.break_chunks), int(self.square_brackets)
        options.t5_mask, options.t5_tokens = int(self.t5_mask), self.t5_tokens
        if call is not None:
            options.call, options.loras = call._handle, self._loras_handle()
        return options

    def _others(self, options: Any, prompts: Sequence[Prompt]) -> None:
        """Puts what some encoders read in place of the prompts into the options."""
        for name in ("clip_l", "clip_g", "t5"):
            texts = [getattr(prompt, name) for prompt in prompts]
            if any(text is not None for text in texts):
                own = [None if text is None else text.encode() for text in texts]
                setattr(options, f"{name}_prompts", (ctypes.c_char_p * len(own))(*own))

    def _tagged(self, prompts: Sequence[Prompt]) -> Any:
        """The handle of a stack with the LoRAs that tags name; that of the object's own where there are none."""
        texts = [text for one in prompts for text in (one.text, one.clip_l, one.clip_g, one.t5) if text is not None]
        if not any("<lora:" in text for text in texts):
            self.last_tags, self.malformed_tags = (), ()
            return self._loras_handle()
        # A model holds the merged copy of one stack at a time.
        self._stack = None
        self._tag_stack = Stack(self._session, self, texts)
        self.last_tags, self.malformed_tags = self._tag_stack.tags()
        return self._tag_stack.handle

    @property
    def lora_report(self) -> Tuple[LoraFile, ...]:
        return super().lora_report if self._tag_stack is None else self._tag_stack.report()

    def _tokenize(self, prompt: Prompt) -> List[Token]:
        handle, options = _abi.luna_list(), self._options()
        self._others(options, [prompt])
        place = ctypes.byref(handle)
        check(library().luna_text_tokenize(self._handle, prompt.text.encode(), ctypes.byref(options), place, None))

        def token(item: Any) -> Token:
            id = None if item.id < 0 else item.id
            return Token(item.encoder.decode(), item.chunk, id, item.weight, text_of(item.embedding))

        return read_list(handle, _abi.luna_token, (library().luna_list_token, token))

    def _encode(self, prompts: Sequence[Prompt], call: Call) -> Tuple[List[Conditioning], Report]:
        texts = (ctypes.c_char_p * len(prompts))(*[prompt.text.encode() for prompt in prompts])
        places, options = (_abi.luna_conditioning * len(prompts))(), self._options(call)
        self._others(options, prompts)
        self._tag_stack = None
        if self.lora_tags:
            options.loras = self._tagged(prompts)
        made = (places, lambda: [self._conditioning(place) for place in places])
        return self._call("encode", (texts, len(prompts), ctypes.byref(options)), made, call)

    def _encode_ids(self, rows: Rows, masks: Optional[Rows], call: Call) -> Tuple[List[Conditioning], Report]:
        shape, options = (len(rows), len(rows[0])), self._options(call)
        ids = Borrowed(memoryview(array.array("q", sum(rows, []))).cast("B").cast("q", shape))
        if masks is not None:
            mask = Borrowed(memoryview(array.array("q", sum(masks, []))).cast("B").cast("q", shape))
            options.attention_mask = ctypes.pointer(mask.view)
        places = (_abi.luna_conditioning * len(rows))()
        made = (places, lambda: [self._conditioning(place) for place in places])
        return self._call("encode_ids", (ctypes.byref(ids.view), ctypes.byref(options)), made, call)

    @staticmethod
    def _conditioning(place: Any) -> Conditioning:
        problems: List[str] = []
        if is_set(place.problems):
            read = (library().luna_list_problem, lambda item: item.text.decode())
            problems = read_list(place.problems, _abi.luna_problem, read)
        return Conditioning(needed(place.tokens), tensor_of(place.pooled), tensor_of(place.mask), tuple(problems))

    def cache_usage(self) -> Dict[str, int]:
        """How the cache of `cache_bytes` is used: entries, bytes, hits, misses."""
        usage = record(_abi.luna_cache_usage)
        check(library().luna_text_get_cache_usage(self._handle, ctypes.byref(usage)))
        return facts_of(usage)

    def clear_cache(self) -> None:
        """Forgets the conditionings that are remembered."""
        check(library().luna_text_clear_cache(self._handle))
