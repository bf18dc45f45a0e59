"""Vision-language models in this process. Enters: what they are asked, options. Leaves: what the library gives, as `answers`
has it."""

from __future__ import annotations

import array
import ctypes
from typing import TYPE_CHECKING, Any, List, Optional, Sequence, Tuple

from . import _abi
from .answers import ROLES, Generated, Message, Picture, Prepared, Question, Subject, Vlm, Wish
from .arrays import Borrowed
from .calls import Call
from .embedded import Patched, facts_of, views_of
from .library import library, read_list, record
from .recipe import FINISHES, Report

if TYPE_CHECKING:
    from .embedded_session import EmbeddedSession


class EmbeddedVlm(Patched, Vlm):
    _family = "vlm"

    def __init__(
        self, session: "EmbeddedSession", path: bytes, tokenizer: Optional[bytes], projector: Optional[bytes]
    ) -> None:
        super().__init__(session, path, tokenizer, projector)
        self.info = facts_of(self._info(), "family")

    def _load(self, path: bytes, tokenizer: Optional[bytes], projector: Optional[bytes]) -> Sequence[Any]:
        return path, ctypes.byref(record(_abi.luna_vlm_load_options, tokenizer=tokenizer, projector=projector))

    def _generate(self, subject: Subject, wish: Wish, call: Call) -> Tuple[Generated, Report]:
        keep: List[Any] = []
        asked = record(_abi.luna_question)
        if isinstance(subject, Question):
            views, borrowed = views_of(subject.images)
            keep.append(borrowed)
            asked.prompt, asked.images, asked.image_count = subject.prompt.encode(), views, len(subject.images)
            asked.system = None if subject.system is None else subject.system.encode()
        elif isinstance(subject, Prepared):
            for name in ("input_ids", "pixel_values", "image_grid_thw"):
                given = getattr(subject, name)
                if given is not None:
                    keep.append(Borrowed(_integers(given) if name != "pixel_values" else given))
                    setattr(asked, name, ctypes.pointer(keep[-1].view))
        else:
            turns = (_abi.luna_message * max(1, len(subject)))()
            keep += [self._fill(turn, message) for turn, message in zip(turns, subject)]
            asked.messages, asked.message_count = turns, len(subject)
        options = self._options(wish, call)

        def hear(_: int, text: bytes, __: Any) -> None:
            if text:
                call._guard(wish.on_text, text.decode())

        piece = _abi.luna_piece_function(hear)
        if wish.on_text is not None:
            options.piece = piece
        handle = _abi.luna_list()

        def answer() -> Generated:
            [told] = read_list(handle, _abi.luna_generated, (library().luna_list_generated, _generated))
            assert isinstance(told, Generated)
            return told

        arguments = (ctypes.byref(asked), ctypes.byref(options))
        return self._call("generate", arguments, (ctypes.byref(handle), answer), call)

    def _options(self, wish: Wish, call: Call) -> Any:
        options = record(_abi.luna_generate_options, precision=self._precision, **wish.sampling)
        options.max_tokens, options.call, options.loras = wish.max_tokens, call._handle, self._loras_handle()
        options.stop = (ctypes.c_char_p * len(wish.stop))(*[text.encode() for text in wish.stop])
        options.stop_count = len(wish.stop)
        return options

    @staticmethod
    def _fill(turn: Any, message: Message) -> Any:
        """Writes a message into its place, and gives what must stay while the call runs."""
        parts, keep = (_abi.luna_message_part * len(message.parts))(), []
        for part, own in zip(parts, message.parts):
            if isinstance(own, Picture):
                keep.append(Borrowed(own.array))
                part.image = ctypes.pointer(keep[-1].view)
            else:
                part.text = own.encode()
        turn.role, turn.parts, turn.part_count = ROLES.index(message.role), parts, len(parts)
        return parts, keep


def _integers(numbers: Any) -> Any:
    """Lists of whole numbers as an array; arrays as they are."""
    if not isinstance(numbers, (list, tuple)):
        return numbers
    rows = numbers if numbers and isinstance(numbers[0], (list, tuple)) else [numbers]
    flat = array.array("q", [number for row in rows for number in row])
    shape = (len(rows), len(rows[0])) if rows is numbers else (len(flat),)
    return memoryview(flat).cast("B").cast("q", shape) if len(flat) else flat


def _generated(item: Any) -> Generated:
    return Generated(
        item.text.decode(), tuple(item.ids[: item.id_count]), item.prompt_tokens, item.picture_tokens,
        FINISHES[item.finish], item.prompt_nanoseconds / 1e9, item.token_nanoseconds / 1e9,
    )
