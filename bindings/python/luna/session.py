"""Sessions as callers see them, in this process or a daemon's. Enters: paths, pictures. Leaves: models, their list, save
jobs."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, List, Mapping, Optional, Sequence, Tuple, TypeVar

from . import errors
from .answers import Vlm
from .models import Model, Vae, Vision
from .recipe import Path, choice
from .texts import Clip

Own = TypeVar("Own", bound="Session")
FORMATS = ("png", "png16", "webp", "webp-lossless", "jpeg")
IF_EXISTS = ("number", "refuse", "replace")
HALVES = ("both", "encoder", "decoder")
CLIP_ACTIVATIONS = (None, "quick_gelu", "gelu")
VISION_ACTIVATIONS = (None, "quick_gelu", "gelu", "gelu_tanh")
RESIZES = ("shortest_edge", "exact", "keep")
FILTERS = ("bicubic", "bilinear", "lanczos")


@dataclass(frozen=True)
class Resident:
    """A model in memory."""

    id: str
    path: str
    bytes: int
    leases: int
    pinned: bool


@dataclass(frozen=True)
class Component:
    """One component of a model file."""

    kind: str
    family: str
    dialect: str
    prefix: str
    tensors: int
    parameters: int
    bytes: int


@dataclass(frozen=True)
class SavedPicture:
    """One picture of a save job, and what became of it."""

    image: int
    index: int
    state: str
    path: Optional[str]
    sha256: Optional[str]
    bytes: int
    error: Optional[str]


@dataclass(frozen=True)
class Preprocessing:
    """How pictures become what a vision encoder takes. `resize` is `shortest_edge` (of `size`'s first number), `exact` (height
    and width) or `keep`; `crop`, height and width, is cut out of the middle."""

    resize: str = "keep"
    size: Tuple[int, int] = (0, 0)
    filter: str = "bicubic"
    crop: Tuple[int, int] = (0, 0)
    rescale: float = 1 / 255
    mean: Tuple[float, float, float] = (0.0, 0.0, 0.0)
    std: Tuple[float, float, float] = (1.0, 1.0, 1.0)

    def __post_init__(self) -> None:
        choice("way of resizing", self.resize, RESIZES)
        choice("filter", self.filter, FILTERS)


@dataclass(frozen=True)
class ClipWish:
    """Which text encoders are wanted."""

    paths: Sequence[Path]
    recipe: Optional[str]
    embedding_folders: Sequence[Path]
    cache_bytes: int
    tokenizers: Sequence[Optional[Path]]
    encoders: Sequence[Optional[str]]
    activations: Sequence[Optional[str]]


@dataclass(frozen=True)
class SaveWish:
    """How pictures are to be saved."""

    name: Optional[str]
    folder: Optional[str]
    format: str
    quality: int
    metadata: Mapping[str, str]
    prompt: Optional[str]
    seed: Optional[int]
    if_exists: str
    durable: bool


class SaveJob(ABC):
    """Pictures on their way to the disk."""

    id: Any

    @abstractmethod
    def wait(self, timeout: Optional[float] = None) -> str:
        """Waits until it is finished, or for so many seconds, and gives its state: `done`, `failed`, `rejected`,
        `cancelled`, or `queued` and `writing` while it is not."""

    @property
    def state(self) -> str:
        """How it stands now."""
        return self.wait(0)

    @abstractmethod
    def cancel(self) -> None:
        """Cancels what has not been written."""

    @abstractmethod
    def pictures(self) -> List[SavedPicture]:
        """Each picture, and what became of it."""


class Session(ABC):
    """One copy of each model, in this process or in a daemon. Made by `luna.open()`, `luna.connect()` and
    `luna.auto()`; `remote` tells which."""

    remote = False
    #: Where its models are, in words.
    where = "in this process"

    @abstractmethod
    def close(self) -> None:
        """Ends the session. Models that it gave in this process stay usable."""

    def __enter__(self: Own) -> Own:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @abstractmethod
    def vae(self, path: Path = "moonlet", halves: str = "both") -> Vae:
        """A VAE: a file or folder, or `moonlet`, the demonstration model that Luna carries. `encoder` or `decoder` loads only
        that half, which takes half the memory; a daemon's are whole."""

    def clip(
        self,
        *paths: Path,
        recipe: Optional[str] = None,
        embedding_folders: Sequence[Path] = (),
        cache_bytes: int = 0,
        tokenizers: Sequence[Optional[Path]] = (),
        encoders: Sequence[Optional[str]] = (),
        activations: Sequence[Optional[str]] = (),
    ) -> Clip:
        """The text encoders of a diffusion model: files or folders, or `demo`, the demonstration model with random
        weights that Luna carries and that is taken if there are none. `cache_bytes` of conditionings are remembered, and
        `embedding:name` in a prompt is looked up in the folders; a daemon has a cache and folders of its own.
        `tokenizers` has a `tokenizer.json` for each path, or None for the one beside it; `encoders` the only encoder that
        is wanted of each, such as `clip_g`, or None for what the file tells; `activations` that of each CLIP, `quick_gelu` or
        `gelu`, or None for what the file tells or its kind has, as for a daemon's."""
        names = paths or ("demo",)
        for what, given in (("tokenizers", tokenizers), ("encoders", encoders), ("activations", activations)):
            if given and len(given) != len(names):
                raise errors.InvalidInput(f"there is not one of `{what}` for each path", found=str(len(given)))
        none = (None,) * len(names)
        return self._clip(
            ClipWish(
                names, recipe, embedding_folders, cache_bytes, tokenizers or none, encoders or none, activations or none
            )
        )

    @abstractmethod
    def _clip(self, wish: ClipWish) -> Clip: ...

    @abstractmethod
    def model(self, path: Path, attention: str = "auto") -> Model:
        """A denoiser: a Stable Diffusion UNet, a Flux or a Z-Image transformer."""

    @abstractmethod
    def vision(
        self, path: Path, activation: Optional[str] = None, preprocessing: Optional[Preprocessing] = None
    ) -> Vision:
        """A vision encoder: a CLIP's or a SigLIP. The activation (`quick_gelu`, `gelu`, `gelu_tanh`) and how pictures are prepared
        are what the file states if they are not given, as for a daemon's."""

    @abstractmethod
    def vlm(self, path: Path, tokenizer: Optional[Path] = None, projector: Optional[Path] = None) -> Vlm:
        """A vision-language model: Qwen3-VL or LLaVA 1.5. Its `tokenizer.json`, and the `mmproj-*.gguf` of a GGUF file, are
        those beside it if none are given."""

    @abstractmethod
    def models(self) -> List[Resident]:
        """The models in memory."""

    @abstractmethod
    def unload(self, id: str) -> bool:
        """Takes a model out of memory. Whether its memory is free at once; else it is with its last use."""

    @abstractmethod
    def stats(self) -> "dict[str, Any]":
        """What the session holds and has done."""

    def save(
        self,
        *images: Any,
        name: Optional[str] = None,
        folder: Optional[str] = None,
        format: str = "png",
        quality: int = 0,
        metadata: Optional[Mapping[str, str]] = None,
        prompt: Optional[str] = None,
        seed: Optional[int] = None,
        if_exists: str = "number",
        durable: bool = False,
    ) -> SaveJob:
        """Takes pictures in, [batch, height, width, channels], to be saved below the output folder; returns before
        they are. `name` and `folder` are templates such as `%prompt:40%_%counter:5%`."""
        choice("format", format, FORMATS)
        choice("rule for names that exist", if_exists, IF_EXISTS)
        wish = SaveWish(name, folder, format, quality, dict(metadata or {}), prompt, seed, if_exists, durable)
        return self._save(images, wish)

    @abstractmethod
    def _save(self, images: Sequence[Any], wish: SaveWish) -> SaveJob: ...
