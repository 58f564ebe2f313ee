"""What a run is: typed settings from the stage's row, then a YAML file, then `--set key=value`."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    ValidationError,
    field_validator,
    model_validator,
)

from loopanimate_core.errors import LoopAnimateError
from loopanimate_core.picture import SIZE_MULTIPLE_PX

from . import alss
from .stages import parse_run_name, stage_defaults

Share = Annotated[float, Field(ge=0.0, le=1.0)]
Condition = Literal["image", "text", "none"]
ShareBelowOne = Annotated[float, Field(ge=0.0, lt=1.0)]
# YAML reads a bare `no` as false.
Precision = Annotated[
    Literal["no", "bf16", "fp16"], BeforeValidator(lambda value: "no" if value is False else value)
]

# What a resumed run may have otherwise: settings that decide neither data nor, but for the order of
# additions, gradients.
FREE_SETTINGS = (
    "steps", "batch.", "save.", "sheets.", "log_every_steps", "tensorboard", "out", "title", "license", "device", "data.threads",
    "data.prefetch", "data.cache", "data.index", "data.max_bad_share", "model.gradient_checkpointing", "model.chunk_",
    "model.compile",
)  # fmt: skip


class Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class LoraConfig(Section):
    """Low-rank adapters (Hu et al. 2021): every linear layer of `targets` gets alpha/rank · up(down(x)) added."""

    rank: PositiveInt = 16
    alpha: PositiveFloat = 16.0
    targets: Annotated[
        tuple[Literal["cab", "temm", "temm.q", "temm.k", "temm.v"], ...], Field(min_length=1)
    ] = ("temm", "cab")


class ModelConfig(Section):
    """What is trained, and where it starts.

    `start` is a bundle, or a run or checkpoint of an earlier stage. `unet` (sizes as in a bundle's header)
    puts a new, random UNet in the place of the bundle's. `train` names parts of the UNet; `temm` has its
    projections in it. `lora` trains adapters, beside those parts or (`train: []`) alone. `routing` says
    what the down, middle and up blocks' cross-attention reads (Table 4).
    """

    start: Path
    train: tuple[
        Literal["all", "conv_in", "cab", "temm", "temm.q", "temm.k", "temm.v", "other"], ...
    ]
    train_text_encoder: bool = False
    lora: LoraConfig | None = None
    routing: tuple[Condition, Condition, Condition] | None = None  # None: the bundle's
    unet: dict[str, Any] | None = None
    prediction_type: Literal["epsilon", "v_prediction"] | None = None  # None: the bundle's
    still_prior: Share | None = None  # None: the bundle's
    gradient_checkpointing: bool = False
    chunk_frames: PositiveInt | None = None  # spatial layers on so many frames at a time
    chunk_pixels: PositiveInt | None = None  # temporal layers on so many pixels at a time
    compile: str | None = None  # a backend of torch.compile, e.g. inductor
    channels_last: bool = False

    @field_validator("unet")
    @classmethod
    def _has_legal_sizes(cls, sizes: dict[str, Any] | None) -> dict[str, Any] | None:
        if sizes is not None:
            from loopanimate_core.models import LoopUNetConfig  # loads torch

            LoopUNetConfig.from_dict(sizes)
        return sizes


class ClipConfig(Section):
    """How source frames become a training clip (Eq. 3, 4, 10). `mask`: `ones` as in stage 1, or `object`.

    `fps` resamples videos by the nearest frame in time; None takes every frame, whatever the rate.
    """

    f: Annotated[int, Field(ge=2)]
    stride: PositiveInt = alss.STRIDE
    reverse_steps: tuple[PositiveInt, ...] = alss.STEPS
    strict: bool = False
    mask: Literal["ones", "object"] = "object"
    height_px: PositiveInt = 512
    width_px: PositiveInt = 512
    starts_per_clip: PositiveInt = 8
    fps: PositiveFloat | None = None

    @property
    def frames(self) -> int:
        """F = 2f-1, the frames that the network sees."""
        return 2 * self.f - 1

    @property
    def span_frames(self) -> int:
        """Source frames that one clip reaches over."""
        return alss.span(self.f, self.stride)

    @model_validator(mode="after")
    def _has_paths(self) -> ClipConfig:
        if alss.count_paths(self.f, self.stride, self.reverse_steps, self.strict) == 0:
            raise ValueError(
                f"no {self.f - 1} steps out of {self.reverse_steps} add up to {self.span_frames - 1} source frames"
            )
        if self.height_px % SIZE_MULTIPLE_PX or self.width_px % SIZE_MULTIPLE_PX:
            raise ValueError(
                f"{self.width_px} x {self.height_px} px: both must be multiples of {SIZE_MULTIPLE_PX}"
            )
        return self


class DataConfig(Section):
    """Where clips come from.

    `videos`: a folder of videos with captions in .txt or .json beside them, a table (.csv, .tsv, .jsonl,
    .parquet) with WebVid's, Panda-70M's, OpenVid-1M's or its own columns, or webdataset tars. `frames`: a
    folder of folders of pictures. `mini`: procedural stickers, `path` being the sticker cache.
    """

    source: Literal["videos", "frames", "mini"]
    path: Path
    root: Path | None = None  # folder that a table's paths count from; None: the table's own
    outside: Literal["refuse", "allow"] = "refuse"  # paths in a table that leave that folder
    columns: dict[str, str] = {}  # names of a table's columns by meaning: path, caption, …
    masks: Path | None = None  # folder with masks of each clip, by its id
    uncaptioned: Annotated[
        Literal["skip", "keep"],
        BeforeValidator(lambda value: "skip" if value == "leave_out" else value),
    ] = "skip"  # `leave_out`: the former name of `skip`
    held_out_share: ShareBelowOne = 0.0  # of the videos, for the sheets; never trained on
    clips: PositiveInt | None = None  # only the first so many; needed for the endless `mini`
    cache: Path | None = None  # folder of latents; filled on first touch
    index: Path | None = None  # folder of the index; None: that of the cache, or the user's
    threads: PositiveInt = 1
    prefetch: PositiveInt = 4  # batches
    max_bad_share: ShareBelowOne = 0.05


class BatchConfig(Section):
    """Clips per optimiser step: `size` x `accumulate`, over all processes. One process sees
    `size / processes` at a time."""

    size: PositiveInt = 1
    accumulate: PositiveInt = 1

    @property
    def clips(self) -> int:
        return self.size * self.accumulate


class LossConfig(Section):
    """`drop_turn` is the paper's r; `min_snr` the gamma of min-SNR weighting, None for the plain mean.

    `timestep_shift` above 1 draws more of the noisy timesteps, where the prompt decides the motion, and
    `motion_weight` counts the places of a clip that differ from its still up to so much more.
    """

    drop_turn: Share = 0.5
    drop_text: Share = 0.1
    drop_image: Share = 0.1
    min_snr: PositiveFloat | None = None
    timestep_shift: PositiveFloat = 1.0
    motion_weight: NonNegativeFloat = 0.0


class OptimizerConfig(Section):
    """AdamW, or its 8-bit form (needs bitsandbytes). After `warmup_steps` the rate is held, or falls to
    `final_lr_share` of `lr`."""

    kind: Literal["adamw", "adamw8bit"] = "adamw"
    lr: PositiveFloat
    text_encoder_lr_share: PositiveFloat = 0.3
    betas: tuple[float, float] = (0.9, 0.999)
    eps: PositiveFloat = 1e-8
    weight_decay: NonNegativeFloat = 1e-2
    clip_norm: PositiveFloat = 1.0
    schedule: Literal["constant", "linear", "cosine"] = "constant"
    warmup_steps: NonNegativeInt = 0
    final_lr_share: Share = 0.0
    ema_decay: ShareBelowOne = 0.9999


class SaveConfig(Section):
    """A save that the disk does not take is tried again every `retry_s` seconds; the run waits."""

    every_steps: PositiveInt = 1000
    keep: PositiveInt = 2
    retry_s: PositiveFloat = 30.0


class SheetConfig(Section):
    """Validation loops drawn from the averaged weights: every so many steps, 0 for never."""

    every_steps: NonNegativeInt = 0
    clips: PositiveInt = 4
    steps: PositiveInt = 12
    guidance: PositiveFloat = 3.0


class RunConfig(Section):
    """One training run. `out` is its folder; an unfinished run in it is resumed."""

    stage: int
    variant: str = ""
    out: Path
    steps: PositiveInt
    seed: NonNegativeInt = 0
    precision: Precision = "no"
    device: Literal["auto", "cpu"] = "auto"
    log_every_steps: PositiveInt = 10
    tensorboard: bool = False  # the log for TensorBoard too, in the run's folder
    title: str = ""
    license: str = ""
    model: ModelConfig
    clip: ClipConfig
    data: DataConfig
    batch: BatchConfig = BatchConfig()
    loss: LossConfig = LossConfig()
    optimizer: OptimizerConfig
    save: SaveConfig = SaveConfig()
    sheets: SheetConfig = SheetConfig()


def resolve(
    stage: int | str,
    file: Path | None = None,
    overrides: Iterable[str] = (),
    defaults: Mapping[str, Any] | None = None,
) -> RunConfig:
    """The stage's row (`"3-qk"`: with its variant's), overlaid by the YAML `file`, then by `key.key=value` strings.

    Args:
        defaults: what lies under the row, for settings that no row has.

    Raises:
        LoopAnimateError: unknown stage or setting, an illegal value, an unreadable file, or one that
            is of another stage.
    """
    row = stage_defaults(*parse_run_name(stage))
    values = merge(defaults or {}, row)
    if file is not None:
        values = merge(values, _read_yaml(file))
    for override in overrides:
        values = merge(values, _parse_override(override))
    for name in ("stage", "variant"):  # the row was chosen by them
        if str(values[name]) != str(row[name]):
            raise LoopAnimateError(
                f"the settings say {name} = {values[name]!r}, and --stage {stage} means {row[name]!r}; leave "
                "one of them out, or make them equal"
            )
    return parse(values)


def stage_in(file: Path) -> str | None:
    """The stage, with its variant, that a settings file says it is of; None: it is of any.

    Raises:
        LoopAnimateError: the file cannot be read.
    """
    values = _read_yaml(file)
    if "stage" not in values:
        return None
    variant = values.get("variant") or ""
    return f"{values['stage']}{'-' * bool(variant)}{variant}"


def parse(values: Mapping[str, Any]) -> RunConfig:
    """Validate nested values; the first mistake becomes one sentence."""
    try:
        return RunConfig.model_validate(values)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"])) or "run"
        message = first["msg"].removeprefix("Value error, ")
        if first["type"] == "extra_forbidden":
            message = "there is no such setting"
        elif isinstance(first["input"], str | int | float | None):
            message += f", not {first['input']!r}"
        raise LoopAnimateError(f"configuration: {where}: {message}") from error


def merge(base: Mapping[str, Any], top: Mapping[str, Any]) -> dict[str, Any]:
    """Nested mappings merged key by key; anything else in `top` replaces."""
    merged = dict(base)
    for key, value in top.items():
        old = merged.get(key)
        if isinstance(old, Mapping) and isinstance(value, Mapping):
            value = merge(old, value)
        merged[key] = value
    return merged


def require_same_run(old: Mapping[str, Any], config: RunConfig) -> None:
    """Refuse to go on with a run under settings that would make it another one.

    Raises:
        LoopAnimateError: the first setting that differs from the checkpoint's.
    """
    before, now = (_binding_settings(run) for run in (parse(old), config))
    for name in sorted(set(before) | set(now)):  # `model.unet` may have other sizes
        if before.get(name) != now.get(name):
            raise LoopAnimateError(
                f"{config.out} holds a run with {name} = {before.get(name)}, not {now.get(name)}; restore it, "
                "choose another `out`, or say --allow-change"
            )


def _binding_settings(run: RunConfig) -> dict[str, Any]:
    """Those that decide what a run learns, by dotted names. How a step's clips are split does not."""
    flat = flat_settings(run.model_dump(mode="json"))
    binding = {name: value for name, value in flat.items() if not name.startswith(FREE_SETTINGS)}
    if run.optimizer.schedule != "constant":  # its rates are shares of the whole run
        binding["steps"] = run.steps
    binding["batch.size × batch.accumulate"] = run.batch.clips
    return binding


def flat_settings(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested settings by dotted names."""
    flat: dict[str, Any] = {}
    for name, value in values.items():
        nested = isinstance(value, Mapping)
        flat.update(flat_settings(value, f"{prefix}{name}.") if nested else {prefix + name: value})
    return flat


def _read_yaml(file: Path) -> dict[str, Any]:
    try:
        text = file.read_text(encoding="utf-8")
    except OSError as error:
        raise LoopAnimateError(f"cannot read {file}: {error.strerror or error}") from error
    except UnicodeDecodeError as error:
        raise LoopAnimateError(
            f"{file} is no UTF-8 text (byte {error.start} is {error.object[error.start]:#04x}); save it as UTF-8"
        ) from error
    values = _load_yaml(text, str(file))
    if not isinstance(values, dict):
        raise LoopAnimateError(f"{file} must hold settings as `name: value`")
    return values


def _parse_override(text: str) -> dict[str, Any]:
    path, equals, value = text.partition("=")
    if not equals or not path:
        raise LoopAnimateError(f"--set {text!r} must look like section.name=value")
    parsed = _load_yaml(value, f"--set {text!r}")
    for key in reversed(path.split(".")):
        parsed = {key: parsed}
    return parsed


class _Loader(yaml.SafeLoader):
    """PyYAML reads YAML 1.1, where 1e-5 is a text for want of a point; here it is a number, as in 1.2."""


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)[eE][-+]?[0-9]+$"),
    list("-+.0123456789"),
)


def _load_yaml(text: str, what: str) -> Any:
    try:
        return yaml.load(text, _Loader)
    except (yaml.YAMLError, ValueError) as error:  # ValueError: a date that is none
        raise LoopAnimateError(
            f"{what} is not valid YAML: {' '.join(str(error).split())}"
        ) from error
