"""Vision-language models as callers see them, in this process or of a daemon. Enters: pictures and words, conversations,
prepared prompts. Leaves: text, as it comes and whole. What a place does with a wish stands in `embedded_answers` and
`remote_answers`."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from typing import Any, Awaitable, Callable, Dict, Mapping, Optional, Sequence, Tuple, Union

from . import errors
from .calls import Call, Progress, beside, call_of
from .recipe import LoraRecipe, Report, choice

Piece = Callable[[str], object]
ROLES = ("user", "assistant", "system")


@dataclass(frozen=True)
class Generated:
    """What a vision-language model answered, and why it ended: `end_of_turn`, `stop_string`, `max_tokens` or
    `context_full`."""

    text: str
    ids: Tuple[int, ...]
    prompt_tokens: int
    picture_tokens: int
    finish: str
    prompt_seconds: float
    token_seconds: float


@dataclass(frozen=True)
class Question:
    """A single turn: pictures, then words."""

    prompt: str
    images: Sequence[Any]
    system: Optional[str]


@dataclass(frozen=True)
class Picture:
    """A picture in a message, [batch, height, width, channels]."""

    array: Any


@dataclass(frozen=True)
class Message:
    """One turn of a conversation: words and pictures, in order."""

    role: str
    parts: Sequence[Union[str, Picture]]


@dataclass(frozen=True)
class Prepared:
    """A prompt as transformers' processors make it."""

    input_ids: Any
    pixel_values: Any
    image_grid_thw: Any


Subject = Union[Question, Sequence[Message], Prepared]


@dataclass(frozen=True)
class Wish:
    """How a vision-language model is to answer. `sampling` has the fields of the header's options and of the wire:
    temperature, top_k, top_p, min_p, repetition_penalty, seed."""

    max_tokens: int
    sampling: Mapping[str, Any]
    stop: Sequence[str]
    on_text: Optional[Piece]


class Vlm(LoraRecipe):
    """A vision-language model: pictures and a prompt to text. Made by `session.vlm()`. The strength of its LoRAs is the
    `clip_strength`."""

    info: Dict[str, Any]

    def generate(self, prompt: str, *images: Any, system: Optional[str] = None, **options: Any) -> Generated:
        """Answers a question about pictures, or without any. The options are those of `answer`."""
        return self.answer(Question(prompt, images, system), **options)

    def chat(self, messages: Sequence[Mapping[str, Any]], **options: Any) -> Generated:
        """Goes on with a conversation, as transformers' chat templates take it: each message has a `role` (`system`, `user`
        or `assistant`) and a `content`, which is a text, or a list of texts, of `{"type": "text", "text": …}` and of
        `{"type": "image", "image": array}`. The options are those of `answer`."""
        return self.answer([_message(message) for message in messages], **options)

    def generate_prepared(
        self, input_ids: Any, pixel_values: Any = None, image_grid_thw: Any = None, **options: Any
    ) -> Generated:
        """Goes on with a prepared prompt, as transformers' processors make it: ids, [ids] or [1, ids]; patches with the grid
        of each picture, or whole pictures, [pictures, 3, height, width], without. The options are those of `answer`."""
        return self.answer(Prepared(input_ids, pixel_values, image_grid_thw), **options)

    def answer(
        self,
        subject: Subject,
        *,
        max_tokens: int = 512,
        temperature: float = 0.0,
        top_k: int = 0,
        top_p: float = 1.0,
        min_p: float = 0.0,
        repetition_penalty: float = 1.0,
        seed: int = 0,
        stop: Sequence[str] = (),
        on_text: Optional[Piece] = None,
        timeout: Optional[float] = None,
        progress: Optional[Progress] = None,
        call: Optional[Call] = None,
    ) -> Generated:
        """What `generate`, `chat` and `generate_prepared` do; greedy unless a temperature is given. `on_text` hears the text
        piece by piece, as it comes; what it raises ends the call, which raises it in turn."""
        sampling = {
            "temperature": temperature, "top_k": top_k, "top_p": top_p, "min_p": min_p,
            "repetition_penalty": repetition_penalty, "seed": seed,
        }
        wish = Wish(max_tokens, sampling, stop, on_text)
        return self._report(self._generate(subject, wish, call_of(call, progress, timeout)))

    @abstractmethod
    def _generate(self, subject: Subject, wish: Wish, call: Call) -> Tuple[Generated, Report]: ...

    def generate_async(self, prompt: str, *images: Any, **options: Any) -> Awaitable[Generated]:
        """As `generate`, beside the event loop. Cancelling the task cancels the call."""
        return beside(self.generate, prompt, *images, **options)

    def chat_async(self, messages: Sequence[Mapping[str, Any]], **options: Any) -> Awaitable[Generated]:
        """As `chat`, beside the event loop. Cancelling the task cancels the call."""
        return beside(self.chat, messages, **options)


def _message(message: Mapping[str, Any]) -> Message:
    if not {"role", "content"} == set(message):
        raise errors.InvalidInput("a message is not clear", expected="role and content", found=", ".join(message))
    choice("role", message["role"], ROLES)
    content = message["content"]
    return Message(message["role"], [content] if isinstance(content, str) else [_part(part) for part in content])


def _part(part: Any) -> Union[str, Picture]:
    if isinstance(part, str):
        return part
    kind = part.get("type") if isinstance(part, Mapping) else None
    if kind in ("text", "image") and set(part) == {"type", kind}:
        return str(part["text"]) if kind == "text" else Picture(part["image"])
    raise errors.InvalidInput(
        "a part of a message is not clear",
        expected='a text, {"type": "text", "text": …} or {"type": "image", "image": array}',
        found=repr(part)[:80],
    )
