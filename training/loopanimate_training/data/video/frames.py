"""Chosen frames of a video or of a folder of pictures."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from loopanimate_core.errors import LoopAnimateError
from loopanimate_core.picture.opening import MAX_FILE_BYTES, open_picture, reading

from ...remote import picture_source
from ..readers.rows import Blob
from .bad_clip import BadClip
from .container import DECODER_ERRORS, can_seek, decoded_frames, open_video, start_of
from .facts import VideoFacts

SEEK_FROM_FRAME = 48  # for earlier frames, decoding from the start is as fast


def read_video(
    media: Blob,
    indices: Sequence[int],
    facts: VideoFacts,
    pixel_format: str = "rgb24",
    longest_px: int | None = None,
) -> np.ndarray:
    """Frames `indices` (ascending, repeats allowed), found by their presentation times.

    Args:
        longest_px: shrink frames whose longer side is longer; None for their own size.

    Returns:
        [n, H, W, 3] uint8, or [n, H, W] with the pixel format `gray`; rotated as the file asks.

    Raises:
        BadClip: the file cannot be decoded, or lacks one of the frames.
    """
    if facts.counted:
        return read_counted(media, indices, pixel_format, longest_px)
    if indices[0] < 0 or indices[-1] >= facts.frames:
        raise BadClip(f"{media.path} lacks frame {indices[-1]}")
    wanted = sorted(set(indices))
    picture = partial(_upright, pixel_format=pixel_format, longest_px=longest_px)
    try:
        found = _find(media, wanted, facts, picture, seek=True)
        if len(found) < len(wanted):  # seeking can land too late
            found = _find(media, wanted, facts, picture, seek=False)
    except DECODER_ERRORS as error:
        raise BadClip(f"{media.path} cannot be decoded ({error})") from error
    return _stacked(media, indices, found)


def read_counted(
    media: Blob, indices: Sequence[int], pixel_format: str, longest_px: int | None = None
) -> np.ndarray:
    """As `read_video`, but frames are found by counting from the start, so no times are needed.

    Raises:
        BadClip: the file cannot be decoded, or lacks one of the frames.
    """
    wanted, found = set(indices), {}
    try:
        with open_video(media) as (container, stream):
            good = (frame for frame in decoded_frames(container, stream) if frame is not None)
            for number, frame in enumerate(good):
                if number in wanted:
                    found[number] = _upright(frame, pixel_format, longest_px)
                if number >= indices[-1]:
                    break
    except DECODER_ERRORS as error:
        raise BadClip(f"{media.path} cannot be decoded ({error})") from error
    return _stacked(media, indices, found)


def read_pictures(paths: Sequence[Path], indices: Sequence[int], mode: str) -> np.ndarray:
    """Pictures `indices` of a folder, [n, H, W, 3] (mode RGB) or [n, H, W] (mode L) uint8.

    Raises:
        BadClip: a picture is missing or damaged, or differs in size from the first.
    """
    pictures = []
    for index in indices:
        try:
            path = paths[index]
            source = picture_source(path, MAX_FILE_BYTES)
            with reading(path), open_picture(source) as picture:
                pictures.append(np.asarray(picture.convert(mode)))
        except (LoopAnimateError, OSError, IndexError) as error:
            raise BadClip(f"picture {index} of {len(paths)} cannot be read ({error})") from error
        if pictures[-1].shape != pictures[0].shape:
            raise BadClip(f"{paths[index]} has another size than the pictures before it")
    return np.stack(pictures)


def _find(
    media: Blob,
    wanted: Sequence[int],
    facts: VideoFacts,
    picture: Callable[[Any], np.ndarray],
    seek: bool,
) -> dict[int, np.ndarray]:
    """Those of the `wanted` frames that the file has, by number."""
    pts = [facts.time_of(index) for index in wanted]
    tolerance = 0.5 if facts.times else max(0.5 * facts.ticks_per_frame, 0.5)
    found: dict[int, np.ndarray] = {}
    with open_video(media) as (container, stream):
        far = wanted[0] >= SEEK_FROM_FRAME or facts.first_pts > start_of(stream)
        seek = seek and far and can_seek(container)
        if seek:
            container.seek(round(pts[0]), stream=stream, backward=True)
        next_up = 0
        for frame in decoded_frames(container, stream, after_seek=seek):
            # Corrupt: the seek landed on a frame that is wrongly marked as a key frame.
            if frame is None or frame.pts is None or frame.is_corrupt:
                continue
            while next_up < len(wanted) and frame.pts > pts[next_up] + tolerance:
                next_up += 1  # the file lacks it
            if next_up < len(wanted) and abs(frame.pts - pts[next_up]) <= tolerance:
                found[wanted[next_up]] = picture(frame)
                next_up += 1
            if next_up == len(wanted):
                break
    return found


def _stacked(media: Blob, indices: Sequence[int], found: dict[int, np.ndarray]) -> np.ndarray:
    if missing := [index for index in indices if index not in found]:
        raise BadClip(f"{media.path} lacks frame {missing[0]}")
    return np.stack([found[index] for index in indices])


def _upright(frame: Any, pixel_format: str, longest_px: int | None) -> np.ndarray:
    size = {}
    if longest_px is not None and (longest := max(frame.width, frame.height)) > longest_px:
        sides = (max(1, round(side * longest_px / longest)) for side in (frame.width, frame.height))
        size = dict(zip(("width", "height"), sides, strict=True), interpolation="AREA")
    return np.rot90(frame.to_ndarray(format=pixel_format, **size), round(frame.rotation / 90))
