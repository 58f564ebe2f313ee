"""The bundle: one safetensors file with everything a LoopAnimate model is.

Tensors lie under `unet.`, `vae.`, `text_encoder.` and `image_encoder.`; the header's strings hold the
format, the settings of the parts, where the weights came from, and ModelSpec's fields, which other
programs show. `docs/bundle.md` describes the file.
"""

from __future__ import annotations

import base64
import dataclasses
import io
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ..encoders.tokenizer import build_tokenizer, vocabulary_of
from ..errors import LoopAnimateError
from ..models import LoopUNet, LoopUNetConfig
from ..schedule import ScheduleConfig
from ..settings import SamplingDefaults
from .components import (
    PARTS,
    build_on_meta,
    give_weights,
    require_same_tensors,
    shapes_of,
    state_of,
)
from .tensorfile import (
    Header,
    count_parameters,
    open_tensors,
    read_header,
    require_finite,
    write_tensors,
)

FORMAT = "loopanimate/1"
THUMBNAIL_SIDE_PX = 256


@dataclass(frozen=True)
class BundleConfig:
    """Everything about a model but its weights.

    Attributes:
        vae: settings of the autoencoder; `_class_name` is AutoencoderKL or AutoencoderTiny.
        text_encoder, image_encoder: settings of the CLIP models.
        tokenizer: "clip", or {"vocab": …, "merges": …} for a vocabulary of the bundle's own.
        frames: the clip lengths (F) the model was trained on.
        height_px, width_px: the picture size it was trained on.
        defaults: the settings that suit it.
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

    def __post_init__(self) -> None:
        object.__setattr__(self, "frames", tuple(self.frames))
        width = self.unet.cross_attention_dim
        for what, size in (
            ("text encoder's hidden_size", self.text_encoder.get("hidden_size")),
            ("image encoder's projection_dim", self.image_encoder.get("projection_dim")),
        ):
            if size != width:
                raise LoopAnimateError(
                    f"the {what} is {size}, the UNet reads {width} numbers a token"
                )
        tokens = len(vocabulary_of(self.tokenizer)[0])
        if tokens > (known := self.text_encoder.get("vocab_size", 0)):
            raise LoopAnimateError(f"the tokenizer has {tokens} tokens, the text encoder {known}")
        for frames in self.frames:
            if frames < 3 or frames % 2 == 0 or frames > self.unet.max_positions:
                raise LoopAnimateError(
                    f"frames has {frames}; a clip has an odd number, 3 to {self.unet.max_positions}"
                )

    @property
    def vae_scaling_factor(self) -> float:
        """The factor between the autoencoder's latents and the ones that are denoised."""
        return float(self.vae["scaling_factor"])

    def window_frames(self, frames: int) -> int:
        """Frames the network sees at once of a loop of `frames`: its longest trained clip, more where it can."""
        trained = max(self.frames)
        return frames if trained < frames <= self.unet.max_positions else trained

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> BundleConfig:
        """The inverse of `to_dict`.

        Raises:
            LoopAnimateError: an entry is missing, unknown or out of its range.
        """
        names = {entry.name for entry in dataclasses.fields(cls)}
        if set(values) != names:
            off = sorted(set(values) ^ names)[0]
            state = "unknown" if off in values else "missing"
            raise LoopAnimateError(f"the bundle's config has the {state} entry {off!r}")
        try:
            return cls(
                **{
                    **values,
                    "unet": LoopUNetConfig.from_dict(values["unet"]),
                    "schedule": ScheduleConfig(**values["schedule"]),
                    "defaults": SamplingDefaults(**values["defaults"]),
                }
            )
        except (TypeError, AttributeError, KeyError, ZeroDivisionError) as error:
            raise LoopAnimateError(f"the bundle's config is not valid: {error}") from error


@dataclass
class Bundle:
    """A model in memory. `provenance` says where its weights came from; `path` where it was read."""

    config: BundleConfig
    unet: LoopUNet
    vae: Any
    text_encoder: Any
    image_encoder: Any
    tokenizer: Any
    provenance: dict[str, Any] = field(default_factory=dict)
    path: Path | None = None

    def module(self, part: str) -> nn.Module:
        """One of the networks, by the prefix of its tensors."""
        return getattr(self, part)


@dataclass(frozen=True)
class BundleInfo:
    """What the header of a bundle says; no tensor was read.

    Attributes:
        metadata: the header's remaining strings, ModelSpec's among them (`modelspec.title`, …).
        parameters: numbers of parameters by part.
        dtype: the type most tensors are stored in, e.g. "F16".
    """

    path: Path
    config: BundleConfig
    provenance: dict[str, Any]
    metadata: dict[str, str]
    parameters: dict[str, int]
    dtype: str
    size_bytes: int


@dataclass
class BundleParts:
    """A bundle as state dicts, for programs that build the networks with classes of their own."""

    config: BundleConfig
    provenance: dict[str, Any]
    states: dict[str, dict[str, Tensor]]


def mini_bundle_path() -> Path:
    """The small model that comes with the package."""
    return Path(__file__).parent.parent / "data" / "mini.safetensors"


# -------------------------------------------------------------------------------------- reading
def bundle_info(path: str | Path) -> BundleInfo:
    """Read what a bundle says about itself.

    Raises:
        LoopAnimateError: one sentence that says what is wrong with the file.
    """
    header = read_header(path)
    config, provenance = _parse_metadata(header)
    shapes = _shapes_by_part(header)
    dtypes = list(header.dtypes.values())
    return BundleInfo(
        path=header.path,
        config=config,
        provenance=provenance,
        metadata={k: v for k, v in header.metadata.items() if k not in ("config", "provenance")},
        parameters={part: count_parameters(shapes[part]) for part in PARTS},
        dtype=max(set(dtypes), key=dtypes.count),
        size_bytes=header.size_bytes,
    )


def read_bundle(
    path: str | Path,
    device: str | torch.device = "cpu",
    dtype: torch.dtype = torch.float32,
) -> Bundle:
    """Read a bundle into modules in eval mode.

    Args:
        dtype: the type of every part's weights.

    Raises:
        LoopAnimateError: one sentence that says what is wrong with the file.
    """
    header = read_header(path)
    config, provenance = _parse_metadata(header)
    shapes = _shapes_by_part(header)
    modules: dict[str, Any] = {part: build_on_meta(part, getattr(config, part)) for part in PARTS}
    for part, module in modules.items():  # before the first tensor is read
        require_same_tensors(f"{path}: {part}", shapes_of(part, module), shapes[part])
    tokenizer = build_tokenizer(config.tokenizer)
    for part, module in modules.items():
        give_weights(part, module, _read_part(path, part, shapes[part], device, dtype))
    return Bundle(config, **modules, tokenizer=tokenizer, provenance=provenance, path=header.path)


def read_parts(
    path: str | Path,
    device: str | torch.device = "cpu",
    dtype: torch.dtype | None = None,
) -> BundleParts:
    """Read a bundle as state dicts (keys without the part's prefix); needs neither diffusers nor transformers.

    The UNet's tensors are checked against its settings; the other parts are for the caller to check.

    Args:
        dtype: None keeps the stored type.

    Raises:
        LoopAnimateError: one sentence that says what is wrong with the file.
    """
    header = read_header(path)
    config, provenance = _parse_metadata(header)
    shapes = _shapes_by_part(header)
    expected = shapes_of("unet", build_on_meta("unet", config.unet))
    require_same_tensors(f"{path}: unet", expected, shapes["unet"])
    states = {part: _read_part(path, part, shapes[part], device, dtype) for part in PARTS}
    return BundleParts(config, provenance, states)


def _parse_metadata(header: Header) -> tuple[BundleConfig, dict[str, Any]]:
    found = header.metadata.get("format", "")
    if found.startswith("loopanimate-delta/"):
        raise LoopAnimateError(
            f"{header.path} is a delta, the changes of a training alone; `loopanimate convert apply` "
            "puts it onto its base"
        )
    if not found.startswith("loopanimate/"):
        raise LoopAnimateError(
            f"{header.path} is a safetensors file but no LoopAnimate bundle; "
            "`loopanimate convert` makes one from Stable Diffusion 1.x parts"
        )
    if found != FORMAT:
        raise LoopAnimateError(
            f"{header.path} has format {found!r}; this version reads {FORMAT!r}: update LoopAnimate"
        )
    try:
        config = json.loads(header.metadata["config"])
        provenance = json.loads(header.metadata.get("provenance", "{}"))
    except (KeyError, ValueError):
        raise LoopAnimateError(
            f"{header.path}: the bundle's config is missing or damaged"
        ) from None
    if not isinstance(config, dict) or not isinstance(provenance, dict):
        raise LoopAnimateError(f"{header.path}: the bundle's config is missing or damaged")
    try:
        return BundleConfig.from_dict(config), provenance
    except LoopAnimateError as error:
        raise LoopAnimateError(f"{header.path}: {error}") from None


def _shapes_by_part(header: Header) -> dict[str, dict[str, tuple[int, ...]]]:
    shapes: dict[str, dict[str, tuple[int, ...]]] = {part: {} for part in PARTS}
    for name, shape in header.shapes.items():
        part, _, rest = name.partition(".")
        if part not in shapes or not rest:
            raise LoopAnimateError(f"{header.path} has an unknown tensor {name!r}")
        shapes[part][rest] = shape
    return shapes


def _read_part(
    path: str | Path,
    part: str,
    names: Mapping[str, Any],
    device: str | torch.device,
    dtype: torch.dtype | None,
) -> dict[str, Tensor]:
    state = {}
    with open_tensors(path, device) as handle:
        for name in names:
            tensor = handle.get_tensor(f"{part}.{name}")
            require_finite(f"{part}.{name}", tensor, f"in {path}")
            state[name] = tensor if dtype is None else tensor.to(dtype)
    return state


# -------------------------------------------------------------------------------------- writing
def write_bundle(
    path: str | Path,
    bundle: Bundle,
    dtype: torch.dtype = torch.float16,
    *,
    title: str | None = None,
    author: str | None = None,
    license: str | None = None,
    description: str | None = None,
    date: str | None = None,
    thumbnail: Any = None,
) -> None:
    """Write a bundle, whole or not at all.

    Args:
        dtype: the stored type of all weights.
        title: shown by other programs; the file's name by default.
        author, license, description: free text.
        date: of the model, ISO 8601.
        thumbnail: a PIL image or the path of one; stored as a small JPEG.

    Raises:
        LoopAnimateError: weights with NaN or infinite values, weights that are not those of the config, or a
            file that cannot be written.
    """
    config = bundle.config
    tensors: dict[str, Tensor] = {}
    for part in PARTS:
        state = state_of(part, bundle.module(part))
        require_same_tensors(
            f"the {part}",
            shapes_of(part, build_on_meta(part, getattr(config, part))),
            {name: tuple(tensor.shape) for name, tensor in state.items()},
        )
        tensors |= {f"{part}.{name}": tensor for name, tensor in state.items()}
    spec = {
        "title": title or Path(path).stem,
        "author": author,
        "license": license,
        "description": description,
        "date": date,
        "thumbnail": None if thumbnail is None else _thumbnail_uri(thumbnail),
    }
    metadata = {
        "format": FORMAT,
        "config": _json(config.to_dict()),
        "provenance": _json(bundle.provenance),
        **_modelspec(config, spec),
    }
    write_tensors(path, tensors, metadata, dtype)


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def _modelspec(config: BundleConfig, given: Mapping[str, str | None]) -> dict[str, str]:
    """ModelSpec 1.0's fields (github.com/Stability-AI/ModelSpec)."""
    fields = {
        "sai_model_spec": "1.0.0",
        "architecture": "loopanimate-v1",
        "implementation": "loopanimate",
        "resolution": f"{config.width_px}x{config.height_px}",
        "prediction_type": {"epsilon": "epsilon", "v_prediction": "v"}[
            config.schedule.prediction_type
        ],
        "usage_hint": "LoopAnimate bundle; trained on loops of "
        + ", ".join(str(frames) for frames in config.frames)
        + " frames",
        "tags": "image-to-video,loop",
        **given,
    }
    return {f"modelspec.{name}": value for name, value in fields.items() if value}


def _thumbnail_uri(picture: Any) -> str:
    from PIL import Image

    image = Image.open(picture) if isinstance(picture, (str, Path)) else picture
    image = image.convert("RGB")
    image.thumbnail((THUMBNAIL_SIDE_PX, THUMBNAIL_SIDE_PX))
    jpeg = io.BytesIO()
    image.save(jpeg, "JPEG", quality=85)
    return "data:image/jpeg;base64," + base64.b64encode(jpeg.getvalue()).decode("ascii")
