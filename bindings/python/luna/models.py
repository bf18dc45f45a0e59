"""Models as callers see them, in this process or of a daemon. Enters: arrays and options. Leaves: tensors, each call with
a report of how it was done."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from typing import Any, Callable, Dict, List, Mapping, Optional, Sequence, Tuple

from .arrays import Tensor
from .calls import Call, Progress, call_of, in_thread
from .recipe import LoraRecipe, Recipe

Piece = Callable[[str], object]
Part = Tuple[int, int, int, int]


class Vae(Recipe):
    """Pictures to latents and back. Made by `session.vae()`."""

    latent_channels: int
    factor: int
    scale: Optional[float]
    shift: Optional[float]

    @abstractmethod
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
        """Pictures, [batch, height, width, channels] in 0..1 (bytes: 0..255), to latents. `seed` asks for a sample
        instead of the mean, `scaled` for the latent as a sampler sees it, `tile` for tiles of that many latent pixels."""

    @abstractmethod
    def decode(
        self,
        latent: Any,
        *,
        scaled: bool = False,
        tile: int = 0,
        progress: Optional[Progress] = None,
        call: Optional[Call] = None,
    ) -> Tensor:
        """Latents, [batch, channels, height, width], to pictures, [batch, 8 height, 8 width, 3] in 0..1."""

    @abstractmethod
    def clone(self) -> "Vae":
        """Another object over the same weights, with the same recipe, that goes its own way from here on."""

    async def encode_async(self, image: Any, **options: Any) -> Tensor:
        """As `encode`, beside the event loop. Cancelling the task cancels the call."""
        call = call_of(options.pop("call", None), options.pop("progress", None))
        return await in_thread(call, lambda: self.encode(image, call=call, **options))

    async def decode_async(self, latent: Any, **options: Any) -> Tensor:
        """As `decode`, beside the event loop. Cancelling the task cancels the call."""
        call = call_of(options.pop("call", None), options.pop("progress", None))
        return await in_thread(call, lambda: self.decode(latent, call=call, **options))


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


class Clip(LoraRecipe):
    """The text encoders of a diffusion model. Made by `session.clip()`."""

    def __init__(self) -> None:
        super().__init__()
        self.clip_skip = 0

    @abstractmethod
    def tokenize(self, prompt: str) -> List[Token]:
        """The tokens that each encoder reads, with ComfyUI's weights such as `(red:1.3)`."""

    @abstractmethod
    def encode(
        self, *prompts: str, progress: Optional[Progress] = None, call: Optional[Call] = None
    ) -> List[Conditioning]:
        """Prompts, positive and negative or any others, in one batch."""

    @abstractmethod
    def clone(self) -> "Clip":
        """Another object over the same weights, with the same recipe, that goes its own way from here on."""

    async def encode_async(self, *prompts: str, **options: Any) -> List[Conditioning]:
        """As `encode`, beside the event loop. Cancelling the task cancels the call."""
        call = call_of(options.pop("call", None), options.pop("progress", None))
        return await in_thread(call, lambda: self.encode(*prompts, call=call, **options))


class Model(LoraRecipe):
    """A denoiser: `model(x, timesteps, context, y=..., guidance=..., control=...)` is one step of a sampler. Made by
    `session.model()`."""

    info: Dict[str, Any]

    @abstractmethod
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
        """The network's raw prediction, [batch, channels, height, width]. `control` has ComfyUI's lists `input`,
        `middle` and `output`, with None for a place that nothing is added at."""

    @abstractmethod
    def clone(self) -> "Model":
        """Another object over the same weights, with the same recipe, that goes its own way from here on."""

    async def forward_async(self, x: Any, timesteps: Any, context: Any, **options: Any) -> Tensor:
        """As a call, beside the event loop. Cancelling the task cancels the call."""
        call = call_of(options.pop("call", None), options.pop("progress", None))
        return await in_thread(call, lambda: self(x, timesteps, context, call=call, **options))


@dataclass(frozen=True)
class Features:
    """What a vision encoder makes of pictures, by the names that transformers has."""

    last_hidden_state: Tensor
    penultimate: Tensor
    pooler_output: Optional[Tensor]
    image_embeds: Optional[Tensor]


class Vision(Recipe):
    """A vision encoder: pictures to embeddings. Made by `session.vision()`."""

    info: Dict[str, Any]

    @abstractmethod
    def encode(
        self,
        *images: Any,
        part: Optional[Part] = None,
        progress: Optional[Progress] = None,
        call: Optional[Call] = None,
    ) -> Features:
        """Pictures of any size, each [batch, height, width, channels], as one batch. `part` is (top, left, height,
        width) in pixels, of each picture."""

    @abstractmethod
    def clone(self) -> "Vision":
        """Another object over the same weights, with the same recipe, that goes its own way from here on."""

    async def encode_async(self, *images: Any, **options: Any) -> Features:
        """As `encode`, beside the event loop. Cancelling the task cancels the call."""
        call = call_of(options.pop("call", None), options.pop("progress", None))
        return await in_thread(call, lambda: self.encode(*images, call=call, **options))


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


class Vlm(Recipe):
    """A vision-language model: pictures and a prompt to text. Made by `session.vlm()`."""

    info: Dict[str, Any]

    @abstractmethod
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
        """Answers a question about pictures, or without any; greedy unless a temperature is given. `on_text` hears the
        text piece by piece, as it comes; what it raises ends the call."""

    @abstractmethod
    def clone(self) -> "Vlm":
        """Another object over the same weights, with the same recipe, that goes its own way from here on."""

    async def generate_async(self, prompt: str, *images: Any, **options: Any) -> Generated:
        """As `generate`, beside the event loop. Cancelling the task cancels the call."""
        call = call_of(options.pop("call", None), options.pop("progress", None))
        return await in_thread(call, lambda: self.generate(prompt, *images, call=call, **options))
