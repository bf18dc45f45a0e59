"""A daemon's vision-language models, by the standard library alone. Enters: what they are asked, options. Leaves: what the
daemon gives, as `answers` has it."""

from __future__ import annotations

from typing import Any, Dict, List, Tuple

from . import errors
from .answers import Generated, Picture, Prepared, Question, Subject, Vlm, Wish
from .arrays import pack
from .calls import Call
from .recipe import Report
from .remote import RemotePatched, report_of
from .wire import Packed


class RemoteVlm(RemotePatched, Vlm):
    def _generate(self, subject: Subject, wish: Wish, call: Call) -> Tuple[Generated, Report]:
        on_text = wish.on_text
        asked, tensors = _asked(subject)
        fields: Dict[str, Any] = {
            "model": self._source[0], "max_tokens": wish.max_tokens, "sampling": wish.sampling, "stop": list(wish.stop),
            "precision": self._wire_precision, "stream": on_text is not None, "loras": self._stack(),
            "strict": self.strict, "lora_mode": self.lora_mode, **asked,
        }

        def hear(event: Dict[str, Any]) -> None:
            if event.get("event") == "text" and event["text"]:
                call._guard(on_text, event["text"])

        reply = self._ask("vlm_generate", fields, tensors, call, hear if on_text is not None else None)
        self.info = dict(reply["model"])
        generated = Generated(
            reply["text"] or "", tuple(reply["ids"]), reply["prompt_tokens"], reply["picture_tokens"],
            reply["finish"], reply["prompt_seconds"], reply["generation_seconds"],
        )
        return generated, report_of(reply, reply.words, self._fates(reply))


def _asked(subject: Subject) -> Tuple[Dict[str, Any], Dict[str, Packed]]:
    """What a request says of its subject, and the tensors of its pictures."""
    if isinstance(subject, Question):
        pictures = {f"image_{index}": pack(image) for index, image in enumerate(subject.images)}
        system = {} if subject.system is None else {"system": subject.system}
        return {"prompt": subject.prompt, **system}, pictures
    if isinstance(subject, Prepared):
        return _prepared(subject)
    if not subject:
        raise errors.InvalidInput("the conversation has no messages")
    pictures = {}
    messages = []
    for message in subject:
        content: List[Dict[str, str]] = []
        for part in message.parts:
            if isinstance(part, Picture):
                packed = pack(part.array)
                pictures[f"image_{len(pictures)}"] = packed
                # Of a batch each picture has a place.
                content += [{"type": "image"}] * (packed[1][0] if packed[1] else 1)
            else:
                content.append({"type": "text", "text": part})
        messages.append({"role": message.role, "content": content})
    return {"messages": messages}, pictures


def _prepared(subject: Prepared) -> Tuple[Dict[str, Any], Dict[str, Packed]]:
    ids = _listed(subject.input_ids)
    if ids and isinstance(ids[0], list):
        if len(ids) != 1:
            raise errors.InvalidInput("input_ids has a wrong shape", expected="[ids] or [1, ids]")
        ids = ids[0]
    if subject.pixel_values is None:
        if subject.image_grid_thw is not None:
            raise errors.InvalidInput("there are grids, but no pictures", remedy="give `pixel_values`, too")
        return {"ids": ids}, {}
    grids = {} if subject.image_grid_thw is None else {"grids": _listed(subject.image_grid_thw)}
    return {"ids": ids, **grids}, {"pixel_values": pack(subject.pixel_values)}


def _listed(numbers: Any) -> List[Any]:
    listed: List[Any] = numbers.tolist() if hasattr(numbers, "tolist") else list(numbers)
    return [list(row) if isinstance(row, tuple) else row for row in listed]
