"""Text encoders as callers see them, in this process or of a daemon. Enters: prompts, token ids. Leaves: conditionings, each
call with a report of how it was done. What a place does with a wish stands in `embedded_texts` and `remote_texts`."""

from __future__ import annotations

import operator
from abc import abstractmethod
from dataclasses import dataclass
from typing import Any, Awaitable, List, Optional, Sequence, Tuple, Union

from . import errors
from .arrays import Tensor
from .calls import Call, Progress, beside, call_of
from .recipe import AttentionRecipe, Report

Rows = List[List[int]]


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


@dataclass(frozen=True)
class Prompt:
    """A prompt, and what some encoders read in its place, as ComfyUI's nodes with several text fields have it."""

    text: str
    clip_l: Optional[str] = None
    clip_g: Optional[str] = None
    t5: Optional[str] = None


@dataclass(frozen=True)
class LoraTag:
    """What `<lora:name:strength:clip_strength>` in a prompt said."""

    name: str
    strength: float
    clip_strength: float


AnyPrompt = Union[str, Prompt]


class Clip(AttentionRecipe):
    """The text encoders of a diffusion model. Made by `session.clip()`."""

    def __init__(self) -> None:
        super().__init__()
        self.clip_skip = 0
        #: A1111's habits: `BREAK` ends a chunk, `[text]` weighs less.
        self.break_chunks, self.square_brackets = False, False
        #: Whether T5 may not look at its padding, and the least number of tokens it is padded to, 0 for what is usual.
        self.t5_mask, self.t5_tokens = False, 0
        #: Whether `<lora:name:model:clip>` tags are taken out of prompts, and the LoRAs that they name applied, too.
        self.lora_tags = False
        #: What the tags of the last call said, for a denoiser's `add_lora(name=…)`.
        self.last_tags: Tuple[LoraTag, ...] = ()
        #: Tags of the last call that could not be read; they were left out.
        self.malformed_tags: Tuple[str, ...] = ()

    def tokenize(self, prompt: AnyPrompt) -> List[Token]:
        """The tokens that each encoder reads, with ComfyUI's weights such as `(red:1.3)`."""
        return self._tokenize(_prompt(prompt))

    @abstractmethod
    def _tokenize(self, prompt: Prompt) -> List[Token]: ...

    def encode(
        self,
        *prompts: AnyPrompt,
        timeout: Optional[float] = None,
        progress: Optional[Progress] = None,
        call: Optional[Call] = None,
    ) -> List[Conditioning]:
        """Prompts, positive and negative or any others, in one batch."""
        own = [_prompt(prompt) for prompt in prompts]
        return self._report(self._encode(own, call_of(call, progress, timeout)))

    @abstractmethod
    def _encode(self, prompts: Sequence[Prompt], call: Call) -> Tuple[List[Conditioning], Report]: ...

    def encode_ids(
        self,
        ids: Any,
        attention_mask: Any = None,
        *,
        timeout: Optional[float] = None,
        progress: Optional[Progress] = None,
        call: Optional[Call] = None,
    ) -> List[Conditioning]:
        """Token ids in place of prompts, [tokens] or [rows, tokens] as lists or arrays, with start, end and padding as the
        model wants them, where there is one encoder only. `attention_mask`, of the same shape, says which of them count,
        for T5 and Qwen3; all up to the end token if it is not given."""
        rows = _rows("ids", ids)
        masks = None if attention_mask is None else _rows("attention_mask", attention_mask)
        if masks is not None and [len(row) for row in masks] != [len(row) for row in rows]:
            raise errors.InvalidInput("the attention mask does not fit the token ids")
        return self._report(self._encode_ids(rows, masks, call_of(call, progress, timeout)))

    @abstractmethod
    def _encode_ids(self, rows: Rows, masks: Optional[Rows], call: Call) -> Tuple[List[Conditioning], Report]: ...

    def encode_async(self, *prompts: AnyPrompt, **options: Any) -> Awaitable[List[Conditioning]]:
        """As `encode`, beside the event loop. Cancelling the task cancels the call."""
        return beside(self.encode, *prompts, **options)

    def _take_recipe(self, other: Any) -> None:
        super()._take_recipe(other)
        self.clip_skip, self.lora_tags = other.clip_skip, other.lora_tags
        self.break_chunks, self.square_brackets = other.break_chunks, other.square_brackets
        self.t5_mask, self.t5_tokens = other.t5_mask, other.t5_tokens


def _prompt(prompt: AnyPrompt) -> Prompt:
    return Prompt(prompt) if isinstance(prompt, str) else prompt


def _rows(what: str, numbers: Any) -> Rows:
    """Rows of whole numbers, all of one length."""
    listed = numbers.tolist() if hasattr(numbers, "tolist") else list(numbers)
    rows = listed if listed and not hasattr(listed[0], "__index__") else [listed]
    try:
        whole = [[operator.index(number) for number in row] for row in rows]
    except TypeError as error:
        raise errors.InvalidInput(f"{what} holds something else than rows of whole numbers", found=str(error)) from None
    if not whole[0] or any(len(row) != len(whole[0]) for row in whole):
        lengths = ", ".join(str(len(row)) for row in whole)
        raise errors.InvalidInput(f"the rows of {what} are empty or differ in length", found=lengths)
    return whole
