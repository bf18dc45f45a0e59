"""What a model's object carries of its caller's: precision, LoRAs. Enters: choices. Leaves: the same, checked. The
state is the caller's and dies with the object; the weights behind it are shared and never change."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Any, Dict, List, Optional, Sequence, Tuple, TypeVar, Union

from . import errors

Path = Union[str, "os.PathLike[str]"]
PRECISIONS = ("float32", "bfloat16", "float16")
SHORT = {"f32": "float32", "bf16": "bfloat16", "f16": "float16"}
LONG = {long: short for short, long in SHORT.items()}
ATTENTION = ("default", "auto", "flash", "split", "pytorch")
SIZES = ("crop", "pad", "refuse")
MODES = ("functional", "merged", "auto")
NOT_MERGED = (None, "few_forwards", "no_room", "in_use")
OUTCOMES = ("applied", "unmatched", "wrong_shape", "unsupported")
FINISHES = ("end_of_turn", "stop_string", "max_tokens", "context_full")
Own = TypeVar("Own", bound="Recipe")
T = TypeVar("T")


def choice(what: str, value: Optional[str], known: Sequence[Optional[str]]) -> int:
    """The number of a name."""
    if value in known:
        return known.index(value)
    names = ", ".join(str(name) for name in known)
    raise errors.InvalidInput(f"there is no such {what}", expected=names, found=repr(value))


def precision_of(dtype: Any) -> int:
    """The number of a precision, by its name, or NumPy's or torch's dtype."""
    name = getattr(dtype, "__name__", str(dtype)).replace("torch.", "")
    return choice("dtype", SHORT.get(name, name), PRECISIONS)


@dataclass(frozen=True)
class Report:
    """How a call was done."""

    dtype: str
    fallbacks: Tuple[str, ...] = ()
    attention: str = "default"
    tile: int = 0
    tiles: int = 0
    cached: int = 0
    copied_bytes: int = 0
    seconds: float = 0.0
    adapters_applied: int = 0
    adapters_missed: int = 0
    lora_mode: str = "functional"
    not_merged: Optional[str] = None
    queue_seconds: float = 0.0
    #: What the first-block cache did, where one was asked for.
    cache_hit: bool = False
    cache_hits: int = 0
    cache_difference: Optional[float] = None
    #: Layers that LoRAs changed: with a branch beside the weight, a built weight, a merged one, another bias.
    layers: Tuple[int, int, int, int] = (0, 0, 0, 0)


@dataclass(frozen=True)
class StepCache:
    """A sampling's place in the first-block cache. Positive and negative prompt need a name each if they are called one
    after the other. `threshold` is the most that the first block's addition may differ from the last full step's, 0 for a
    cache that never answers; it does so while the sampling has come from `start` to `end`, 0 to 1, at most `most_hits` times in a row."""

    name: str
    threshold: float = 0.12
    start: float = 0.0
    end: float = 1.0
    most_hits: Optional[int] = None

    def __post_init__(self) -> None:
        if not (self.threshold >= 0 and 0 <= self.start <= 1 and 0 <= self.end <= 1):
            raise errors.InvalidInput(
                "the first-block cache's options are out of range",
                expected="a threshold of at least 0, start and end within 0 and 1",
                found=f"threshold {self.threshold}, from {self.start} to {self.end}",
            )


@dataclass(frozen=True)
class Lora:
    """One LoRA of a stack: a file, a name to be looked up, or a file's bytes."""

    path: Optional[str]
    name: Optional[str]
    strength: float
    clip_strength: float
    data: Optional[bytes] = None


@dataclass(frozen=True)
class LoraAdapter:
    """What became of one adapter: its `outcome` is `applied`, `unmatched`, `wrong_shape` or `unsupported`."""

    key: str
    outcome: str
    kind: Optional[str] = None
    targets: Tuple[str, ...] = ()
    nearest: Optional[str] = None
    expected: Optional[str] = None
    found: Optional[str] = None
    what: Optional[str] = None


@dataclass(frozen=True)
class LoraFile:
    """What became of one LoRA on one model."""

    name: str
    model: str
    strength: float
    made_for: Optional[str]
    mode: str
    not_merged: Optional[str]
    elsewhere: int
    adapters: Tuple[LoraAdapter, ...]

    def of(self, outcome: str) -> List[LoraAdapter]:
        """Its adapters of this outcome."""
        return [adapter for adapter in self.adapters if adapter.outcome == outcome]

    @property
    def is_complete(self) -> bool:
        """Whether every adapter for this model was applied."""
        return all(adapter.outcome == "applied" for adapter in self.adapters)


class Recipe:
    """An object with its caller's choices. `last_report` tells how the last call of this object was done."""

    def __init__(self) -> None:
        self._precision = 0
        self.last_report: Optional[Report] = None

    @property
    def dtype(self) -> str:
        """The precision of activations."""
        return PRECISIONS[self._precision]

    @dtype.setter
    def dtype(self, dtype: Any) -> None:
        self._precision = precision_of(dtype)

    def clone(self: Own) -> Own:
        """Another object over the same weights, with the same recipe, that goes its own way from here on."""
        twin = self._again()
        twin._take_recipe(self)
        return twin

    def _again(self: Own) -> Own:
        """The same model for another object."""
        raise NotImplementedError

    def _take_recipe(self, other: Any) -> None:
        self._precision = other._precision

    def _report(self, made: Tuple[T, Report]) -> T:
        """Keeps a call's report, and gives what it made."""
        self.last_report = made[1]
        return made[0]

    def close(self) -> None:
        """Lets go of the model. The weights stay in memory for the next one, as the session's budget allows."""

    def __enter__(self: Own) -> Own:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class LoraRecipe(Recipe):
    """An object that takes LoRAs. They are this object's alone: others over the same weights have their own."""

    def __init__(self) -> None:
        super().__init__()
        self._loras: Tuple[Lora, ...] = ()
        self._strict, self._lora_mode, self._forwards = False, 0, 0

    @property
    def lora_stack(self) -> Tuple[Lora, ...]:
        """The LoRAs that calls of this object take along."""
        return self._loras

    def add_lora(
        self,
        path: Optional[Path] = None,
        strength: float = 1.0,
        clip_strength: Optional[float] = None,
        *,
        name: Optional[str] = None,
        data: Optional[bytes] = None,
    ) -> None:
        """Adds a LoRA: a file or PEFT folder, a `name` in the session's LoRA folders, or a file's bytes as `data`.
        `clip_strength` is that for text encoders, `strength` if it is not given."""
        if [path, name or data].count(None) != 1:
            raise errors.InvalidInput(
                "the LoRA is not clear", expected="a path, a name, or data", remedy="give one of them"
            )
        clip = strength if clip_strength is None else clip_strength
        self._loras += (Lora(None if path is None else os.fspath(path), name, float(strength), float(clip), data),)
        self._changed()

    def clear_loras(self) -> None:
        """Takes all LoRAs away again."""
        self._loras = ()
        self._changed()

    @property
    def strict(self) -> bool:
        """Whether an adapter for this model that cannot be applied is an error."""
        return self._strict

    @strict.setter
    def strict(self, strict: bool) -> None:
        self._strict = bool(strict)
        self._changed()

    @property
    def lora_mode(self) -> str:
        """How LoRAs are applied: `functional`, `merged` or `auto`."""
        return MODES[self._lora_mode]

    @lora_mode.setter
    def lora_mode(self, mode: str) -> None:
        self._lora_mode = choice("way of applying LoRAs", mode, MODES)
        self._changed()

    @property
    def forwards(self) -> int:
        """How many calls will follow, for `lora_mode = "auto"`; 0 where it is not known."""
        return self._forwards

    @forwards.setter
    def forwards(self, forwards: int) -> None:
        self._forwards = int(forwards)
        self._changed()

    @property
    def lora_report(self) -> Tuple[LoraFile, ...]:
        """What became of each LoRA in the last call, adapter by adapter; also where it was refused."""
        raise NotImplementedError

    def _changed(self) -> None:
        """The stack is another one from here on."""

    def _take_recipe(self, other: Any) -> None:
        super()._take_recipe(other)
        self._loras, self._strict = other._loras, other._strict
        self._lora_mode, self._forwards = other._lora_mode, other._forwards


class AttentionRecipe(LoraRecipe):
    """An object that takes LoRAs and says how attention is computed."""

    _attention = 0

    @property
    def attention(self) -> str:
        """How attention is computed: `auto`, `flash`, `split` or `pytorch`, or `default` for what the model was loaded
        with. All give the same within rounding."""
        return ATTENTION[self._attention]

    @attention.setter
    def attention(self, attention: str) -> None:
        self._attention = choice("attention", attention, ATTENTION)

    def _take_recipe(self, other: Any) -> None:
        super()._take_recipe(other)
        self._attention = other._attention


def group_adapters(rows: Sequence[Tuple[Tuple[str, int], LoraAdapter]]) -> Dict[Tuple[str, int], List[LoraAdapter]]:
    """Adapters by model and entry of the stack."""
    groups: Dict[Tuple[str, int], List[LoraAdapter]] = {}
    for owner, adapter in rows:
        groups.setdefault(owner, []).append(adapter)
    return groups
