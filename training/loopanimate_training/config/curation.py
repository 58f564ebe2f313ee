"""The settings of `loopanimate-train curate`: what is measured of every clip, and the limits that decide."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, PositiveFloat, PositiveInt

from .. import alss
from .base import Section, Share
from .clips import DataConfig
from .resolve import merge, parse_as, parse_override, read_yaml

LONGEST_BAND_BITS = 7  # two hashes that differ in so few bits share a band (curate/duplicates.py)


class MeasureConfig(Section):
    """What is measured. A change here measures every clip again."""

    f: Annotated[int, Field(ge=2)] = Field(
        default=18,
        description="Frames from the first to the turning frame, as clip.f of the stage to train.",
    )
    stride: PositiveInt = Field(
        default=alss.STRIDE, description="Source frames between two of these: s in Eq. 3."
    )
    fps: PositiveFloat | None = Field(
        default=None,
        description="Rate that videos are resampled to, as clip.fps of the run; null for every frame.",
    )
    most_frames: PositiveInt = Field(
        default=1800, description="Longer clips are rejected without being measured."
    )
    windows: Annotated[int, Field(ge=1, le=64)] = Field(
        default=4,
        description="Parts of a longer clip, of the length of a training clip, that are measured on their own; 1 for none.",
    )
    analysis_px: Annotated[int, Field(ge=64, le=1024)] = Field(
        default=192, description="Longer side of the pictures on which motion is measured."
    )
    mask_px: Annotated[int, Field(ge=64, le=4096)] = Field(
        default=512, description="Longer side of the pictures in which the object is looked for."
    )
    object: Literal["network", "grabcut"] = Field(
        default="network",
        description="How the salient object is found; `grabcut` needs no weights and is often wrong on photographs.",
    )
    network: Path | None = Field(
        default=None,
        description="Salient-object network, an ONNX file; null for the small one of the package.",
    )
    clip: Path | None = Field(
        default=None,
        description="Folder of a CLIP model in transformers' layout, to compare caption and object; null for a list of nouns.",
    )

    raft: Path | None = Field(
        default=None,
        description="Weights of torchvision's RAFT for the optical flow, raft_small or raft_large; null for OpenCV's DIS, which needs none.",
    )

    @property
    def span_frames(self) -> int:
        """Source frames that one training clip covers."""
        return alss.span(self.f, self.stride)


class LimitsConfig(Section):
    """What a clip must satisfy. A change here decides again within seconds and measures nothing."""

    shortest_side_px: PositiveInt = Field(
        default=128, description="Shorter side of the video, at least."
    )
    damaged: Literal["keep", "reject"] = Field(
        default="keep",
        description="Files that are damaged further on: keep their intact beginning, or reject them.",
    )
    cut: Annotated[float, Field(ge=0.1, le=1.0)] = Field(
        default=0.35,
        description="Difference of the colours of two neighbouring frames above which there is a cut.",
    )
    motion: Share = Field(
        default=0.01,
        description="Share of the picture that changes within `measure.stride` frames, at least.",
    )
    shake: Share = Field(
        default=0.01,
        description="Jitter of the camera from frame to frame as a share of the longer side, at most.",
    )
    overlay: Share = Field(
        default=0.05,
        description="Share of the edges that rest while the picture moves (text, logos), at most.",
    )
    object_share_least: Share = Field(
        default=0.02, description="Share of the picture that the object covers, at least."
    )
    object_share_most: Share = Field(
        default=0.8, description="Share of the picture that the object covers, at most."
    )
    main_part: Share = Field(
        default=0.6,
        description="Share of the object in its largest connected part, at least: one thing, not many.",
    )
    presence: Share = Field(
        default=0.15,
        description="How much of the object is left, by area and colours, where flow has carried it, at least.",
    )
    agreement: Share = Field(
        default=0.3,
        description="Intersection over union of the object carried to the turning frame and found there, at least.",
    )
    object_motion: Share = Field(
        default=0.003,
        description="Motion inside the object against the background per half `measure.stride`, as a share of the diagonal, at least.",
    )
    loops: Literal["any", "only"] = Field(
        default="any",
        description="Keep clips whether they loop or not, or only natural loops, each cut to one round, for `clip.loops`.",
    )
    caption: Literal["noun", "any"] = Field(
        default="noun",
        description="Without CLIP: the caption must name a thing of the list of nouns, or may be anything.",
    )
    clip_score: Annotated[float, Field(ge=-1.0, le=1.0)] = Field(
        default=0.2, description="With CLIP: cosine of the object's crop and the caption, at least."
    )
    duplicate_bits: Annotated[int, Field(ge=-1, le=LONGEST_BAND_BITS)] = Field(
        default=4,
        description="Clips whose perceptual hashes (128 bits) differ in at most so many are duplicates; -1 keeps all.",
    )


class WorkersConfig(Section):
    """The child processes that measure."""

    time_limit_s: PositiveFloat = Field(
        default=120.0, description="A clip that takes longer is quarantined."
    )
    memory_limit_mb: Annotated[int, Field(ge=512)] | None = Field(
        default=4096,
        description="Memory that a worker may allocate (Linux only); null for no limit.",
    )


class CurateConfig(Section):
    """A curation: the clips, what is measured, what is kept, and the processes that do it."""

    data: DataConfig = Field(description="The clips, as in a run.")
    measure: MeasureConfig = Field(default=MeasureConfig(), description="What is measured.")
    limits: LimitsConfig = Field(default=LimitsConfig(), description="What is kept.")
    workers: WorkersConfig = Field(default=WorkersConfig(), description="Who measures.")


def resolve_curation(
    defaults: Mapping[str, Any], file: Path | None = None, overrides: Iterable[str] = ()
) -> CurateConfig:
    """`defaults`, then the YAML `file`, then `key.key=value` strings.

    Raises:
        LoopAnimateError: an unknown setting, an illegal value or an unreadable file.
    """
    values: Mapping[str, Any] = defaults
    if file is not None:
        values = merge(values, read_yaml(file))
    for override in overrides:
        values = merge(values, parse_override(override))
    return parse_as(CurateConfig, values)
