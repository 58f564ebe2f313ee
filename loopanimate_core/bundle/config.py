"""The config of a bundle: everything about a model but its weights."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from ..conditions import CONDITIONINGS
from ..encoders.tokenizer import vocabulary_of
from ..encoders.vae import pixels_per_latent
from ..errors import LoopAnimateError
from ..models import LoopUNetConfig
from ..picture.shapes import Shape, check_shapes
from ..schedule import ScheduleConfig
from ..settings import SamplingDefaults
from .components import PARTS


@dataclass(frozen=True)
class BundleConfig:
    """Everything about a model but its weights.

    Attributes:
        vae: settings of the autoencoder; `_class_name` is AutoencoderKL or AutoencoderTiny.
        text_encoder, image_encoder: settings of the CLIP models; the latter is empty where no block reads
            an image embedding and the model has no image encoder.
        tokenizer: "clip", or {"vocab": …, "merges": …} for another vocabulary.
        frames: the clip lengths (F) the model was trained on.
        height_px, width_px: the picture size it was trained on; with `shapes`, the size for no particular picture.
        defaults: the sampling settings that suit it.
        shapes: all sizes it was trained on, [width, height]; empty for a single one.
        conditioning: what the network reads beside the noisy clip, `loop` (the paper's Eq. 11) or `pia`.
    """

    unet: LoopUNetConfig
    vae: dict[str, Any]
    text_encoder: dict[str, Any]
    image_encoder: dict[str, Any]
    tokenizer: str | dict[str, Any] = "clip"
    schedule: ScheduleConfig = field(default_factory=ScheduleConfig)
    frames: tuple[int, ...] = (15, 21, 35)
    height_px: int = 512
    width_px: int = 512
    defaults: SamplingDefaults = field(default_factory=SamplingDefaults)
    shapes: tuple[Shape, ...] = ()
    conditioning: str = "loop"

    def __post_init__(self) -> None:
        object.__setattr__(self, "frames", tuple(self.frames))
        size = Shape(self.width_px, self.height_px)
        object.__setattr__(self, "shapes", check_shapes(self.shapes, size))
        self._check_encoders()
        tokens = len(vocabulary_of(self.tokenizer)[0])
        if tokens > (known := self.text_encoder.get("vocab_size", 0)):
            raise LoopAnimateError(
                f"the tokenizer has {tokens} tokens, but the text encoder has only {known}"
            )
        self._check_conditioning()

    def _check_encoders(self) -> None:
        width = self.unet.cross_attention_dim
        sizes = {"text encoder's hidden_size": self.text_encoder.get("hidden_size")}
        if self.image_encoder or "image" in self.unet.routing:
            sizes["image encoder's projection_dim"] = self.image_encoder.get("projection_dim")
        for what, size in sizes.items():
            if size != width:
                raise LoopAnimateError(
                    f"the {what} must be the UNet's cross_attention_dim ({width}), got {size}"
                )

    def _check_conditioning(self) -> None:
        if self.conditioning not in CONDITIONINGS:
            raise LoopAnimateError(
                f"conditioning must be one of {', '.join(CONDITIONINGS)}, got {self.conditioning!r}"
            )
        pia = self.conditioning == "pia"
        if pia and self.schedule.still_prior:
            raise LoopAnimateError(
                "conditioning 'pia' has no still_prior, got"
                f" {self.schedule.still_prior}: it shows the still at every frame"
            )
        for frames in self.frames:  # clips of the paper have 2f-1 frames
            if not 3 <= frames <= self.unet.max_positions or (frames % 2 == 0 and not pia):
                raise LoopAnimateError(
                    f"frames must be {'' if pia else 'odd '}numbers from 3 to"
                    f" {self.unet.max_positions}, got {frames}"
                )

    @property
    def vae_scaling_factor(self) -> float:
        """The factor from the VAE's latents to the latents that are denoised."""
        return float(self.vae["scaling_factor"])

    @property
    def pixels_per_latent(self) -> int:
        """The side, in pixels, of the square that one latent covers."""
        return pixels_per_latent(self.vae)

    @property
    def parts(self) -> tuple[str, ...]:
        """The networks that the model has: all of `PARTS`, or all but the image encoder."""
        return tuple(part for part in PARTS if getattr(self, part))

    @property
    def all_shapes(self) -> tuple[Shape, ...]:
        """Every size the model was trained on; of equally near ones to a picture the first is used."""
        return self.shapes or (Shape(self.width_px, self.height_px),)

    def window_frames(self, frames: int) -> int:
        """The number of frames of a loop that the network processes at once.

        All of them up to its number of positions; of longer loops, its longest trained clip.
        """
        trained = max(self.frames)
        return frames if trained < frames <= self.unet.max_positions else trained

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON; without `shapes` and `conditioning` at their defaults, as earlier versions expect."""
        values = dataclasses.asdict(self) | {"defaults": self.defaults.to_dict()}
        if not self.shapes:
            del values["shapes"]
        if self.conditioning == "loop":
            del values["conditioning"]
        return values

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> BundleConfig:
        """The inverse of `to_dict`.

        Raises:
            LoopAnimateError: an entry is missing, unknown or out of range.
        """
        names = {entry.name for entry in dataclasses.fields(cls)}
        names -= {"shapes", "conditioning"} - set(values)  # as in bundles of earlier versions
        if set(values) != names:
            off = sorted(set(values) ^ names)[0]
            raise LoopAnimateError(
                f"the bundle's config has an unknown entry {off!r}"
                if off in values
                else f"the bundle's config has no entry {off!r}"
            )
        try:
            return cls(
                **{
                    **values,
                    "unet": LoopUNetConfig.from_dict(values["unet"]),
                    "schedule": ScheduleConfig(**values["schedule"]),
                    "defaults": SamplingDefaults.from_dict(values["defaults"]),
                }
            )
        except (TypeError, AttributeError, KeyError, ZeroDivisionError) as error:
            raise LoopAnimateError(f"the bundle's config is not valid: {error}") from error
