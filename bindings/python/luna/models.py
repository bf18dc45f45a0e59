"""Models as callers see them, in this process or of a daemon: VAEs, denoisers, vision encoders. Enters: arrays and options.
Leaves: tensors, each call with a report of how it was done. Every call takes a `timeout` in seconds. What a place does
with a wish stands in `embedded` and `remote`."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from typing import Any, Awaitable, Dict, Mapping, Optional, Sequence, Tuple, Union

from .arrays import Tensor
from .calls import Call, Progress, beside, call_of
from .recipe import SIZES, AttentionRecipe, Recipe, Report, StepCache, choice
from .texts import Conditioning

Part = Tuple[int, int, int, int]
SIDES = ("input", "middle", "output")


@dataclass(frozen=True)
class CodeWish:
    """What a VAE is asked for beside the array; `sizes` and `seed` are for encoding."""

    scaled: bool
    tile: int
    sizes: str = "crop"
    seed: Optional[int] = None


class Vae(Recipe):
    """Pictures to latents and back. Made by `session.vae()`."""

    latent_channels: int
    factor: int
    scale: Optional[float]
    shift: Optional[float]

    def encode(
        self,
        image: Any,
        *,
        sizes: str = "crop",
        seed: Optional[int] = None,
        scaled: bool = False,
        tile: int = 0,
        timeout: Optional[float] = None,
        progress: Optional[Progress] = None,
        call: Optional[Call] = None,
    ) -> Tensor:
        """Pictures, [batch, height, width, channels] in 0..1 (bytes: 0..255), to latents. `seed` asks for a sample
        instead of the mean, `scaled` for the latent as a sampler sees it, `tile` for tiles of that many latent pixels."""
        choice("size rule", sizes, SIZES)
        return self._report(self._encode(image, CodeWish(scaled, tile, sizes, seed), call_of(call, progress, timeout)))

    def decode(
        self,
        latent: Any,
        *,
        scaled: bool = False,
        tile: int = 0,
        timeout: Optional[float] = None,
        progress: Optional[Progress] = None,
        call: Optional[Call] = None,
    ) -> Tensor:
        """Latents, [batch, channels, height, width], to pictures, [batch, 8 height, 8 width, 3] in 0..1."""
        return self._report(self._decode(latent, CodeWish(scaled, tile), call_of(call, progress, timeout)))

    @abstractmethod
    def _encode(self, image: Any, wish: CodeWish, call: Call) -> Tuple[Tensor, Report]: ...

    @abstractmethod
    def _decode(self, latent: Any, wish: CodeWish, call: Call) -> Tuple[Tensor, Report]: ...

    def encode_async(self, image: Any, **options: Any) -> Awaitable[Tensor]:
        """As `encode`, beside the event loop. Cancelling the task cancels the call."""
        return beside(self.encode, image, **options)

    def decode_async(self, latent: Any, **options: Any) -> Awaitable[Tensor]:
        """As `decode`, beside the event loop. Cancelling the task cancels the call."""
        return beside(self.decode, latent, **options)


@dataclass(frozen=True)
class Step:
    """One step of a sampler."""

    x: Any
    timesteps: Any
    context: Any
    y: Any
    guidance: Any
    control: Mapping[str, Sequence[Any]]
    cache: Optional[StepCache]


class Model(AttentionRecipe):
    """A denoiser: `model(x, timesteps, context, y=..., guidance=..., control=...)` is one step of a sampler. Made by
    `session.model()`."""

    info: Dict[str, Any]

    def __call__(
        self,
        x: Any,
        timesteps: Any,
        context: Any,
        *,
        y: Any = None,
        guidance: Any = None,
        control: Optional[Mapping[str, Sequence[Any]]] = None,
        cache: Union[StepCache, str, None] = None,
        timeout: Optional[float] = None,
        progress: Optional[Progress] = None,
        call: Optional[Call] = None,
    ) -> Tensor:
        """The network's raw prediction, [batch, channels, height, width]. `control` has ComfyUI's lists `input`,
        `middle` and `output`, with None for a place that nothing is added at. `cache` names the sampling in the
        first-block cache, which answers for later blocks while steps differ little."""
        for side in control or {}:
            choice("side of a control", side, SIDES)
        sequence = StepCache(cache) if isinstance(cache, str) else cache
        step = Step(x, timesteps, context, y, guidance, control or {}, sequence)
        return self._report(self._forward(step, call_of(call, progress, timeout)))

    @abstractmethod
    def _forward(self, step: Step, call: Call) -> Tuple[Tensor, Report]: ...

    def pooled(self, conditioning: Conditioning, sizes: Optional[Sequence[int]] = None) -> Optional[Tensor]:
        """The `y` that belongs to a conditioning: None for a model that takes none. SDXL is told `sizes`: width and
        height, then, if they differ from none and the same, crop at the left and top, and width and height after it."""
        from .errors import Unsupported

        raise Unsupported("a daemon's denoiser makes no `y`", remedy="make it with a session of luna.open()")

    def forward_async(self, x: Any, timesteps: Any, context: Any, **options: Any) -> Awaitable[Tensor]:
        """As a call, beside the event loop. Cancelling the task cancels the call."""
        return beside(self, x, timesteps, context, **options)


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

    def encode(
        self,
        *images: Any,
        part: Optional[Part] = None,
        timeout: Optional[float] = None,
        progress: Optional[Progress] = None,
        call: Optional[Call] = None,
    ) -> Features:
        """Pictures of any size, each [batch, height, width, channels], as one batch. `part` is (top, left, height,
        width) in pixels, of each picture."""
        return self._report(self._encode(images, part, call_of(call, progress, timeout)))

    @abstractmethod
    def _encode(self, images: Sequence[Any], part: Optional[Part], call: Call) -> Tuple[Features, Report]: ...

    def encode_async(self, *images: Any, **options: Any) -> Awaitable[Features]:
        """As `encode`, beside the event loop. Cancelling the task cancels the call."""
        return beside(self.encode, *images, **options)
