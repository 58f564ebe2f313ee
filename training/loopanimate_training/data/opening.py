"""Opening the clips of a run: one data set, or several that are mixed, for training and for validation."""

from __future__ import annotations

from ..config import ClipConfig, DataConfig, RunConfig
from .mixture import MixedSource, SourceInTurns
from .source import ClipSource, FileSource
from .stickers.source import StickerSource


def open_source(data: DataConfig, clip: ClipConfig) -> ClipSource:
    """The source described by `data`, without clips that are too short for `clip`.

    Raises:
        LoopAnimateError: no clip of a data set can be used; the message counts the reasons.
    """
    parts = [
        StickerSource(one, clip) if one.source == "mini" else FileSource(one, clip)
        for one in data.sets
    ]
    return MixedSource(parts) if data.mix else parts[0]


def open_validation_source(data: DataConfig, clip: ClipConfig, training: ClipSource) -> ClipSource:
    """Clips for validation: the held-out share of the videos, or the held-out stickers.

    If no clip is held out, these are the training clips. Of several data sets, each has its turn.
    """
    if not isinstance(training, MixedSource):
        held_out = _held_out(data, clip, training)
        return held_out if len(held_out) else training
    parts = [
        _held_out(one, clip, part) for one, part in zip(data.sets, training.parts, strict=True)
    ]
    return SourceInTurns([part for part in parts if len(part)] or training.parts)


def describe_mix(config: RunConfig, source: ClipSource) -> list[str]:
    """A line for each data set of a run that mixes several: its share, and how often its clips are shown."""
    if not isinstance(source, MixedSource):
        return []
    samples, shares = config.steps * config.batch.clips, config.data.shares
    return [
        f"{share / sum(shares):.1%} of the samples from {one.path}: {len(part):,} clips, each shown "
        f"{samples * share / sum(shares) / len(part):.3g} times"
        for one, part, share in zip(config.data.sets, source.parts, shares, strict=True)
    ]


def _held_out(data: DataConfig, clip: ClipConfig, training: ClipSource) -> ClipSource:
    if isinstance(training, FileSource):
        return training.held_out()
    return StickerSource(data, clip, "held_out")
