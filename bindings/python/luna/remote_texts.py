"""A daemon's text encoders, by the standard library alone. Enters: prompts, token ids, options. Leaves: what the daemon gives,
as `texts` has it."""

from __future__ import annotations

import dataclasses
import functools
from typing import TYPE_CHECKING, Any, Dict, List, Optional, Sequence, Tuple

from . import errors
from .calls import Call
from .recipe import Report
from .remote import RemotePatched, lora_files, report_of
from .texts import Clip, Conditioning, LoraTag, Prompt, Rows, Token
from .wire import Reply

if TYPE_CHECKING:
    from .remote_session import RemoteSession


class RemoteClip(RemotePatched, Clip):
    def __init__(self, session: "RemoteSession", names: Sequence[str], recipe: Optional[str]) -> None:
        super().__init__(session, names, recipe)
        self._names, self._recipe_name = list(names), recipe
        # Whether these encoders work together is told now, as it is in this process.
        self.tokenize("")

    def _with(self) -> Dict[str, Any]:
        wish: Dict[str, Any] = {"models": self._names, "precision": self._wire_precision}
        if self.attention != "default":
            wish["attention"] = self.attention
        if self._recipe_name is not None:
            wish["recipe"] = self._recipe_name
        if self.clip_skip:
            wish["clip_skip"] = self.clip_skip
        if self.t5_tokens:
            wish["t5_tokens"] = self.t5_tokens
        for flag in ("break_chunks", "square_brackets", "t5_mask", "lora_tags"):
            if getattr(self, flag):
                wish[flag] = True
        return wish

    def _tokenize(self, prompt: Prompt) -> List[Token]:
        reply = self._ask("clip_tokenize", {**_texts("text", prompt), "with": self._with()}, {}, Call())
        return [
            Token(encoder, chunk, place.get("id"), place["weight"], (place.get("embedding") or [None])[0])
            for encoder, chunks in reply["tokens"].items()
            for chunk, places in enumerate(chunks)
            for place in places
        ]

    def _encode(self, prompts: Sequence[Prompt], call: Call) -> Tuple[List[Conditioning], Report]:
        if not prompts:
            raise errors.InvalidInput("there is no prompt")
        if self.lora_tags and len(prompts) > 2:
            # A request has two prompts, and tags count for all prompts of a call.
            raise errors.Unsupported("a daemon reads tags of two prompts at most", remedy="encode them two at a time")
        pairs = [self._encode_pair(prompts[first : first + 2], call) for first in range(0, len(prompts), 2)]
        together = functools.reduce(_together, [told for _, told in pairs])
        return [one for made, _ in pairs for one in made], together

    def _encode_pair(self, prompts: Sequence[Prompt], call: Call) -> Tuple[List[Conditioning], Report]:
        """A positive and a negative prompt, or one alone, as a request has them."""
        fields: Dict[str, Any] = {}
        for name, prompt in zip(("positive", "negative"), prompts):
            fields.update(_texts(name, prompt))
        reply = self._ask("clip_encode", {**fields, **self._patched()}, {}, call)
        self.last_tags = tuple(LoraTag(tag["lora"], tag["model"], tag["clip"]) for tag in reply.words.get("lora_tags", ()))
        self.malformed_tags = tuple(reply.words.get("malformed_tags", ()))
        return self._made(reply, (("cond", "pooled", "mask"), ("uncond", "pooled_neg", "mask_neg")))

    def _encode_ids(self, rows: Rows, masks: Optional[Rows], call: Call) -> Tuple[List[Conditioning], Report]:
        fields: Dict[str, Any] = {"tokens": rows, **self._patched()}
        if masks is not None:
            fields["masks"] = [[bool(flag) for flag in row] for row in masks]
        reply = self._ask("clip_encode_from_tokens", fields, {}, call)
        return self._made(reply, [(f"cond_{row}", f"pooled_{row}", f"mask_{row}") for row in range(len(rows))])

    def _patched(self) -> Dict[str, Any]:
        return {"with": {**self._with(), "loras": self._stack(), "strict": self.strict}}

    def _made(self, reply: Reply, names: Sequence[Tuple[str, str, str]]) -> Tuple[List[Conditioning], Report]:
        """What a reply has under these names: encoding, pooled output, mask of each."""
        made = []
        for told, (tokens, pooled, mask) in zip(reply["prompts"], names):
            problems = tuple(problem["message"] for problem in told["problems"])
            tensors = reply.tensors
            made.append(Conditioning(tensors[tokens], tensors.get(pooled), tensors.get(mask), problems))
        every = {"files": [file for one in reply["loras"] for file in one["files"]]}
        self._told = tuple(file for one in reply["loras"] for file in lora_files(one["model"], one))
        return made, report_of(reply, reply.words, every)


def _together(first: Report, then: Report) -> Report:
    """The report of a call that took several requests."""
    return dataclasses.replace(
        first,
        fallbacks=tuple(dict.fromkeys(first.fallbacks + then.fallbacks)),
        cached=first.cached + then.cached,
        seconds=first.seconds + then.seconds,
        queue_seconds=first.queue_seconds + then.queue_seconds,
    )


def _texts(name: str, prompt: Prompt) -> Dict[str, str]:
    """A prompt as the wire has it: what each encoder reads, under this name."""
    others = {"l": prompt.clip_l, "g": prompt.clip_g, "t5": prompt.t5}
    return {name: prompt.text, **{f"{name}_{key}": text for key, text in others.items() if text is not None}}
