"""The settings of one loop, resolved and checked before any network runs.

The caller's values come first, then those of the preset, then the model's own defaults.
"""

from __future__ import annotations

import math
import secrets
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from numbers import Real
from typing import TYPE_CHECKING, Any, Protocol

from .closing import Closing
from .conditions import DEFAULT_MOTION, MIN_FRAMES, check_motion
from .errors import LoopAnimateError
from .picture.images import check_fit_size
from .picture.shapes import Shape, nearest_shape
from .ranges import MAX_GUIDANCE, MAX_STEPS, check_number, check_seed, check_whole
from .schedule import LCM_STEPS, check_scheduler

if TYPE_CHECKING:
    from torch import Tensor

MASKS = ("auto", "none")
PRESETS: dict[str, dict[str, Any]] = {
    "best": {},
    "fast": {"scheduler": "dpmpp_2m_lu", "steps": 8},  # DDIM's quality at 25 steps
}
ALIASES = {"num_frames": "frames", "guidance_scale": "guidance", "strength": "start"}
"""Names that diffusers gives to our settings."""


@dataclass(frozen=True)
class FewSteps:
    """How to sample with a model's few-step weights; guidance is baked into them, so 1 is none."""

    scheduler: str = "lcm"
    steps: int = 4
    guidance: float = 1.0

    def __post_init__(self) -> None:
        _check_solver(self)


@dataclass(frozen=True)
class SamplingDefaults:
    """A model's own best settings, as its bundle stores them.

    Attributes:
        frames: F, the frames the loop is closed over.
        start: share of the noise that sampling starts with, in (0, 1].
        hold_still: the level of `sampling.filter_flicker`.
        residual: how much of what motion cannot explain is drawn well enough to be shown, 0 … 1; see
            `detail.DetailSettings`.
        fast: the settings of the preset `fast`, for a model with few-step weights; None without.
    """

    scheduler: str = "dpmpp_2m_lu"
    steps: int = 25
    guidance: float = 7.5
    frames: int = 35
    fps: float = 8.0
    start: float = 1.0
    hold_still: float = 0.0
    residual: float = 0.0
    fast: FewSteps | None = None

    def __post_init__(self) -> None:
        _check_sampling(self)
        check_number("residual", self.residual, 0, 1)
        check_whole("frames", self.frames, MIN_FRAMES, math.inf)
        if not 0 < self.fps < math.inf:
            raise LoopAnimateError(f"fps must be above 0, got {self.fps}")

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON; without `fast` where there is none, so that earlier versions read them."""
        values = asdict(self)
        return values if self.fast else {k: v for k, v in values.items() if k != "fast"}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> SamplingDefaults:
        """The inverse of `to_dict`."""
        fast = values.get("fast")
        return cls(**{**values, "fast": None if fast is None else FewSteps(**fast)})


@dataclass(frozen=True)
class SamplingSettings:
    """Everything that decides a loop apart from model, picture and prompt: complete and legal.

    Attributes:
        seed: 0 … 2⁶⁴-1.
        guidance: weight of classifier-free guidance by the prompt; 1 is no guidance.
        image_guidance: the same for the image embedding.
        start: share of the noise that sampling starts with, in (0, 1].
        hold_still: the level of `sampling.filter_flicker`, 0 … 1.
        mask: `[H, W]` with 1 = object, "auto" to find the object, or "none" for the whole picture.
        few_steps: whether the model's few-step weights are used.
        motion: small, medium or large; read by models with PIA's conditioning.

    Raises:
        LoopAnimateError: a setting out of its range.
    """

    seed: int
    scheduler: str
    steps: int
    guidance: float
    start: float
    hold_still: float
    closing: Closing
    height_px: int
    width_px: int
    image_guidance: float = 1.0
    mask: Tensor | str = field(default="auto", compare=False)
    few_steps: bool = False
    motion: str = DEFAULT_MOTION

    def __post_init__(self) -> None:
        _check_sampling(self)
        check_seed("seed", self.seed)
        check_number("image_guidance", self.image_guidance, 0, MAX_GUIDANCE)
        check_motion(self.motion)
        check_fit_size(self.height_px, self.width_px)
        if isinstance(self.mask, str) and self.mask not in MASKS:
            raise LoopAnimateError(
                f"mask must be a tensor [H, W], 'auto' or 'none', got {self.mask!r}"
            )

    @property
    def frames(self) -> int:
        """F, the frames the loop is closed over; F-1 play."""
        return self.closing.frames


class SamplingModel(Protocol):
    """What a bundle's config says about sampling."""

    @property
    def defaults(self) -> SamplingDefaults: ...
    @property
    def height_px(self) -> int: ...
    @property
    def width_px(self) -> int: ...
    @property
    def all_shapes(self) -> tuple[Shape, ...]: ...
    @property
    def conditioning(self) -> str: ...
    def window_frames(self, frames: int) -> int: ...


def resolve_settings(
    model: SamplingModel,
    *,
    preset: str = "best",
    picture_px: tuple[int, int] | None = None,
    **chosen: Any,
) -> SamplingSettings:
    """The settings of a loop.

    Args:
        model: a bundle's config.
        preset: "best", or "fast" for few steps: with the model's few-step weights where it has them, else
            `PRESETS`.
        picture_px: height and width of the picture: the model's shape nearest to it gives the size of the loop,
            where `height_px` and `width_px` are not chosen. None: the model's `height_px` and `width_px`.
        chosen: fields of SamplingSettings, `frames`, `closing` by name, or names of `ALIASES`. What is None
            or missing comes from the preset, then from the model; a missing seed is drawn.

    Raises:
        LoopAnimateError: a setting out of its range, or given under two names with different values.
    """
    if preset not in PRESETS:
        raise LoopAnimateError(f"preset must be one of {', '.join(PRESETS)}, got {preset!r}")
    own, size = model.defaults, Shape(model.width_px, model.height_px)
    if picture_px is not None:
        size = nearest_shape(model.all_shapes, *picture_px)
    values = {
        "scheduler": own.scheduler,
        "steps": own.steps,
        "guidance": own.guidance,
        "start": own.start,
        "hold_still": own.hold_still,
        "frames": own.frames,
        "closing": "tie",
        "height_px": size.height_px,
        "width_px": size.width_px,
        **PRESETS[preset],
        "few_steps": False,
    }
    if preset == "fast" and own.fast is not None:
        values |= {**asdict(own.fast), "few_steps": True}
    values |= _given(chosen)
    if "motion" in values and model.conditioning != "pia":
        raise LoopAnimateError(
            f"motion {values['motion']!r} needs a model with PIA's conditioning; with this one a start below 1"
            " gives less motion"
        )
    if "seed" not in values:
        values["seed"] = secrets.randbelow(2**32)
    frames = values.pop("frames")
    check_whole("frames", frames, MIN_FRAMES, math.inf)
    values["closing"] = Closing(values["closing"], frames, model.window_frames(frames))
    return SamplingSettings(**values)


def _given(chosen: dict[str, Any]) -> dict[str, Any]:
    """The values that are not None, each under our own name for it."""
    given = {name: value for name, value in chosen.items() if value is not None}
    for alias, name in ALIASES.items():
        if alias not in given:
            continue
        value = given.pop(alias)
        if given.setdefault(name, value) != value:
            raise LoopAnimateError(
                f"{name} and {alias} are the same setting, got {given[name]} and {value}"
            )
    return given


def _check_solver(settings: FewSteps | SamplingDefaults | SamplingSettings) -> None:
    check_scheduler(settings.scheduler)
    check_whole("steps", settings.steps, 1, MAX_STEPS)
    check_number("guidance", settings.guidance, 0, MAX_GUIDANCE)
    if settings.scheduler == "lcm" and settings.steps > LCM_STEPS:
        raise LoopAnimateError(
            f"steps must be between 1 and {LCM_STEPS} with scheduler 'lcm', got {settings.steps}"
        )


def _check_sampling(settings: SamplingDefaults | SamplingSettings) -> None:
    _check_solver(settings)
    check_number("hold_still", settings.hold_still, 0, 1)
    if not (isinstance(settings.start, Real) and 0 < settings.start <= 1):
        raise LoopAnimateError(f"start must be above 0 and at most 1, got {settings.start}")
