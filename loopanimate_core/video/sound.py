"""Sound under a loop: put into a file that is written, without encoding its frames again."""

from __future__ import annotations

import wave
from pathlib import Path

import numpy as np
from torch import Tensor

from ..errors import LoopAnimateError
from ..files import atomic_write, partial_folder
from . import ffmpeg
from .formats import VideoFormat

ENCODERS = {
    "mp4": ["-c:a", "aac", "-b:a", "192k", "-movflags", "+faststart+use_metadata_tags"],
    "webm": ["-c:a", "libopus", "-b:a", "128k"],
    "webm-av1": ["-c:a", "libopus", "-b:a", "128k"],
    "prores": ["-c:a", "pcm_s16le", "-movflags", "use_metadata_tags"],
}
"""The formats that can hold sound, and ffmpeg's options for it."""


def require_sound(row: VideoFormat) -> None:
    """Raise LoopAnimateError if the format cannot hold sound."""
    if row.name not in ENCODERS:
        raise LoopAnimateError(f"{row.name} cannot hold sound; {', '.join(ENCODERS)} can")


def add_sound(
    path: Path, row: VideoFormat, samples: Tensor, rate_hz: int, duration_s: float
) -> None:
    """Put sound under the video in `path`; it starts again as often as needed, and ends with the video.

    Frames and tags stay as they are.

    Args:
        samples: `[channels, T]` in -1..1, one or two channels.
        duration_s: how long the video plays.

    Raises:
        LoopAnimateError: a format without sound, samples of another shape, or ffmpeg failed.
    """
    require_sound(row)
    if samples.ndim != 2 or samples.shape[0] not in (1, 2) or not samples.shape[1]:
        raise LoopAnimateError(
            f"sound must have one or two channels and at least one sample, got {list(samples.shape)}"
        )
    with partial_folder(path.parent) as folder:
        track = folder / "track.wav"
        _write_wav(track, samples, rate_hz)
        with atomic_write(path) as temporary:
            arguments = ["-y", "-i", ffmpeg.file_url(path), "-stream_loop", "-1"]
            arguments += ["-i", ffmpeg.file_url(track), "-map", "0:v", "-map", "1:a"]
            arguments += ["-c:v", "copy", "-map_metadata", "0", "-t", f"{duration_s:.6f}"]
            arguments += [*ENCODERS[row.name], ffmpeg.file_url(temporary)]
            ffmpeg.feed(arguments, [], f"cannot put sound into {path}")


def _write_wav(path: Path, samples: Tensor, rate_hz: int) -> None:
    pulses = (samples.detach().float().cpu().clamp(-1, 1) * 32767).round().numpy().astype("<i2")
    with wave.open(str(path), "wb") as file:
        file.setnchannels(len(pulses))
        file.setsampwidth(2)
        file.setframerate(int(rate_hz))
        file.writeframes(np.ascontiguousarray(pulses.T).tobytes())
